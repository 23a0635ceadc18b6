"""Relays pass on what arrives, byte for byte and in order, whatever becomes of a destination."""

import json
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from service.workers.relay_checks import RelaySubject
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    HASH_C,
    OTHER_ID,
    WA_ID,
    Installation,
    Spawn,
    Start,
    digest_of,
    hour_ago,
    merge,
    notice,
    tree_for,
    until,
    wrote,
)
from tests.acceptance.sinks import Delivery, Sink, never, sink

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
ROLES = ("reader", "operator", "admin")
OLD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def text(number: int, wa_id: str = WA_ID) -> bytes:
    """Write a message whose number tells it apart from others."""
    message = {"from": wa_id, "id": f"m{number}", "timestamp": "1749416383", "type": "text"}
    return json.dumps({"messages": [message | {"text": {"body": str(number)}}]}).encode()


def status(number: int, wa_id: str = WA_ID) -> bytes:
    update = {"id": f"s{number}", "recipient_id": wa_id, "status": "read", "timestamp": "1"}
    return json.dumps({"statuses": [update]}).encode()


def to(url: str, **more: Any) -> dict[str, Any]:
    return {"crm": {"url": url, **more}}


async def relay(service: Installation, name: str = "crm") -> dict[str, Any]:
    code, found = await service.api("GET", f"/relays/{name}")
    assert code == 200, found
    return dict(found)


async def deliveries(service: Installation, query: str = "") -> list[dict[str, Any]]:
    code, found = await service.api("GET", f"/relays/crm/deliveries{query}")
    assert code == 200, found
    return list(found["items"])


async def test_every_callback_goes_on_byte_for_byte_with_its_media_type(
    install: Any,
) -> None:
    odd = b'{ "messages" :[] , "x":"\\u00e9\\/"}\n'
    async with sink() as crm:
        service = await install(relays=to(crm.url))
        assert (
            await service.post(odd, headers={"Content-Type": "application/json; charset=utf-8"})
            == 200
        )
        assert await service.post(b"\x1f\x8b no gzip", headers={"Content-Encoding": "gzip"}) == 200
        await until(lambda: len(crm.taken) == 2)
    by_body = {delivery.body: delivery.headers for delivery in crm.taken}
    assert by_body[odd]["Content-Type"] == "application/json; charset=utf-8"
    assert by_body[b"\x1f\x8b no gzip"]["Content-Encoding"] == "gzip"
    assert by_body[odd]["Ackgate-Account"] == "main"
    assert by_body[odd]["Ackgate-Attempt"] == "1"
    assert by_body[odd]["Ackgate-Received-At"].endswith("Z")
    assert len({delivery.id for delivery in crm.taken}) == 2


async def test_deliveries_are_signed_as_standard_webhooks_say_with_both_secrets(
    install: Any,
) -> None:
    async with sink() as crm:
        service = await install(relays=to(crm.url, secret=SECRET, secret_previous=OLD_SECRET))
        await service.deliver(text(1))
        await until(lambda: crm.taken)
    [delivery] = crm.taken
    headers = {name.lower(): value for name, value in delivery.headers.items()}
    for secret in (SECRET, OLD_SECRET):
        assert Webhook(secret).verify(delivery.body, headers) == json.loads(delivery.body)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(delivery.body + b" ", headers)


async def test_a_relay_gets_what_it_asked_for_and_the_whole_callback(install: Any) -> None:
    mixed = json.dumps(json.loads(text(1)) | json.loads(status(2))).encode()
    async with sink() as crm:
        service = await install(relays=to(crm.url, kinds=["messages"]))
        await service.deliver(status(1), notice(WA_ID, HASH_A, hour_ago()), mixed, text(3))
        await until(lambda: len(crm.taken) == 2)
        await until(lambda: _is_done(service))
    assert crm.bodies == [mixed, text(3)]


async def _is_done(service: Installation) -> bool:
    return bool((await relay(service))["behind"] == 0)


async def test_what_doctor_sends_is_not_relayed(install: Any) -> None:
    async with sink() as crm:
        service = await install(relays=to(crm.url))
        await service.deliver({"ackgate-doctor": "x"}, text(1))
        await until(lambda: crm.taken)
        await until(lambda: _is_done(service))
    assert crm.bodies == [text(1)]


async def test_a_new_relay_begins_with_what_arrives_from_then_on(install: Any) -> None:
    async with sink() as crm:
        service = await install()
        await service.deliver(text(1))
        await service.stop()
        await service.start(relays=to(crm.url))
        await service.deliver(text(2))
        await until(lambda: crm.taken)
        await until(lambda: _is_done(service))
    assert crm.bodies == [text(2)]


