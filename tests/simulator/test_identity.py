"""The identity of a user over the wire, and what it blocks."""

import asyncio
import base64
import re
from urllib.parse import quote

import pytest

from service.simulator import Simulator
from tests.simulator.conftest import WA_ID, Business, Webhook


async def test_the_identity_is_read_as_metas_page_shows_it(
    sim: Simulator, business: Business
) -> None:
    sim.set_user(WA_ID, hash="UKD6Y/5SqDU=", created_timestamp=1600132094000)
    status, body = await business.call("GET", f"/v1/contacts/{WA_ID}/identity")
    assert status == 200
    assert body == {
        "contacts": {
            "hash": "UKD6Y/5SqDU=",
            "created_timestamp": 1600132094000,
            "acknowledged": True,
        },
        "meta": {"api_status": "stable", "version": "v2.41.3"},
    }


async def test_an_unknown_user_is_not_found(business: Business) -> None:
    for method, sent in (("GET", None), ("PUT", {"hash": "x"})):
        status, body = await business.call(method, f"/v1/contacts/{WA_ID}/identity", sent)
        assert (status, body["errors"][0]["code"]) == (404, 1006)


async def test_a_change_makes_a_new_unacknowledged_hash_of_12_base64_characters(
    sim: Simulator, business: Business
) -> None:
    before = sim.set_user(WA_ID).hash
    hash_ = sim.change_identity(WA_ID)
    assert hash_ != before
    assert len(hash_) == 12
    assert len(base64.b64decode(hash_, validate=True)) == 8
    identity = await business.identity()
    assert (identity["hash"], identity["acknowledged"]) == (hash_, False)


async def test_two_changes_never_share_a_millisecond(sim: Simulator) -> None:
    times = set()
    for _ in range(20):
        sim.change_identity(WA_ID)
        times.add(sim.users[WA_ID].created_timestamp)
    assert len(times) == 20


async def test_the_latest_hash_is_acknowledged_with_an_empty_object(
    sim: Simulator, business: Business
) -> None:
    hash_ = sim.change_identity(WA_ID)
    assert await business.acknowledge(hash_) == (200, {})
    assert (await business.identity())["acknowledged"] is True
    assert await business.acknowledge(hash_) == (200, {})
    assert [put.outcome for put in sim.puts] == ["acknowledged", "already"]


async def test_a_stale_hash_is_refused_and_changes_nothing(
    sim: Simulator, business: Business
) -> None:
    old = sim.change_identity(WA_ID)
    new = sim.change_identity(WA_ID)
    status, body = await business.acknowledge(old)
    assert status == 409
    assert body["errors"][0]["details"] == "Incorrect identity hash provided"
    assert sim.users[WA_ID].acknowledged is False
    assert [(put.hash, put.outcome) for put in sim.puts] == [(old, "stale")]
    assert await business.acknowledge(new) == (200, {})


@pytest.mark.parametrize("sim", [{"stale_hash_status": 400}], indirect=True)
async def test_the_status_of_a_stale_hash_can_be_chosen(sim: Simulator, business: Business) -> None:
    sim.set_user(WA_ID)
    status, body = await business.acknowledge("stale")
    assert (status, body["errors"][0]["code"]) == (400, 1009)


@pytest.mark.parametrize(
    ("body", "code"), [({}, 1008), ({"hash": 5}, 1009), ([], 1025), ({"hash": None}, 1008)]
)
async def test_a_put_without_a_usable_hash_gets_400(
    sim: Simulator, business: Business, body: object, code: int
) -> None:
    sim.set_user(WA_ID)
    status, answer = await business.call("PUT", f"/v1/contacts/{WA_ID}/identity", body)
    assert (status, answer["errors"][0]["code"]) == (400, code)
    assert sim.puts[0].outcome == "unreadable"


async def test_a_put_needs_json_and_its_media_type(sim: Simulator, business: Business) -> None:
    sim.set_user(WA_ID)
    await business.login()
    bearer = {"Authorization": f"Bearer {business.token}"}
    for data, kind in (('{"hash":"x"}', "text/plain"), ("{", "application/json")):
        async with business.session.put(
            f"/v1/contacts/{WA_ID}/identity", data=data, headers={**bearer, "Content-Type": kind}
        ) as answer:
            assert answer.status == 400
            assert (await answer.json())["errors"][0]["code"] == 1025


