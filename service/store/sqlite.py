"""SQLite: one connection that writes, others that read beside it, one process per file.

Every connection is aiosqlite's, a thread each, opened and kept by an engine of SQLAlchemy's. The
few statements that each batch needs go to aiosqlite straight (`SQLiteTransaction`, `Gate`); all
other queries are SQLAlchemy's, over the same connection.
"""

import asyncio
import itertools
import shlex
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiosqlite
import structlog
from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from service.model.recipients import RecipientData
from service.observability import failpoints
from service.store import upgrades
from service.store.database import (
    UNIQUE_VIOLATION,
    Alone,
    Clock,
    ConflictError,
    FaultError,
    Files,
    NoRoomError,
    RecipientQuery,
    StoreError,
    Transaction,
    UnavailableError,
    wall_clock,
)
from service.store.erased import ErasedNames
from service.store.gate import Gate, Reads
from service.store.sqlite_checkpoints import PASSIVE, Checkpoints
from service.store.sqlite_faults import CURE, Faults, is_damage, is_no_room
from service.store.sqlite_files import (
    BUSY_TIMEOUT_SECONDS,
    PAGES_A_STEP,
    FileLock,
    backups_beside,
    beside,
    look_at_files,
    need_folder,
    pragmas,
    readable_by_others,
    sync,
)
from service.store.sqlite_statements import SQLiteReads, SQLiteTransaction

T = TypeVar("T")

READERS = 2
"""Connections for queries; what comes beyond waits for one of them."""

SCRUBS = 100
SCRUB_PAUSE_SECONDS = 0.1
"""How often the write-ahead log is tried to be emptied, and the time between."""
TRUNCATE = "PRAGMA wal_checkpoint(TRUNCATE)"

_TAKEN = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_ROWID,
}
_FAULTS_OF_THE_WORK = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError)
"""Not the database fails here but what it was asked: trying again would not help."""


log = structlog.get_logger(__name__)


