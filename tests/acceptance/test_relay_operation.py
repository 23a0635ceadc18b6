"""What a person can do about relays: new secrets, a test, a replay that can be watched."""

import asyncio
import json

import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from tests.acceptance.conftest import (
    APP_SECRET,
    Install,
    Installation,
    OpenShop,
    digest_of,
    signed,
    until,
)
from tests.acceptance.sinks import Delivery, sink
from tests.acceptance.test_relays import OLD_SECRET, SECRET, relay, text, to
from tests.acceptance.test_reload import Captured, refused, reload

SPAN = {"from": "2026-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}


def verifies(secret: str, delivery: Delivery) -> bool:
    headers = {name.lower(): value for name, value in delivery.headers.items()}
    try:
        Webhook(secret).verify(delivery.body, headers)
    except WebhookVerificationError:
        return False
    return True


# A configuration that is read again


async def test_secrets_headers_and_url_of_a_relay_change_without_a_restart(
    install: Install,
) -> None:
    async with sink() as crm, sink() as moved:
        made = await install(relays=to(crm.url, secret=OLD_SECRET))
        await made.deliver(text(1))
        await until(lambda: crm.taken)
        both = {"secret": SECRET, "secret_previous": OLD_SECRET}
        assert await reload(made, relays={"crm": {**both, "headers": {"X-Key": "a-key"}}})
        await made.deliver(text(2))
        await until(lambda: len(crm.taken) == 2)
        without = {"secret_previous": None, "headers": {"X-Key": None}, "url": moved.url}
        assert await reload(made, relays={"crm": without})
        await made.deliver(text(3))
        await until(lambda: moved.taken)
    first, second, third = *crm.taken, *moved.taken
    found = [(verifies(SECRET, d), verifies(OLD_SECRET, d)) for d in (first, second, third)]
    assert found == [(False, True), (True, True), (True, False)]
    assert [d.headers.get("X-Key") for d in (first, second, third)] == [None, "a-key", None]


async def test_another_filter_or_another_relay_needs_a_restart(
    install: Install, capsys: Captured
) -> None:
    made = await install(relays=to("http://127.0.0.1:9"))
    assert "relays.crm.kinds" in await refused(
        made, capsys, {"relays": {"crm": {"kinds": ["other"]}}}
    )
    bot = {"bot": {"url": "http://127.0.0.1:9"}}
    assert "relays.bot" in await refused(made, capsys, {"relays": bot})


async def test_a_relayed_callback_is_signed_with_the_secret_that_the_app_has_now(
    open_shop: OpenShop,
) -> None:
    new = "fedcba9876543210" * 2
    async with sink() as crm:
        shop = await open_shop(relays=to(crm.url))
        assert await shop.deliver_signed(b"{}") == 200
        await until(lambda: crm.taken)
        secrets = {"app_secret": new, "app_secret_previous": APP_SECRET}
        assert await reload(shop, apps={"meta": secrets})
        assert await shop.deliver_signed(b'{"a":1}') == 200
        await until(lambda: len(crm.taken) == 2)
    before, after = (d.headers["X-Hub-Signature-256"] for d in crm.taken)
    assert before == signed(b"{}")["X-Hub-Signature-256"]
    assert after == signed(b'{"a":1}', new)["X-Hub-Signature-256"]


# A test


async def test_a_test_is_signed_as_a_callback_and_outside_log_and_position(
    open_shop: OpenShop,
) -> None:
    async with sink() as crm:
        over = {"secret": SECRET, "headers": {"X-Key": "a-key"}}
        shop = await open_shop(relays=to(crm.url, **over))
        await shop.api("POST", "/relays/crm/pause")
        await shop.of("main").deliver(text(1))
        before = await relay(shop)
        status, told = await shop.api("POST", "/relays/crm/test")
        after = await relay(shop)
    assert (status, told["status"], told["error"]) == (200, 200, None)
    [delivery] = crm.hits
    assert delivery.headers["Ackgate-Test"] == "true"
    assert delivery.headers["X-Key"] == "a-key"
    assert verifies(SECRET, delivery)
    expected = signed(delivery.body)["X-Hub-Signature-256"]
    assert delivery.headers["X-Hub-Signature-256"] == expected
    assert json.loads(delivery.body)["object"] == "ackgate.test"
    assert (before["position"], before["behind"]) == (after["position"], after["behind"]) == (0, 1)
    assert len((await shop.api("GET", "/journal"))[1]["items"]) == 1


async def test_a_test_tells_the_first_kilobyte_of_the_answer(install: Install) -> None:
    said = "wrong signature, said the CRM. " * 100
    async with sink(lambda _: web.Response(status=401, text=said)) as crm:
        made = await install(relays=to(crm.url))
        _, told = await made.api("POST", "/relays/crm/test")
    assert (told["status"], told["error"]) == (401, "answered 401")
    assert told["answer"] == said[:1024]


async def test_a_test_of_one_that_does_not_answer_says_so(install: Install) -> None:
    made = await install(relays=to("http://127.0.0.1:9"))
    _, told = await made.api("POST", "/relays/crm/test")
    assert (told["status"], told["error"]) == (None, "no answer (ClientConnectorError)")
    assert (await relay(made))["state"] == "running", "it tells nothing of deliveries"


@pytest.mark.parametrize("id_", [0, 1, 2**63 - 1, 2**63, 10**30, "one", "-1"])
async def test_a_delivery_that_is_not_there_can_not_be_tried_again(
    install: Install, id_: object
) -> None:
    made = await install(relays=to("http://127.0.0.1:9"))
    status, problem = await made.api("POST", f"/relays/crm/deliveries/{id_}/retry")
    assert (status, problem["type"].rpartition("#")[2]) == (404, "no_such_delivery")


@pytest.mark.parametrize("path", ["pause", "resume", "test", "deliveries/retry", "replay"])
async def test_a_reader_may_look_at_relays_and_do_nothing_about_them(
    install: Install, path: str
) -> None:
    keys = {"reader": {"role": "reader", "sha256": digest_of("reader")}}
    made = await install(relays=to("http://127.0.0.1:9"), api={"keys": keys})
    made.key = "reader"
    assert (await relay(made))["name"] == "crm"
    body = SPAN if path == "replay" else None
    assert (await made.api("POST", f"/relays/crm/{path}", body))[0] == 403


# A replay


async def test_how_much_of_a_replay_is_left_can_be_seen_until_it_is_through(
    install: Install,
) -> None:
    goes_on = asyncio.Event()

    async def answer(delivery: Delivery) -> web.Response:
        if "Ackgate-Replay-Of" in delivery.headers:
            await goes_on.wait()
        return web.Response()

    async with sink(answer) as crm:
        made = await install(relays=to(crm.url, max_in_flight=2))
        await made.deliver(*(text(n, f"1631555{n:04}") for n in range(5)))
        await until(lambda: len(crm.taken) == 5)
        assert (await relay(made))["replaying"] == 0
        for _ in range(2):
            assert (await made.api("POST", "/relays/crm/replay", SPAN))[0] == 202
        await until(lambda: len(crm.hits) == 7)
        assert (await relay(made))["replaying"] == 10
        goes_on.set()
        await until(lambda: _is_through(made))
    assert len(crm.taken) == 15


async def _is_through(made: Installation) -> bool:
    return bool((await relay(made))["replaying"] == 0)


async def test_what_is_given_up_of_a_replay_does_not_count_as_left(install: Install) -> None:
    def answer(delivery: Delivery) -> int:
        return 422 if "Ackgate-Replay-Of" in delivery.headers else 200

    async with sink(answer) as crm:
        made = await install(relays=to(crm.url, give_up_after_hours=1e-9))
        await made.deliver(text(1))
        await until(lambda: crm.taken)
        await made.api("POST", "/relays/crm/replay", SPAN)
        await until(lambda: len(crm.hits) == 2)
        assert (await relay(made))["replaying"] == 1
        for _ in range(3):
            [row] = (await made.api("GET", "/relays/crm/deliveries"))[1]["items"]
            if row["state"] == "dead":
                break
            hits = len(crm.hits)
            await made.api("POST", f"/relays/crm/deliveries/{row['id']}/retry")
            await until(lambda hits=hits: len(crm.hits) > hits)
        await until(lambda: _is_through(made))
        found = await relay(made)
    assert (found["dead"], found["replaying"]) == (1, 0)
