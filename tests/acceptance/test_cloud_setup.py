"""`ackgate accounts setup` of a Cloud account: the check switched on, the endpoint registered."""

import asyncio
import json
import shlex
import ssl
from typing import Any

import pytest
from typer.testing import Result

from service.cli.setup import cure_of, setup_of
from service.settings import load
from service.whatsapp.http import InvalidError
from tests.acceptance.cloud import (
    ACCESS,
    NUMBER,
    SECRETS,
    USER,
    VERIFY,
    WABA,
    cloud_of,
    endpoint_of,
    posts,
    prepared,
)
from tests.acceptance.commands import invoke
from tests.acceptance.conftest import Install, Installation, merge, until

Json = dict[str, Any]
CHECK_ON = f"POST /v25.0/{NUMBER}/settings"
REGISTERED = f"POST /v25.0/{NUMBER}"


async def setup(
    made: Installation, *words: str, expect: int = 0, typed: str | None = None
) -> Result:
    command = ["accounts", "setup", "shop", "--config", str(made.written()), *words]
    result = await asyncio.to_thread(invoke, command, input=typed)
    assert result.exit_code == expect, (result.output, result.exception)
    assert not any(secret in result.output for secret in SECRETS)
    assert "Traceback" not in result.output
    return result


def document_of(result: Result) -> Json:
    """Read the JSON; the service runs in this process, and may log a line of its own meanwhile."""
    document: Json = json.loads(result.stdout[result.stdout.index("{\n") :])
    return document


@pytest.fixture
async def shop(prepare: Install) -> Installation:
    """A running service, and a number that nothing was set of."""
    made = await prepared(prepare)
    await made.start()
    return made


def line_of(made: Installation) -> Any:
    return cloud_of(made).business.number(NUMBER)


async def test_after_a_yes_the_check_is_on_and_the_endpoint_is_the_numbers_webhook(
    shop: Installation,
) -> None:
    result = await setup(shop, typed="y\n")
    assert "can't be read back: it will be switched on" in result.stdout
    assert "no webhook URL is registered" in result.stdout
    assert (
        "shop: set user_identity_change.enable_identity_key_check, webhook_configuration"
        in result.stdout
    )
    assert line_of(shop).identity_check is True
    assert line_of(shop).webhook_url == endpoint_of(shop)
    assert posts(shop) == [CHECK_ON, REGISTERED]


async def test_what_was_set_up_so_brings_identities(shop: Installation) -> None:
    await setup(shop, "--yes")
    user = cloud_of(shop).write(USER, "Hello")

    async def known() -> bool:
        return (await shop.identity(USER, "shop")).get("hash") == user.hash

    await until(known)


@pytest.mark.parametrize("typed", ["n\n", ""])
async def test_without_a_yes_nothing_is_changed(shop: Installation, typed: str) -> None:
    result = await setup(shop, typed=typed, expect=1)
    assert "nothing was changed" in result.stderr
    assert posts(shop) == []


async def test_a_dry_run_shows_the_difference_and_changes_nothing(shop: Installation) -> None:
    document = document_of(await setup(shop, "--dry-run", "--json", expect=1))
    check, webhook = document["differences"]
    assert (check["code"], check["is"], check["should_be"]) == ("identity_check_off", None, True)
    assert (webhook["code"], webhook["is"]) == ("webhook_url", None)
    assert [x["code"] for x in document["left"]] == ["webhook_url"]
    assert document["changed"] == []
    assert posts(shop) == []


async def test_what_can_not_be_read_back_is_no_failure_where_all_else_is_right(
    shop: Installation,
) -> None:
    cloud_of(shop).webhook_url = endpoint_of(shop)
    document = document_of(await setup(shop, "--dry-run", "--json"))
    assert [x["code"] for x in document["differences"]] == ["identity_check_off"]
    assert document["left"] == []


async def test_a_number_whose_callbacks_come_by_the_apps_url_gets_no_url_of_its_own(
    shop: Installation,
) -> None:
    cloud_of(shop).webhook_url = endpoint_of(shop)
    document = document_of(await setup(shop, "--yes", "--json"))
    assert document["account"] == "shop"
    assert document["changed"] == ["user_identity_change.enable_identity_key_check"]
    assert posts(shop) == [CHECK_ON]


