"""The log that relays read: the newest rows from memory, what is older from the database."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from typing import NamedTuple

from service.dialects.common import OFF_LOOP_BYTES
from service.dialects.routing import Routing
from service.ledger.ledger import Ledger
from service.store.database import ChangeSet, Database
from service.store.logs import is_in_order
from service.store.relays import (
    LogRow,
    Source,
    arrived_at,
    count_after,
    is_erased,
    log_row,
    newest_of,
    read_log,
)
from service.store.retention import MAX_ID

TAIL_ROWS, TAIL_BYTES = 1000, 4_194_304
"""What is kept of the newest rows, at most: rows, and bytes of their bodies."""
READ_ROWS, READ_BYTES = 200, 1_048_576
"""What is read at once."""
ROWS_A_TURN = 20
"""Rows that are routed before others have their turn on the event loop."""
ELSEWHERE_SECONDS, SETTLING_SECONDS = 1.0, 0.02
"""How often the table is looked at where others write too, and where a commit is not settled."""

Route = Callable[[LogRow], Routing]
Headers = Callable[[LogRow, Routing], Mapping[str, str]]


class Routed(NamedTuple):
    """A row, and what a relay needs to know of it."""

    row: LogRow
    routing: Routing


class Log:
    """One log. `newest` is the id of its newest row, `readers` the number of relays that read it.

    `headers` are what a row is sent with besides, and `ids` begins the ids of deliveries. Relays
    that keep up are handed callbacks as they are committed, each routed once for all; events are
    few, and read from the database. So are callbacks where commits are not in the order of ids
    (`is_in_order`), or others write them too: then `newest` is what `look` found to be settled.
    """

    def __init__(
        self, source: Source, database: Database, route: Route, headers: Headers, ids: str
    ) -> None:
        self.source = source
        self.headers = headers
        self.ids = ids
        self.newest = 0
        self.readers = 0
        self.is_in_order = True
        self._committed = 0
        self._looked_at = 0.0
        self._database = database
        self._route = route
        self._tail: deque[LogRow] = deque()
        self._tail_bytes = 0
        self._tail_after = MAX_ID
        self._routings: dict[int, Routing] = {}

    async def open(self, ledger: Ledger) -> None:
        """Find out where the log ends, and hear of commits from now on. Raises UnavailableError."""
        self.is_in_order = await self._database.read(is_in_order)
        ledger.listeners.append(self.note)
        # What is committed meanwhile was told, or is read, or both.
        newest = await self._database.read(partial(newest_of, source=self.source))
        self._tail_after = newest if self.is_in_order else MAX_ID
        self.newest = max(self.newest, newest)

    def close(self, ledger: Ledger) -> None:
        """Hear of no more commits."""
        if self.note in ledger.listeners:
            ledger.listeners.remove(self.note)

    def note(self, commit: ChangeSet) -> None:
        """Take the rows that a commit has appended."""
        if not self.is_in_order:
            ids = [commit.journal_id, *(row.id or 0 for row in commit.journal)]
            last = commit.event_id if self.source == "events" else max(ids)
            self._committed = max(self._committed, last)
            return
        if self.source == "events":
            self.newest = self._tail_after = max(self.newest, commit.event_id)
            return
        for row in commit.journal:
            if row.id is None:
                continue
            taken = LogRow(
                row.id,
                row.account,
                row.received_at,
                row.state,
                row.content_type,
                row.content_encoding,
                row.body,
            )
            self._tail.append(taken)
            self._tail_bytes += len(taken.body)
            self.newest = taken.id
        while self._tail and (len(self._tail) > TAIL_ROWS or self._tail_bytes > TAIL_BYTES):
            gone = self._tail.popleft()
            self._tail_bytes -= len(gone.body)
            self._tail_after = gone.id
            self._routings.pop(gone.id, None)

    async def look(self) -> None:
        """Find out where the log ends by now, unless commits have told. Raises UnavailableError."""
        now = time.monotonic()
        if self.is_in_order or now < self._looked_at + SETTLING_SECONDS:
            return
        self._looked_at = now
        self.newest = await self._database.read(partial(newest_of, source=self.source))

    def has_after(self, id_: int) -> bool:
        """Return whether the log is known to go on after an id, if only once that is settled."""
        return id_ < max(self.newest, self._committed)

    async def wait(self, woken: asyncio.Event) -> None:
        """Wait until a reader is woken up, or has to look again by itself: commits don't tell all.

        Only where they are not in order.
        """
        is_settling = self._committed > self.newest
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLING_SECONDS if is_settling else ELSEWHERE_SECONDS):
                await woken.wait()

    async def read(self, after: int, until: int | None = None) -> Sequence[Routed]:
        """Return the next rows after an id, at most up to another. Raises UnavailableError."""
        rows: list[LogRow]
        if self.source == "callbacks" and until is None and after >= self._tail_after:
            # From the newest back: relays that keep up are a few rows behind, of a thousand.
            behind = [*takewhile(lambda row: row.id > after, reversed(self._tail))]
            rows = behind[: -READ_ROWS - 1 : -1]
        else:
            rows = await self._database.read(
                partial(
                    read_log,
                    source=self.source,
                    after=after,
                    rows=READ_ROWS,
                    size=READ_BYTES,
                    until=until,
                )
            )
        found = []
        for count, row in enumerate(rows):
            if count % ROWS_A_TURN == ROWS_A_TURN - 1:
                await asyncio.sleep(0)
            found.append(Routed(row, await self._routing_of(row)))
        return found

    async def row(self, id_: int) -> Routed | None:
        """Return one row, if it is still kept. Raises UnavailableError."""
        row = await self._database.read(partial(log_row, source=self.source, id_=id_))
        return None if row is None else Routed(row, await self._routing_of(row))

    async def is_erased(self, id_: int) -> bool:
        """Return whether a row that is not there was erased. Raises UnavailableError."""
        return await self._database.read(partial(is_erased, source=self.source, id_=id_))

    def forget(self) -> None:
        """Keep no rows in memory any more: something of them was erased."""
        self._tail.clear()
        self._routings.clear()
        self._tail_bytes = 0
        if self.is_in_order:
            self._tail_after = self.newest

    async def arrived_after(self, id_: int) -> int | None:
        """Return when (Unix ms) the first row after an id arrived. Raises UnavailableError."""
        return await self._database.read(partial(arrived_at, source=self.source, after=id_))

    async def count(self, after: int, until: int | None = None) -> int:
        """Return how many rows there are after an id, up to another or to the newest.

        Raises UnavailableError.
        """
        query = partial(count_after, source=self.source, after=after, until=until)
        return await self._database.read(query)

    async def _routing_of(self, row: LogRow) -> Routing:
        known = self._routings.get(row.id)
        if known is not None:
            return known
        if len(row.body) > OFF_LOOP_BYTES:
            found = await asyncio.to_thread(self._route, row)
        else:
            found = self._route(row)
        if row.id > self._tail_after:
            self._routings[row.id] = found
        return found