async def test_callbacks_of_one_user_are_delivered_in_order(install: Any) -> None:
    async with sink() as crm:
        service = await install(relays=to(crm.url))
        bodies = [text(n, wa_id) for n in range(50) for wa_id in (WA_ID, OTHER_ID)]
        await service.deliver(*bodies)
        await until(lambda: len(crm.taken) == 100)
    for wa_id in (WA_ID, OTHER_ID):
        numbers = [n for n in range(50) if text(n, wa_id) in crm.bodies]
        came = [body for body in crm.bodies if json.loads(body)["messages"][0]["from"] == wa_id]
        assert came == [text(n, wa_id) for n in numbers]


@pytest.mark.parametrize("code", [400, 413, 415, 422])
async def test_a_verdict_on_one_callback_holds_up_its_user_alone(install: Any, code: int) -> None:
    def answer(delivery: Delivery) -> int:
        return code if delivery.body == text(1) else 200

    async with sink(answer) as crm:
        service = await install(relays=to(crm.url))
        await service.deliver(text(1), text(2), text(3, OTHER_ID))
        await until(lambda: crm.bodies == [text(3, OTHER_ID)])
        await until(lambda: _is_done(service))
        [refused, waiting] = await deliveries(service)
        assert (refused["state"], refused["last_status"], refused["attempts"]) == (
            "retrying",
            code,
            1,
        )
        assert waiting["state"] == "waiting"
        crm.answer = lambda _: 200
        assert (await service.api("POST", f"/relays/crm/deliveries/{refused['id']}/retry"))[
            0
        ] == 202
        await until(lambda: len(crm.taken) == 3)
        assert crm.bodies[1:] == [text(1), text(2)]
        await until(lambda: _has_no_rows(service))


async def _has_no_rows(service: Installation) -> bool:
    return not await deliveries(service)


async def test_a_destination_that_is_down_makes_no_rows_and_gets_one_probe_a_pause(
    install: Any,
) -> None:
    async with sink(lambda _: 503) as crm:
        service = await install(relays=to(crm.url, max_in_flight=4))
        await service.deliver(*(text(n, f"1631555{n:04}") for n in range(30)))
        await until(lambda: len(crm.hits) >= 9)
        found = await relay(service)
        assert (found["state"], found["retrying"]) == ("backing_off", 0)
        assert found["position"] < (await service.journal())[0]["id"]
        assert found["last_error"] == "answered 503"
        # Ten in flight or lost to the first failures, then one at each pause, which doubles.
        assert len(crm.hits) < 20
        assert await deliveries(service) == []
        crm.answer = lambda _: 200
        await until(lambda: len(crm.taken) == 30, 30)
    assert sorted(set(crm.bodies)) == sorted(text(n, f"1631555{n:04}") for n in range(30))


async def test_one_that_refuses_statuses_alone_holds_up_no_messages(install: Any) -> None:
    def answer(delivery: Delivery) -> int:
        return 500 if b"statuses" in delivery.body else 200

    async with sink(answer) as crm:
        service = await install(relays=to(crm.url, max_in_flight=2))
        await service.deliver(*(status(n, f"1631555{n:04}") for n in range(20)))
        await service.deliver(*(text(n, f"1631666{n:04}") for n in range(20)))
        await until(lambda: len(crm.taken) == 20, 30)
    assert all(b"messages" in body for body in crm.bodies)


async def test_retry_after_is_obeyed(install: Any) -> None:
    times: list[float] = []

    def answer(_: Delivery) -> web.Response:
        times.append(time.monotonic())
        if len(times) == 1:
            return web.Response(status=429, headers={"Retry-After": "2"})
        return web.Response()

    async with sink(answer) as crm:
        service = await install(relays=to(crm.url))
        await service.deliver(text(1))
        await until(lambda: crm.taken)
    assert times[1] - times[0] >= 2


async def test_410_pauses_the_relay_until_a_person_resumes_it(install: Any) -> None:
    async with sink(lambda _: 410) as crm:
        service = await install(relays=to(crm.url))
        await service.deliver(text(1))
        await until(lambda: crm.hits)
        await until(lambda: _is_in_state(service, "paused"))
        assert (await relay(service))["paused_by"] == "gone"
        await service.stop()
        await service.start()
        await service.deliver(text(2))
        assert (await relay(service))["state"] == "paused"
        crm.answer = lambda _: 200
        assert (await service.api("POST", "/relays/crm/resume"))[0] == 200
        await until(lambda: len(crm.taken) == 2)
    assert crm.bodies == [text(1), text(2)]


