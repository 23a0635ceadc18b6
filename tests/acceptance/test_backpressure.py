"""Floods from another process against the real command: bounded, answered, and over in the end."""

import asyncio
import io
import json
import resource
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from service.webhooks.body import BELIEVED_BYTES
from tests.acceptance.conftest import (
    ACCESS_TOKEN,
    HASH_A,
    NUMBER,
    TOKEN,
    Child,
    Json,
    Spawn,
    app_tree,
    digest_of,
    hour_ago,
    merge,
    notice,
    signed,
    until,
)

MAX_RSS_MIB = 250
DENSE_RSS_MIB = 400
"""A body of 4 MiB that holds nothing but tiny values is parsed into up to 200 MB, one at a time."""
LARGEST = 4_194_304
IN_FLIGHT = 50_331_648
ENDPOINT = f"/webhooks/main/{TOKEN}"
KEY = "the-key-of-an-admin"
USER = "1631#######"
JSON = {"Content-Type": "application/json"}
HARD_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
many_files = pytest.mark.skipif(
    HARD_LIMIT != resource.RLIM_INFINITY and HARD_LIMIT < 10_500,
    reason="the system allows too few open files for 10,000 connections",
)


class Flood:
    """The program that opens many connections."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def order(self, **what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        await self._process.stdin.drain()

    async def counts(self) -> Counter[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        return Counter(json.loads(await self._process.stdout.readline()))

    async def becomes(self, true: Callable[[Counter[str]], bool]) -> Counter[str]:
        """Wait until the counts are so, and give them."""
        found: Counter[str] = Counter()

        async def so() -> bool:
            nonlocal found
            await asyncio.sleep(0.1)
            found = await self.counts()
            return true(found)

        try:
            await until(so, 60)
        except BaseException as error:
            error.add_note(f"the answers: {found}")
            raise
        return found

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


@asynccontextmanager
async def flood(port: int | None, count: int, request: str) -> AsyncIterator[Flood]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("flood.py"))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    running = Flood(process)
    try:
        await running.order(port=port, count=count, request=request)
        yield running
    finally:
        await running.end()


def head(method: str, path: str, *more: str) -> str:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *more, "", ""])


def post(body: str, announced: int | None = None, path: str = ENDPOINT, *more: str) -> str:
    length = f"Content-Length: {len(body) if announced is None else announced}"
    return head("POST", path, "Content-Type: application/json", length, *more) + body


CHANGE = post(json.dumps(notice(USER, HASH_A, hour_ago())))

Serve = Callable[..., Awaitable[Child]]


@pytest.fixture
async def silent() -> AsyncIterator[Json]:
    """A WhatsApp client that takes connections and never answers."""
    open_now: set[asyncio.StreamWriter] = set()
    most = {"open": 0}

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        most["open"] = max(most["open"], len(open_now))
        while await reader.read(65_536):
            pass
        open_now.discard(writer)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield {"url": f"http://{host}:{port}", "most": most}
    server.close()


@pytest.fixture
def serve(spawn: Spawn, silent: Json, tmp_path: Path) -> Serve:
    """Start the real command with keys and tokens, and an address inside that is never flooded."""

    async def start(**over: Any) -> Child:
        account = {
            "base_url": silent["url"],
            "username": "ackgate",
            "password": "development-only",
            "webhook_token": TOKEN,
        }
        tree = {
            "server": {"port": 0, "internal": {"port": 0}, "drain_seconds": 0},
            "database": {"url": f"sqlite:///{tmp_path / 'ackgate.db'}"},
            "log": {"format": "json"},
            "api": {"keys": {"admin": {"role": "admin", "sha256": digest_of(KEY)}}},
            "accounts": {"main": account},
        }
        child = await spawn(merge(tree, over))
        child.key = KEY
        if "internal" not in over.get("server", {}):
            child.inside = (await until(lambda: addresses(child)[1:]))[0]
        return child

    return start


def addresses(child: Child) -> list[str]:
    said = [json.loads(line) for line in child.lines]
    return [line["address"] for line in said if line["event"] == "listening"]


async def metric(child: Child, name: str, **labels: str) -> float:
    status, text = await child.api("GET", "/metrics")
    assert status == 200
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def connections(child: Child) -> float:
    return await metric(child, "ackgate_connections", port=str(URL(child.base).port))


def proc(child: Child, name: str) -> Path:
    assert child.process is not None
    return Path(f"/proc/{child.process.pid}/{name}")


def assert_bounded(child: Child, bound: int = MAX_RSS_MIB) -> None:
    """What it had in memory at most, so far, is within the bound."""
    lines = dict(line.split(":", 1) for line in proc(child, "status").read_text().splitlines())
    most = int(lines["VmHWM"].split()[0]) // 1024
    assert most <= bound


async def honest(child: Child, number: int) -> tuple[int, str | None]:
    """Deliver a callback as a sender beside the flood; give the status, and when to come back."""
    body = notice(f"4930{number:07}", HASH_A, hour_ago())
    async with asyncio.timeout(15), child.http.post(child.base + ENDPOINT, json=body) as response:
        return response.status, response.headers.get("Retry-After")


async def assert_over(child: Child, bound: int = MAX_RSS_MIB) -> None:
    """After the flood nothing of it is left, and callbacks are taken."""

    async def none_open() -> bool:
        return await connections(child) == (0 if child.inside else 1)

    await until(none_open, 30)
    assert await metric(child, "ackgate_bytes_in_flight") == 0
    assert (await child.api("GET", "/health/ready"))[0] == 200
    assert (await honest(child, 9_999_999))[0] == 200
    assert_bounded(child, bound)
    assert not [line for line in child.lines if '"error"' in line and "Traceback" in line]
    assert await metric(child, "ackgate_commit_failures_total") == 0


@pytest.mark.slow
async def test_lookups_that_stop_after_a_megabyte_are_bounded_and_hold_up_no_callback(
    serve: Serve,
) -> None:
    child = await serve(server={"body_timeout_seconds": 5})
    path = "/api/v1/accounts/main/recipients/lookup"
    stopped = post(" " * 1_000_000, 1_048_576, path, f"Authorization: Bearer {KEY}")
    async with flood(URL(child.inside).port, 300, stopped) as lookups:
        await lookups.becomes(lambda counts: counts["begun"] > 0 and answers(counts) > 200)
        assert await metric(child, "ackgate_api_bytes_in_flight") <= IN_FLIGHT / 4
        assert await honest(child, 1) == (200, None)
        counts = await lookups.becomes(lambda counts: answers(counts) == 300)
        assert counts["408"] + counts["503 later"] + counts["cut"] == 300
        assert counts["408"] > 0
    assert await metric(child, "ackgate_api_bytes_in_flight") == 0
    await assert_over(child)


@pytest.mark.slow
@many_files
async def test_ten_thousand_connections_that_send_are_answered_beside_an_honest_sender(
    serve: Serve,
) -> None:
    child = await serve(server={"internal": None})
    async with flood(URL(child.base).port, 10_000, CHANGE) as sent:
        beside = await honest(child, 1)
        await sent.becomes(lambda counts: counts["200"] == 10_000)
        assert beside == (200, None)
        assert await connections(child) == 10_000 + 1  # which asks
        assert (await honest(child, 2))[0] == 200
        assert await metric(child, "ackgate_callbacks_total", result="applied") == 10_002
    await assert_over(child)


def answers(counts: Counter[str]) -> int:
    return sum(count for name, count in counts.items() if name not in {"open", "begun"})


@pytest.mark.slow
@pytest.mark.parametrize("announced", [1_000, 4_000_000])
async def test_thousands_that_stall_in_mid_body_are_bounded_and_cut(
    serve: Serve, announced: int
) -> None:
    child = await serve(server={"body_timeout_seconds": 5})
    async with flood(URL(child.base).port, 4_000, post("{", announced)) as stalled:
        await stalled.becomes(lambda counts: counts["begun"] > 0)
        assert 0 < await metric(child, "ackgate_bytes_in_flight") <= IN_FLIGHT
        status, later = await honest(child, 1)
        assert (status, later) in {(200, None), (503, "1")}
        counts = await stalled.becomes(lambda counts: answers(counts) == 4_000)
        assert counts["408"] + counts["503 later"] == 4_000
        assert counts["408"] >= (4_000 if announced == 1_000 else IN_FLIGHT // BELIEVED_BYTES)
        taken = await metric(child, "ackgate_callbacks_total", result="stalled")
        assert taken == counts["408"]
    await assert_over(child)


@pytest.fixture
async def beside_strangers(serve: Serve, silent: Json) -> Child:
    """A service with few bytes for bodies, and an endpoint open to all, without a token."""
    shop = {
        "kind": "cloud",
        "app": "meta",
        "phone_number_id": NUMBER,
        "base_url": silent["url"],
        "access_token": ACCESS_TOKEN,
    }
    few = {"body_timeout_seconds": 3, "max_body_bytes": 65_536, "max_in_flight_bytes": 262_144}
    return await serve(server=few, apps=app_tree(), accounts={"shop": shop})


def strange(body: str, announced: int = 60_000) -> str:
    """What anybody can send to an app's endpoint: the form of a signature, and some of a body."""
    return post(body, announced, "/webhooks/meta", f"X-Hub-Signature-256: sha256={'0' * 64}")


