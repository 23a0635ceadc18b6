"""The hub: it reads the event log once, and passes the same bytes on to all who follow it.

A reader that begins in the past reads the log itself, as fast as it takes it, until it has come to
where the hub is. From then on the hub fills its queue. Each distinct filter is applied once.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from service.api.event_stream import moved_to, sent
from service.observability.metrics import Metrics
from service.store.database import ChangeSet, Database, UnavailableError
from service.store.events import EventFilter, EventRow, Span, event_json, read_events, read_wanted

PAGE = 500
"""Events that are read at once, by the hub for few readers."""
SMALLEST_PAGE = 20
PAGE_TIMES_READERS = 50_000
"""So many events times readers make up one page at most, of many readers."""
READERS_AT_ONCE = 50
"""So many readers are passed something before others have their turn."""
SHARE = 0.1
"""The part of the time that is spent on passing on, at most: accepting callbacks comes first."""
LONGEST_PAUSE_SECONDS = 1.0
MAX_BEHIND = 1_048_576
"""Bytes that may wait for a reader; one that is further behind is cut off, and may come again."""
HEARTBEAT_SECONDS = 15.0
PATIENCE_SECONDS = 1.0
"""For a stream that ends to be taken by its reader."""
AGAIN_SECONDS = 1.0
SETTLING_SECONDS = 0.02
"""After so long the hub looks again for what was committed, and is not settled yet."""

Write = Callable[[bytes], Awaitable[None]]

log = structlog.get_logger(__name__)


class Reader:
    """One who follows the log, with what waits to be sent.

    `cut` ends the connection at once; `is_admitted` says whether the caller's key still holds.
    `seen` is the position that it began with, `behind` counts the bytes that are not sent yet.
    """

    def __init__(
        self, wanted: EventFilter, cut: Callable[[], None], is_admitted: Callable[[], bool]
    ) -> None:
        self.wanted = wanted
        self._cut = cut
        self.is_admitted = is_admitted
        self.seen = 0
        self.behind = 0
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()
        self.is_ended = False

    def push(self, chunk: bytes) -> None:
        """Let a chunk be sent."""
        self._waiting.append(chunk)
        self.behind += len(chunk)
        self._news.set()

    def end(self) -> None:
        """Let the stream end once what waits is sent, or after a moment without that."""
        self.is_ended = True
        self._news.set()
        asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._cut)

    def cut_off(self) -> None:
        """End the connection, whatever waits."""
        self.is_ended = True
        self._waiting.clear()
        self._news.set()
        self._cut()

    async def send_to(self, write: Write) -> None:
        """Send what comes until the stream ends."""
        while self._waiting or not self.is_ended:
            if self._waiting:
                chunk = b"".join(self._waiting)
                self._waiting.clear()
                await write(chunk)
                self.behind -= len(chunk)
            else:
                self._news.clear()
                await self._news.wait()


class EventHub:
    """Passes events on to those who follow the log; it lives on the event loop alone."""

    def __init__(self, epoch: str, database: Database, metrics: Metrics) -> None:
        self.epoch = epoch
        self.closing = False
        self._database = database
        self._metrics = metrics
        self._groups: dict[EventFilter, set[Reader]] = {}
        self._count = 0
        self._position = 0
        self._committed = 0
        self._is_passing = False
        self._news = asyncio.Event()

    def notify(self, commit: ChangeSet) -> None:
        """Look for events after a commit that told some, if anybody follows."""
        self._committed = max(self._committed, commit.event_id)
        if commit.event_id and self._groups:
            self._news.set()

    def close(self) -> None:
        """End all streams, because the service stops; each reader has what it needs to go on."""
        self.closing = True
        for readers in self._groups.values():
            for reader in readers:
                reader.end()

    def newest(self, span: Span) -> int:
        """Return where a reader begins who wants only what happens from now on."""
        return min(span.newest, self._position) if self._groups else span.newest

    # Joining.

    async def follow(self, reader: Reader, position: int, write: Write) -> None:
        """Send a reader all from a position on, until its stream ends."""
        try:
            await self._catch_up(reader, position, write)
            if not self.closing:
                await reader.send_to(write)
        finally:
            self._leave(reader)

    async def _catch_up(self, reader: Reader, position: int, write: Write) -> None:
        is_end = False
        while not self.closing and not self._join(reader, position, is_end=is_end):
            goal = self._position if self._groups else None
            page = await self._database.read(
                partial(read_wanted, wanted=reader.wanted, after=position, limit=PAGE, up_to=goal)
            )
            is_end = page.is_end and goal is None
            position = goal if page.is_end and goal is not None else page.position
            if page.rows or not page.is_end:
                frames = [self._frame(row) for row in page.rows]
                await write(b"".join([*frames, moved_to(self.epoch, position)]))

    def _join(self, reader: Reader, position: int, *, is_end: bool) -> bool:
        """Add a reader that has come to where the hub is; the first one says where that is."""
        if self._groups and position < self._position:
            return False
        if not self._groups:
            if not is_end:
                return False
            self._position = position
        reader.seen = position
        self._groups.setdefault(reader.wanted, set()).add(reader)
        self._count_readers(1)
        self._news.set()  # something may have been told since the last look
        return True

    def _leave(self, reader: Reader) -> None:
        readers = self._groups.get(reader.wanted, set())
        if reader in readers:
            readers.remove(reader)
            self._count_readers(-1)
            if not readers:
                del self._groups[reader.wanted]

    def _count_readers(self, more: int) -> None:
        self._count += more
        self._metrics.event_readers.set(self._count)

    # Passing on.

    async def run(self) -> None:
        """Pass on what is told, and beat, again and again."""
        beating = asyncio.create_task(self._beat())
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                try:
                    await self._pass_on()
                except UnavailableError:
                    await asyncio.sleep(AGAIN_SECONDS)
                    self._news.set()
                except Exception:
                    log.exception("passing events on failed")
                    await asyncio.sleep(AGAIN_SECONDS)
                    self._news.set()
        finally:
            beating.cancel()

    async def _pass_on(self) -> None:
        """Pass on all that is new, a page at a time; others have their turn in between."""
        is_end = False
        while self._groups and not is_end:
            limit = max(SMALLEST_PAGE, min(PAGE, PAGE_TIMES_READERS // self._count))
            rows = await self._database.read(
                partial(read_events, after=self._position, limit=limit)
            )
            is_end = len(rows) < limit
            took = await self._distribute(rows) if rows else 0.0
            await asyncio.sleep(min(LONGEST_PAUSE_SECONDS, took * (1 / SHARE - 1)))
        if self._groups and self._position < self._committed:
            await asyncio.sleep(SETTLING_SECONDS)
            self._news.set()

    async def _distribute(self, rows: Sequence[EventRow]) -> float:
        """Put a page into the queues, and let the readers write; return the time (s) it took.

        All who want the same get the same bytes. Whoever joins meanwhile has seen the page already.
        """
        started = time.perf_counter()
        frames = [(row, self._frame(row)) for row in rows]
        pushes: list[tuple[Reader, bytes]] = []
        for wanted, readers in self._groups.items():
            of_all = _joined(frames, wanted)
            for reader in readers:
                has_seen_some = reader.seen >= rows[0].id  # it was ahead of the hub
                chunk = _joined(frames, wanted, reader.seen) if has_seen_some else of_all
                if chunk:
                    pushes.append((reader, chunk))
        self._position, self._is_passing = rows[-1].id, True
        for start in range(0, len(pushes), READERS_AT_ONCE):
            for reader, chunk in pushes[start : start + READERS_AT_ONCE]:
                self._push(reader, chunk)
            if start + READERS_AT_ONCE < len(pushes):
                await asyncio.sleep(0)  # those readers write now
        self._is_passing = False
        await asyncio.sleep(0)
        return time.perf_counter() - started

    def _push(self, reader: Reader, chunk: bytes) -> None:
        """Let a reader have a chunk, unless it is too far behind already."""
        if reader.is_ended:
            return
        if reader.behind and reader.behind + len(chunk) > MAX_BEHIND:
            self._metrics.event_readers_cut.inc()
            reader.cut_off()
        else:
            reader.push(chunk)

    async def _beat(self) -> None:
        """Tell every reader from time to time where in the log it is, whatever it wants of it."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self.beat()

    def beat(self) -> None:
        """Move every reader's last event id to what was passed on, and end whose key is no more."""
        if self._is_passing:
            return  # some have not got yet what the id would say that they have
        beat = moved_to(self.epoch, self._position)
        for readers in self._groups.values():
            for reader in readers:
                if not reader.is_admitted():
                    reader.end()
                elif reader.seen <= self._position:
                    self._push(reader, beat)

    def _frame(self, row: EventRow) -> bytes:
        return sent(event_json(self.epoch, row))


def _joined(frames: Sequence[tuple[EventRow, bytes]], wanted: EventFilter, after: int = 0) -> bytes:
    """Return those of the frames that are wanted, and whose event follows a position."""
    return b"".join(frame for row, frame in frames if row.id > after and wanted.takes(row))
