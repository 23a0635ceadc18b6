"""The webhook endpoint by itself: what goes wrong with reading, and what that may take."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from service.api.problems import problems
from service.ledger.contacts import Messages
from service.ledger.ledger import FullError, Ledger
from service.model.events import Reading
from service.model.policy import Policies, Policy
from service.observability.metrics import Metrics
from service.store.database import Database
from service.store.journal import list_journal
from service.webhooks.body import BodyReader
from service.webhooks.handler import OFF_LOOP_BYTES, Endpoint, WebhookHandler
from service.webhooks.incoming import Dialect
from service.webhooks.request_ids import identified
from service.webhooks.signatures import SignatureVerifier, signed
from tests.storing import MakeDatabase, opening, settled

MAX_BODY = 4 * OFF_LOOP_BYTES
SECRET = b"a-secret-of-the-app"


@dataclass(frozen=True)
class Opened:
    """A webhook endpoint in use."""

    client: "TestClient[web.Request, web.Application]"
    database: Database
    ledger: Ledger
    bodies: BodyReader

    async def post(
        self, body: Any, name: str = "main", headers: Mapping[str, str] | None = None
    ) -> tuple[int, str | None]:
        """Deliver; return the status, and when to come back."""
        async with self.client.post(f"/webhooks/{name}", data=body, headers=headers) as answer:
            return answer.status, answer.headers.get("Retry-After")

    async def post_signed(self, body: bytes) -> tuple[int, str | None]:
        return await self.post(body, "meta", signed(SECRET, body))

    async def kept(self) -> list[Any]:
        await settled(self.database)
        return await self.database.read(lambda c: list_journal(c, None, None, 0, 10))


@asynccontextmanager
async def opened(
    make_database: MakeDatabase, dialect: Dialect, max_in_flight: int = MAX_BODY
) -> AsyncIterator[Opened]:
    async with AsyncExitStack() as stack:
        database, metrics = await stack.enter_async_context(opening(make_database())), Metrics()
        policies = {"main": Policies((), Policy("default"))}
        ledger = Ledger(database, policies, metrics, max_waiting=10)
        stack.push_async_callback(ledger.close)
        bodies = BodyReader(
            metrics.bytes_in_flight,
            max_body=MAX_BODY,
            max_in_flight=max_in_flight,
            timeout_seconds=5,
        )
        endpoints = {
            "main": Endpoint("main", b"", dialect),
            "meta": Endpoint("@meta", b"", dialect, SignatureVerifier([SECRET], b"")),
        }
        handler = WebhookHandler(endpoints, ledger, bodies, metrics, Messages(), {})
        app = web.Application(middlewares=[identified, problems], client_max_size=MAX_BODY)
        handler.add_routes(app)
        client = await stack.enter_async_context(TestClient(TestServer(app)))
        yield Opened(client, database, ledger, bodies)


def failing(_: str, __: str, ___: bytes) -> Mapping[str, Reading]:
    raise RuntimeError("a fault in the dialect")


def nothing(_: str, __: str, ___: bytes) -> Mapping[str, Reading]:
    return {"main": Reading()}


def of_many_values(size: int) -> bytes:
    """Return a body that takes forty times its length once it is parsed."""
    return b'{"x":[' + b"1," * ((size - 9) // 2) + b"1]}"


LARGE = of_many_values(OFF_LOOP_BYTES + 2)


@pytest.mark.parametrize("size", [2, OFF_LOOP_BYTES + 1], ids=["small", "read beside the loop"])
async def test_what_the_dialect_fails_on_is_kept_and_answered_200(
    make_database: MakeDatabase, size: int
) -> None:
    async with opened(make_database, failing) as endpoint:
        assert await endpoint.post(b"x" * size) == (200, None)
        [row] = await endpoint.kept()
    assert (row.account, row.state, row.reason) == (
        "main",
        "quarantined",
        "the rules failed: RuntimeError",
    )


@pytest.mark.parametrize("size", [OFF_LOOP_BYTES + 2, MAX_BODY], ids=["large", "largest"])
async def test_alone_any_body_is_read(make_database: MakeDatabase, size: int) -> None:
    async with opened(make_database, nothing) as endpoint:
        assert await endpoint.post(of_many_values(size)) == (200, None)


async def test_large_bodies_are_read_one_after_another(make_database: MakeDatabase) -> None:
    reading, most, lock = 0, 0, threading.Lock()

    def counting(_: str, __: str, ___: bytes) -> Mapping[str, Reading]:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        time.sleep(0.02)
        with lock:
            reading -= 1
        return {"main": Reading()}

    size = OFF_LOOP_BYTES + 1
    async with opened(make_database, counting, max_in_flight=6 * size) as endpoint:
        answers = await asyncio.gather(*(endpoint.post(b"x" * size) for _ in range(6)))
    assert answers == [(200, None)] * 6
    assert most == 1


async def test_however_much_strangers_hold_a_small_callback_in_one_piece_is_taken(
    make_database: MakeDatabase,
) -> None:
    async with opened(make_database, nothing) as endpoint:
        strangers = endpoint.bodies.reservation(verified=False)
        strangers.hold(strangers.budget.most)
        assert await endpoint.post_signed(b"{}") == (200, None)
        assert await endpoint.post_signed(b"x" * (OFF_LOOP_BYTES + 1)) == (503, "1")


async def test_a_callback_whose_signature_matches_counts_among_the_verified_ones(
    make_database: MakeDatabase,
) -> None:
    async with opened(make_database, nothing) as endpoint:
        known = endpoint.bodies.reservation(verified=True)
        known.hold(known.budget.most - 1)
        assert await endpoint.post_signed(b"{}") == (503, "1")
        known.release()
        assert await endpoint.post_signed(b"{}") == (200, None)
        assert known.budget.held == 0


async def test_what_comes_of_a_body_in_pieces_counts_though_its_length_was_not_announced(
    make_database: MakeDatabase,
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 10_000
            await asyncio.sleep(0.01)

    async with opened(make_database, nothing) as endpoint:
        known = endpoint.bodies.reservation(verified=True)
        known.hold(known.budget.most - 30_000)
        assert await endpoint.post(pieces()) == (503, "1")
        known.release()
        assert await endpoint.post(pieces()) == (200, None)


async def test_while_too_much_waits_a_body_is_not_even_read(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise FullError

    async def endless() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    async with opened(make_database, nothing) as endpoint:
        monkeypatch.setattr(endpoint.ledger, "check_room", full)
        async with asyncio.timeout(4):
            assert await endpoint.post(endless()) == (503, "1")


async def test_while_a_large_body_is_read_small_ones_are_taken(make_database: MakeDatabase) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def waiting(_: str, __: str, body: bytes) -> Mapping[str, Reading]:
        if body == LARGE:
            loop.call_soon_threadsafe(begun.set)
            assert go_on.wait(30)
        return {"main": Reading()}

    async with opened(make_database, waiting) as endpoint:
        large = asyncio.create_task(endpoint.post(LARGE))
        try:
            await begun.wait()
            assert await endpoint.post(b"{}") == (200, None)
            assert not large.done()
        finally:
            go_on.set()
        assert await large == (200, None)
