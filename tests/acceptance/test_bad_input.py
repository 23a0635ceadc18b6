"""Bad input and what it gets: at the endpoint, and at the API."""

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from service.ledger.ledger import Ledger
from service.webhooks import listener
from tests.acceptance.conftest import (
    HASH_A,
    OTHER_ID,
    TOKEN,
    WA_ID,
    Install,
    Installation,
    blocked,
    digest_of,
    hour_ago,
    notice,
    until,
    wrote,
)

ENDPOINT = f"/webhooks/main/{TOKEN}"
KEYS = {role: {"role": role, "sha256": digest_of(f"key of {role}")} for role in ("reader", "admin")}
GOOD = notice(WA_ID, HASH_A, hour_ago())


async def journal(made: Installation) -> list[dict[str, Any]]:
    """Give every callback that was kept, with its body."""
    _, listed = await made.api("GET", "/journal?limit=1000")
    return [(await made.api("GET", f"/journal/{e['id']}"))[1] for e in listed["items"]]


def raw_body(entry: dict[str, Any]) -> bytes:
    if "body_base64" in entry:
        return base64.b64decode(entry["body_base64"])
    return str(entry["body"]).encode()


@asynccontextmanager
async def connected(
    made: Installation,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = made.base.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def head(length: int | str, *more: str, path: str = ENDPOINT) -> bytes:
    sized = f"Content-Length: {length}" if length != "chunked" else "Transfer-Encoding: chunked"
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", sized, *more]
    return "\r\n".join([*lines, "Content-Type: application/json", "", ""]).encode("latin-1")


async def answered(reader: asyncio.StreamReader, seconds: float = 5) -> tuple[int, bytes]:
    """Read an answer up to the end of its head."""
    read = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), seconds)
    return int(read.split()[1]), read


# Who is not let in


async def test_a_wrong_token_and_an_unknown_account_are_404_alike_and_nothing_is_stored(
    manual: Installation,
) -> None:
    answers = set()
    for path in (
        "/webhooks/main/a-token-that-nobody-knows",
        f"/webhooks/main/{TOKEN}x",
        f"/webhooks/main/{TOKEN[:-1]}",
        f"/webhooks/main/{TOKEN.upper()}",
        f"/webhooks/nobody/{TOKEN}",
        f"/webhooks/Main/{TOKEN}",
        "/webhooks/main/%F0%9F%98%80",
        "/webhooks/main/%00",
        "/webhooks/main",
        f"/webhooks//{TOKEN}",
    ):
        async with connected(manual) as (reader, writer):
            body = json.dumps(GOOD).encode()
            writer.write(head(len(body), path=path) + body)
            status, answer = await answered(reader)
            assert status == 404, path
            length = int(answer.lower().partition(b"content-length:")[2].split()[0])
            kept = b"\r\n".join(
                line
                for line in answer.split(b"\r\n")
                if not line.startswith((b"Date", b"X-Request-ID"))
            )
            problem = json.loads(await reader.readexactly(length))
            kept = kept.replace(problem.pop("request_id").encode(), b"")
            answers.add(kept + json.dumps(problem).encode())
    assert len(answers) == 1
    assert await journal(manual) == []
    assert await manual.identity() == {}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_the_endpoint_takes_post_alone(manual: Installation, method: str) -> None:
    async with manual.http.request(method, manual.base + ENDPOINT) as response:
        assert response.status in {404, 405}
        assert TOKEN not in await response.text()


# Too large, too slow, broken off


async def test_a_body_over_the_limit_is_413_before_it_is_sent(install: Install) -> None:
    made = await install(server={"max_body_bytes": 1000})
    async with connected(made) as (reader, writer):
        writer.write(head(10**12))
        status, answer = await answered(reader)
        assert (status, b"connection: close" in answer.lower()) == (413, True)
    assert await journal(made) == []


