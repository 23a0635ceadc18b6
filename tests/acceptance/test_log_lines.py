"""What the log says of what others send: enough to find it again, and never more than bounded."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    TOKEN,
    WA_ID,
    Child,
    Json,
    Spawn,
    Start,
    blocked,
    digest_of,
    hour_ago,
    merge,
    notice,
    tree_for,
    until,
    wrote,
)

KEY = "the-key-of-an-admin"
SECRET = "16315551234"
MANY = 500


Serve = Callable[..., Awaitable[Child]]


@pytest.fixture
def serve(simulate: Start, spawn: Spawn, tmp_path: Path) -> Serve:
    """Start the real command with a simulated client; tables go over the configuration."""

    async def start(**over: Any) -> Child:
        sim = await simulate()
        child = await spawn(merge(tree_for(sim, tmp_path), over))
        sim.webhook_url = f"{child.base}/webhooks/main/{TOKEN}"
        return child

    return start


@pytest.fixture
async def child(simulate: Start, spawn: Spawn, tmp_path: Path) -> Child:
    keys = {"admin": {"role": "admin", "sha256": digest_of(KEY)}}
    made = await spawn(merge(tree_for(await simulate(), tmp_path), {"api": {"keys": keys}}))
    made.key = KEY
    return made


def said(child: Child, event: str) -> list[Json]:
    """Give the lines of the log about something."""
    lines = [json.loads(line) for line in child.lines]
    return [line for line in lines if event in line["event"]]


def shown(lines: list[Json]) -> list[Json]:
    """Leave out what differs each time."""
    return [{k: v for k, v in line.items() if k not in {"timestamp", "logger"}} for line in lines]


async def metric(child: Child, sample: str) -> float:
    _, text = await child.api("GET", "/metrics")
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(sample))


async def stopped(child: Child) -> None:
    child.signal(signal.SIGTERM)
    assert await child.ended() == 0


async def send(child: Child, data: bytes) -> bytes:
    """Send something on a connection of its own; give what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(child.base).port)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    return answer


NO_HTTP = {
    "no method": f"\x00{SECRET}\r\n\r\n".encode(),
    "no version": f"GET /{SECRET} HTTP/x\r\n\r\n".encode(),
    "a header without a colon": f"GET / HTTP/1.1\r\n{SECRET}\r\n\r\n".encode(),
    "two lengths": (
        f"POST /webhooks/main/{TOKEN} HTTP/1.1\r\nContent-Length: 1\r\n"
        f"Content-Length: {SECRET}\r\n\r\n"
    ).encode(),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SECRET.encode(),
}


