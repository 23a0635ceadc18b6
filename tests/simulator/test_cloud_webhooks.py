"""The Cloud API's webhooks: their shapes, signature, batches, ways, retries and faults."""

import asyncio
import hashlib
import hmac
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from service.simulator import Number, Simulator, certificate
from service.simulator.cloud import bodies
from service.simulator.cloud.cloud import Cloud
from service.simulator.cloud.webhooks import VerificationError
from tests.simulator.conftest import (
    NUMBER,
    SECRET,
    SHEENA,
    VERIFY_TOKEN,
    WABA,
    Endpoint,
    Graph,
    cloud_options,
    options,
)

PAYLOADS = Path(__file__).parents[1] / "payloads" / "cloud"
USER_ID = "US.13491208655302741918"
OTHER = Number(phone_number_id="200000000000001", display_phone_number="15550000001")
FOREIGN = Number(phone_number_id="300000000000001", waba_id="300000000000000")


def payload(name: str) -> Any:
    return json.loads((PAYLOADS / f"{name}.json").read_text())


def unlike(body: Any) -> Any:
    """A body without what differs each time: the ids of messages."""
    (message,) = body["entry"][0]["changes"][0]["value"]["messages"]
    assert re.fullmatch(r"wamid\.[A-Za-z0-9+/=]+", message.pop("id"))
    return body


@pytest.mark.parametrize("graph_sim", [{"user_ids": False}], indirect=True)
async def test_a_message_with_a_hash_is_metas_example(cloud: Cloud, endpoint: Endpoint) -> None:
    cloud.change_settings(identity_check=True)
    cloud.set_user(SHEENA, name="Sheena Nelson", hash="DF2lS5v2W6x=")
    cloud.write(SHEENA, "Does it come in another color?", at=1749416383)
    await cloud.settled()
    assert unlike(endpoint.bodies[0]) == unlike(payload("message-with-hash"))


async def test_a_message_of_a_user_without_a_number_is_metas_example(
    cloud: Cloud, endpoint: Endpoint
) -> None:
    cloud.set_user(USER_ID, name="Sheena Nelson", username="@realsheenanelson")
    cloud.write(USER_ID, "Hello", at=1749416383)
    await cloud.settled()
    assert unlike(endpoint.bodies[0]) == unlike(payload("message-user-id-only"))


@pytest.mark.parametrize("graph_sim", [{"user_ids": False}], indirect=True)
async def test_a_changed_number_is_metas_example(cloud: Cloud, endpoint: Endpoint) -> None:
    cloud.set_user(SHEENA, name="Sheena Nelson")
    cloud.change_number(SHEENA, "12195555358", at=1750269342)
    await cloud.settled()
    assert unlike(endpoint.bodies[0]) == unlike(payload("number-changed"))


async def test_a_changed_number_gives_another_user_id_and_names_the_one_before(
    cloud: Cloud, endpoint: Endpoint
) -> None:
    before = cloud.set_user(SHEENA, user_id=USER_ID, parent_user_id="US.ENT.1", hash="old")
    user = cloud.change_number(SHEENA, "12195555358")
    assert before is user
    assert user.hash != "old"
    await cloud.settled()
    (message,) = endpoint.values[0]["messages"]
    assert "contacts" not in endpoint.values[0]
    assert message["from"] == SHEENA
    assert message["system"] == {
        "body": f"User A user changed from {SHEENA} to 12195555358",
        "wa_id": "12195555358",
        "user_id": user.user_id,
        "previous_user_id": USER_ID,
        "parent_user_id": user.parent_user_id,
        "previous_parent_user_id": "US.ENT.1",
        "type": "user_changed_number",
    }
    assert re.fullmatch(r"US\.\d{20}", user.user_id)
    assert user.user_id != USER_ID
    assert cloud.users["12195555358"] is cloud.users[user.user_id] is user
    assert cloud.users.get(SHEENA) is cloud.users.get(USER_ID) is None


async def test_a_changed_user_id_names_no_number(cloud: Cloud, endpoint: Endpoint) -> None:
    user = cloud.change_user_id(USER_ID)
    cloud.set_user(SHEENA, username="@sheena", hidden=True)
    cloud.change_number(SHEENA, "12195555358")
    await cloud.settled()
    first, second = (value["messages"][0] for value in endpoint.values)
    assert first["system"] == {
        "body": f"User A user changed from {USER_ID} to {user.user_id}",
        "user_id": user.user_id,
        "previous_user_id": USER_ID,
        "type": "user_changed_user_id",
    }
    assert second["system"]["type"] == "user_changed_user_id"
    assert not {"from", "wa_id"} & (first | first["system"] | second | second["system"]).keys()


