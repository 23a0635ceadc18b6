"""The lock that a service has on its PostgreSQL database, so that no second one works on it.

It is held by a connection of its own, so the server takes it away as soon as that is gone.
https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncpg
import structlog

from service.store.database import StoreError
from service.store.postgres_errors import FAILURES

if TYPE_CHECKING:
    Driver = asyncpg.Connection[asyncpg.Record]

KEY = 0x41636B67617465 + 1
"""Of the advisory lock."""

WAIT_SECONDS = 15.0
"""How long a start waits for a service that has just ended, or died."""
AGAIN_SECONDS = 0.5

TAKEN = "database.url: another service works on this database"

log = structlog.get_logger(__name__)


class ServiceLock:
    """Is held from `take` to `release`; `is_held` says whether it is just now.

    Where its connection is lost, it is taken again as soon as the server can be reached: until then
    another service may have it.
    """

    def __init__(self, connect: Callable[[], "Awaitable[Driver]"]) -> None:
        self._connect = connect
        self._connection: Driver | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def is_held(self) -> bool:
        """Whether no other service works on the database."""
        return self._connection is not None and not self._connection.is_closed()

    async def take(self) -> None:
        """Take it. Raises StoreError where another service keeps it, and what the driver raises."""
        ends_at = time.monotonic() + WAIT_SECONDS
        while not await self._try():
            if time.monotonic() > ends_at:
                raise StoreError(TAKEN)
            await asyncio.sleep(AGAIN_SECONDS)
        self._keeping = asyncio.create_task(self._keep())

    async def _try(self) -> bool:
        connection = await self._connect()
        if await connection.fetchval("SELECT pg_try_advisory_lock($1)", KEY):
            self._connection = connection
            return True
        await connection.close()
        return False

    async def _keep(self) -> None:
        """Look again and again whether it is held, and take it where it is not."""
        is_told = False
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            try:
                if self._connection is not None:
                    await self._connection.fetchval("SELECT 1")
                elif await self._try():
                    log.info("the lock of the database is held again")
                    is_told = False
                elif not is_told:
                    log.error("another service works on the database: this one stores nothing")
                    is_told = True
            except FAILURES:
                self._let_go()

    def _let_go(self) -> None:
        if self._connection is not None:
            log.warning("the connection that holds the lock of the database was lost")
            self._connection.terminate()
            self._connection = None

    async def release(self) -> None:
        """Let it go."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._connection is not None:
            with suppress(*FAILURES):
                await self._connection.close(timeout=1)
