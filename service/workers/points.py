"""Adds up for the charts what the logs tell, a little at a time: only the leader does."""

import asyncio
from collections.abc import Collection
from functools import partial
from typing import Protocol

import structlog

from service.model.points import MINUTE_MS, Point, Series, added_up
from service.store.database import Database, UnavailableError
from service.store.points import add_points, begin_points, next_minutes

EVERY_SECONDS = 10.0
ROWS = 5_000
"""Rows of each log that one transaction adds up at most."""
PAUSE_SECONDS = 0.1
"""For others, between two transactions."""

log = structlog.get_logger(__name__)


class Delayed(Protocol):
    """What may be behind: a relay."""

    name: str

    async def behind_seconds(self) -> float:
        """Return by how many seconds it is behind."""


class Recorder:
    """Adds up what is new in the logs, and how far relays are behind."""

    def __init__(self, relays: Collection[Delayed], database: Database) -> None:
        self._relays = relays
        self._database = database
        self._has_begun = False

    async def run(self) -> None:
        """Look, again and again."""
        while True:
            try:
                await self.look()
            except UnavailableError:
                log.debug("adding up for the charts has to wait: the database is not available")
            except Exception:
                log.exception("adding up for the charts failed")
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Add up all that is new. Raises UnavailableError; then the next time does so."""
        now = self._database.clock()
        at = now - now % MINUTE_MS
        lags = [await self._lag(relay, at) for relay in self._relays]
        if not self._has_begun:
            await self._database.write(partial(begin_points, now=now), led=True)
            self._has_begun = True
        while True:
            found = await self._database.read(partial(next_minutes, limit=ROWS))
            if found is None and not lags:
                return
            rows = added_up([*lags, *(found.minutes if found else ())])
            add = partial(add_points, found=found, rows=rows, now=now)
            if not await self._database.write(add, led=True) or found is None:
                return
            lags = []
            await asyncio.sleep(PAUSE_SECONDS)

    async def _lag(self, relay: Delayed, at: int) -> Point:
        behind = round(await relay.behind_seconds() * 1000)
        return Point(MINUTE_MS, at, Series.LAG, relay.name, 1, behind, behind)
