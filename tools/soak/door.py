"""Delivering callbacks as the client does: what gets no 200 comes again, until it has one."""

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush

import aiohttp

from tools.soak.command import APP_SECRET, STALL_SECONDS, Command
from tools.soak.record import Change, Record
from tools.soak.webhooks import signature

AT_ONCE = 6
"""As many are delivered again at once: the client's own default."""
LONGEST_PAUSE_SECONDS = 4.0
"""Shorter than the client's own, so that a soak of minutes has many redeliveries."""
ANSWER_SECONDS = 20.0
"""The client's own patience."""
HEADERS = {"Content-Type": "application/json"}
AGAIN = {503}
"""The one status that a whole callback may get instead of 200."""


@dataclass(slots=True, eq=False)
class Callback:
    """A callback on its way; `note` is called once it is accepted, `change` is what it tells.

    One of the Cloud API goes to the door of the app, signed.
    """

    body: bytes
    change: Change | None = None
    note: Callable[[], None] | None = None
    cloud: bool = False
    tries: int = 0
    taken: asyncio.Event = field(default_factory=asyncio.Event)


class Door:
    """Delivers, and remembers what is owed; made on the event loop."""

    def __init__(self, command: Command, record: Record, chance: random.Random) -> None:
        self._command = command
        self._record = record
        self._chance = chance
        self._numbers = itertools.count()
        self._owed: list[tuple[float, int, Callback]] = []
        self._under_way = 0
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            connector=aiohttp.TCPConnector(limit=0),
        )

    @property
    def owed(self) -> int:
        """How many callbacks have no 200 yet."""
        return len(self._owed) + self._under_way

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def deliver(self, callback: Callback) -> bool:
        """Deliver once; what gets no 200 is owed. Tell whether it was accepted."""
        record = self._record
        record.sent.add(callback.body)
        if callback.change is not None:
            record.sightings[callback.body] = callback.change
        record.counts["callbacks sent"] += 1
        self._under_way += 1
        status = None
        try:
            with suppress(aiohttp.ClientError, OSError):
                status = await self._post(callback)
        finally:
            self._under_way -= 1
            if status != 200:  # noqa: PLR2004  success is 200 alone
                self._owe(callback)
        record.counts[f"callbacks answered {status or 'not at all'}"] += 1
        if status != 200:  # noqa: PLR2004  success is 200 alone
            return False
        record.accepted[callback.body] += 1
        if callback.note is not None:
            callback.note()
        callback.taken.set()
        return True

    async def _post(self, callback: Callback) -> int:
        body, door, headers = callback.body, self._command.door, HEADERS
        if callback.cloud:
            door, headers = self._command.cloud_door, HEADERS | signature(APP_SECRET, body)
        async with self._http.post(door, data=body, headers=headers) as response:
            status = response.status
            if status not in AGAIN | {200}:
                self._record.complain(f"a callback was answered with {status}", repr(body))
            if status in AGAIN and "Retry-After" not in response.headers:
                self._record.complain(f"{status} without Retry-After", repr(body))
            return status

    def _owe(self, callback: Callback) -> None:
        callback.tries += 1
        pause = min(0.4 * callback.tries, LONGEST_PAUSE_SECONDS) * self._chance.uniform(0.5, 1.5)
        heappush(self._owed, (time.monotonic() + pause, next(self._numbers), callback))

    async def deliver_again(self) -> None:
        """Deliver what is owed once it is due, for ever."""
        await asyncio.gather(*(self._deliver_again() for _ in range(AT_ONCE)))

    async def _deliver_again(self) -> None:
        while True:
            if self._owed and self._owed[0][0] <= time.monotonic():
                callback = heappop(self._owed)[2]
                self._record.counts["callbacks delivered again"] += 1
                await self.deliver(callback)
            else:
                await asyncio.sleep(0.02)

    async def hang_up(self, callback: Callback) -> None:
        """Send a part of it and go away; later it is delivered in whole."""
        self._record.counts["senders that hung up"] += 1
        with suppress(OSError):
            _, writer = await self._begin(callback)
            await asyncio.sleep(self._chance.uniform(0, 0.1))
            writer.close()
        self._owe(callback)

    async def stall(self, callback: Callback) -> None:
        """Send a part of it and wait to be told off; later it is delivered in whole."""
        self._record.counts["senders that stalled"] += 1
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            reader, writer = await self._begin(callback)
            try:
                async with asyncio.timeout(3 * STALL_SECONDS):
                    line = await reader.readline()
            finally:
                writer.close()
            if line and line.split()[1] not in {b"408", b"503"}:
                self._record.complain("a stalled body got another answer", repr(line))
        self._owe(callback)

    async def _begin(self, callback: Callback) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send the head, and a part of the body."""
        port, path = self._command.port, self._command.door.removeprefix(self._command.url)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        kind = "Content-Type: application/json\r\n"
        length = f"Content-Length: {len(callback.body)}\r\n\r\n"
        part = callback.body[: self._chance.randrange(len(callback.body))]
        writer.write((head + kind + length).encode() + part)
        await writer.drain()
        return reader, writer
