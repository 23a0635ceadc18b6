"""PostgreSQL: connections for transactions, for queries and for the gate, each kept in a pool.

Every connection is asyncpg's, in autocommit, opened and kept by an engine of SQLAlchemy's: whoever
writes begins a transaction. The few statements that each batch needs go to asyncpg straight; all
other queries are SQLAlchemy's, over the same connection.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import asyncpg
import structlog
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from service.model.recipients import RecipientData
from service.observability import failpoints
from service.store.database import (
    Clock,
    ConflictError,
    FaultError,
    Files,
    RecipientQuery,
    StoreError,
    Transaction,
    UnavailableError,
    wall_clock,
)
from service.store.gate import Gate, Reads
from service.store.logs import SHIFT, offset_of
from service.store.postgres_errors import FAILURES, cause_of, described, translated
from service.store.postgres_lock import COMMAND_SECONDS, CONNECT_SECONDS, ServiceLock
from service.store.postgres_statements import PostgresReads, PostgresTransaction
from service.store.postgres_upgrades import (
    DIALECT,
    bring_up,
    engine_without_limits,
    refuse_unfinished,
)
from service.store.restore import refuse_unmarked
from service.store.upgrades import Opened

if TYPE_CHECKING:
    Driver = asyncpg.Connection[asyncpg.Record]
    Connected = tuple[AsyncConnection, Driver]

T = TypeVar("T")

WRITERS, READERS, GATE_READERS = 3, 3, 1
"""Connections; what comes beyond waits for one of them."""

SETTINGS = {
    "application_name": "ackgate",
    "statement_timeout": "9000",
    "lock_timeout": "5000",
    "idle_in_transaction_session_timeout": "30000",
    "tcp_user_timeout": "15000",
    "jit": "off",
    # A fresh database has no statistics, and would read whole tables long after they have grown.
    "enable_seqscan": "off",
}
"""Times in milliseconds. A lock that nobody lets go of ends with its holder's transaction."""

HOT_SETTINGS = SETTINGS | {"enable_hashjoin": "off", "enable_mergejoin": "off"}
"""Of the connections of hot statements: each looks rows up by an index, and reads no whole one."""

USER_IDS, MIN_USER_IDS = 10_000, 4_000
"""Ids of users that are taken at once, as the sequence counts; and what a batch may need."""

MAX_TRIES = 3
"""So often queries of their own are run at most."""

NOTE_MS = 1_000
"""How often the time of an account's last callback is written: all who write wait for its row."""

_BEGUN = """
SELECT pg_current_xact_id()::text::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
"""
"""In this order: what is dated by a transaction is dated after others can see that it writes."""

log = structlog.get_logger(__name__)


