"""Delivering callbacks as the client does: what gets no 200 is delivered again until it has one."""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush

import aiohttp

from tools.installation import APP_SECRET
from tools.soak.record import Change, Record
from tools.soak.service import STALL_SECONDS, Service
from tools.webhooks import signature

AT_ONCE = 6
"""As many are delivered again at once: the client's own default."""
LONGEST_PAUSE_SECONDS = 4.0
"""Shorter than the client's own, so that a soak of minutes has many redeliveries."""
ANSWER_SECONDS = 20.0
"""The client's own time-out."""
HEADERS = {"Content-Type": "application/json"}
ACCEPTED, UNAVAILABLE = 200, 503
"""The two statuses that a whole callback may get."""


@dataclass(slots=True, eq=False)
class Callback:
    """A callback on its way; `note` is called once it is accepted, `change` is what it reports.

    A callback of the Cloud API goes to the webhook endpoint of the app, signed.
    """

    body: bytes
    change: Change | None = None
    note: Callable[[], None] | None = None
    cloud: bool = False
    tries: int = 0
    accepted: asyncio.Event = field(default_factory=asyncio.Event)


class Delivery:
    """Delivers callbacks to each service in turn, and remembers those without a 200.

    It is made on the event loop.
    """

    def __init__(self, services: Sequence[Service], record: Record, chance: random.Random) -> None:
        self._turns = itertools.cycle(services)
        self._record = record
        self._chance = chance
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, Callback]] = []
        self._under_way = 0
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            connector=aiohttp.TCPConnector(limit=0),
        )

    @property
    def undelivered(self) -> int:
        """The number of callbacks without a 200."""
        return len(self._waiting) + self._under_way

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def deliver(self, callback: Callback) -> None:
        """Deliver once; without a 200 it is delivered again later."""
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
            if status != ACCEPTED:
                self._put_off(callback)
        record.counts[f"callbacks answered {status or 'not at all'}"] += 1
        if status == ACCEPTED:
            record.accepted[callback.body] += 1
            if callback.note is not None:
                callback.note()
            callback.accepted.set()

    async def _post(self, callback: Callback) -> int:
        service = next(self._turns)
        body, url, headers = callback.body, service.webhook, HEADERS
        if callback.cloud:
            url, headers = service.cloud_webhook, HEADERS | signature(APP_SECRET, body)
        async with self._http.post(url, data=body, headers=headers) as response:
            status = response.status
            if status not in {ACCEPTED, UNAVAILABLE}:
                self._record.add_violation(f"a callback was answered with {status}", repr(body))
            if status == UNAVAILABLE and "Retry-After" not in response.headers:
                self._record.add_violation(f"{status} without Retry-After", repr(body))
            return status

    def _put_off(self, callback: Callback) -> None:
        callback.tries += 1
        pause = min(0.4 * callback.tries, LONGEST_PAUSE_SECONDS) * self._chance.uniform(0.5, 1.5)
        heappush(self._waiting, (time.monotonic() + pause, next(self._numbers), callback))

    async def deliver_again(self) -> None:
        """Deliver what waits as soon as it is due, for ever."""
        await asyncio.gather(*(self._deliver_again() for _ in range(AT_ONCE)))

    async def _deliver_again(self) -> None:
        while True:
            if self._waiting and self._waiting[0][0] <= time.monotonic():
                callback = heappop(self._waiting)[2]
                self._record.counts["callbacks delivered again"] += 1
                await self.deliver(callback)
            else:
                await asyncio.sleep(0.02)

    async def hang_up(self, callback: Callback) -> None:
        """Send a part of it and close the connection; later it is delivered in whole."""
        self._record.counts["senders that hung up"] += 1
        with suppress(OSError):
            _, writer = await self._send_part(callback)
            await asyncio.sleep(self._chance.uniform(0, 0.1))
            writer.close()
        self._put_off(callback)

    async def stall(self, callback: Callback) -> None:
        """Send a part of it and wait for the refusal; later it is delivered in whole."""
        self._record.counts["senders that stalled"] += 1
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            reader, writer = await self._send_part(callback)
            try:
                async with asyncio.timeout(3 * STALL_SECONDS):
                    line = await reader.readline()
            finally:
                writer.close()
            if line and line.split()[1] not in {b"408", b"503"}:
                self._record.add_violation("a stalled body got another answer", repr(line))
        self._put_off(callback)

    async def _send_part(
        self, callback: Callback
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send the head, and a part of the body."""
        service = next(self._turns)
        port, path = service.port, service.webhook.removeprefix(service.url)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        head += "Content-Type: application/json\r\n"
        head += f"Content-Length: {len(callback.body)}\r\n\r\n"
        part = callback.body[: self._chance.randrange(len(callback.body))]
        writer.write(head.encode() + part)
        await writer.drain()
        return reader, writer