async def test_the_older_spellings_are_sent_on_demand(cloud: Cloud, endpoint: Endpoint) -> None:
    hash_ = cloud.announce_identity(SHEENA, at=5)
    cloud.announce_identity(SHEENA, spelling="sibling", at=6)
    cloud.change_number(SHEENA, "12195555358", spelling="customer")
    await cloud.settled()
    customer, sibling, moved = (value["messages"][0] for value in endpoint.values)
    assert customer["system"]["type"] == sibling["system"]["type"] == "customer_identity_changed"
    assert (customer["system"]["identity"], customer["system"]["customer"]) == (hash_, SHEENA)
    assert sibling["identity"] == {"acknowledged": False, "created_timestamp": "6", "hash": hash_}
    assert "identity" not in sibling["system"]
    assert moved["system"]["type"] == "customer_changed_number"
    assert moved["system"]["customer"] == moved["from"] == SHEENA
    assert moved["system"]["new_wa_id"] == "12195555358"
    assert all("contacts" not in value for value in endpoint.values)


async def test_the_older_spellings_know_numbers_alone(cloud: Cloud) -> None:
    for act in (
        lambda: cloud.announce_identity(USER_ID),
        lambda: cloud.change_number(USER_ID, SHEENA, spelling="customer"),
    ):
        with pytest.raises(ValueError, match="by their numbers"):
            act()
    assert cloud.callbacks == []


@pytest.mark.parametrize(
    ("graph_sim", "left_out"),
    [({"absent": "missing"}, {}), ({"absent": "empty"}, {"wa_id": "", "from": ""})],
    indirect=["graph_sim"],
)
async def test_a_number_that_may_not_be_shown_is_missing_or_empty(
    cloud: Cloud, endpoint: Endpoint, left_out: dict[str, str]
) -> None:
    cloud.set_user(SHEENA, username="@sheena", hidden=True, parent_user_id="US.ENT.1")
    cloud.write(SHEENA, "Hello")
    await cloud.settled()
    (contact,), (message,) = endpoint.values[0]["contacts"], endpoint.values[0]["messages"]
    assert {k: v for k, v in contact.items() if k == "wa_id"} | {
        k: v for k, v in message.items() if k == "from"
    } == left_out
    assert contact["user_id"] == message["from_user_id"] == cloud.users[SHEENA].user_id
    assert contact["parent_user_id"] == message["from_parent_user_id"] == "US.ENT.1"


async def test_bytes_are_escaped_as_metas_are_and_signed_as_they_are(
    cloud: Cloud, endpoint: Endpoint
) -> None:
    cloud.write(SHEENA, "Grüße/😀")
    await cloud.settled()
    (raw,), (headers,) = endpoint.raw, endpoint.headers
    assert rb'"Gr\u00fc\u00dfe\/\ud83d\ude00"' in raw
    assert raw.isascii()
    assert b"/" not in raw.replace(rb"\/", b"")
    expected = hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()
    assert headers["X-Hub-Signature-256"] == f"sha256={expected}"
    assert headers["User-Agent"] == "facebookexternalua"
    assert headers["Content-Type"] == "application/json"
    assert endpoint.values[0]["messages"][0]["text"]["body"] == "Grüße/😀"


async def test_a_webhook_tried_again_has_the_same_bytes_and_the_secret_of_now(
    cloud: Cloud, endpoint: Endpoint
) -> None:
    endpoint.statuses = [500]
    cloud.write(SHEENA, "Hello")
    while not endpoint.raw:
        await asyncio.sleep(0.005)
    cloud.change_settings(app_secret="another")
    await cloud.settled()
    first, second = (headers["X-Hub-Signature-256"] for headers in endpoint.headers)
    assert endpoint.raw[0] == endpoint.raw[1]
    assert first == bodies.signature(SECRET, endpoint.raw[0])
    assert second == bodies.signature("another", endpoint.raw[0])


