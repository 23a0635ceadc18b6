"""What the log says of what others send: enough to find it again, and never more than bounded."""

import asyncio
import json
import signal
from pathlib import Path

import pytest
from yarl import URL

from tests.acceptance.conftest import (
    TOKEN,
    Child,
    Json,
    Spawn,
    Start,
    digest_of,
    merge,
    tree_for,
    until,
)

KEY = "the-key-of-an-admin"
SECRET = "16315551234"
MANY = 500


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
    "no version": f"GET /{SECRET}\r\n\r\n".encode(),
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
