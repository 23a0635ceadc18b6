"""PostgreSQL: connections for transactions, for queries and for the gate, each kept in a pool.

Every connection is asyncpg's, in autocommit, opened and kept by an engine of SQLAlchemy's: whoever
writes begins a transaction. The few statements that each batch needs go to asyncpg straight; all
other queries are SQLAlchemy's, over the same connection.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import asyncpg
import structlog
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from service.model.recipients import RecipientData
from service.model.users import Kind
from service.observability import failpoints
from service.store.database import (
    ChangeSet,
    Clock,
    ConflictError,
    FaultError,
    Files,
    NotLeaderError,
    RecipientQuery,
    StoreError,
    Transaction,
    wall_clock,
)
from service.store.erased import ErasedNames
from service.store.gate import Gate, Reads
from service.store.logs import SHIFT, offset_of
from service.store.postgres_errors import FAILURES, cause_of, described, translated
from service.store.postgres_peers import NOW, Peers
from service.store.postgres_statements import PostgresReads, PostgresTransaction
from service.store.postgres_upgrades import (
    CONNECT_SECONDS,
    DIALECT,
    bring_up,
    engine_without_limits,
)
from service.store.upgrades import Opened

if TYPE_CHECKING:
    Driver = asyncpg.Connection[asyncpg.Record]
    Connected = tuple[AsyncConnection, Driver]

T = TypeVar("T")

WRITERS, READERS, GATE_READERS = 3, 3, 1
"""Connections; what comes beyond waits for one of them."""

COMMAND_SECONDS = 10.0
"""How long an answer is waited for: a connection that was cut without a word says nothing."""

SETTINGS = {
    "application_name": "ackgate",
    "statement_timeout": "9000",
    "lock_timeout": "5000",
    "idle_in_transaction_session_timeout": "5000",
    "tcp_user_timeout": "15000",
    "jit": "off",
    # A fresh database has no statistics, and would read whole tables long after they have grown.
    "enable_seqscan": "off",
}
"""Times in milliseconds. A lock that nobody lets go of ends with its holder's transaction.

The server ends the transaction of a process that hangs: it keeps neither users nor the lead.
"""

HOT_SETTINGS = SETTINGS | {"enable_hashjoin": "off", "enable_mergejoin": "off"}
"""Of the connections of hot statements: each looks rows up by an index, and reads no whole one."""

USER_IDS, MIN_USER_IDS = 10_000, 4_000
"""Ids of users that are taken at once, as the sequence counts; and what a batch may need."""

MAX_TRIES = 3
"""So often queries of their own are run at most."""

NOTE_MS = 1_000
"""How often the time of an account's last callback is written: all who write wait for its row."""

_BEGUN = f"""
SELECT pg_current_xact_id()::text::bigint, {NOW}, (SELECT true FROM replicas WHERE id = $1)
"""  # noqa: S608  constants of ours only
"""In this order: what is dated by a transaction is dated after others can see that it writes."""

_BEGIN_LED = "BEGIN; SET LOCAL statement_timeout = 4000"
"""A transaction of the leader's that hangs has ended before others have to have taken over."""

HOLD_LEAD = "SELECT 1 FROM leadership WHERE term = $1 FOR KEY SHARE NOWAIT"
"""Whoever takes the lead changes the term, so it waits for those who hold it."""

_LOOK = f"""
SELECT coalesce((SELECT max(id) FROM journal), 0), coalesce((SELECT max(id) FROM events), 0), {NOW}
"""  # noqa: S608  constants of ours only
_WORK = """
SELECT a.name, k.kind FROM accounts a CROSS JOIN unnest($1::text[]) AS k(kind) WHERE EXISTS (
    SELECT FROM outbox o WHERE o.account = a.name AND o.kind = k.kind AND o.due_at <= $2
    AND (o.lease_until IS NULL OR o.lease_until <= $2))
"""
_CHECKS = """
SELECT a.name FROM accounts a
WHERE EXISTS (SELECT FROM contacts c WHERE c.account = a.name AND c.due_at <= $1)
"""
_VERSIONS = """
SELECT id, xmin::text FROM users WHERE id = ANY($1::bigint[])
UNION ALL SELECT user_id, xmin::text FROM blocks WHERE user_id = ANY($1::bigint[])
ORDER BY 1, 2
"""
"""Each version of a row bears the transaction that wrote it."""