async def signed_callback(child: Child) -> Counter[str]:
    """Deliver what Meta signed, in one piece; give the answer."""
    body = json.dumps({"object": "whatsapp_business_account", "entry": []})
    headers = (f"{name}: {value}" for name, value in signed(body.encode()).items())
    async with flood(URL(child.base).port, 1, post(body, None, "/webhooks/meta", *headers)) as one:
        return await one.becomes(lambda counts: answers(counts) == 1)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [0, 3_000], ids=["heads alone", "more than their share"])
async def test_unsigned_bodies_hold_up_no_callback_with_a_token_and_none_that_is_signed(
    beside_strangers: Child, sent: int
) -> None:
    child = beside_strangers
    async with flood(URL(child.base).port, 300, strange("x" * sent)) as strangers:
        await strangers.becomes(lambda counts: counts["begun"] > 0)
        assert await metric(child, "ackgate_bytes_in_flight") <= 65_536
        assert await honest(child, 1) == (200, None)
        assert (await signed_callback(child))["200"] == 1
        counts = await strangers.becomes(lambda counts: answers(counts) == 300)
        assert counts["408"] + counts["503 later"] == 300
        assert counts["503 later"] == 0 if sent == 0 else counts["503 later"] > 200
    await assert_over(child)


@pytest.mark.slow
async def test_a_body_whose_sender_is_not_known_is_cut_in_time_though_it_keeps_coming(
    beside_strangers: Child,
) -> None:
    url = URL(beside_strangers.base)
    assert url.host is not None
    assert url.port is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(strange("x").encode())
    answer = asyncio.create_task(reader.readuntil(b"\r\n"))
    async with asyncio.timeout(6):
        while not answer.done():
            writer.write(b"x")
            await asyncio.sleep(0.5)
    writer.close()
    assert b" 408 " in await answer
    await assert_over(beside_strangers)