async def test_any_body_is_called_back_signed_or_not(cloud: Cloud, endpoint: Endpoint) -> None:
    cloud.send_callback(b"not json")
    cloud.send_callback({"object": "page"}, signed=False)
    cloud.send_callback(b"x", headers={"X-Hub-Signature-256": "sha256=00"})
    await cloud.settled()
    signatures = {
        raw: headers.get("X-Hub-Signature-256")
        for raw, headers in zip(endpoint.raw, endpoint.headers, strict=True)
    }
    assert signatures == {
        b"not json": bodies.signature(SECRET, b"not json"),
        b'{"object":"page"}': None,
        b"x": "sha256=00",
    }


@pytest.mark.parametrize("graph_sim", [{"batch": 1000, "batch_seconds": 60}], indirect=True)
async def test_a_thousand_updates_come_in_one_post(cloud: Cloud, endpoint: Endpoint) -> None:
    for number in range(1001):
        cloud.write(f"1650555{number:04}", "Hello")
    while not endpoint.raw:
        await asyncio.sleep(0.01)
    assert len(endpoint.values) == 1000
    assert len(endpoint.raw[0]) < 3 * 1024 * 1024
    await cloud.settled()
    assert len(endpoint.values) == 1001
    froms = [value["messages"][0]["from"] for value in endpoint.values]
    assert froms == [f"1650555{number:04}" for number in range(1001)]
    assert cloud.webhooks.counts["updates"] == 1001


@pytest.mark.parametrize("graph_sim", [{"batch": 1000, "batch_seconds": 60}], indirect=True)
async def test_a_batch_above_three_megabytes_comes_in_several_posts(
    cloud: Cloud, endpoint: Endpoint
) -> None:
    for number in range(100):
        cloud.write(f"165055500{number:02}", "😀" * 4096)
    await cloud.settled()
    assert len(endpoint.raw) == 2
    assert max(map(len, endpoint.raw)) <= 3 * 1024 * 1024
    froms = [value["messages"][0]["from"] for value in endpoint.values]
    assert froms == [f"165055500{number:02}" for number in range(100)]


@pytest.mark.parametrize(
    "graph_sim",
    [{"batch": 6, "per_change": 2, "numbers": (Number(), OTHER, FOREIGN)}],
    indirect=True,
)
async def test_a_batch_has_an_entry_for_each_account_and_changes_with_several_updates(
    cloud: Cloud, endpoint: Endpoint
) -> None:
    for number in (None, None, None, OTHER.phone_number_id, FOREIGN.phone_number_id):
        cloud.write(SHEENA, "Hello", number=number)
    cloud.announce_identity(SHEENA, number=FOREIGN.phone_number_id)
    await cloud.settled()
    (body,) = endpoint.bodies
    assert body["object"] == "whatsapp_business_account"
    assert [entry["id"] for entry in body["entry"]] == [WABA, FOREIGN.waba_id]
    reported = [
        [
            (change["value"]["metadata"]["phone_number_id"], len(change["value"]["messages"]))
            for change in entry["changes"]
        ]
        for entry in body["entry"]
    ]
    assert reported == [
        [(NUMBER, 2), (NUMBER, 1), (OTHER.phone_number_id, 1)],
        [(FOREIGN.phone_number_id, 1), (FOREIGN.phone_number_id, 1)],
    ]
    shared = body["entry"][0]["changes"][0]["value"]
    assert len(shared["contacts"]) == 1
    assert len({message["id"] for message in shared["messages"]}) == 2


@pytest.mark.parametrize("graph_sim", [{"batch": 10, "batch_seconds": 0.05}], indirect=True)
async def test_what_is_gathered_goes_out_when_the_time_is_up(
    cloud: Cloud, endpoint: Endpoint
) -> None:
    cloud.write(SHEENA, "Hello")
    cloud.write(SHEENA, "Anybody?")
    await asyncio.sleep(0.02)
    assert not endpoint.raw
    while not endpoint.raw:
        await asyncio.sleep(0.01)
    assert len(endpoint.values) == 2


@pytest.mark.parametrize("status", [201, 204, 301, 400, 401, 413, 500, 503])
async def test_only_200_counts(cloud: Cloud, endpoint: Endpoint, status: int) -> None:
    endpoint.statuses = [status, status]
    cloud.write(SHEENA, "Hello")
    await cloud.settled()
    assert len(endpoint.raw) == 3
    assert len(set(endpoint.raw)) == 1
    assert cloud.webhooks.delivery.answers == {str(status): 2, "200": 1}
    assert cloud.webhooks.delivery.counts["delivered"] == 1