EXPELLED = "the database was restored or moved: start this service again"

log = structlog.get_logger(__name__)


class PostgresDatabase:
    """A database of a PostgreSQL server; see `service.store.database.Database`.

    The server's clock dates what is written, unless another one is given.
    """

    is_shared = True

    def __init__(self, url: str, *, clock: Clock = wall_clock) -> None:
        self.clock = clock
        self._url = url
        self._writers = self._engine(WRITERS, HOT_SETTINGS)
        self._readers = self._engine(READERS, SETTINGS)
        self._gate_readers = self._engine(GATE_READERS, HOT_SETTINGS)
        self._gate = Gate(self._gate_snapshot)
        self._peers = Peers(url)
        self._erased = ErasedNames()
        self._versions: dict[int, list[str]] = {}
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
            failpoints.reached("start.before_migration")
            opened = await self._bring_up(migrate=migrate, create=create)
            failpoints.reached("start.after_migration")
            if opened.before is None:
                log.warning("made a new database: nobody is known, nobody is held")
            elif opened.before != opened.after:
                fields = {"from": opened.before, "to": opened.after}
                log.info("migrated the database", **fields, seconds=round(opened.seconds, 3))
            async with self._connected(self._writers) as (connection, driver):
                await driver.execute("BEGIN")
                await connection.run_sync(self._peers.join)
                self._log_offset = await connection.run_sync(offset_of)
                await driver.execute("COMMIT")
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
    async def transaction(self, *, led: bool = False) -> AsyncIterator[Transaction]:
        """Begin a transaction; see `Database.transaction`."""
        self._refuse()
        if led and not self.leads:
            raise NotLeaderError
        with translated():
            async with self._connected(self._writers) as (connection, driver):
                try:
                    # By itself, so that it is on disk before an id is used: a server that dies in
                    # the transaction would else give the same ones to somebody else as well.
                    if len(self._user_ids) < MIN_USER_IDS:
                        first = await driver.fetchval("SELECT nextval('user_ids')")
                        self._user_ids = range(first, first + USER_IDS)
                    await driver.execute(_BEGIN_LED if led else "BEGIN")
                    if led:
                        await self._hold_lead(driver)
                    begun = await driver.fetchrow(_BEGUN, self._peers.id)
                    xid, now, is_known = begun or (0, 0, None)
                    if not is_known:
                        self._peers.is_expelled = True
                        self._refuse()
                    transaction = PostgresTransaction(
                        connection,
                        driver,
                        now if self.clock is wall_clock else self.clock(),
                        xid,
                        (xid << SHIFT) + self._log_offset,
                        self._take_user_id,
                        self._may_note,
                        self._erased,
                    )
                    yield transaction
                    await transaction.finish()
                    failpoints.reached("store.before_commit")
                    await driver.execute("COMMIT")
                    failpoints.reached("store.after_commit")
                except BaseException as error:
                    await _roll_back(connection, driver, error)
                    raise
            self._noted_at |= dict.fromkeys(transaction.noted, self.clock())
            self._peers.tell()

    async def _hold_lead(self, driver: "Driver") -> None:
        """Lead until the transaction has ended."""
        try:
            holds = await driver.fetchval(HOLD_LEAD, self._peers.term)
        except asyncpg.LockNotAvailableError:
            holds = False  # another one is about to take it
        if not holds:
            raise NotLeaderError

    def _take_user_id(self) -> int:
        taken, self._user_ids = self._user_ids[0], self._user_ids[1:]
        return taken

    def _may_note(self, account: str) -> bool:
        """Whether the time of an account's last callback is to be written again."""
        return abs(self.clock() - self._noted_at.get(account, 0)) >= NOTE_MS

    async def write(self, query: Callable[[Connection], T], *, led: bool = False) -> T:
        """Run queries in a transaction of their own; see `Database.write`."""
        return await self.write_dated(lambda connection, _: query(connection), led=led)

    async def write_dated(self, query: Callable[[Connection, int], T], *, led: bool = False) -> T:
        """Run queries given the time, and once more where another transaction was first."""
        for _ in range(MAX_TRIES - 1):
            with suppress(ConflictError):
                return await self._write(query, led=led)
        return await self._write(query, led=led)

    async def _write(self, query: Callable[[Connection, int], T], *, led: bool) -> T:
        async with self.transaction(led=led) as transaction:
            return await transaction.run(lambda connection: query(connection, transaction.now))

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
                yield PostgresReads(driver, self._erased)

    @asynccontextmanager
    async def _snapshot(self, engine: AsyncEngine) -> AsyncIterator["Connected"]:
        self._refuse()
        async with self._connected(engine) as (connection, driver):
            try:
                await driver.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield connection, driver
            except BaseException as error:
                await _roll_back(connection, driver, error)
                raise
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

    @property
    def replica(self) -> str:
        """What this one is called; see `Database.replica`."""
        return self._peers.id

    @property
    def replicas(self) -> int:
        """How many replicas work on it; see `Database.replicas`."""
        return 1 + self._peers.others

    @property
    def leads(self) -> bool:
        """Whether this one leads; see `Database.leads`."""
        return self._peers.leads

    async def lead(self, *, may_take: bool = True) -> bool:
        """Keep the lead, or take it; see `Database.lead`."""
        return await self._peers.lead(may_take=may_take)

    async def resign(self) -> None:
        """Let another replica lead; see `Database.resign`."""
        await self._peers.resign()

    async def hear(self, seconds: float) -> None:
        """Wait until another one has committed something; see `Database.hear`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._peers.heard.wait()
        self._peers.heard.clear()

    async def look(self, watched: Collection[int]) -> ChangeSet:
        """Return what others have changed; see `Database.look`."""
        found = ChangeSet()
        with translated():
            async with self._snapshot(self._gate_readers) as (_, driver):
                found.journal_id, found.event_id, now = await driver.fetchrow(_LOOK) or (0, 0, 0)
                if self.leads:
                    kinds = {kind.value: kind for kind in Kind}
                    work = await driver.fetch(_WORK, [*kinds], now)
                    found.work = {(account, kinds[kind]) for account, kind in work}
                    found.checks = {name for (name,) in await driver.fetch(_CHECKS, now)}
                rows = await driver.fetch(_VERSIONS, [*watched]) if watched else []
        versions: dict[int, list[str]] = {}
        for id_, version in rows:
            versions.setdefault(id_, []).append(version)
        found.users = {id_ for id_ in watched if versions.get(id_) != self._versions.get(id_)}
        self._versions = versions
        return found

    def fault(self) -> FaultError | None:
        """Return whether the database is not the one any more that this service was started on."""
        return FaultError("database_restored", EXPELLED) if self._peers.is_expelled else None

    def _refuse(self) -> None:
        """Raise FaultError where nothing may be read or written any more."""
        if (fault := self.fault()) is not None:
            raise fault

    async def free_bytes(self) -> int | None:
        """Return None: where PostgreSQL keeps its files is not known here."""
        return None

    async def scrub(self) -> Sequence[str]:
        """Return nothing: the server reuses the space in time, and its backups are its own."""
        return ()

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
        await self._peers.close()
        failpoints.reached("stop.after_close")


async def driver_of(connection: AsyncConnection) -> "Driver":
    """Return the driver's connection that is under SQLAlchemy's."""
    raw = await connection.get_raw_connection()
    driver = raw.driver_connection
    if not isinstance(driver, asyncpg.Connection):
        raise TypeError("the engine is not asyncpg's")
    return driver


async def _roll_back(
    connection: AsyncConnection, driver: "Driver", error: BaseException | None = None
) -> None:
    """Undo everything since the transaction began; a connection that fails even so is thrown away.

    So is one that was cut short by an error, as where its task is cancelled: who knows what it
    still does, and its answer may be long in coming.
    """
    if error is None or isinstance(error, Exception):
        try:
            await driver.execute("ROLLBACK")
        except BaseException as failure:
            driver.terminate()
            await connection.invalidate(failure)
            if not isinstance(failure, Exception):
                raise
    else:
        driver.terminate()
        await connection.invalidate(error)