class SQLiteDatabase(Alone):
    """A SQLite file: WAL and FULL, so that what was committed survives a power cut.

    See `service.store.database.Database`.
    """

    def __init__(self, path: Path, *, clock: Clock = wall_clock) -> None:
        self.clock = clock
        self._path = path
        self._lock = FileLock(path)
        self._turn = asyncio.Lock()
        self._faults = Faults(path)
        self._writer = _engine(path, read_only=False, connections=1)
        self._copier = _engine(path, read_only=False, connections=1)
        self._readers = _engine(path, read_only=True, connections=READERS)
        self._gate_reader = _engine(path, read_only=True, connections=1)
        self._gate = Gate(self._gate_snapshot)
        self._checkpoints = Checkpoints(path, self._copy_beside, self._copy_within)
        self._erased = ErasedNames()
        self._writes: set[asyncio.Task[Any]] = set()
        # One process alone writes to the file, so counting is enough.
        self._user_ids = itertools.count(1)
        self._journal_ids = itertools.count(1)
        self._event_ids = itertools.count(1)

    async def open(self, *, migrate: bool = True, create: bool = True) -> None:
        """Take the file for this process, bring its schema up to date, and open it.

        Raises StoreError, one line, where the file is in use, too new, or not to be used; and where
        there is none, and one was here before, or `create` is not set.
        """
        need_folder(self._path)
        self._lock.take()
        try:
            failpoints.reached("start.before_migration")
            bring_up = partial(upgrades.bring_up, self._path, self._lock, created_at=self.clock())
            opened = await asyncio.to_thread(bring_up, migrate=migrate, create=create)
            failpoints.reached("start.after_migration")
            self._say(opened)
            await self._begin_anew()
        except (sqlite3.Error, DBAPIError, OSError) as error:
            await self.close()
            cause = _cause(error)
            cure = f": {CURE}" if is_damage(cause) else ""
            kind = NoRoomError if is_no_room(cause) else StoreError
            raise kind(f"database.url: {self._path}: {cause}{cure}") from None
        except StoreError:
            await self.close()
            raise

    def _say(self, opened: upgrades.Opened) -> None:
        """Log what was done to the file."""
        if opened.before is None:
            log.warning(
                "made a new database: nobody is known, nobody is held", file=str(self._path)
            )
        if opened.backup is not None:
            fields = {"from": opened.before, "to": opened.after, "backup": str(opened.backup)}
            log.info("migrated the database", **fields, seconds=round(opened.seconds, 3))
        if open_to_others := readable_by_others(self._path):
            command = shlex.join(["chmod", "600", *map(str, open_to_others)])
            log.warning("other users may read the database", command=command)

    async def _begin_anew(self) -> None:
        """End the leases of the process before, which is dead, and find the first free ids."""
        async with _connected(self._writer) as (_, driver):
            failpoints.reached("start.before_leases_cleared")
            await driver.execute(
                "UPDATE outbox SET holder = NULL, lease_until = NULL WHERE holder IS NOT NULL"
            )
            failpoints.reached("start.after_leases_cleared")
            rows = await driver.execute_fetchall(
                "SELECT (SELECT coalesce(max(id), 0) + 1 FROM users), "
                "(SELECT coalesce(max(id), 0) + 1 FROM journal), "
                "(SELECT coalesce(max(id), 0) + 1 FROM events)"
            )
        ((user_id, journal_id, event_id),) = rows
        self._user_ids, self._journal_ids = itertools.count(user_id), itertools.count(journal_id)
        self._event_ids = itertools.count(event_id)
        self._faults.begin()

    @asynccontextmanager
    async def transaction(self, *, led: bool = False) -> AsyncIterator[Transaction]:  # noqa: ARG002  it always leads
        """Begin a transaction; see `Database.transaction`."""
        async with self._turn:
            self._faults.refuse()
            with self._translated():
                async with _connected(self._writer) as (connection, driver):
                    try:
                        await driver.execute("BEGIN IMMEDIATE")
                        yield SQLiteTransaction(
                            connection,
                            driver,
                            self.clock(),
                            self._user_ids.__next__,
                            self._journal_ids.__next__,
                            self._event_ids.__next__,
                            self._erased,
                        )
                        failpoints.reached("store.before_commit")
                        self._faults.refuse()
                        await _commit(connection, driver)
                        failpoints.reached("store.after_commit")
                    except BaseException:
                        await _roll_back(connection, driver)
                        raise
            self._checkpoints.note()

    async def write(self, query: Callable[[Connection], T], *, led: bool = False) -> T:
        """Run queries in a transaction of their own; see `Database.write`."""
        return await self.write_dated(lambda connection, _: query(connection), led=led)

    async def write_dated(self, query: Callable[[Connection, int], T], *, led: bool = False) -> T:  # noqa: ARG002  it always leads
        """Run queries given the time; see `Database.write_dated`.

        It comes to its end although the caller is cancelled: SQLAlchemy closes a connection whose
        statement is cut short, and SQLite may keep its lock until the statement is forgotten.
        """
        writing = asyncio.create_task(self._write(query))
        self._writes.add(writing)
        writing.add_done_callback(self._writes.discard)
        return await asyncio.shield(writing)

    async def _write(self, query: Callable[[Connection, int], T]) -> T:
        async with self.transaction() as transaction:
            return await transaction.run(lambda connection: query(connection, transaction.now))

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run queries on a snapshot; see `Database.read`."""
        self._faults.refuse()
        with self._translated():
            async with self._readers.begin() as connection:
                return await connection.run_sync(query)

    async def find_recipients(self, query: RecipientQuery) -> RecipientData:
        """Find what is known of recipients; see `Database.find_recipients`."""
        return await self._gate.find(query)

    @asynccontextmanager
    async def _gate_snapshot(self) -> AsyncIterator[Reads]:
        """Open a snapshot for the gate's statements."""
        self._faults.refuse()
        with self._translated():
            async with _connected(self._gate_reader) as (connection, driver):
                try:
                    await driver.execute("BEGIN")
                    yield SQLiteReads(driver, self._erased)
                finally:
                    await _roll_back(connection, driver)

    def fault(self) -> FaultError | None:
        """Return what keeps the file from being used; see `Database.fault`."""
        return self._faults.found()

    async def free_bytes(self) -> int:
        """Return what is free on the file system of the file."""
        with self._translated():
            return (await asyncio.to_thread(shutil.disk_usage, self._path.parent)).free

    async def files(self) -> Files:
        """Return the size of the log, and when the last backup was made; see `Database.files`."""
        return await asyncio.to_thread(look_at_files, self._path)

    async def scrub(self) -> Sequence[str]:
        """Empty the write-ahead log; see `Database.scrub`."""
        await self._copy_beside()
        for _ in range(SCRUBS):
            async with self._turn:
                with self._translated():
                    async with _connected(self._writer) as (_, driver):
                        ((busy, _, _),) = await driver.execute_fetchall(TRUNCATE)
            if not busy:
                break
            await asyncio.sleep(SCRUB_PAUSE_SECONDS)
        else:
            raise UnavailableError("the write-ahead log is being read")
        return await asyncio.to_thread(backups_beside, self._path)

    async def _copy_beside(self) -> tuple[int, int]:
        return await self._copy(self._copier)

    async def _copy_within(self) -> tuple[int, int]:
        async with self._turn:
            return await self._copy(self._writer)

    async def _copy(self, engine: AsyncEngine) -> tuple[int, int]:
        """Copy what can be copied of the log; return its pages, and how many of them are copied."""
        with self._translated():
            async with _connected(engine) as (_, driver):
                ((_, pages, copied),) = await driver.execute_fetchall(PASSIVE)
        return pages, copied

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the driver or the system raises into the store's own errors."""
        try:
            yield
        except PoolTimeoutError:
            raise UnavailableError("too many queries wait for the database") from None
        except (sqlite3.Error, DBAPIError, OSError) as error:
            cause = _cause(error)
            if getattr(cause, "sqlite_errorcode", None) in _TAKEN:
                raise ConflictError(UNIQUE_VIOLATION) from None
            if isinstance(cause, _FAULTS_OF_THE_WORK):
                raise
            self._faults.note(cause)
            kind = NoRoomError if is_no_room(cause) else UnavailableError
            raise self._faults.found() or kind(str(cause)) from None

    async def close(self) -> None:
        """Finish what was begun, and let the file go; one that is lost is written once more."""
        failpoints.reached("stop.before_close")
        await asyncio.gather(*self._writes, return_exceptions=True)
        await self._checkpoints.close()
        await self._gate.close()
        async with self._turn:
            is_rescued = self._faults.is_lost and await self._rescue()
            for engine in (self._copier, self._readers, self._gate_reader, self._writer):
                await engine.dispose()
            if is_rescued:
                self._faults.remove_left_log()
        failpoints.reached("stop.after_close")
        self._lock.release()

    async def _rescue(self) -> bool:
        """Write the open file, which has lost its name, to a new one beside; return whether it is.

        Every callback that was answered 200 is in it.
        """
        now = datetime.now(UTC)
        target = self._path.with_name(f"{self._path.name}.rescued-{now:%Y%m%dT%H%M%SZ}")
        try:
            with beside(self._path) as copy:
                async with (
                    _connected(self._writer) as (_, driver),
                    aiosqlite.connect(copy, isolation_level=None) as fresh,
                ):
                    await driver.backup(fresh, pages=PAGES_A_STEP)
                    await fresh.execute("PRAGMA journal_mode = DELETE")
                sync(copy)
                copy.rename(target)
                sync(target.parent)
        except (sqlite3.Error, DBAPIError, OSError, StoreError) as error:
            log.critical("the open database could not be rescued", error=str(_cause(error)))
            return False
        log.warning("the open database was rescued: put it in its place", file=str(target))
        return True