class PostgresDatabase:
    """A database of a PostgreSQL server; see `service.store.database.Database`.

    The server's clock dates what is written, unless another one is given. It is `alone` where no
    other service may work on the database.
    """

    def __init__(self, url: str, *, clock: Clock = wall_clock, alone: bool = True) -> None:
        self.clock = clock
        self._alone = alone
        self._url = url
        self._writers = self._engine(WRITERS, HOT_SETTINGS)
        self._readers = self._engine(READERS, SETTINGS)
        self._gate_readers = self._engine(GATE_READERS, HOT_SETTINGS)
        self._gate = Gate(self._gate_snapshot)
        self._lock = ServiceLock(url)
        self._log_offset = 0
        self._user_ids = range(0)
        self._noted_at: dict[str, int] = {}
        self._taken = 0
        self._all_back = asyncio.Event()

    def _engine(self, connections: int, settings: dict[str, str]) -> AsyncEngine:
        return create_async_engine(
            DIALECT,
            isolation_level="AUTOCOMMIT",
            pool_size=connections,
            max_overflow=0,
            pool_reset_on_return=None,  # whoever takes a connection ends its transaction
            hide_parameters=True,
            connect_args={
                "dsn": self._url,
                "timeout": CONNECT_SECONDS,
                "command_timeout": COMMAND_SECONDS,
                "server_settings": settings,
            },
        )

    async def open(self, *, migrate: bool = True, create: bool = True) -> None:
        """Bring the schema up to date, and look at what there is.

        Raises StoreError, one line, where the database can't be reached, or is not to be used.
        """
        try:
            if self._alone:
                await self._lock.take()
            failpoints.reached("start.before_migration")
            opened = await self._bring_up(migrate=migrate, create=create)
            failpoints.reached("start.after_migration")
            if opened.before is None:
                log.warning("made a new database: nobody is known, nobody is held")
            elif opened.before != opened.after:
                fields = {"from": opened.before, "to": opened.after}
                log.info("migrated the database", **fields, seconds=round(opened.seconds, 3))
            async with self._connected(self._writers) as (connection, _):
                await connection.run_sync(refuse_unfinished)
                await connection.run_sync(refuse_unmarked)
                self._log_offset = await connection.run_sync(offset_of)
        except StoreError:
            await self.close()
            raise
        except FAILURES as error:
            await self.close()
            raise StoreError(f"database.url: {described(cause_of(error))}") from None

    async def _bring_up(self, *, migrate: bool, create: bool) -> Opened:
        """Migrate, for as long as that takes."""
        async with engine_without_limits(self._url) as engine:
            return await bring_up(engine, migrate=migrate, create=create, created_at=self.clock())

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Begin a transaction; see `Database.transaction`."""
        if self._alone and not self._lock.is_held:
            raise UnavailableError("another service may work on the database")
        with translated():
            async with self._connected(self._writers) as (connection, driver):
                try:
                    await driver.execute("BEGIN")
                    xid, now = await driver.fetchrow(_BEGUN) or (0, 0)
                    if len(self._user_ids) < MIN_USER_IDS:
                        first = await driver.fetchval("SELECT nextval('user_ids')")
                        self._user_ids = range(first, first + USER_IDS)
                    transaction = PostgresTransaction(
                        connection,
                        driver,
                        now if self.clock is wall_clock else self.clock(),
                        (xid << SHIFT) + self._log_offset,
                        self._take_user_id,
                        self._may_note,
                    )
                    yield transaction
                    await transaction.finish()
                    failpoints.reached("store.before_commit")
                    await driver.execute("COMMIT")
                    failpoints.reached("store.after_commit")
                except BaseException:
                    await _roll_back(connection, driver)
                    raise
            self._noted_at |= dict.fromkeys(transaction.noted, self.clock())

    def _take_user_id(self) -> int:
        taken, self._user_ids = self._user_ids[0], self._user_ids[1:]
        return taken

    def _may_note(self, account: str) -> bool:
        """Whether the time of an account's last callback is to be written again."""
        return abs(self.clock() - self._noted_at.get(account, 0)) >= NOTE_MS

    async def write(self, query: Callable[[Connection], T]) -> T:
        """Run queries in a transaction of their own, which runs again where another was first."""
        for _ in range(MAX_TRIES - 1):
            with suppress(ConflictError):
                return await self._write(query)
        return await self._write(query)

    async def _write(self, query: Callable[[Connection], T]) -> T:
        async with self.transaction() as transaction:
            return await transaction.run(query)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run queries on a snapshot; see `Database.read`."""
        with translated():
            async with self._snapshot(self._readers) as (connection, _):
                return await connection.run_sync(query)

    async def find_recipients(self, query: RecipientQuery) -> RecipientData:
        """Find what is known of recipients; see `Database.find_recipients`."""
        return await self._gate.find(query)

    @asynccontextmanager
    async def _gate_snapshot(self) -> AsyncIterator[Reads]:
        """Open a snapshot for the gate's statements."""
        with translated():
            async with self._snapshot(self._gate_readers) as (_, driver):
                yield PostgresReads(driver)

    @asynccontextmanager
    async def _snapshot(self, engine: AsyncEngine) -> AsyncIterator["Connected"]:
        async with self._connected(engine) as (connection, driver):
            try:
                await driver.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield connection, driver
            finally:
                await _roll_back(connection, driver)

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine) -> AsyncIterator["Connected"]:
        """Take a connection, SQLAlchemy's and the driver's; its transaction is the caller's."""
        self._taken += 1
        try:
            async with engine.connect() as connection:
                driver = await driver_of(connection)
                while driver.is_closed():  # the server has ended it meanwhile
                    await connection.invalidate()
                    driver = await driver_of(connection)
                yield connection, driver
        finally:
            self._taken -= 1
            self._all_back.set()

    def fault(self) -> FaultError | None:
        """Return None: PostgreSQL itself sees to its files."""
        return None

    async def free_bytes(self) -> int | None:
        """Return None: where PostgreSQL keeps its files is not known here."""
        return None

    async def files(self) -> Files | None:
        """Return None: the log and the backups are PostgreSQL's own."""
        return None

    async def close(self) -> None:
        """Finish what was begun, and close the connections."""
        failpoints.reached("stop.before_close")
        await self._gate.close()
        while self._taken:
            self._all_back.clear()
            await self._all_back.wait()
        for engine in (self._readers, self._gate_readers, self._writers):
            await engine.dispose()
        await self._lock.release()
        failpoints.reached("stop.after_close")


async def driver_of(connection: AsyncConnection) -> "Driver":
    """Return the driver's connection that is under SQLAlchemy's."""
    raw = await connection.get_raw_connection()
    driver = raw.driver_connection
    if not isinstance(driver, asyncpg.Connection):
        raise TypeError("the engine is not asyncpg's")
    return driver


async def _roll_back(connection: AsyncConnection, driver: "Driver") -> None:
    """Undo everything since the transaction began; a connection that fails even so is thrown away.

    So is one that was cut short, as where its task is cancelled: who knows what it still does.
    """
    try:
        await driver.execute("ROLLBACK")
    except BaseException as error:
        driver.terminate()
        await connection.invalidate(error)
        if not isinstance(error, Exception):
            raise