@pytest.mark.slow
async def test_large_bodies_one_after_another_are_taken_for_no_head_without_end(
    serve: Serve,
) -> None:
    """On one connection, and fast: a body's second piece comes before its request is begun."""
    child = await serve()
    large = json.dumps({"statuses": [], "padding": "x" * 600_000}).encode()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http:
        for _ in range(60):
            async with http.post(child.base + ENDPOINT, data=large, headers=JSON) as response:
                assert response.status == 200
    assert (await honest(child, 1))[0] == 200


def dense(element: bytes) -> bytes:
    """Give 4 MiB that would take up to fifty times as much once they are parsed."""
    return b'{"x":[' + element * ((LARGEST - 9) // len(element)) + b"0]}"


CONTACT = b'{"input":"+16315550001","status":"valid","wa_id":"16315550001"},'


@pytest.mark.slow
@pytest.mark.parametrize(
    "element",
    [b"[[]],", b'"ab",', b'{"a":1},', CONTACT],
    ids=["arrays", "texts", "objects", "what is read"],
)
async def test_large_bodies_of_many_values_at_once_are_taken_one_after_another(
    serve: Serve, element: bytes
) -> None:
    child, body = await serve(), dense(element)
    url, connector = child.base + ENDPOINT, aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=JSON) as http:

        async def taken() -> bool:
            """Deliver as a client does: who is refused while it still sends may find itself cut."""
            with suppress(aiohttp.ClientConnectionError):
                async with http.post(url, data=io.BytesIO(body)) as response:
                    if response.status == 200:
                        return True
                    assert response.status == 503
                    await asyncio.sleep(int(response.headers["Retry-After"]) / 5)
            return False

        await asyncio.gather(*(until(taken, 60) for _ in range(8)))
    await assert_over(child, DENSE_RSS_MIB)


@pytest.mark.slow
async def test_a_client_that_never_answers_holds_up_no_callback_and_no_memory(
    serve: Serve, silent: Json
) -> None:
    account = {"main": {"timeout_seconds": 2, "max_in_flight": 8}}
    child = await serve(policy={"mode": "auto"}, accounts=account)
    async with flood(URL(child.base).port, 4_000, CHANGE) as changes:
        await changes.becomes(lambda counts: counts["200"] == 4_000)
        assert (await honest(child, 1))[0] == 200
        assert await metric(child, "ackgate_outbox", kind="acknowledge") == 4_001
        path = "/accounts/main/identities/49300000001/refresh"
        async with asyncio.timeout(15):
            asked = await asyncio.gather(*(child.api("POST", path) for _ in range(20)))
        assert {status for status, _ in asked} <= {502, 504}
        assert await metric(child, "ackgate_identities", state="failed") == 0
        assert silent["most"]["open"] <= 8
    await assert_over(child)


@pytest.mark.slow
async def test_long_polls_in_thousands_are_answered_and_hold_up_nobody(serve: Serve) -> None:
    child = await serve(accounts={"main": {"timeout_seconds": 60}})
    async with flood(URL(child.base).port, 3_000, CHANGE) as changes:
        await changes.becomes(lambda counts: counts["200"] == 3_000)
    path = f"/api/v1/accounts/main/identities/{USER}/acknowledge?wait=5"
    wait = post(json.dumps({"hash": HASH_A}), None, path, f"Authorization: Bearer {KEY}")
    async with flood(URL(child.inside).port, 3_000, wait) as waiting:
        await waiting.becomes(lambda counts: counts["begun"] > 0)
        assert (await honest(child, 1))[0] == 200
        async with asyncio.timeout(15):
            assert (await child.api("GET", "/health/ready"))[0] == 200
        await waiting.becomes(lambda counts: counts["202"] == 3_000)
    await assert_over(child)


@pytest.mark.slow
async def test_the_soft_limit_of_open_files_is_raised(serve: Serve) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        child = await serve()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    async with flood(URL(child.base).port, 600, head("GET", "/nothing")) as idle:
        await idle.becomes(lambda counts: counts["404"] == 600)
    await assert_over(child)