async def test_a_number_with_another_url_of_its_own_is_set_right(shop: Installation) -> None:
    cloud_of(shop).webhook_url = endpoint_of(shop)
    line_of(shop).webhook_url = "https://elsewhere.example.com/secret"
    result = await setup(shop, "--yes", "--take-over")
    assert "https://elsewhere.example.com/…" in result.stdout
    assert "taken from another system: https://elsewhere.example.com/secret" in result.stderr
    assert line_of(shop).webhook_url == endpoint_of(shop)


async def test_the_webhook_of_another_system_is_taken_only_with_take_over(
    shop: Installation,
) -> None:
    """The app's own URL is another system's: taking it leaves it be, for the other numbers."""
    cloud_of(shop).webhook_url = "https://elsewhere.example.com/secret"
    result = await setup(shop, "--yes", expect=1)
    assert "https://elsewhere.example.com/secret" in result.stderr
    assert "give --take-over beside --yes" in result.stderr
    assert posts(shop) == []
    document = document_of(await setup(shop, "--yes", "--take-over", "--json"))
    assert line_of(shop).webhook_url == endpoint_of(shop)
    assert cloud_of(shop).webhook_url == "https://elsewhere.example.com/secret"
    # What is to be typed gives the number no URL of its own again, and the app's is in force.
    words = shlex.split(document["give_back"])
    assert words[:4] == ["curl", "-X", "POST", f"{shop.sim.graph_url}/{NUMBER}"]
    body = json.loads(words[words.index("-d") + 1])
    tls = ssl.create_default_context(cafile=shop.sim.ca_file)
    headers = {"Authorization": f"Bearer {ACCESS}"}
    async with shop.http.post(words[3], json=body, headers=headers, ssl=tls) as response:
        assert response.status == 200
    assert line_of(shop).webhook_url is None


async def test_a_numbers_own_url_is_given_back_by_the_line_that_is_told(
    shop: Installation,
) -> None:
    """That of the other system knows a verify token of its own, which is to be filled in."""
    other = endpoint_of(shop).replace("127.0.0.1", "localhost")
    line_of(shop).webhook_url = other
    document = document_of(await setup(shop, "--yes", "--take-over", "--json"))
    assert document["taken_from"] == other
    url, token, *words = shlex.split(document["give_back"])
    assert token.startswith("ACKGATE_APPS__META__VERIFY_TOKEN=")
    environ = dict([url.split("=", 1), (token.split("=")[0], VERIFY)])
    given = await asyncio.to_thread(invoke, words[1:], env=environ)
    assert given.exit_code == 0, given.output
    assert line_of(shop).webhook_url == other


async def test_a_declared_url_of_a_bot_in_front_is_the_right_one(shop: Installation) -> None:
    bot = "https://bot.example.com/hook"
    cloud_of(shop).webhook_url = bot
    shop.tree = merge(shop.tree, {"accounts": {"shop": {"webhook_url": bot}}})
    await setup(shop, "--yes")
    assert posts(shop) == [CHECK_ON]
    line_of(shop).webhook_url = endpoint_of(shop)
    result = await setup(shop, "--yes", expect=1)
    assert "Meta calls webhook_url of the account itself" in result.stderr


async def test_it_is_run_again_without_harm(shop: Installation) -> None:
    await setup(shop, "--yes")
    await setup(shop, "--yes")
    assert posts(shop) == [CHECK_ON, REGISTERED, CHECK_ON]


async def test_where_the_waba_is_known_the_app_is_subscribed_to_it_before_the_url_is_set(
    prepare: Install,
) -> None:
    made = await prepared(
        prepare, options={"subscribed": False}, accounts={"shop": {"waba_id": WABA}}
    )
    await made.start()
    result = await setup(made, "--yes")
    assert "no callback is sent at all" in " ".join(result.stdout.split())
    assert posts(made) == [CHECK_ON, f"POST /v25.0/{WABA}/subscribed_apps", REGISTERED]
    assert cloud_of(made).business.accounts[WABA].subscribed is True


