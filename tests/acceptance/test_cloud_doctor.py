"""`ackgate doctor` for Cloud accounts: each red line with its cure; its callback has no effect."""

import asyncio
import json
from typing import Any

import pytest

from service.model.account_checks import ENOUGH
from service.webhooks.signatures import signed
from tests.acceptance.cloud import (
    NUMBER,
    OTHER_NUMBER,
    SECRETS,
    USER,
    cloud_of,
    endpoint_of,
    prepared,
)
from tests.acceptance.commands import invoke
from tests.acceptance.conftest import Install, Installation, merge, until
from tools.processes import free_port

Json = dict[str, Any]
Found = dict[tuple[str, str | None], Json]


async def examine(made: Installation, expect: int = 0) -> Found:
    command = ["doctor", "--config", str(made.written()), "--json"]
    result = await asyncio.to_thread(invoke, command)
    assert result.exit_code == expect, (result.output, result.exception)
    assert not any(secret in result.output for secret in SECRETS)
    assert "Traceback" not in result.output
    # The service runs in this process, and may log a line of its own meanwhile.
    document = json.loads(result.stdout[result.stdout.index("{") :])
    for check in document["checks"]:
        assert (check["cure"] is None) == (check["status"] == "pass"), check
    return {(check["check"], check["account"]): check for check in document["checks"]}


@pytest.fixture
async def shop(prepare: Install) -> Installation:
    """A running installation where nothing is wrong, and a user has written."""
    made = await prepared(
        prepare, options={"identity_check": True}, inspector={"every_seconds": 300}
    )
    cloud_of(made).webhook_url = endpoint_of(made)
    await made.start()
    await until(lambda: cloud_of(made).calls.counts["number"])
    cloud_of(made).write(USER, "Hello")
    await cloud_of(made).settled()
    return made


async def test_a_sound_installation_is_told_sound_in_every_point(shop: Installation) -> None:
    found = await examine(shop)
    assert {key: check["status"] for key, check in found.items()} == dict.fromkeys(
        [
            ("database", None),
            *([("disk", None)] if shop.is_on_a_file else []),
            ("webhook", "shop"),
            ("login", "shop"),
            ("settings", "shop"),
            ("signatures", "shop"),
            ("last callback", "shop"),
            ("identity check", "shop"),
        ],
        "pass",
    )
    assert "in the journal" in found["webhook", "shop"]["detail"]
    assert "token is accepted" in found["login", "shop"]["detail"]
    assert "go to the webhook endpoint" in found["settings", "shop"]["detail"]


async def test_settings_that_a_provider_does_not_have_are_not_read(shop: Installation) -> None:
    shop.tree = merge(shop.tree, {"accounts": {"shop": {"check_settings": False}}})
    called = cloud_of(shop).calls.counts["number"]
    found = await examine(shop)
    assert cloud_of(shop).calls.counts["number"] == called
    assert found["settings", "shop"]["status"] == "pass"
    assert "check_settings" in found["settings", "shop"]["detail"]
    assert ("login", "shop") not in found


async def test_where_callbacks_go_is_not_claimed_while_the_public_url_is_not_known(
    shop: Installation,
) -> None:
    shop.tree = merge(shop.tree, {"server": {"public_url": None}})
    found = await examine(shop)
    assert found["settings", "shop"]["detail"] == "a webhook URL is registered"


async def test_one_signed_callback_goes_through_the_endpoint_of_an_app_and_has_no_effect(
    shop: Installation,
) -> None:
    outlet = {**shop.tree["accounts"]["shop"], "phone_number_id": OTHER_NUMBER}
    shop.tree = merge(shop.tree, {"accounts": {"outlet": outlet}})
    identity = await shop.identity(USER, "shop")
    found = await examine(shop)
    assert found["webhook", "shop"]["status"] == found["webhook", "outlet"]["status"] == "pass"
    _, listed = await shop.api("GET", "/journal?state=synthetic")
    [entry] = listed["items"]
    assert (entry["account"], entry["reason"]) == (None, None)
    assert await shop.quarantined() == []
    assert await shop.identity(USER, "shop") == identity


async def test_another_app_secret_than_that_of_the_service_is_told_at_the_endpoint(
    shop: Installation,
) -> None:
    shop.tree = merge(shop.tree, {"apps": {"meta": {"app_secret": "another-secret-than-that"}}})
    webhook = (await examine(shop, expect=1))["webhook", "shop"]
    assert "401" in webhook["detail"]
    assert "app_secret" in webhook["detail"]


async def test_a_secret_that_is_not_metas_is_told_though_the_doctors_own_callback_is_taken(
    shop: Installation,
) -> None:
    """The doctor signs with the configured secret too, so its own callback proves nothing."""
    cloud_of(shop).change_settings(app_secret="what-meta-signs-with")
    for _ in range(10):
        body = b"{}"
        headers = signed(b"what-meta-signs-with", body)
        assert await shop.post(body, path="/webhooks/meta", headers=headers) == 401
    for _ in range(2):
        found = await examine(shop, expect=1)
        assert found["webhook", "shop"]["status"] == "pass"
        assert found["signatures", "shop"]["status"] == "fail"
        assert "apps.meta.app_secret" in found["signatures", "shop"]["cure"]