@pytest.mark.parametrize("announced", [True, False])
async def test_who_sends_a_body_over_the_limit_gets_the_413_before_the_cut(
    install: Install, announced: bool
) -> None:
    made = await install(server={"max_body_bytes": 1000})
    body = b" " * 500_000

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    sent = body if announced else parts()
    async with made.http.post(made.base + ENDPOINT, data=sent) as response:
        assert response.status == 413
        assert response.content_type == "application/problem+json"
    assert await journal(made) == []
    assert await made.post(GOOD) == 200


async def test_a_body_of_just_the_limit_is_taken(install: Install) -> None:
    made = await install(server={"max_body_bytes": 1000})
    body = json.dumps(GOOD).encode()
    await made.deliver(body + b" " * (1000 - len(body)))
    assert await made.post(body + b" " * (1001 - len(body))) == 413
    assert await made.state() == "pending"


async def test_a_body_that_stalls_is_408_before_the_cut(install: Install) -> None:
    made = await install(server={"body_timeout_seconds": 0.3})
    for length in (100, "chunked"):
        async with connected(made) as (reader, writer):
            writer.write(head(length) + b"5\r\n{")
            status, answer = await answered(reader)
            assert (status, b"connection: close" in answer.lower()) == (408, True)
    assert await journal(made) == []


async def test_a_body_that_trickles_in_is_408_too(install: Install) -> None:
    made = await install(server={"body_timeout_seconds": 0.4})
    async with connected(made) as (reader, writer):
        writer.write(head(100))
        answer = asyncio.create_task(answered(reader))
        while not answer.done():
            writer.write(b" ")
            await asyncio.wait([answer], timeout=0.05)
        assert (await answer)[0] == 408


async def test_a_body_that_breaks_off_is_not_stored(manual: Installation) -> None:
    async with connected(manual) as (_, writer):
        writer.write(head(1000) + json.dumps(GOOD).encode())
        await writer.drain()
    await manual.deliver(notice(OTHER_ID, HASH_A, hour_ago()))
    assert [entry["state"] for entry in await journal(manual)] == ["applied"]
    assert await manual.identity() == {}


async def test_what_is_no_http_is_400(manual: Installation) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", head("-1"), head("1e3"), head("x")):
        async with connected(manual) as (reader, writer):
            writer.write(sent)
            assert (await answered(reader))[0] == 400
    assert await manual.post(GOOD) == 200


# Whoever knows the token is believed to be the client


DEEP = b'{"messages":[' + b"[" * 100 + b"]" * 100 + b"]}"
UNREADABLE: list[tuple[str, dict[str, str], bytes, str]] = [
    ("empty", {}, b"", "no JSON"),
    ("text", {}, b"hello", "no JSON"),
    ("half", {}, b'{"messages":[', "no JSON"),
    ("two", {}, b"{}{}", "no JSON"),
    ("null", {}, b"null", "no JSON object"),
    ("array", {}, b"[]", "no JSON object"),
    ("number", {}, b"5", "no JSON object"),
    ("form", {"Content-Type": "application/x-www-form-urlencoded"}, b"a=b", "media type"),
    ("json as text", {"Content-Type": "text/plain"}, b"{}", "media type"),
    ("odd type", {"Content-Type": "\xe9;;;="}, b"{}", "media type"),
    ("gzip", {"Content-Encoding": "gzip"}, gzip.compress(json.dumps(GOOD).encode()), "compressed"),
    ("bomb", {"Content-Encoding": "gzip"}, gzip.compress(b" " * 10_000_000), "compressed"),
    ("no gzip", {"Content-Encoding": "gzip"}, b"{}", "compressed"),
    ("deflate", {"Content-Encoding": "deflate"}, b"{}", "compressed"),
    ("unknown encoding", {"Content-Encoding": "x-\xe9"}, b"{}", "compressed"),
    ("deep", {}, DEEP, "deeper"),
    ("abyss", {}, b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "deeper"),
    ("brackets", {}, b"[" * 200_000, "deeper"),
    ("latin-1", {}, b'{"messages":"caf\xe9"}', "UTF-8"),
    ("utf-16", {}, json.dumps(GOOD).encode("utf-16"), "UTF-8"),
    ("nul bytes", {}, b"\0" * 100, "no JSON"),
]