async def test_a_subscription_that_is_there_is_left_alone(prepare: Install) -> None:
    made = await prepared(prepare, accounts={"shop": {"waba_id": WABA}})
    await made.start()
    await setup(made, "--yes")
    assert posts(made) == [CHECK_ON, REGISTERED]


async def test_an_endpoint_that_does_not_answer_the_handshake_is_one_line_that_says_what_to_do(
    prepare: Install,
) -> None:
    made = await prepared(prepare)
    [line] = (await setup(made, "--yes", expect=1)).stderr.splitlines()
    assert "handshake with the webhook endpoint failed" in line
    assert "all else was set" in line
    assert "verify_token of apps.meta" in line
    assert "ackgate doctor" in line
    assert line_of(made).identity_check is True
    assert line_of(made).webhook_url is None


async def test_another_verify_token_than_the_services_is_told_by_what_the_endpoint_answered(
    shop: Installation,
) -> None:
    shop.tree = merge(shop.tree, {"apps": {"meta": {"verify_token": "another-verify-token"}}})
    result = await setup(shop, "--yes", expect=1)
    assert "it was answered with 403" in result.stderr
    assert "another-verify-token" not in result.output


async def test_a_url_that_meta_does_not_take_is_told_with_what_it_takes(shop: Installation) -> None:
    settings = load(shop.written(), {})
    body = json.dumps({"error": {"code": 100, "message": "the app must be subscribed"}})
    async with setup_of(settings, "shop") as peer:
        found = await peer.look()
        cloud_of(shop).fault("number", status=400, body=body)
        with pytest.raises(InvalidError, match=r"it was not taken.*; all else was set") as caught:
            await peer.fix(found)
    assert "accounts.shop.waba_id" in str(cure_of(caught.value, settings, "shop"))
    assert line_of(shop).identity_check is True


async def test_without_a_public_url_the_check_alone_is_set(shop: Installation) -> None:
    cloud_of(shop).webhook_url = "https://elsewhere.example.com"
    shop.tree = merge(shop.tree, {"server": {"public_url": None}})
    result = await setup(shop, "--yes")
    assert "server.public_url is not set" in result.stderr
    assert posts(shop) == [CHECK_ON]


async def test_a_token_that_is_refused_is_one_line_that_says_which_key_to_mend(
    shop: Installation,
) -> None:
    cloud_of(shop).change_settings(access_token="another")
    [line] = (await setup(shop, "--yes", expect=1)).stderr.splitlines()
    assert "the access token is refused" in line
    assert "error 190" in line
    assert "access_token" in line
    assert posts(shop) == []


async def test_a_number_that_the_token_may_not_see_is_told(shop: Installation) -> None:
    shop.tree = merge(shop.tree, {"accounts": {"shop": {"phone_number_id": "999"}}})
    [line] = (await setup(shop, "--yes", expect=1)).stderr.splitlines()
    assert "phone_number_id" in line
    assert ACCESS not in line


async def test_an_answer_that_is_none_to_go_by_is_told(shop: Installation) -> None:
    cloud_of(shop).fault("settings", status=500)
    assert "500" in (await setup(shop, "--yes", expect=1)).stderr
    await shop.sim.stop()
    assert "no connection" in (await setup(shop, "--yes", expect=1)).stderr


@pytest.mark.parametrize("body", ["<html>Welcome</html>", "[]", '{"success": false}'])
async def test_a_200_that_is_no_answer_of_graphs_is_not_taken_at_its_word(
    shop: Installation, body: str
) -> None:
    cloud_of(shop).fault("settings", body=body)
    result = await setup(shop, "--yes", expect=1)
    assert "POST settings was answered with 200" in result.stderr
    assert "shop: set" not in result.stdout
    assert line_of(shop).identity_check is False


async def test_a_registration_that_does_not_last_is_found_by_looking_again(
    shop: Installation,
) -> None:
    cloud_of(shop).fault("number", body="{}")
    result = await setup(shop, "--yes", expect=1)
    assert "not as it should be: webhook_url" in result.stderr
    assert VERIFY not in result.output
