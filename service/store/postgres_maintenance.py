"""What an operator does with a PostgreSQL database: make, upgrade, check, mark, look into it.

Backups are PostgreSQL's own. These commands have no limits of time: they take as long as they take.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from sqlalchemy import Connection, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.store import logs, upgrades
from service.store.database import StoreError
from service.store.maintenance import COUNTED, Contents, Finding, Report
from service.store.postgres_errors import FAILURES, cause_of, described
from service.store.postgres_peers import TAKEN, is_used, need_alone, server_time
from service.store.postgres_upgrades import (
    UNFINISHED,
    bring_up,
    copied_from,
    current,
    engine_without_limits,
    need_fit_server,
)
from service.store.restore import (
    HALF_MARKED,
    UNMARKED,
    begin_marking,
    end_marking,
    is_half_marked,
    unschedule,
)
from service.store.schema import accounts, metadata, user_ids, users

T = TypeVar("T")

AGAIN_SECONDS = 0.5


class OperatedPostgres:
    """A database of a PostgreSQL server; see `service.store.operating.Operated`."""

    def __init__(self, url: str) -> None:
        self._url = url
        parts = urlsplit(url)
        user, at, host = parts.netloc.rpartition("@")
        netloc = user.partition(":")[0] + at + host
        self.place = {"database": parts._replace(netloc=netloc).geturl()}

    def create(self) -> None:
        """Make the tables in an empty database."""
        asyncio.run(self._create())

    async def _create(self) -> None:
        async with operating(self._url) as engine:
            found = await _run(engine, _schema_of)
            if found is not None:
                raise StoreError(f"database.url: has Ackgate's tables already, at {found}")
            await bring_up(engine, migrate=True, create=True)

    def upgrade(self, *, create: bool) -> upgrades.Opened:
        """Bring the schema to this release, or make it where there is none."""
        return asyncio.run(self._upgrade(create=create))

    async def _upgrade(self, *, create: bool) -> upgrades.Opened:
        async with operating(self._url) as engine:
            return await bring_up(engine, migrate=True, create=create)

    def check(self) -> tuple[Report, Contents | None]:
        """Look whether every table and index is there, and every rule in force."""
        return asyncio.run(self.look(_check))

    def examine(self, low_disk_bytes: int) -> list[Finding]:  # noqa: ARG002  not our disk
        """Look at the same, without what it holds."""
        try:
            return [asyncio.run(self.look(_examine))]
        except StoreError as error:
            cure = "is the server running, and is database.url right?"
            return [Finding("database", is_good=False, detail=str(error), cure=cure)]

    def mark_restored(self, now: datetime) -> None:
        """Mark a database that PostgreSQL's own tools have restored, or moved here.

        Where this is cut short, no service starts before it was done again.
        """
        asyncio.run(self._mark_restored(round(now.timestamp() * 1000)))

    async def _mark_restored(self, now: int) -> None:
        async with operating(self._url) as engine:
            await bring_up(engine, migrate=True, create=False)
            await wait_for_services(engine)
            await _write(engine, _begin_marking)
            # One transaction has places in a log for some thousands of users.
            while await _write(engine, partial(unschedule, now=now)):
                pass
            await _write(engine, partial(end_marking, now=now))

    async def look(self, query: Callable[[Connection], T]) -> T:
        """Run queries on a snapshot."""
        async with operating(self._url) as engine:
            return await _run(engine, query)


def _examine(connection: Connection) -> Finding:
    report = _report(connection)
    if report.faults:
        cure = "see 'ackgate db check'"
        return Finding("database", is_good=False, detail=report.faults[0], cure=cure)
    used = "a service works on it" if is_used(connection) else "no service works on it"
    return Finding("database", is_good=True, detail=f"whole, its schema at {report.schema}; {used}")


@asynccontextmanager
async def operating(url: str) -> AsyncIterator[AsyncEngine]:
    """Make an engine for a command; turn what the driver or the system says into one line."""
    with _explained():
        async with engine_without_limits(url) as engine:
            yield engine


async def wait_for_services(engine: AsyncEngine) -> None:
    """Wait until a service that was killed can't be there any more.

    Raises StoreError as soon as one says that it is.
    """
    since = await _run(engine, server_time)
    while await _run(engine, is_used):
        if await _run(engine, partial(is_used, since=since)):
            raise StoreError(TAKEN)
        await asyncio.sleep(AGAIN_SECONDS)


def _begin_marking(connection: Connection) -> None:
    """Note that the marking has begun, so that no service starts before it has ended."""
    need_alone(connection)
    begin_marking(connection)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what the driver or the system says into one line."""
    try:
        yield
    except FAILURES as error:
        raise StoreError(f"database.url: {described(cause_of(error))}") from None