@pytest.mark.parametrize("data", NO_HTTP.values(), ids=NO_HTTP)
async def test_requests_that_are_no_http_are_counted_and_write_no_line_each(
    child: Child, data: bytes
) -> None:
    for _ in range(MANY // 50):
        answers = await asyncio.gather(*(send(child, data) for _ in range(50)))
        assert {answer.split()[1] for answer in answers} == {b"400"}
    assert await metric(child, "ackgate_unreadable_requests_total") == MANY
    await stopped(child)
    lines = said(child, "requests that are no valid HTTP were refused")
    assert 1 <= len(lines) <= 3
    assert sum(line["count"] for line in lines) == MANY
    assert {line["level"] for line in lines} == {"warning"}
    assert not [line for line in child.lines if '"error"' in line or "Error handling" in line]
    assert SECRET not in "".join(child.lines)


async def test_bodies_that_break_off_where_nobody_reads_them_write_no_line(child: Child) -> None:
    for path in ("/nothing", "/health/live", "/webhooks/nobody/token"):
        for more in (b"Content-Length: 1000", b"Transfer-Encoding: chunked"):
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\n".encode()
            _, writer = await asyncio.open_connection("127.0.0.1", URL(child.base).port)
            writer.write(head + more + b"\r\n\r\nno length\r\n")
            await asyncio.sleep(0.1)
            writer.close()
    await until(lambda: child.post(b"{}"))
    await stopped(child)
    assert not [line for line in child.lines if '"error"' in line]


async def test_requests_without_a_valid_key_are_counted_and_write_no_line_each(
    child: Child,
) -> None:
    for _ in range(MANY // 10):
        assert (await child.api("GET", "/status", key=SECRET))[0] == 401
    async with child.http.get(f"{child.base}/api/v1/status") as response:
        assert response.status == 401
    refused = "ackgate_api_keys_refused_total"
    assert await metric(child, refused + '{reason="unknown"}') == MANY // 10
    assert await metric(child, refused + '{reason="missing"}') == 1
    await stopped(child)
    lines = said(child, "API requests without a valid key were refused")
    assert 1 <= len(lines) <= 3
    assert sum(line["count"] for line in lines) == MANY // 10 + 1
    assert lines[0]["reasons"] == {"unknown": 1}
    assert SECRET not in "".join(child.lines)


# Callbacks and decisions


def line(id_: str, journal_id: int, level: str, **others: Any) -> Json:
    usual = {"account": "main", "state": "applied", "events": [], "identities": []}
    own = {"event": "callback", "level": level, "request_id": id_, "journal_id": journal_id}
    return usual | own | others


async def send_some(child: Child) -> list[Json]:
    """Deliver callbacks of each sort; give the lines that they leave at `debug`."""
    seen = {"events": ["identity_seen"]}
    sent: list[tuple[Any, Json]] = [
        (notice(WA_ID, HASH_A, hour_ago()), {"identities": ["pending"], **seen}),
        (notice(WA_ID, HASH_A, hour_ago()), seen),
        (notice(WA_ID, HASH_B, hour_ago(60)), {"identities": ["pending"], **seen}),
        (blocked(WA_ID), {"events": ["send_blocked"]}),
        (
            wrote("16315550000", HASH_A, hour_ago()),
            {"events": ["identity_seen", "user_wrote"], "identities": ["pending"]},
        ),
        ({"messages": [{"from": SECRET, "type": SECRET}]}, {"events": ["user_wrote"]}),
        (SECRET.encode(), {"state": "quarantined"}),
    ]
    lines = []
    for number, (body, others) in enumerate(sent, 1):
        id_ = f"callback-{number}"
        assert await child.post(body, headers={"X-Request-ID": id_}) == 200
        lines.append(line(id_, number, "debug", **others))
    return lines


async def test_every_callback_leaves_a_line_at_debug_and_what_is_news_one_at_info(
    serve: Serve,
) -> None:
    child = await serve(log={"level": "debug"})
    expected = await send_some(child)
    await stopped(child)
    lines = shown(said(child, "callback"))
    assert [one | {"level": "debug"} for one in lines] == expected
    news = [one["level"] == "info" for one in lines]
    assert news == [bool(one["identities"]) or one["state"] != "applied" for one in expected]
    for personal in (WA_ID, SECRET, HASH_A, HASH_B, TOKEN):
        assert personal not in "".join(child.lines)


async def test_at_info_a_callback_that_is_no_news_leaves_no_line(serve: Serve) -> None:
    child = await serve()
    expected = await send_some(child)
    await stopped(child)
    news = [one for one in expected if one["identities"] or one["state"] != "applied"]
    assert shown(said(child, "callback")) == [one | {"level": "info"} for one in news]


async def test_callbacks_that_are_refused_are_counted_by_reason_and_write_no_line_each(
    serve: Serve,
) -> None:
    child = await serve(server={"max_body_bytes": 1000})
    for _ in range(20):
        assert await child.post(b"{}", path=f"/webhooks/main/{SECRET}") == 404
        assert await child.post(b"x" * 2000) == 413
    await stopped(child)
    assert not said(child, "callback refused")
    lines = said(child, "callbacks were refused")
    assert 1 <= len(lines) <= 3
    assert sum(one["count"] for one in lines) == 40
    assert lines[0]["reasons"] == {"refused": 1}
    assert lines[1]["reasons"] == {"refused": 19, "too_large": 20}
    assert SECRET not in "".join(child.lines)


async def test_every_decision_and_every_put_leaves_a_line_with_the_id_of_its_request(
    serve: Serve,
) -> None:
    child = await serve()
    await child.deliver(notice(WA_ID, HASH_A, hour_ago()))
    identity, block = (
        f"/accounts/main/identities/{WA_ID}",
        f"/accounts/main/recipients/{WA_ID}/block",
    )
    steps = [
        ("POST", f"{identity}/acknowledge", {"hash": HASH_B}, 409),
        ("POST", f"{identity}/hold", {"hash": HASH_A}, 200),
        ("PUT", block, {"reason": "asked us to stop"}, 200),
        ("DELETE", block, None, 200),
        ("POST", f"{identity}/acknowledge?wait=10", {"hash": HASH_A}, None),
        ("POST", f"{await child.entry()}/replay", None, 200),
    ]
    for number, (method, path, body, status) in enumerate(steps, 1):
        answer = await child.api(method, path, body, headers={"X-Request-ID": f"step-{number}"})
        assert status in {None, answer[0]}
    await stopped(child)
    usual = {"event": "decision", "level": "info", "account": "main", "caller": "local"}
    assert shown(said(child, "decision")) == [
        usual | {"request_id": f"step-{number}"} | others
        for number, others in enumerate(
            [
                {"decision": "acknowledge", "result": "another_hash", "state": "pending"},
                {"decision": "hold", "result": "taken", "state": "held"},
                {"decision": "block"},
                {"decision": "unblock"},
                {"decision": "acknowledge", "result": "taken", "state": "acknowledging"},
                {"decision": "replay", "journal_id": 1, "state": "applied"},
            ],
            1,
        )
    ]
    puts = said(child, "PUT")
    assert puts
    assert {one["request_id"] for one in puts} == {"step-5"}
    assert {(one["operation"], one["account"]) for one in puts} == {("identity_put", "main")}
    assert all(one["status"].isdigit() for one in puts)
    for personal in (WA_ID, HASH_A, HASH_B, "asked us to stop"):
        assert personal not in "".join(child.lines)