async def test_the_pauses_between_attempts_grow_up_to_a_bound(cloud: Cloud) -> None:
    cloud.change_settings(retry_base_seconds=5, retry_cap_seconds=3600)
    pauses = [cloud.webhooks.retry_seconds(attempts) for attempts in range(1, 12)]
    assert pauses[:4] == [5, 10, 20, 40]
    assert pauses[-1] == 3600
    assert cloud.webhooks.retry_seconds(10_000) == 3600


async def test_a_webhook_is_given_up_after_seven_days(cloud: Cloud, endpoint: Endpoint) -> None:
    assert cloud_options().give_up_seconds == 7 * 24 * 3600
    cloud.change_settings(give_up_seconds=0.03)
    endpoint.statuses = [500] * 100
    cloud.write(SHEENA, "Hello")
    await cloud.settled()
    assert [callback.state for callback in cloud.callbacks] == ["given_up"]


async def test_an_endpoint_that_is_away_is_reported_by_its_error_and_reached_later(
    cloud: Cloud, endpoint: Endpoint, unused_tcp_port: int
) -> None:
    cloud.webhook_url = f"http://127.0.0.1:{unused_tcp_port}/"
    cloud.write(SHEENA, "Hello")
    while not cloud.webhooks.delivery.answers:
        await asyncio.sleep(0.005)
    assert list(cloud.webhooks.delivery.answers) == ["ClientConnectorError"]
    cloud.webhook_url = endpoint.url
    await cloud.settled()
    assert len(endpoint.raw) == 1


async def test_what_is_pending_outlives_a_stop(
    graph_sim: Simulator, cloud: Cloud, endpoint: Endpoint
) -> None:
    cloud.change_settings(batch=10)
    cloud.webhook_url = None
    cloud.write(SHEENA, "Hello")
    await graph_sim.stop()
    cloud.webhook_url = endpoint.url
    await graph_sim.start()
    await cloud.settled()
    assert len(endpoint.values) == 1


async def test_a_webhook_is_lost_repeated_and_delivered_once_more_later(
    cloud: Cloud, endpoint: Endpoint
) -> None:
    cloud.fault("callback_message", lose=True, times=1)
    cloud.fault("callback", repeat=3, times=1)
    cloud.fault("callback", again=0.05, times=1)
    for text in ("lost", "three times", "and late"):
        cloud.write(SHEENA, text)
    cloud.write(SHEENA, "last")
    await cloud.settled()
    texts = [value["messages"][0]["text"]["body"] for value in endpoint.values]
    assert sorted(texts) == sorted(["three times"] * 3 + ["and late"] * 2 + ["last"])
    assert texts[-1] == "and late"
    assert cloud.webhooks.delivery.counts["lost"] == 1


async def test_webhooks_are_delivered_in_reverse(cloud: Cloud, endpoint: Endpoint) -> None:
    cloud.fault("callback", reorder=3)
    for text in "abc":
        cloud.write(SHEENA, text)
    await cloud.settled()
    texts = [value["messages"][0]["text"]["body"] for value in endpoint.values]
    assert texts == ["c", "b", "a"]


@pytest.mark.parametrize("graph_sim", [{"batch": 2}], indirect=True)
async def test_a_fault_can_apply_to_batches_of_several_kinds_and_one_user_alone(
    cloud: Cloud, endpoint: Endpoint
) -> None:
    cloud.fault("callback_batch", lose=True)
    cloud.fault("callback", repeat=2, wa_id=SHEENA)
    cloud.write(SHEENA, "lost")
    cloud.announce_identity(SHEENA)
    for user in (SHEENA, SHEENA, USER_ID, USER_ID):
        cloud.write(user, "reported")
    await cloud.settled()
    assert cloud.callbacks[0].kind == "batch"
    assert len(endpoint.raw) == 3
    assert len(set(endpoint.raw)) == 2