@pytest.mark.parametrize(
    ("headers", "body", "reason"), [u[1:] for u in UNREADABLE], ids=[u[0] for u in UNREADABLE]
)
async def test_what_can_not_be_read_is_kept_as_it_came_quarantined_and_answered_200(
    manual: Installation, headers: dict[str, str], body: bytes, reason: str
) -> None:
    sent = {"Content-Type": "application/json", **headers}
    lines = [f"{name}: {value}" for name, value in sent.items()]
    async with connected(manual) as (reader, writer):
        writer.write(
            "\r\n".join(
                [
                    f"POST {ENDPOINT} HTTP/1.1",
                    "Host: 127.0.0.1",
                    f"Content-Length: {len(body)}",
                    *lines,
                    "",
                    "",
                ]
            ).encode("latin-1")
            + body
        )
        assert (await answered(reader))[0] == 200
    [entry] = await journal(manual)
    assert entry["state"] == "quarantined"
    assert reason in entry["reason"]
    assert raw_body(entry) == body
    [listed] = await manual.quarantined()
    assert listed["id"] == entry["id"]
    assert (await manual.api("POST", f"/journal/{entry['id']}/replay"))[0] == 200
    assert await manual.post(GOOD) == 200
    assert await manual.state() == "pending"


async def test_a_body_nested_a_hundred_deep_is_read(manual: Installation) -> None:
    body = b'{"extra":' + b"[" * 99 + b"]" * 99 + b"," + json.dumps(GOOD).encode()[1:]
    await manual.deliver(body)
    assert await manual.state() == "pending"
    assert await manual.quarantined() == []


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/x+json", ""]
)
async def test_json_is_known_by_its_media_type_or_by_none(manual: Installation, kind: str) -> None:
    assert await manual.post(GOOD, headers={"Content-Type": kind}) == 200
    assert await manual.state() == "pending"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"meta": {"version": "v9"}, "surprises": [1, 2]},
        {"messages": []},
        {"messages": None, "contacts": None},
        {"messages": [{"type": "hologram", "from": WA_ID, "hologram": {}}]},
        {"messages": [{"type": "system", "from": "1", "system": {"type": "group_created"}}]},
        {"statuses": [{"status": "evaporated", "id": "x"}]},
        {"contacts": [{"profile": {}}]},
        {"errors": [{"code": 1}, {}]},
    ],
    ids=str,
)
async def test_json_with_unknown_content_is_kept_and_nothing_else_happens(
    manual: Installation, body: Any
) -> None:
    await manual.deliver(body)
    [entry] = await journal(manual)
    assert (entry["state"], entry["reason"]) == ("applied", None)
    _, listed = await manual.api("GET", "/identities")
    assert listed["items"] == []


# One broken element among good ones


def broken(**fields: Any) -> dict[str, Any]:
    """Write a notification with some fields put wrong."""
    message: dict[str, Any] = notice(OTHER_ID, "x", hour_ago())["messages"][0]
    system = fields.pop("system", {})
    if isinstance(system, dict):
        system = message["system"] | system
    return message | fields | {"system": system}


LONE = "\ud800"
BROKEN: dict[str, Any] = {
    "no object": 5,
    "none": None,
    "no system": broken(system=None),
    "no hash": broken(system={"identity": None}),
    "empty hash": broken(system={"identity": ""}),
    "number as hash": broken(system={"identity": 5}),
    "10 kB hash": broken(system={"identity": "x" * 10_240}),
    "hash with NUL": broken(system={"identity": "a\0b"}),
    "hash with a line break": broken(system={"identity": "a\nb"}),
    "lone surrogate as hash": broken(system={"identity": LONE}),
    "two users": broken(system={"user": "16315559999"}),
    "slash": broken(**{"from": "16/../31", "system": {"user": "16/../31"}}),
    "dots": broken(**{"from": "..", "system": {"user": ".."}}),
    "NUL": broken(**{"from": "16\x0031", "system": {"user": "16\x0031"}}),
    "emoji": broken(**{"from": "😀", "system": {"user": "😀"}}),
    "surrogate": broken(**{"from": LONE, "system": {"user": LONE}}),
    "empty": broken(**{"from": "", "system": {"user": ""}}),
    "long": broken(**{"from": "1" * 141, "system": {"user": "1" * 141}}),
    "list": broken(**{"from": ["1"], "system": {"user": ["1"]}}),
    "message from nowhere": {"from": "a b", "type": "text", "text": {"body": "x"}},
    "message with a broken identity": wrote("16315559999", "a\0b", 1)["messages"][0],
    "message with an identity of no user": {"identity": {"hash": "x"}},
    "the new number is the old": {
        "from": "1",
        "type": "system",
        "system": {"type": "user_changed_number", "new_wa_id": "1"},
    },
    "no new number": {"from": "1", "type": "system", "system": {"type": "user_changed_number"}},
}


