"""Deletes callbacks, events and audit entries that were kept for long enough, slowly."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import structlog
from sqlalchemy import Connection

from service.ledger.ledger import Ledger
from service.observability.metrics import Metrics
from service.settings import RetentionSettings
from service.store.database import Database, UnavailableError
from service.store.events import delete_events, next_events
from service.store.relays import Source
from service.store.retention import (
    MAX_ID,
    Chunk,
    Limits,
    delete_entries,
    give_back,
    next_chunk,
    next_quarantined,
)
from service.store.trail import delete_sealed, next_sealed

FIRST_AFTER_SECONDS = 60.0
EVERY_SECONDS = 3600.0
ROWS = 500
BYTES = 1_048_576
"""What one transaction deletes at most: entries, and bytes of bodies (or one larger body)."""
PAGES = 50
"""Pages of the database file that one transaction frees at most."""
KEPT_FREE = 20
"""One page in so many stays free, for what comes in next."""
SHARE = 0.1
"""The part of the time that the writer is kept busy with it, at most."""
SHORTEST_PAUSE_SECONDS = 0.01
WALKS_ANEW = 24
JUMP_SECONDS = 3600.0
LOW_DISK_BYTES = 268_435_456
"""Below this a warning: a few times the write-ahead log and the bodies that are being received."""

DAY_MS = 86_400_000
T = TypeVar("T")
Look = Callable[[Connection, Limits, int, int, int], Chunk]
Delete = Callable[[Connection, Sequence[int], Limits], int]

log = structlog.get_logger(__name__)


class Reader(Protocol):
    """What reads a log, and may still need some of it."""

    @property
    def source(self) -> Source:
        """Which log it reads."""

    @property
    def needs_from(self) -> int:
        """The id from which on it needs the log."""

    def lose(self, ids: Sequence[int]) -> None:
        """Note that entries were deleted, whether it needs them or not."""


class Retention:
    """Looks every hour for what is too old. `readers` may hold some of it for a while longer."""

    def __init__(
        self,
        settings: RetentionSettings,
        ledger: Ledger,
        database: Database,
        metrics: Metrics,
        readers: Collection[Reader] = (),
    ) -> None:
        self.readers = readers
        self._settings = settings
        self._database = database
        self._metrics = metrics
        self._ledger = ledger
        self._passes = 0
        self._walked = 0
        self._last_pass: tuple[int, float] | None = None

    @property
    def wanted(self) -> bool:
        """Whether anything is ever deleted."""
        kept = self._settings
        of_callbacks = kept.journal_days or kept.quarantined_days
        return bool(of_callbacks or kept.days_of_events or kept.audit_days)

    async def run(self) -> None:
        """Look, again and again."""
        await asyncio.sleep(FIRST_AFTER_SECONDS)
        while True:
            try:
                await self.look()
            except UnavailableError:
                log.warning("deleting what is too old has to wait: the database is not available")
            except Exception:
                log.exception("deleting what is too old failed")
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> int:
        """Delete everything that is too old by now, and return how many callbacks that were."""
        now = self._ledger.clock()
        if self._jumped(now):
            log.warning("the clock was set forward: nothing is deleted before the next look")
            return 0
        days, apart = self._settings.journal_days, self._settings.quarantined_days
        held = _before(now, self._settings.relay_days)
        limits = Limits(now, _before(now, days), _before(now, apart), held=held)
        of_events = replace(limits, applied=_before(now, self._settings.days_of_events))
        of_events = await self._with_holds(of_events, "events")
        of_audit = Limits(now, _before(now, self._settings.audit_days), 0)
        limits = await self._with_holds(limits, "callbacks")
        # What was replayed since, and is no longer quarantined, lies behind the walk.
        if self._passes % WALKS_ANEW == 0:
            self._walked = 0
        self._passes += 1
        deleted, self._walked = await self._walk(next_chunk, limits, self._walked)
        scattered, _ = await self._walk(next_quarantined, limits, 0)
        events, _ = await self._walk(next_events, of_events, 0, delete_events)
        entries, _ = await self._walk(next_sealed, of_audit, 0, delete_sealed)
        pages = await self._give_back()
        if deleted or scattered:
            log.info("deleted old callbacks", count=deleted + scattered, quarantined=scattered)
        if events:
            log.info("deleted old events", count=events)
        if entries:
            log.info("deleted old entries of the audit trail", count=entries)
        if pages:
            log.info("gave space back", pages=pages)
        return deleted + scattered

    async def _with_holds(self, limits: Limits, source: Source) -> Limits:
        """Return limits with what readers of a log hold of it: nothing where the disk is low."""
        free = await self._database.free_bytes()
        if free is not None and free < LOW_DISK_BYTES:
            return limits
        ids = (reader.needs_from for reader in self.readers if reader.source == source)
        return replace(limits, held_from=min(ids, default=MAX_ID))

    def _jumped(self, now: int) -> bool:
        """Return whether the clock ran ahead of the time that really passed."""
        here = time.monotonic()
        last, self._last_pass = self._last_pass, (now, here)
        return last is not None and (now - last[0]) / 1000 - (here - last[1]) > JUMP_SECONDS

    async def _walk(
        self, look: Look, limits: Limits, after: int, delete: Delete = delete_entries
    ) -> tuple[int, int]:
        """Delete what a walk finds; return how much that was, and how far it came."""
        deleted = 0
        while True:
            chunk = await self._database.read(
                lambda connection, after=after: look(connection, limits, after, ROWS, BYTES)  # type: ignore[misc] # mypy infers no lambda with a default
            )
            if chunk.ids:
                gone = await self._write(
                    lambda connection, ids=chunk.ids: delete(connection, ids, limits)  # type: ignore[misc] # likewise
                )
                if delete is delete_entries:
                    self._metrics.journal_deleted.inc(gone)
                deleted += gone
                source = _READ.get(delete)
                for reader in self.readers:
                    if reader.source == source:
                        reader.lose(chunk.ids)
            after = chunk.last
            if not chunk.more:
                return deleted, after

    async def _give_back(self) -> int:
        """Return free pages to the file system; return about how many that were."""
        given = 0
        while await self._write(partial(give_back, pages=PAGES, kept=KEPT_FREE)):
            given += PAGES
        return given

    async def _write(self, work: Callable[[Connection], T]) -> T:
        """Run a small piece of work on the writer, then leave it to the others for longer."""
        started = time.perf_counter()
        result = await self._database.write(work, led=True)
        took = time.perf_counter() - started
        await asyncio.sleep(max(SHORTEST_PAUSE_SECONDS, took * (1 / SHARE - 1)))
        return result


_READ: Mapping[Delete, Source] = {delete_entries: "callbacks", delete_events: "events"}
"""The logs that relays read, by what deletes of them."""


def _before(now: int, days: float) -> int:
    """Return the time (Unix ms) before which it is too old; 0 for what is kept for ever."""
    return max(0, now - round(days * DAY_MS)) if days else 0