async def test_faults_of_a_seed_repeat_themselves(tmp_path: Path, endpoint: Endpoint) -> None:
    async def lost(seed: int) -> list[bool]:
        chosen = cloud_options(seed=seed, webhook_url=endpoint.url)
        async with Simulator(options(tmp_path, cloud=chosen)) as sim:
            sim.cloud.fault("callback", lose=True, rate=0.5)
            for _ in range(30):
                sim.cloud.write(SHEENA, "Hello")
            await sim.cloud.settled()
            return [callback.state == "lost" for callback in sim.cloud.callbacks]

    assert await lost(1) == await lost(1) != await lost(2)


@pytest.mark.parametrize(
    "graph_sim", [{"batch": 10, "numbers": (Number(), OTHER, FOREIGN)}], indirect=True
)
async def test_a_webhook_goes_to_its_numbers_url_else_its_accounts_else_the_apps(
    cloud: Cloud, graph: Graph, endpoint: Endpoint
) -> None:
    base = endpoint.url.rpartition("/")[0]
    own = {"override_callback_uri": f"{base}/number", "verify_token": VERIFY_TOKEN}
    of_account = {"override_callback_uri": f"{base}/account", "verify_token": VERIFY_TOKEN}
    assert await graph.call("POST", f"/{NUMBER}", {"webhook_configuration": own}) == (
        200,
        {"success": True},
    )
    assert (await graph.call("POST", f"/{WABA}/subscribed_apps", of_account))[0] == 200
    for number in (NUMBER, OTHER.phone_number_id, FOREIGN.phone_number_id, NUMBER):
        cloud.write(SHEENA, "Hello", number=number)
    await cloud.settled()
    assert sorted(endpoint.paths) == ["/webhooks/account", "/webhooks/meta", "/webhooks/number"]
    assert len(endpoint.values) == 4


async def test_an_app_that_is_not_subscribed_gets_nothing(
    cloud: Cloud, graph: Graph, endpoint: Endpoint
) -> None:
    await graph.call("DELETE", f"/{WABA}/subscribed_apps")
    cloud.write(SHEENA, "Hello")
    await cloud.settled()
    assert not endpoint.raw
    assert cloud.webhooks.counts["unsubscribed"] == 1


async def test_the_app_dashboard_shakes_hands_before_it_takes_a_url(
    cloud: Cloud, endpoint: Endpoint
) -> None:
    cloud.webhook_url = None
    with pytest.raises(VerificationError, match="403"):
        await cloud.register(endpoint.url, "wrong")
    assert cloud.webhook_url is None
    await cloud.register(endpoint.url, VERIFY_TOKEN)
    assert cloud.webhook_url == endpoint.url
    (_, handshake) = endpoint.handshakes
    assert handshake["hub.mode"] == "subscribe"
    assert handshake["hub.challenge"].isdigit()
    assert handshake["hub.verify_token"] == VERIFY_TOKEN
    assert "X-Hub-Signature-256" not in endpoint.challenge_headers


async def test_another_certificate_than_the_given_authoritys_is_refused(tmp_path: Path) -> None:
    authority = certificate.ensure(tmp_path / "another").ca
    chosen = cloud_options(webhook_ca_file=authority)
    async with (
        Simulator(options(tmp_path, tls=True)) as https,
        Simulator(options(tmp_path, cloud=chosen)) as sim,
    ):
        with pytest.raises(VerificationError, match="Certificate"):
            await sim.cloud.register(f"{https.base_url}/webhooks/meta", VERIFY_TOKEN)


async def test_a_handshake_that_never_ends_is_cut(tmp_path: Path, endpoint: Endpoint) -> None:
    chosen = cloud_options(webhook_timeout_seconds=0.1)
    async with (
        Simulator(options(tmp_path, cloud=chosen)) as sim,
        Simulator(options(tmp_path)) as deaf,
    ):
        deaf.cloud.fault("any", hang=True)
        began = time.monotonic()
        with pytest.raises(VerificationError):
            await sim.cloud.register(f"{deaf.graph_url}/{NUMBER}", VERIFY_TOKEN)
        assert time.monotonic() - began < 5
    assert not endpoint.handshakes


async def test_errors_that_belong_to_no_message_are_reported(
    cloud: Cloud, endpoint: Endpoint
) -> None:
    cloud.report_error(131051, "Unsupported message type", "Message type is not supported.")
    await cloud.settled()
    assert endpoint.values[0]["errors"] == [
        {
            "code": 131051,
            "title": "Unsupported message type",
            "message": "Unsupported message type",
            "error_data": {"details": "Message type is not supported."},
        }
    ]
