"""SQLite: one writer on a thread of its own, readers beside it, one process per file."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import aiosqlite
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from service.model.recipients import RecipientData
from service.observability import failpoints
from service.store import schema
from service.store.database import RecipientQuery, StoreError, Transaction, UnavailableError
from service.store.recipients import find_recipients
from service.store.sqlite_checkpoints import Checkpoints, checkpoint, yield_to_others
from service.store.sqlite_files import (
    BUSY_TIMEOUT_MS,
    GATE_CACHE_KIB,
    READERS_CACHE_KIB,
    FileLock,
    connect,
    prepare_file,
)
from service.store.sqlite_reads import SQLiteReads
from service.store.sqlite_statements import SQLiteTransaction

T = TypeVar("T")
K = TypeVar("K")
W = TypeVar("W")

_Attempted = tuple[Any, BaseException | None]
"""What a piece of work came to, or why it came to nothing."""

READERS = 2
BUSY_STEP_SECONDS = 0.01
SLOW_SECONDS = 0.02
SLOW_FOR_SECONDS = 1.0
"""A batch that waited so long for the disk keeps the next ones off the event loop, for so long."""
MAX_READS_AT_ONCE = 64
MAX_RECIPIENTS_AT_ONCE = 1_000

_FAULTS_OF_THE_WORK = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError)
"""Not the database fails here but what it was asked: trying again would not help."""


class _Threaded(aiosqlite.Connection):
    """A connection on a thread of its own that runs whole pieces of work there.

    aiosqlite's own methods pay one hop to the thread for every statement; a batch pays one.
    """

    engine: Engine

    async def run(self, work: Callable[[], T]) -> T:
        """Run the work on the connection's thread."""
        return await self._execute(work)  # type: ignore[no-any-return,no-untyped-call] # aiosqlite types it so

    async def open(self) -> None:
        """Connect, and let SQLAlchemy speak through this very connection."""
        await self
        self.engine = create_engine(
            "sqlite://", creator=lambda: self.raw, poolclass=StaticPool, pool_reset_on_return=None
        )

    @property
    def raw(self) -> sqlite3.Connection:
        """The driver's connection, for work on its thread."""
        return self._conn

    def begin_with(self, statement: str) -> None:
        """Open every transaction of SQLAlchemy's with this statement: sqlite3 itself opens none."""

        @event.listens_for(self.engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql(statement)


class SQLiteDatabase:
    """A SQLite file: WAL and FULL, so that what was committed survives a power cut."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path)
        self._writer = _Threaded(partial(connect, path), 64)
        self._readers = [_Reader(path) for _ in range(READERS)]
        self._gate = _Gate(path, GATE_CACHE_KIB)
        self._next_user_id = 1
        self._turn = asyncio.Lock()
        self._slow_until = 0.0
        self._copier = _Threaded(partial(connect, path), 64)
        self._checkpoints = Checkpoints(self._checkpoint_beside, self._checkpoint_within)

    async def open(self, *, migrate: bool = True) -> None:
        """Take the file for this process, bring its schema up to date, and open it.

        Raises StoreError, one line, where the file is in use, too new, or not to be used.
        """
        prepare_file(self._path)
        self._lock.take()
        try:
            failpoints.reached("start.before_migration")
            await asyncio.to_thread(schema.bring_up, self._path, migrate=migrate)
            failpoints.reached("start.after_migration")
            await self._writer.open()
            self._next_user_id = await self._writer.run(self._first_free_user_id)
            await self._copier.open()
            await self._copier.run(yield_to_others)
            for reader in self._all_readers():
                await reader.open()
        except (sqlite3.Error, DBAPIError) as error:
            await self.close()
            raise StoreError(f"database.url: {self._path}: {_cause(error)}") from None
        except StoreError:
            await self.close()
            raise

    def _first_free_user_id(self) -> int:
        raw = self._writer.raw
        failpoints.reached("start.before_leases_cleared")
        raw.execute("UPDATE outbox SET holder = NULL, lease_until = NULL WHERE holder NOT NULL")
        failpoints.reached("start.after_leases_cleared")
        # From here on whoever is in the way is waited for on the event loop, see _begin.
        raw.execute("PRAGMA busy_timeout = 0")
        row = raw.execute("SELECT coalesce(max(id), 0) + 1 FROM users").fetchone()
        return int(row[0])

    async def write(self, work: Callable[[Transaction], T], *, light: bool = False) -> T:
        """Run the work in one transaction; see `Database.write`.

        The statements of light work run on the event loop: beside Python code that holds the GIL a
        thread gains nothing, and its switches cost a tenth of the accept rate. What may wait for
        the disk or for another program, the commit and the lock, never blocks the loop; and where
        pages come slowly, the statements too go to the thread.
        """
        async with self._turn:
            transaction = SQLiteTransaction(
                self._writer.raw, self._writer.engine.connect, self._take_user_id
            )
            try:
                try:
                    result = await self._transact(transaction, work, light=light)
                except BaseException:
                    await self._writer.run(transaction.roll_back)
                    raise
            except (sqlite3.Error, DBAPIError, OSError) as error:
                if isinstance(_driver_error(error), _FAULTS_OF_THE_WORK):
                    raise
                raise UnavailableError(_cause(error)) from None
            self._checkpoints.note(self._writer.raw.total_changes)
            return result

    async def _checkpoint_beside(self) -> tuple[int, int]:
        return await self._copier.run(partial(checkpoint, self._copier.raw))

    async def _checkpoint_within(self) -> tuple[int, int]:
        async with self._turn:
            return await self._writer.run(partial(checkpoint, self._writer.raw))

    async def _transact(
        self, transaction: SQLiteTransaction, work: Callable[[Transaction], T], *, light: bool
    ) -> T:
        await _begin(transaction)
        # From here to the commit no turn of the event loop is needed: the lock is soon let go.
        if not light or time.monotonic() < self._slow_until:
            return await self._writer.run(partial(_work_and_commit, transaction, work))
        begun, used = time.monotonic(), time.thread_time()
        result = work(transaction)
        ended = time.monotonic()
        if ended - begun - (time.thread_time() - used) > SLOW_SECONDS:
            self._slow_until = ended + SLOW_FOR_SECONDS
        await self._writer.run(partial(_commit, transaction))
        return result

    def _all_readers(self) -> "list[_Gathering[Any]]":
        return [*self._readers, self._gate]

    def _take_user_id(self) -> int:
        """Give the next id; one process only writes to the file, so counting here is enough."""
        taken = self._next_user_id
        self._next_user_id += 1
        return taken

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run the work on a snapshot; see `Database.read`."""
        reader = min(self._readers, key=lambda r: r.waiting)
        return await reader.read(work)

    async def look_up(self, query: RecipientQuery, then: Callable[[RecipientData], T]) -> T:
        """Find what is known of recipients, and answer from it; see `Database.look_up`."""
        return await self._gate.look_up(query, then)

    async def close(self) -> None:
        """Finish what was begun, and let the file go."""
        failpoints.reached("stop.before_close")
        await self._checkpoints.close()
        await self._copier.close()
        for reader in self._all_readers():
            await reader.close()
        async with self._turn:
            await self._writer.close()
        failpoints.reached("stop.after_close")
        self._lock.release()


async def _begin(transaction: SQLiteTransaction) -> None:
    """Begin, as soon as no other program holds the lock."""
    patience = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            transaction.begin()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > patience:
                raise
        else:
            return
        await asyncio.sleep(BUSY_STEP_SECONDS)


def _work_and_commit(transaction: SQLiteTransaction, work: Callable[[Transaction], T]) -> T:
    result = work(transaction)
    _commit(transaction)
    return result


def _commit(transaction: SQLiteTransaction) -> None:
    failpoints.reached("store.before_commit")
    transaction.commit()
    failpoints.reached("store.after_commit")


class _Gathering(Generic[W]):
    """A read-only connection that gathers what waits and does it in one hop."""

    def __init__(self, path: Path, cache_kib: int = READERS_CACHE_KIB) -> None:
        connector = partial(connect, path, read_only=True, cache_kib=cache_kib)
        self._connection = _Threaded(connector, 64)
        self._waiting: list[tuple[W, asyncio.Future[Any]]] = []
        self._running: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many reads wait for this connection."""
        return len(self._waiting) + (self._running is not None)

    async def open(self) -> None:
        """Connect."""
        await self._connection.open()
        self._connection.begin_with("BEGIN")

    def add(self, work: W) -> asyncio.Future[Any]:
        """Do a piece of work along with what else waits."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return future

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[: self._fitting()]
                del self._waiting[: len(batch)]
                works = [work for work, _ in batch]
                results = await self._connection.run(partial(self._do_all, works))
                for (_, future), (value, error) in zip(batch, results, strict=True):
                    _resolve(future, value, error)
        finally:
            self._running = None

    def _fitting(self) -> int:
        """Tell how much of what waits is done at once."""
        return MAX_READS_AT_ONCE

    def _do_all(self, works: list[W]) -> list[_Attempted]:
        try:
            return self._on_snapshot(works)
        except (sqlite3.Error, DBAPIError) as error:
            unavailable = UnavailableError(_cause(error))
            return [(None, unavailable) for _ in works]
        except Exception as error:  # noqa: BLE001  nobody may be left waiting
            return [(None, error) for _ in works]

    def _on_snapshot(self, works: list[W]) -> list[_Attempted]:
        raise NotImplementedError

    async def close(self) -> None:
        """Finish the reads that wait, and let go."""
        while self._running is not None:
            with suppress(asyncio.CancelledError):
                await self._running
        await self._connection.close()


class _Reader(_Gathering[Callable[[Connection], Any]]):
    """Does queries, whatever they are."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run the work along with what else waits."""
        found: T = await self.add(work)
        return found

    def _on_snapshot(self, works: list[Callable[[Connection], Any]]) -> list[_Attempted]:
        with self._connection.engine.begin() as connection:
            return [_attempt(work, connection) for work in works]


class _Gate(_Gathering[tuple[RecipientQuery, Callable[[RecipientData], Any]]]):
    """Answers the questions of the gate, those that wait from the same statements."""

    async def look_up(self, query: RecipientQuery, then: Callable[[RecipientData], T]) -> T:
        """Ask along with who else waits."""
        found: T = await self.add((query, then))
        return found

    def _fitting(self) -> int:
        """Let nobody wait for more recipients of others than the largest lookup may have."""
        recipients = 0
        for count, ((query, _), _) in enumerate(self._waiting[:MAX_READS_AT_ONCE]):
            recipients += len(query.asked)
            if count and recipients > MAX_RECIPIENTS_AT_ONCE:
                return count
        return MAX_READS_AT_ONCE

    def _on_snapshot(
        self, works: list[tuple[RecipientQuery, Callable[[RecipientData], Any]]]
    ) -> list[_Attempted]:
        try:
            found = self._find([query for query, _ in works])
        except Exception as error:
            if isinstance(error, sqlite3.Error) or len(works) == 1:
                raise
            return [attempted for work in works for attempted in self._do_all([work])]
        return [_attempt(then, data) for (_, then), data in zip(works, found, strict=True)]

    def _find(self, queries: list[RecipientQuery]) -> list[RecipientData]:
        raw = self._connection.raw
        raw.execute("BEGIN")
        try:
            return find_recipients(SQLiteReads(raw), queries)
        finally:
            if raw.in_transaction:
                raw.execute("COMMIT")


def _attempt(work: Callable[[K], Any], known: K) -> _Attempted:
    try:
        return work(known), None
    except (sqlite3.Error, DBAPIError) as error:
        return None, UnavailableError(_cause(error))
    except Exception as error:  # noqa: BLE001  one reader's fault is its own
        return None, error


def _resolve(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)


def _driver_error(error: Exception) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _cause(error: Exception) -> str:
    """Say what the driver said; SQLAlchemy would add statement and parameters."""
    return str(_driver_error(error))