@asynccontextmanager
async def _connected(
    engine: AsyncEngine,
) -> AsyncIterator[tuple[AsyncConnection, aiosqlite.Connection]]:
    """Take a connection, SQLAlchemy's and the driver's; its transaction is the caller's affair."""
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        if not isinstance(driver, aiosqlite.Connection):
            raise TypeError("the engine is not aiosqlite's")
        yield connection, driver


async def _commit(connection: AsyncConnection, driver: aiosqlite.Connection) -> None:
    """Commit, for SQLAlchemy too where a query went through it."""
    if connection.in_transaction():
        await connection.commit()
    else:
        await driver.commit()


async def _roll_back(connection: AsyncConnection, driver: aiosqlite.Connection) -> None:
    """Undo everything since the transaction began, unless the connection is closed already.

    SQLAlchemy closes one whose statement was cut short, as where its task is cancelled.
    """
    if connection.in_transaction():
        await connection.rollback()
    elif not connection.invalidated:
        await driver.rollback()


def _engine(path: Path, *, read_only: bool, connections: int) -> AsyncEngine:
    """Make an engine over connections in autocommit: whoever writes begins a transaction."""
    url = URL.create(
        "sqlite+aiosqlite",
        database=f"file:{quote(str(path))}",
        query={"mode": "ro" if read_only else "rw", "uri": "true"},
    )
    engine = create_async_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_reset_on_return=None,  # whoever takes a connection ends its transaction
        connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_SECONDS},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: sqlite3.Connection, _: object) -> None:
        cursor = connection.cursor()
        for pragma in pragmas(read_only=read_only):
            cursor.execute(pragma)
        cursor.close()

    if read_only:
        # Several queries of one reader see the same snapshot. sqlite3 itself begins nothing.
        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")

    return engine


def _cause(error: Exception) -> BaseException:
    """Return what the driver raised: SQLAlchemy's text would add statement and parameters."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    return cause or error