async def _is_in_state(service: Installation, state: str) -> bool:
    return bool((await relay(service))["state"] == state)


async def test_what_was_delivered_is_not_sent_again_after_a_restart(install: Any) -> None:
    async with sink() as crm:
        service = await install(relays=to(crm.url))
        await service.deliver(text(1), text(2))
        await until(lambda: len(crm.taken) == 2)
        await service.stop()
        await service.start()
        await service.deliver(text(3))
        await until(lambda: len(crm.taken) == 3)
    assert crm.bodies == [text(1), text(2), text(3)]


async def test_what_failed_and_what_waits_survives_a_restart(install: Any) -> None:
    async with sink(lambda d: 422 if d.body == text(1) else 200) as crm:
        service = await install(relays=to(crm.url))
        await service.deliver(text(1), text(2), text(3, OTHER_ID))
        await until(lambda: len(crm.taken) == 1)
        await until(lambda: _is_done(service))
        before = await deliveries(service)
        await service.stop()
        await service.start()
        await service.deliver(text(4))
        await until(lambda: _is_done(service))
        after = await deliveries(service)
        assert [row["state"] for row in after] == ["retrying", "waiting", "waiting"]
        assert after[:2] == before
        crm.answer = lambda _: 200
        await service.api("POST", f"/relays/crm/deliveries/{after[0]['id']}/retry")
        await until(lambda: len(crm.taken) == 4)
    assert crm.bodies[1:] == [text(1), text(2), text(4)]