@pytest.mark.parametrize("element", BROKEN.values(), ids=BROKEN)
async def test_one_broken_element_is_quarantined_and_the_good_ones_take_effect(
    manual: Installation, element: Any
) -> None:
    before = notice("16315550001", "before", hour_ago())["messages"][0]
    after = notice("16315550002", "after", hour_ago())["messages"][0]
    body = {
        "messages": [before, element, after],
        "contacts": [{"input": "+1 631", "status": "valid", "wa_id": "1631"}],
    }
    raw = json.dumps(body).encode()
    await manual.deliver(raw)
    assert (await manual.identity("16315550001"))["hash"] == "before"
    assert (await manual.identity("16315550002"))["hash"] == "after"
    _, checked = await manual.api("GET", "/accounts/main/contacts?wa_id=1631")
    assert len(checked["items"]) == 1
    _, listed = await manual.api("GET", "/identities")
    assert len(listed["items"]) == 2
    [entry] = await manual.quarantined()
    assert "messages[1]" in entry["reason"]
    assert len(entry["reason"]) < 300
    [kept] = await journal(manual)
    assert raw_body(kept) == raw


ODD_STATUS = {
    "recipient": {"status": "failed", "errors": [{"code": 480}], "recipient_id": "a/b"},
    "no recipient": {"status": "failed", "errors": [{"code": 480}]},
    "no object": [],
}


@pytest.mark.parametrize("element", ODD_STATUS.values(), ids=ODD_STATUS)
async def test_a_broken_status_spoils_no_other(manual: Installation, element: Any) -> None:
    await manual.deliver({"statuses": [element, *blocked(WA_ID)["statuses"]], **GOOD})
    assert "statuses[0]" in (await manual.quarantined())[0]["reason"]
    assert await manual.state() == "pending"


ODD_CONTACTS: dict[str, Any] = {
    "no input": {"status": "valid", "wa_id": "1"},
    "NUL": {"input": "a\0b", "status": "valid"},
    "surrogate": {"input": LONE, "status": "valid"},
    "long": {"input": "1" * 300, "status": "valid"},
    "odd status": {"input": "1", "status": "VALID !"},
    "odd wa_id": {"input": "1", "status": "valid", "wa_id": "1/2"},
    "number": 5,
}


@pytest.mark.parametrize("element", ODD_CONTACTS.values(), ids=ODD_CONTACTS)
async def test_a_broken_contact_spoils_no_other(manual: Installation, element: Any) -> None:
    good = {"input": "+1 631", "status": "valid", "wa_id": "1631"}
    await manual.deliver({"contacts": [element, good]})
    assert "contacts[0]" in (await manual.quarantined())[0]["reason"]
    _, listed = await manual.api("GET", "/accounts/main/contacts")
    assert [contact["input"] for contact in listed["items"]] == ["+1 631"]


@pytest.mark.parametrize("key", ["messages", "statuses", "contacts", "errors"])
@pytest.mark.parametrize("value", [5, "x", {"a": 1}, True])
async def test_a_key_that_holds_no_array_is_quarantined_and_the_others_count(
    manual: Installation, key: str, value: Any
) -> None:
    other = GOOD if key != "messages" else {"contacts": [{"input": "1", "status": "valid"}]}
    await manual.deliver({key: value} | other)
    [entry] = await manual.quarantined()
    assert key in entry["reason"]
    if key != "messages":
        assert await manual.state() == "pending"


