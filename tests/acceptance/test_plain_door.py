"""With keys and tokens a plain callback passes by the router: it is treated just the same."""

import asyncio
import json
from typing import Any

import pytest
from yarl import URL

from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    TOKEN,
    WA_ID,
    Install,
    Installation,
    digest_of,
    hour_ago,
    notice,
)

KEY = "the-key-of-an-admin"


@pytest.fixture
async def made(install: Install) -> Installation:
    keys = {"admin": {"role": "admin", "sha256": digest_of(KEY)}}
    installed = await install(api={"keys": keys}, server={"max_body_bytes": 4096})
    installed.key = KEY
    return installed


async def speak(made: Installation, *requests: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Send requests on one connection, one after another; give each answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(made.base).port)
    answers = []
    async with asyncio.timeout(10):
        for request in requests:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            body = await reader.readexactly(int(headers["content-length"]))
            answers.append((int(first.split()[1]), headers, body))
    writer.close()
    return answers


def request(
    body: Any, path: str = f"/webhooks/main/{TOKEN}", version: str = "1.1", *more: str
) -> bytes:
    raw = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/{version}", "Host: a", "Content-Type: application/json", *more]
    return "\r\n".join([*lines, f"Content-Length: {len(raw)}", "", ""]).encode() + raw


async def test_callbacks_on_one_connection_are_each_kept_and_answered(made: Installation) -> None:
    first, second = notice(WA_ID, HASH_A, hour_ago()), notice(WA_ID, HASH_B, hour_ago(60))
    answers = await speak(made, request(first), request(second))
    assert [(status, body) for status, _, body in answers] == [(200, b"{}"), (200, b"{}")]
    assert all(headers["content-type"] == "application/json" for _, headers, _ in answers)
    assert all(headers["date"].endswith(" gmt") for _, headers, _ in answers)
    identity = await made.identity()
    assert (identity["hash"], identity["state"]) == (HASH_B, "pending")
    assert [entry["hash"] for entry in identity["history"]] == [HASH_A]


@pytest.mark.parametrize(("version", "more"), [("1.0", ()), ("1.1", ("Connection: close",))])
async def test_a_sender_that_wants_the_connection_closed_has_it_closed(
    made: Installation, version: str, more: tuple[str, ...]
) -> None:
    body = notice(WA_ID, HASH_A, hour_ago())
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(made.base).port)
    writer.write(request(body, f"/webhooks/main/{TOKEN}", version, *more))
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert b" 200 OK" in answer
    assert answer.endswith(b"{}")
    assert await made.state() == "pending"


@pytest.mark.parametrize(
    "path",
    [f"/webhooks/main/{TOKEN}x", f"/webhooks/other/{TOKEN}", "/webhooks/main/x", "/webhooks/main"],
)
async def test_a_wrong_token_and_an_unknown_account_are_answered_alike(
    made: Installation, path: str
) -> None:
    [(status, headers, body)] = await speak(made, request({}, path))
    assert (status, headers["content-type"]) == (404, "application/problem+json; charset=utf-8")
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "there is nothing here",
    }
    assert (await made.api("GET", "/journal"))[1]["items"] == []


@pytest.mark.parametrize("escaped", ["%61", "a"])
async def test_an_escaped_token_is_the_same_token(made: Installation, escaped: str) -> None:
    assert TOKEN.startswith("a")
    path = f"/webhooks/main/{escaped}{TOKEN[1:]}"
    [(status, _, _)] = await speak(made, request(notice(WA_ID, HASH_A, hour_ago()), path))
    assert status == 200
    assert await made.state() == "pending"


async def test_a_body_too_large_is_refused_and_nothing_of_it_kept(made: Installation) -> None:
    [(status, _, _)] = await speak(made, request({"padding": "x" * 5000}))
    assert status == 413
    assert (await made.api("GET", "/journal"))[1]["items"] == []


async def test_what_can_not_be_read_is_kept_and_answered_200(made: Installation) -> None:
    [(status, _, body)] = await speak(made, request(["no object"]))
    assert (status, body) == (200, b"{}")
    assert [entry["reason"] for entry in await made.quarantined()] == ["the body is no JSON object"]
