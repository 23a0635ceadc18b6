"""The lock that a service has on its PostgreSQL database, so that no second one works on it.

It is held by a connection of its own, so the server takes it away as soon as that is gone.
https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
"""

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncpg
import structlog
from sqlalchemy import Connection, text

from service.store.database import StoreError
from service.store.postgres_errors import FAILURES

if TYPE_CHECKING:
    Driver = asyncpg.Connection[asyncpg.Record]

MIGRATION_KEY = 0x41636B67617465
SERVICE_KEY = MIGRATION_KEY + 1
"""Of the advisory locks of whoever migrates the schema, "Ackgate" in bytes, and of the service."""

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 10.0
"""How long an answer is waited for: a connection that was cut without a word says nothing."""

SETTINGS = {
    "application_name": "ackgate lock",
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
"""A service whose machine died has no lock any more after some ten seconds."""

WAIT_SECONDS = 15.0
"""How long a start waits for a service that has just ended, or died."""
AGAIN_SECONDS = 0.5

TAKEN = "database.url: another service works on this database"

_IS_TAKEN = text(
    "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND objsubid = 1 AND ((classid::bigint << 32) | objid::bigint) = :key)"
)

log = structlog.get_logger(__name__)


def is_taken(connection: Connection) -> bool:
    """Return whether a service works on the database, or a command that none may run beside."""
    return bool(connection.execute(_IS_TAKEN, {"key": SERVICE_KEY}).scalar_one())


class ServiceLock:
    """Is held from `take` to `release`; `is_held` says whether it is just now.

    Where its connection is lost, it is taken again as soon as the server can be reached: until then
    another service may have it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Driver | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def is_held(self) -> bool:
        """Whether no other service works on the database."""
        return self._connection is not None and not self._connection.is_closed()

    async def take(self, wait_seconds: float = WAIT_SECONDS) -> None:
        """Take it. Raises StoreError where another service keeps it, and what the driver raises."""
        ends_at = time.monotonic() + wait_seconds
        while not await self._try():
            if time.monotonic() >= ends_at:
                raise StoreError(TAKEN)
            await asyncio.sleep(AGAIN_SECONDS)
        self._keeping = asyncio.create_task(self._keep())

    async def _try(self) -> bool:
        connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            server_settings=SETTINGS,
        )
        if await connection.fetchval("SELECT pg_try_advisory_lock($1)", SERVICE_KEY):
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