@pytest.mark.parametrize(
    "number", [b"1" * 5000, b"-" + b"1" * 5000, b"NaN", b"Infinity", b"1e999", b"1" * 4000, b"-1"]
)
@pytest.mark.parametrize("place", ["timestamp", "from", "hash", "created", "extra"])
async def test_integers_of_5000_digits_and_nan_harm_nothing(
    manual: Installation, number: bytes, place: str
) -> None:
    fields = {
        "timestamp": b'"1602532300"',
        "from": b'"16315559999"',
        "hash": b'"h"',
        "created": b"1602532300000",
        "extra": b"0",
    }
    fields[place] = number
    element = (
        b'{"from":%(from)b,"timestamp":%(timestamp)b,"identity":{"hash":%(hash)b,'
        b'"created_timestamp":%(created)b},"extra":%(extra)b}'
    ) % {name.encode(): value for name, value in fields.items()}
    good = json.dumps(GOOD["messages"][0]).encode()
    await manual.deliver(b'{"messages":[%b,%b]}' % (element, good))
    assert await manual.state() == "pending"
    assert (await manual.api("GET", "/identities"))[0] == 200
    if place in {"timestamp", "created", "extra"}:
        assert (await manual.identity("16315559999"))["hash"] == "h"
    else:
        assert len(await manual.quarantined()) == 1


async def test_a_quarantined_callback_can_be_replayed_and_what_was_understood_stays(
    manual: Installation,
) -> None:
    await manual.deliver({"messages": [5, *GOOD["messages"]]})
    await manual.acknowledge(HASH_A)
    before = await manual.identity()
    [entry] = await manual.quarantined()
    status, replayed = await manual.api("POST", f"/journal/{entry['id']}/replay")
    assert (status, replayed["state"], replayed["id"]) == (200, "quarantined", entry["id"])
    assert replayed["replayed_at"] is not None
    after = await manual.identity()
    assert (after["hash"], after["history"]) == (before["hash"], [])
    assert [e["event"] for e in after["audit"]].count("changed") == 1
    _, trail = await manual.api("GET", "/audit?event=replayed")
    [noted] = trail["items"]
    assert (noted["account"], noted["by"]) == ("main", {"kind": "key", "name": "local"})
    assert len(await journal(manual)) == 1


@pytest.mark.slow
async def test_a_100_000_elements_in_one_body_take_effect_while_neighbours_are_answered(
    manual: Installation,
) -> None:
    elements = ",".join(f'{{"from":"{1_000_000 + n}"}}' for n in range(100_000))
    great = asyncio.create_task(manual.post(f'{{"messages":[{elements}]}}'.encode()))
    count = 0
    while not great.done():
        wa_id = f"163155{count:05}"
        await manual.deliver(notice(wa_id, HASH_A, hour_ago()))
        assert (await manual.gate(wa_id))["sendable"] is False
        count += 1
        await asyncio.wait([great], timeout=0.02)
    assert await great == 200
    assert count > 5, "in one transaction it would be two"
    assert (await manual.gate("1000000"))["known"] is True
    assert (await manual.gate("1099999"))["known"] is True


async def test_a_body_of_broken_elements_alone_names_some_and_counts_the_rest(
    manual: Installation,
) -> None:
    await manual.deliver({"messages": [5] * 10_000})
    [entry] = await manual.quarantined()
    assert "9990 more" in entry["reason"]
    assert len(entry["reason"]) < 1000


# What is kept of a callback