async def test_a_part_is_sent_once_more_with_new_ids_that_name_the_old(install: Any) -> None:
    async with sink() as crm:
        service = await install(relays=to(crm.url))
        await service.deliver(text(1), text(2))
        await until(lambda: len(crm.taken) == 2)
        await service.stop()
        await service.start()
        span = {"from": "2026-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}
        assert await service.api("POST", "/relays/crm/replay", span) == (202, {"count": 2})
        await until(lambda: len(crm.taken) == 4)
        await until(lambda: _has_no_rows(service))
    first, again = crm.taken[:2], crm.taken[2:]
    assert [d.body for d in again] == [d.body for d in first]
    assert [d.headers["Ackgate-Replay-Of"] for d in again] == [d.id for d in first]
    assert not {d.id for d in again} & {d.id for d in first}


async def test_a_connection_that_the_destination_closed_is_no_failure(install: Any) -> None:
    async with sink() as crm:
        service = await install(relays=to(crm.url))
        await service.deliver(text(1))
        await until(lambda: crm.taken)
        port = crm.port
        await crm.close()
        await crm.open(port)
        await service.deliver(text(2))
        await until(lambda: len(crm.taken) == 2)
        assert crm.taken[1].headers["Ackgate-Attempt"] == "1"
        assert (await relay(service))["last_error"] is None


async def test_redirects_are_not_followed(install: Any) -> None:
    other = Sink()
    await other.open()
    try:
        async with sink(lambda _: web.Response(status=307, headers={"Location": other.url})) as crm:
            service = await install(relays=to(crm.url))
            await service.deliver(text(1))
            await until(lambda: len(crm.hits) >= 2)
            assert (await relay(service))["last_error"] == "answered 307"
        assert other.hits == []
    finally:
        await other.close()


async def test_a_change_is_relayed_as_it_came(install: Any) -> None:
    async with sink() as crm:
        service = await install(relays=to(crm.url, kinds=["identities"]))
        change = json.dumps(notice(WA_ID, HASH_B, hour_ago())).encode()
        await service.deliver(wrote(WA_ID, HASH_C, hour_ago(-100)), change)
        await until(lambda: crm.taken)
    assert crm.bodies == [change]


async def test_a_relay_of_events_gets_each_as_the_api_shows_it(install: Any) -> None:
    async with sink() as crm:
        relays = to(crm.url, source="events", kinds=["identity.pending", "identity.held"])
        service = await install(relays=relays)
        changed = await service.change()
        assert (await service.hold(changed))[0] == 200
        await until(lambda: len(crm.taken) == 2)
        pending, held = (json.loads(body) for body in crm.bodies)
        assert [pending["type"], held["type"]] == ["identity.pending", "identity.held"]
        assert held["data"]["state"] == "held"
        assert [delivery.id for delivery in crm.taken] == [pending["id"], held["id"]]
        assert crm.taken[0].headers["Ackgate-Account"] == "main"
        assert crm.taken[0].headers["Content-Type"] == "application/json"
        _, listed = await service.api(
            "GET", "/events?after=first&type=identity.held", headers={"Accept": "application/json"}
        )
        assert listed["items"] == [held]
        await service.stop()
        await service.start()
        await until(lambda: _is_done(service))
        assert len(crm.taken) == 2


async def test_what_a_destination_answered_is_for_operators_alone(install: Any) -> None:
    keys = {role: {"role": role, "sha256": digest_of(f"key-of-{role}")} for role in ROLES}
    answer = web.Response(status=422, text="no such template for 16315553601")
    async with sink(lambda _: answer) as crm:
        service = await install(relays=to(crm.url), api={"keys": keys})
        service.key = "key-of-admin"
        await service.deliver(text(1))
        await until(lambda: _is_done(service))
        found = {}
        for role in ROLES:
            _, listed = await service.api("GET", "/relays/crm/deliveries", key=f"key-of-{role}")
            [found[role]] = [one["answer"] for one in listed["items"]]
    assert found == {"reader": None, "operator": answer.text, "admin": answer.text}


async def test_a_stop_cuts_what_is_not_answered_and_the_start_sends_it_again(install: Any) -> None:
    async with sink(never) as crm:
        service = await install(relays=to(crm.url))
        await service.deliver(text(1))
        await until(lambda: crm.hits)
        await service.stop()
        crm.answer = lambda _: 200
        await service.start()
        await until(lambda: crm.taken)
    assert crm.bodies == [text(1)]
    assert len({delivery.id for delivery in crm.hits}) == 1


async def test_a_certificate_is_verified_by_the_authority_of_the_configuration(
    install: Any, tmp_path: Path
) -> None:
    authority, crm = trustme.CA(), Sink()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    await crm.open(tls=tls)
    try:
        service = await install(relays=to(crm.url))
        await service.deliver(text(1))
        await until(lambda: _has_failed(service))
        assert crm.hits == []
        await service.stop()
        await service.start(relays=to(crm.url, ca_file=tmp_path / "ca.pem"))
        await until(lambda: crm.taken)
    finally:
        await crm.close()


async def _has_failed(service: Installation) -> bool:
    return (await relay(service))["last_error"] == ("no answer (ClientConnectorCertificateError)")


async def test_headers_of_the_configuration_go_along_and_no_more_than_its_rate(
    install: Any,
) -> None:
    more = {"headers": {"Authorization": "Bearer of-the-crm"}, "rate_per_second": 20}
    async with sink() as crm:
        service = await install(relays=to(crm.url, **more))
        began = time.monotonic()
        await service.deliver(*(text(n, f"1631555{n:04}") for n in range(60)))
        await until(lambda: len(crm.taken) == 60)
        # A second's worth may go at once.
        assert time.monotonic() - began >= 1.9
    assert {d.headers["Authorization"] for d in crm.taken} == {"Bearer of-the-crm"}


async def test_what_failed_is_tried_again_in_time_where_nothing_else_goes_on(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    """By the real command, whose event loop lets timers end a little early."""

    def answer(delivery: Delivery) -> int:
        return 200 if int(delivery.headers["Ackgate-Attempt"]) > 3 else 500

    async with sink(answer) as crm:
        relays = {f"r{number}": {"url": crm.url} for number in range(12)}
        child = await spawn(merge(tree_for(await simulate(), tmp_path), {"relays": relays}))
        await child.deliver(text(1))
        await until(lambda: len(crm.taken) == 12, 30)


async def test_a_relay_that_pauses_by_itself_is_an_issue_with_its_time_until_it_is_resumed(
    install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RelaySubject, "every_seconds", 0.05)

    async def issues(service: Installation) -> list[Any]:
        _, listed = await service.api("GET", "/issues")
        return [one for one in listed["items"] if one["code"] == "relay_paused"]

    async with sink(lambda _: 410) as crm:
        service = await install(relays=to(crm.url))
        await service.deliver(text(1))
        [issue] = await until(lambda: issues(service))
        assert issue["subject"] == "crm"
        await _look_again(service)
        assert await issues(service) == [issue]
        crm.answer = lambda _: 200
        await service.api("POST", "/relays/crm/resume")

        async def is_gone() -> bool:
            return not await issues(service)

        await until(is_gone)


async def _look_again(service: Installation) -> None:
    """Wait until the relay was looked at once more than before."""
    inspector = service.leading.inspectors["relay:crm"]
    before = inspector.read_at
    await until(lambda: inspector.read_at != before)
