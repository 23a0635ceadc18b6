"""Writes down that the service is alive, so that a start knows for how long it was not."""

import asyncio
from collections.abc import Callable

import structlog

from service.ledger.ledger import Ledger
from service.model.gate import Reason, catching_up
from service.store.database import Database, UnavailableError
from service.store.queries import alive_at, note_alive

EVERY_SECONDS = 10.0

log = structlog.get_logger(__name__)


class Heartbeat:
    """One of a service. `tell` hears what the gate is to say after a time without service.

    A time in which the database refused what was to be written is one too: callbacks were
    answered 503 then.
    """

    def __init__(
        self, ledger: Ledger, database: Database, tell: Callable[[Reason | None], None]
    ) -> None:
        self._ledger = ledger
        self._database = database
        self._tell = tell
        self._well_at: int | None = None
        self._refused = 0
        self._was_away = True

    async def begin(self) -> None:
        """Find out since when the service was down, before anybody asks the gate."""
        self._well_at = await self._database.read(alive_at)
        await self._note()

    async def run(self) -> None:
        """Beat, again and again."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self.beat()

    async def beat(self) -> None:
        """Note that the service is alive, and whether callbacks were refused since."""
        try:
            await self._note()
        except UnavailableError:
            self._was_away = True
        except Exception:
            log.exception("noting that the service is alive failed")

    async def _note(self) -> None:
        now, refused = self._ledger.clock(), self._ledger.refused
        is_well = refused == self._refused
        if is_well:
            await self._database.write(lambda t: note_alive(t.connection, now))
        if self._was_away or not is_well:
            self._tell(catching_up(self._well_at, now))
        self._was_away, self._refused = not is_well, refused
        if is_well:
            self._well_at = now