async def test_headers_that_may_be_kept_are_kept_and_secrets_are_not(
    manual: Installation,
) -> None:
    headers = {
        "User-Agent": "WhatsApp/2.45",
        "X-Request-ID": "r-1",
        "X-Another": "one",
        "X-Hub-Signature": "sha256=…",
        "Authorization": "Basic c2VjcmV0",
        "Cookie": "secret=1",
        "Accept": "text/html",
    }
    assert await manual.post(GOOD, headers=headers) == 200
    [entry] = await journal(manual)
    kept = dict(entry["headers"])
    assert (kept["user-agent"], kept["x-request-id"]) == ("WhatsApp/2.45", "r-1")
    assert {"user-agent", "x-request-id", "x-another"} == set(kept)
    assert "secret" not in json.dumps(entry["headers"]).lower()
    assert entry["content_type"] == "application/json"


async def test_headers_are_kept_up_to_8_kb_and_may_hold_any_bytes(manual: Installation) -> None:
    body = json.dumps(GOOD).encode()
    many = [f"X-H{n}: {'v' * 500}" for n in range(14)]
    async with connected(manual) as (reader, writer):
        writer.write(head(len(body), "X-Odd: \xff\xfe", *many) + body)
        assert (await answered(reader))[0] == 200
    [entry] = await journal(manual)
    assert 5000 < len(json.dumps(entry["headers"])) <= 8192
    assert await manual.state() == "pending"


# Full


async def test_too_many_bytes_at_once_are_503_with_retry_after(install: Install) -> None:
    made = await install(server={"max_body_bytes": 1000, "max_in_flight_bytes": 1500})
    async with connected(made) as (first, one), connected(made) as (second, two):
        body = json.dumps(GOOD).encode().ljust(1000)
        one.write(head(1000) + body[:10])
        await asyncio.sleep(0.1)
        two.write(head(1000))
        status, answer = await answered(second)
        assert (status, b"retry-after: " in answer.lower()) == (503, True)
        one.write(body[10:])
        assert (await answered(first))[0] == 200
    assert await made.post(GOOD) == 200
    assert len(await journal(made)) == 2


async def test_a_full_queue_is_503_with_retry_after_and_what_waited_is_stored(
    install: Install,
) -> None:
    made = await install(server={"max_queue": 3})
    async with made.locked():
        first = []
        while not _ledger(made).full:
            first.append(asyncio.create_task(made.post(GOOD)))
            await asyncio.sleep(0.05)
        async with made.http.post(made.base + ENDPOINT, json=GOOD) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
            assert response.content_type == "application/problem+json"
        status, ready = await made.api("GET", "/health/ready")
        assert (status, ready["checks"]["queue"]["status"]) == (503, "fail")
        assert (await made.api("GET", "/health/live"))[0] == 200
    assert await asyncio.gather(*first) == [200] * len(first)
    assert len(await journal(made)) == len(first)
    assert (await made.api("GET", "/health/ready"))[0] == 200


def _ledger(made: Installation) -> Ledger:
    assert made.service is not None
    assert made.service.context is not None
    return made.service.context.ledger


@pytest.mark.usefixtures("impatient")
async def test_while_the_database_can_not_be_written_a_callback_is_503_and_ready_says_so(
    install: Install,
) -> None:
    made = await install()
    await made.change(OTHER_ID)
    async with made.locked():
        async with made.http.post(made.base + ENDPOINT, json=GOOD) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
        status, ready = await made.api("GET", "/health/ready")
        assert (status, ready["checks"]["database"]["status"]) == (503, "fail")
        hash_ = made.sim.users[OTHER_ID].hash
        status, problem = await made.acknowledge(hash_, OTHER_ID)
        assert (status, problem["status"]) == (503, 503)
        assert await made.state(OTHER_ID) == "pending"
    await until(lambda: _is_ready(made))
    assert await made.identity() == {}
    assert await made.post(GOOD) == 200
    assert len(await journal(made)) == 2


async def _is_ready(made: Installation) -> bool:
    return (await made.api("GET", "/health/ready"))[0] == 200


# The API


