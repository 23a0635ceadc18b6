"""Seals the audit trail once a minute, so that whoever changes it can be found out.

The log has each seal: a copy of it that is kept elsewhere says what `ackgate audit verify --seal`
is to find.
"""

import asyncio

import structlog

from service.store.database import Database, UnavailableError
from service.store.trail import has_unsealed, seal_next

EVERY_SECONDS = 60.0
PAUSE_SECONDS = 0.05
"""Between two ranges: others write meanwhile."""

log = structlog.get_logger(__name__)


class Sealer:
    """Seals what is settled of the trail, a range after the other."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Seal, again and again."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.seal()
            except UnavailableError:
                log.warning("sealing the audit trail has to wait: the database is not available")
            except Exception:
                log.exception("sealing the audit trail failed")

    async def seal(self) -> None:
        """Seal what there is by now. Raises UnavailableError."""
        newest = None
        while await self._database.read(has_unsealed):
            sealed = await self._database.write_dated(seal_next, led=True)
            newest = sealed or newest
            await asyncio.sleep(PAUSE_SECONDS)
        if newest is not None:
            log.info("sealed the audit trail", seal=newest)