async def test_a_wa_id_is_read_percent_encoded(sim: Simulator, business: Business) -> None:
    odd = "a/b c?ü"
    hash_ = sim.change_identity(odd)
    assert await business.acknowledge(hash_, quote(odd, safe="")) == (200, {})
    assert sim.puts[0].wa_id == odd


async def test_a_blocked_message_is_refused_with_1028_until_it_is_acknowledged(
    sim: Simulator, business: Business
) -> None:
    assert (await business.send())[0] == 200
    hash_ = sim.change_identity(WA_ID)
    status, body = await business.send()
    assert status == 400
    assert body["errors"][0]["code"] == 1028
    assert "requires acknowledgement" in body["errors"][0]["title"]
    await business.acknowledge(hash_)
    status, body = await business.send()
    assert status == 200
    assert body["contacts"] == [{"input": WA_ID, "wa_id": WA_ID}]
    assert [message.accepted for message in sim.messages] == [True, False, True]


async def test_an_accepted_message_is_followed_by_sent_and_delivered(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    _, body = await business.send()
    await sim.settled()
    statuses = [each["statuses"][0] for each in webhook.bodies]
    assert sorted(each["status"] for each in statuses) == ["delivered", "sent"]
    assert {each["id"] for each in statuses} == {body["messages"][0]["id"]}
    assert all(re.fullmatch(r"\d{10}", each["timestamp"]) for each in statuses)
    assert all(each["recipient_id"] == WA_ID for each in statuses)


@pytest.mark.parametrize("sim", [{"blocked_send": "fail"}], indirect=True)
async def test_a_blocked_message_can_be_accepted_and_fail_with_480(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    sim.change_identity(WA_ID, notify=False)
    status, body = await business.send()
    assert status == 200
    await sim.settled()
    (failed,) = webhook.bodies[0]["statuses"]
    assert failed["errors"] == [
        {
            "code": 480,
            "title": "Failed to send message since we detect an identity change of the contact",
        }
    ]
    assert (failed["id"], failed["status"]) == (body["messages"][0]["id"], "failed")


async def test_nothing_is_blocked_or_reported_while_security_notifications_are_off(
    sim: Simulator, business: Business, webhook: Webhook
) -> None:
    sim.change_settings(show_security_notifications=False, send_statuses=False)
    sim.change_identity(WA_ID)
    assert (await business.send())[0] == 200
    sim.write(WA_ID, "Hi")
    await sim.settled()
    assert ["identity" in body["messages"][0] for body in webhook.bodies] == [False]


async def test_acknowledging_elsewhere_lifts_the_block_without_a_put(
    sim: Simulator, business: Business
) -> None:
    hash_ = sim.change_identity(WA_ID)
    assert sim.acknowledge_elsewhere(WA_ID) == hash_
    assert (await business.send())[0] == 200
    assert sim.puts == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"type": "text", "text": {"body": "x"}}, 1008),
        ({"to": 5, "text": {"body": "x"}}, 1009),
        ({"to": WA_ID, "type": "image"}, 1008),
        ({"to": WA_ID, "type": ["text"]}, 1008),
    ],
)
async def test_a_message_that_lacks_something_gets_400(
    business: Business, body: object, code: int
) -> None:
    status, answer = await business.call("POST", "/v1/messages", body)
    assert (status, answer["errors"][0]["code"]) == (400, code)


async def test_the_request_id_is_recorded_and_answered(sim: Simulator, business: Business) -> None:
    hash_ = sim.change_identity(WA_ID)
    await business.login()
    async with business.session.put(
        f"/v1/contacts/{WA_ID}/identity",
        json={"hash": hash_},
        headers={"Authorization": f"Bearer {business.token}", "X-Request-ID": "abc-1"},
    ) as answer:
        assert answer.headers["X-Request-ID"] == "abc-1"
    assert sim.puts[0].request_id == "abc-1"
    assert sim.calls.of("login")[0].request_id


async def test_calls_are_counted_by_operation_with_the_most_that_were_under_way(
    sim: Simulator, business: Business
) -> None:
    await business.login()
    sim.fault("identity_get", latency=0.05)
    await asyncio.gather(
        *(business.call("GET", f"/v1/contacts/{WA_ID}/identity") for _ in range(3))
    )
    assert sim.calls["identity_get"] == 3
    assert sim.calls.most_in_flight["identity_get"] == 3
    assert sim.calls.in_flight["identity_get"] == 0
    assert len(sim.calls) == 4
    assert next(iter(sim.calls)).operation == "login"