BAD_QUERIES = [
    ("/identities?limit=0", "limit"),
    ("/identities?limit=1001", "limit"),
    ("/identities?limit=-1", "limit"),
    ("/identities?limit=ten", "limit"),
    ("/identities?limit=%D9%A3", "limit"),
    ("/identities?limit=", "limit"),
    ("/identities?limit=" + "9" * 5000, "limit"),
    ("/identities?cursor=", "cursor"),
    ("/identities?cursor=%00", "cursor"),
    ("/identities?cursor=%F0%9F%98%80", "cursor"),
    ("/identities?cursor=AAAA", "cursor"),
    ("/identities?cursor=MQ", "cursor"),
    ("/identities?cursor=" + "MS4" * 1000, "cursor"),
    ("/identities?cursor=" + base64.urlsafe_b64encode(b"1." + b"9" * 19).decode(), "cursor"),
    ("/identities?state=asleep", "state"),
    ("/identities?state=pending,asleep", "state"),
    ("/identities?updated_since=yesterday", "updated_since"),
    ("/identities?updated_since=", "updated_since"),
    ("/identities?updated_since=5", "updated_since"),
    ("/journal?state=lost", "state"),
    ("/journal?limit=0", "limit"),
    ("/journal?cursor=MS4x", "cursor"),
    ("/audit?limit=0", "limit"),
    ("/accounts/main/contacts?limit=0", "limit"),
    ("/accounts/main/contacts?cursor=x", "cursor"),
]


@pytest.mark.parametrize(("path", "field"), BAD_QUERIES)
async def test_a_query_field_that_is_not_valid_is_422_and_named(
    manual: Installation, path: str, field: str
) -> None:
    status, problem = await manual.api("GET", path)
    assert (status, problem["status"]) == (422, 422)
    assert problem["type"] == "/docs/problems#not_valid"
    assert [error["field"] for error in problem["errors"]] == [field]
    assert field in problem["detail"]


ODD_USERS = [
    "%2F",
    "..%2F..%2Fetc",
    "%00",
    "a%00b",
    "%F0%9F%98%80",
    "%ED%A0%80",
    "%FF",
    "a%20b",
    "%0D%0AX:1",
    "1" * 141,
    "%25",
]


@pytest.mark.parametrize("user", ODD_USERS)
async def test_a_user_that_nobody_can_be_called_harms_nothing(
    manual: Installation, user: str
) -> None:
    account = "/accounts/main"
    for method, path, body in (
        ("GET", f"{account}/identities/{user}", None),
        ("POST", f"{account}/identities/{user}/acknowledge", {"hash": "x"}),
        ("POST", f"{account}/identities/{user}/hold", {"hash": "x"}),
        ("POST", f"{account}/identities/{user}/refresh", None),
        ("GET", f"/accounts/{user}/identities/1", None),
        ("GET", f"/accounts/{user}/recipients/1", None),
        ("GET", f"/accounts/{user}", None),
        ("GET", f"/journal/{user}", None),
        ("POST", f"/journal/{user}/replay", None),
        ("GET", f"/{user}", None),
    ):
        status, problem = await manual.api(method, path, body)
        assert (status, problem["status"]) == (404, 404), path
    assert (await manual.api("GET", f"{account}/recipients/{user}"))[0] == 422
    for query in (f"input={user}", f"wa_id={user}"):
        status, listed = await manual.api("GET", f"{account}/contacts?{query}")
        assert (status, listed["items"]) == (200, [])
    for path in ("/journal", "/audit", "/identities"):
        status, listed = await manual.api("GET", f"{path}?account={user}")
        assert (status, listed["items"]) == (200, [])
    assert (await manual.api("GET", f"/audit?event={user}"))[0] == 200
    assert manual.sim.calls["identity_get"] == 0


@pytest.mark.parametrize("entry", ["0", "-1", "1.5", "9" * 30, "%D9%A3", "99999999999999999999"])
async def test_a_journal_entry_that_is_none_is_404(manual: Installation, entry: str) -> None:
    assert (await manual.api("GET", f"/journal/{entry}"))[0] == 404


NO_JSON = [
    b"",
    b"hash=x",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"hash": ' + b"1" * 5000 + b"}",
]