async def _run(engine: AsyncEngine, query: Callable[[Connection], T]) -> T:
    async with engine.connect() as connection:
        await connection.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        return await connection.run_sync(query)


async def _write(engine: AsyncEngine, query: Callable[[Connection], T]) -> T:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="READ COMMITTED")
        async with connection.begin():
            return await connection.run_sync(query)


def _schema_of(connection: Connection) -> str | None:
    return current(connection, need_fit_server(connection))


def _check(connection: Connection) -> tuple[Report, Contents | None]:
    report = _report(connection)
    return report, None if report.faults else _contents(connection)


def _report(connection: Connection) -> Report:
    found, latest = _schema_of(connection), upgrades.latest()
    size = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
    if found is None:
        faults = ["no tables: run 'ackgate db create', or restore a backup"]
    elif found < latest:
        faults = [upgrades.outdated(found)]
    else:
        unfinished = copied_from(connection) is not None
        faults = [UNFINISHED] if unfinished else [*_damage(connection)]
        if not faults:
            faults = [*_repeated_ids(connection)]
    return Report(size, found, latest, tuple(faults))


def _contents(connection: Connection) -> Contents:
    rows = {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in COUNTED
    }
    return Contents(
        rows, connection.execute(select(func.max(accounts.c.last_callback_at))).scalar()
    )


def _damage(connection: Connection) -> Iterator[str]:
    """Yield what of the tables is missing, or not in force: as where a restore was cut short."""
    columns = {(table, column) for table, column in connection.execute(_COLUMNS)}
    indexes = set(connection.execute(_INDEXES).scalars())
    for table in metadata.sorted_tables:
        for column in table.c:
            if (table.name, column.name) not in columns:
                yield f"damaged: the table {table.name} has no column {column.name}"
        named = {str(table.primary_key.name), *(str(index.name) for index in table.indexes)}
        for name in sorted(named - indexes):
            yield f"damaged: the table {table.name} has no index {name}"
    for index in connection.execute(_INVALID).scalars():
        yield f"damaged: the index {index} is not valid: REINDEX INDEX {index}"
    for table, rule in connection.execute(_NOT_VALIDATED):
        yield (
            f"damaged: the constraint {rule} was never validated: "
            f"ALTER TABLE {table} VALIDATE CONSTRAINT {rule}"
        )
    for table in connection.execute(_NOT_ENFORCED).scalars():
        yield f"damaged: nothing enforces references: ALTER TABLE {table} ENABLE TRIGGER ALL"


_COLUMNS = text(
    "SELECT table_name, column_name FROM information_schema.columns"
    " WHERE table_schema = current_schema()"
)
_INDEXES = text("SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()")
_INVALID = text(
    "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
    " WHERE relnamespace = current_schema()::regnamespace AND NOT (indisvalid AND indisready)"
    " ORDER BY 1"
)
_NOT_VALIDATED = text(
    "SELECT conrelid::regclass::text, conname FROM pg_constraint"
    " WHERE connamespace = current_schema()::regnamespace AND NOT convalidated ORDER BY 1, 2"
)
_NOT_ENFORCED = text(
    "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger"
    " JOIN pg_class ON pg_class.oid = tgrelid"
    " WHERE relnamespace = current_schema()::regnamespace AND tgisinternal AND tgenabled = 'D'"
    " ORDER BY 1"
)


def _repeated_ids(connection: Connection) -> Iterator[str]:
    """Yield what would give ids again that rows have already."""
    if is_half_marked(connection):
        yield HALF_MARKED
    elif logs.would_repeat(connection):
        yield UNMARKED
    newest = connection.execute(select(func.max(users.c.id))).scalar() or 0
    last, is_called = connection.execute(_LAST_USER_ID).one()
    if newest >= (last + user_ids.increment if is_called else last):
        yield (
            f"the sequence {user_ids.name} is behind the users: "
            f"SELECT setval('{user_ids.name}', {newest})"
        )


_LAST_USER_ID = text("SELECT last_value, is_called FROM user_ids")
