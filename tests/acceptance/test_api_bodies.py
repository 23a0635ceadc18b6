"""Bodies of API requests: bounded in time and in bytes, and wanted only from who has a key."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from service.app import build
from tests.acceptance.conftest import (
    HASH_A,
    WA_ID,
    Install,
    Installation,
    digest_of,
    hour_ago,
    notice,
    until,
)

KEY = "the-key-of-a-program"
LOOKUP = "/api/v1/accounts/main/recipients/lookup"
BUDGET = 1_048_576
"""What all bodies may have together, where callbacks have few bytes: one of the largest."""


@pytest.fixture
async def made(install: Install) -> Installation:
    installed = await install(
        api={"keys": {"program": {"role": "gate", "sha256": digest_of(KEY)}}},
        server={
            "body_timeout_seconds": 1,
            "max_body_bytes": 4096,
            "max_in_flight_bytes": 262_144,
        },
    )
    installed.key = KEY
    return installed


def head(length: int, *more: str, key: str = KEY) -> bytes:
    lines = [
        f"POST {LOOKUP} HTTP/1.1",
        "Host: a",
        f"Authorization: Bearer {key}",
        f"Content-Length: {length}",
    ]
    return "\r\n".join([*lines, *more, "", ""]).encode()


@asynccontextmanager
async def connected(
    made: Installation,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(made.base).port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Read an answer to the end of its head."""
    async with asyncio.timeout(20):
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines)


def held(made: Installation, name: str = "ackgate_api_bytes_in_flight", **labels: str) -> float:
    """Give the value of a metric, by default of the bytes that bodies of API requests hold."""
    assert made.service is not None
    assert made.service.context is not None
    return made.service.context.metrics.registry.get_sample_value(name, labels) or 0


async def test_a_body_that_stalls_is_answered_408_and_its_connection_closed(
    made: Installation,
) -> None:
    async with connected(made) as (reader, writer):
        writer.write(head(100) + b'{"recipients":')
        status, headers = await answer_of(reader)
        assert (status, headers["Connection"]) == (408, "close")
        assert headers["Content-Type"].startswith("application/problem+json")
    await until(lambda: held(made) == 0)


async def test_a_body_that_keeps_coming_is_cut_in_time(made: Installation) -> None:
    async with connected(made) as (reader, writer):
        writer.write(head(1000))
        answer = asyncio.create_task(answer_of(reader))
        async with asyncio.timeout(10):
            while not answer.done():
                writer.write(b" ")
                await asyncio.sleep(0.2)
        assert (await answer)[0] == 408


async def test_a_time_out_of_minutes_for_callbacks_leaves_api_bodies_half_a_minute(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build.MAX_BODY_SECONDS == 30
    monkeypatch.setattr(build, "MAX_BODY_SECONDS", 0.5)
    made = await install(server={"body_timeout_seconds": 600})
    async with connected(made) as (reader, writer):
        writer.write(head(100).replace(b"Host: a", b"Host: localhost") + b"{")
        assert (await answer_of(reader))[0] == 408


async def test_a_body_that_breaks_off_is_no_internal_error(made: Installation) -> None:
    async with connected(made) as (_, writer):
        writer.write(head(100_000) + b"{" * 1000)
        await until(lambda: held(made) == 1000)
    route = "POST /api/v1/accounts/{account}/recipients/lookup"
    await until(lambda: held(made, "ackgate_requests_total", route=route, status="400") == 1)
    assert held(made) == 0


async def test_over_the_budget_bodies_are_told_when_to_come_again_and_callbacks_are_taken(
    made: Installation,
) -> None:
    async with connected(made) as (_, first), connected(made) as (reader, second):
        first.write(head(BUDGET) + b" " * 900_000)
        await until(lambda: held(made) >= 900_000)
        second.write(head(BUDGET) + b" " * 900_000)
        status, headers = await answer_of(reader)
        assert (status, headers["Retry-After"]) == (503, "1")
        assert held(made) <= BUDGET
        assert held(made, "ackgate_bytes_in_flight") == 0
        await made.deliver(notice(WA_ID, HASH_A, hour_ago()))
        # What is small and comes in one piece is not held up either.
        async with connected(made) as (other, third):
            body = json.dumps({"recipients": [WA_ID]}).encode()
            third.write(head(len(body)) + body)
            assert (await answer_of(other))[0] == 200


async def test_what_is_held_is_given_back_with_the_answer(made: Installation) -> None:
    many = {"recipients": [f"{number:0200}" for number in range(900)]}
    for _ in range(8):
        status, _ = await made.api("POST", LOOKUP, many)
        assert status in {200, 422}
    await until(lambda: held(made) == 0)


@pytest.mark.parametrize(("key", "status"), [("another", 401), (KEY, 100)])
async def test_who_asks_first_is_told_to_go_on_only_with_a_key(
    made: Installation, key: str, status: int
) -> None:
    async with connected(made) as (reader, writer):
        writer.write(head(1000, "Expect: 100-continue", key=key))
        async with asyncio.timeout(10):
            first = await reader.readuntil(b"\r\n")
    assert first.startswith(f"HTTP/1.1 {status} ".encode())