@pytest.mark.parametrize("body", NO_JSON)
async def test_a_body_that_is_no_json_is_400(manual: Installation, body: bytes) -> None:
    await manual.change()
    identity = f"/accounts/main/identities/{WA_ID}"
    for path in (
        f"{identity}/acknowledge",
        f"{identity}/hold",
        "/accounts/main/recipients/lookup",
    ):
        status, problem = await manual.api("POST", path, body)
        assert (status, problem["status"], "errors" in problem) == (400, 400, False)
    assert await manual.state() == "pending"


async def test_a_body_that_is_compressed_or_too_large_is_refused(manual: Installation) -> None:
    path = f"/accounts/main/identities/{WA_ID}/acknowledge"
    packed = gzip.compress(b'{"hash":"x"}')
    status, _ = await manual.api("POST", path, packed, headers={"Content-Encoding": "gzip"})
    assert status in {400, 415}
    status, problem = await manual.api("POST", path, b" " * 2_000_000)
    assert (status, problem["status"]) == (413, 413)


async def test_mistakes_are_told_in_the_order_401_403_400_or_422_404_409(
    install: Install,
) -> None:
    made = await install(api={"keys": KEYS})
    made.key = "key of admin"
    hash_ = await made.change()
    there, nowhere = (f"/accounts/{name}/identities/{WA_ID}" for name in ("main", "nobody"))

    async def status(path: str, body: Any, key: str) -> int:
        return (await made.api("POST", path, body, key=f"key of {key}"))[0]

    for verb in ("acknowledge", "hold"):
        assert await status(f"{nowhere}/{verb}", b"{", "nobody") == 401
        assert await status(f"{nowhere}/{verb}", b"{", "reader") == 403
        assert await status(f"{nowhere}/{verb}", b"{", "admin") == 400
        assert await status(f"{nowhere}/{verb}", {}, "admin") == 422
        assert await status(f"{nowhere}/{verb}", {"hash": "x"}, "admin") == 404
        assert await status(f"{there}/{verb}", {"hash": "x"}, "admin") == 409
    assert await status(f"{there}/acknowledge", {"hash": hash_}, "admin") == 202
    assert await status(f"{nowhere}/acknowledge?wait=x", {"hash": "x"}, "admin") == 422
    lookup = "/accounts/nobody/recipients/lookup"
    assert await status(lookup, b"{", "admin") == 400
    assert await status(lookup, {"recipients": 5}, "admin") == 422
    assert await status(lookup, {"recipients": []}, "admin") == 404
    for path, wrong in (
        ("/accounts/nobody/contacts?limit=0", 422),
        ("/accounts/nobody/contacts", 404),
        ("/accounts/nobody/recipients/%2F", 422),
        ("/accounts/nobody/recipients/1", 404),
    ):
        assert (await made.api("GET", path, key="key of nobody"))[0] == 401
        assert (await made.api("GET", path))[0] == wrong


@pytest.mark.parametrize("sent", [b"", b"POST /webhooks/main/x HTTP/1.1\r\nHost: x\r\n"])
async def test_a_connection_without_a_whole_head_is_cut_in_time(
    install: Install, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(listener, "KEEP_ALIVE_SECONDS", 0.3)
    made = await install()
    async with connected(made) as (reader, writer):
        writer.write(sent)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 3) == b""
    assert await made.post(GOOD) == 200


SECRET_LINES = {
    "a line too long": [f"X-Secret: {TOKEN * 400}"],
    "a head without end": [f"X-Secret-{n}: {TOKEN}" for n in range(66)],
    "no header": [f"{TOKEN} {TOKEN}", ""],
    "a line that is folded": ["X: 1", f" {TOKEN}", ""],
}


@pytest.mark.parametrize("lines", SECRET_LINES.values(), ids=SECRET_LINES)
async def test_a_head_that_can_not_be_read_is_400_and_nothing_of_it_is_repeated(
    manual: Installation, lines: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    async with connected(manual) as (reader, writer):
        writer.write("\r\n".join([f"POST {ENDPOINT} HTTP/1.1", "Host: a", *lines, ""]).encode())
        answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert TOKEN not in answer.decode()
    assert await manual.post(GOOD) == 200
    await manual.stop()
    assert TOKEN not in "".join(capfd.readouterr())
