"""One connection in memory: the real speaker, parser and door, over a ledger that is slow."""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from aiohttp import web

from service.api.problems import problem_of
from service.app.web import plainly
from service.ingress.bodies import Intake
from service.ingress.door import Door, Entrance
from service.ingress.envelope import Envelope
from service.ingress.received import Received
from service.ingress.shortcut import Shortcut
from service.ingress.signatures import Seal
from service.ingress.sites import _Speaker
from service.ledger.messages import Messages
from service.model.events import Reading
from service.observability.metrics import Metrics

TOKEN = "a-token"
SECRET = b"a-secret"
DOOR = f"/webhooks/main/{TOKEN}"
MAX_BODY = 100_000


class Kept(NamedTuple):
    """Of a callback: by which door it came, its body, and what is kept besides."""

    door: str
    body: bytes
    envelope: Envelope


class SlowLedger:
    """Stands for the ledger: keeps in memory, and is done some turns of the event loop later."""

    full = False

    def __init__(self, turns: int = 0) -> None:
        self.turns = turns
        self.kept: list[Kept] = []
        self.futures: list[asyncio.Future[None]] = []
        self.fault: BaseException | None = None

    def clock(self) -> int:
        return 1_600_000_000_000

    def check_room(self) -> None:
        """There is always room."""

    def submit(self, received: Received, *, bounded: bool = False) -> asyncio.Future[None]:
        assert bounded
        if self.fault is not None:
            raise self.fault
        received.read()
        self.kept.append(Kept(received.account, received.body, received.envelope))
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.futures.append(future)
        if self.turns >= 0:
            self._wait(loop, self.turns, future)
        return future

    def _wait(
        self, loop: asyncio.AbstractEventLoop, turns: int, future: asyncio.Future[None]
    ) -> None:
        if turns:
            loop.call_soon(self._wait, loop, turns - 1, future)
        elif not future.done():
            future.set_result(None)


class Wire:
    """Stands for the transport: remembers what is written, and whether it reads."""

    def __init__(self) -> None:
        self.protocol: _Speaker | None = None
        self.written = b""
        self.reads = True
        self.closed = False

    def get_extra_info(self, _: str, default: object = None) -> object:
        return default

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, parts: Sequence[bytes]) -> None:
        self.written += b"".join(parts)

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


def reads_nothing(_: str, __: str, ___: bytes) -> dict[str, Reading]:
    return {}


class Counting(Shortcut):
    """A shortcut that counts what it took."""

    taken = 0

    def take(self, data: bytes, write: Callable[[bytes | None], None]) -> bool:
        taken = super().take(data, write)
        self.taken += taken
        return taken


class Speaking:
    """A connection to two doors, `main` with a token and `meta` with a signature."""

    def __init__(self, *, straight: bool = True, turns: int = 0) -> None:
        self.ledger, self.metrics, self.wire = SlowLedger(turns), Metrics(), Wire()
        intake = Intake(self.metrics, max_body=MAX_BODY, max_in_flight=10**6, timeout_seconds=30)
        doors = {
            "main": Entrance("main", TOKEN, reads_nothing),
            "other": Entrance("other", "another-token", reads_nothing),
            "meta": Entrance("@meta", None, reads_nothing, Seal([SECRET], b"")),
        }
        ledger = cast(Any, self.ledger)
        self.door = Door(doors, ledger, intake, self.metrics, Messages(), {})
        self.shortcut = Counting(self.door, problem_of)
        server = web.Server(plainly(self.door, None, self._otherwise))
        self.speaker = _Speaker(
            set(),
            self.shortcut if straight else None,
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=75.0,
        )
        self.wire.protocol = self.speaker
        self.speaker.connection_made(cast(Any, self.wire))

    async def _otherwise(self, _: object) -> web.Response:
        return problem_of(web.HTTPNotFound())

    @property
    def taken(self) -> int:
        """How many callbacks went past the library."""
        return self.shortcut.taken

    @property
    def bodies(self) -> list[bytes]:
        return [kept.body for kept in self.ledger.kept]

    @property
    def statuses(self) -> list[int]:
        return [int(found) for found in re.findall(rb"HTTP/1.1 (\d+)", self.wire.written)]

    @property
    def in_flight(self) -> float:
        return self.metrics.registry.get_sample_value("ackgate_bytes_in_flight") or 0

    async def send(self, data: bytes, turns: int = 40) -> None:
        """Let bytes come, once they are read, and the event loop turn."""
        await self.turn(0, until_read=True)
        if not self.wire.closed:
            self.speaker.data_received(data)
        await self.turn(turns)

    async def turn(self, turns: int, *, until_read: bool = False) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        for _ in range(1000):
            if not until_read or self.wire.reads or self.wire.closed:
                return
            await asyncio.sleep(0)
        raise AssertionError("the connection is not read any more")

    async def end(self) -> None:
        """Hang up, and let what is under way end."""
        self.wire.close()
        await self.turn(40)


def request(body: bytes, *lines: str, path: str = DOOR, first: str = "POST {} HTTP/1.1") -> bytes:
    """Write a request with its length; `lines` come before it."""
    head = [first.format(path), "Host: a", *lines, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body