@pytest.mark.parametrize(
    "app",
    [
        {"signature_header": "X-Provider-Signature"},
        {"auth": "token", "webhook_token": "the-token-of-an-app"},
    ],
    ids=["a signature of its own", "a token"],
)
async def test_the_endpoint_of_an_app_behind_a_provider_is_tried_as_the_provider_delivers(
    prepare: Install, app: Json
) -> None:
    made = await prepared(prepare, apps={"meta": app})
    await made.start()
    found = await examine(made, expect=1)
    assert found["webhook", "shop"]["status"] == "pass"
    assert ("signatures", "shop") in found or "auth" in app


async def test_on_an_address_of_its_own_the_service_is_asked_there_for_wrong_signatures(
    shop: Installation,
) -> None:
    await shop.stop()
    await shop.start(server={"internal": {"port": free_port()}})
    assert (await examine(shop))["signatures", "shop"]["status"] == "pass"
    await shop.stop()
    assert (await examine(shop, expect=1))["signatures", "shop"]["status"] == "warn"


async def test_a_service_that_does_not_run_is_told_at_the_endpoint(shop: Installation) -> None:
    await shop.stop()
    webhook = (await examine(shop, expect=1))["webhook", "shop"]
    assert "is the service running" in webhook["cure"]


async def test_a_token_that_is_refused_and_an_api_that_is_away_are_told_apart(
    shop: Installation,
) -> None:
    cloud_of(shop).change_settings(access_token="another")
    login = (await examine(shop, expect=1))["login", "shop"]
    assert "refused" in login["detail"]
    assert "access_token" in login["cure"]
    await shop.sim.stop()
    login = (await examine(shop, expect=1))["login", "shop"]
    assert "no connection" in login["detail"]
    assert "base_url" in login["cure"]


async def test_callbacks_that_go_elsewhere_are_told(shop: Installation) -> None:
    cloud_of(shop).business.number(NUMBER).webhook_url = "https://elsewhere.example.com/"
    settings = (await examine(shop, expect=1))["settings", "shop"]
    assert "https://elsewhere.example.com" in settings["detail"]
    assert "ackgate accounts setup shop" in settings["cure"]


async def test_a_declared_url_of_a_bot_in_front_is_no_fault(shop: Installation) -> None:
    bot = "https://bot.example.com/hook"
    cloud_of(shop).business.number(NUMBER).webhook_url = bot
    shop.tree = merge(shop.tree, {"accounts": {"shop": {"webhook_url": bot}}})
    settings = (await examine(shop))["settings", "shop"]
    assert settings["detail"] == (
        "callbacks of the number go where webhook_url of the account declares"
    )


async def test_a_token_that_lacks_the_permission_is_told_and_is_no_failure(
    shop: Installation,
) -> None:
    cloud_of(shop).fault("number", status=403)
    found = await examine(shop)
    assert found["settings", "shop"]["status"] == "warn"
    assert found["login", "shop"]["status"] == "pass"


async def test_a_number_that_the_token_may_not_see_is_told(shop: Installation) -> None:
    shop.tree = merge(shop.tree, {"accounts": {"shop": {"phone_number_id": "999"}}})
    settings = (await examine(shop, expect=1))["settings", "shop"]
    assert "phone_number_id" in settings["cure"]


async def test_a_check_that_seems_off_is_told_by_the_newest_callbacks(shop: Installation) -> None:
    cloud_of(shop).business.number(NUMBER).identity_check = False
    for _ in range(ENOUGH):
        cloud_of(shop).write(USER, "Hello")
    await cloud_of(shop).settled()
    check = (await examine(shop, expect=1))["identity check", "shop"]
    assert f"the last {ENOUGH} messages" in check["detail"]
    assert "ackgate accounts setup shop" in check["cure"]


async def test_before_anybody_wrote_it_is_not_known_whether_the_check_is_on(
    prepare: Install,
) -> None:
    made = await prepared(prepare)
    cloud_of(made).webhook_url = endpoint_of(made)
    await made.start()
    found = await examine(made)
    assert found["identity check", "shop"]["status"] == "warn"
    assert found["last callback", "shop"]["status"] == "warn"


async def test_an_authority_of_our_own_counts_for_a_simulator_alone_since_meta_takes_none(
    shop: Installation,
) -> None:
    ca = str(shop.sim.ca_file)
    public = shop.sim.base_url
    shop.tree = merge(shop.tree, {"server": {"public_url": public, "public_ca_file": ca}})
    assert (await examine(shop, expect=1))["webhook certificate", "shop"]["status"] == "pass"
    meta = {"accounts": {"shop": {"base_url": "https://192.0.2.1/v25.0", "timeout_seconds": 0.2}}}
    shop.tree = merge(shop.tree, meta)
    certificate = (await examine(shop, expect=1))["webhook certificate", "shop"]
    assert "not trusted" in certificate["detail"]
    assert "Meta takes no other" in certificate["cure"]
