"""Bringing a PostgreSQL database up to date, and refusing one that is not to be used.

Several processes may do so at once: one of them migrates, and the others wait until it has.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from service.store import upgrades
from service.store.database import NoRoomError, StoreError
from service.store.postgres_errors import NO_ROOM, cause_of, sqlstate
from service.store.schema import installation
from service.store.upgrades import FOREIGN, OLDEST_KEY, Opened

CONNECT_SECONDS = 5.0

MIGRATION_KEY = 0x41636B67617465
"""Of the advisory lock of whoever migrates the schema: "Ackgate" in bytes."""

DIALECT = "postgresql+asyncpg://"
"""All that SQLAlchemy is told: asyncpg reads the configured URL itself, with its `sslmode`."""

COPY_KEY = "copying"
"""Key of the table `installation` while a copy is unfinished: the id of the database it is of."""

UNFINISHED = "an unfinished copy: stop the service that is copied, and run 'ackgate db copy' again"

OLDEST_SERVER = 14
"""The oldest version that the PostgreSQL project still mended when this was written."""

_EMPTY = (
    'no database, and database.create is "never": restore a backup, '
    "or begin anew with 'ackgate db create'"
)


@asynccontextmanager
async def engine_without_limits(url: str) -> AsyncIterator[AsyncEngine]:
    """Make an engine for what takes as long as it takes: a migration, or an operator's command."""
    engine = create_async_engine(
        DIALECT,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"dsn": url, "timeout": CONNECT_SECONDS},
    )
    try:
        yield engine
    finally:
        await engine.dispose()


async def bring_up(
    engine: AsyncEngine, *, migrate: bool, create: bool, created_at: int | None = None
) -> Opened:
    """Migrate a PostgreSQL database to this release, in one transaction; or only check it.

    Where it is empty, the tables are made if `create` says so, and it notes `created_at` (Unix ms).
    Whether there was a database here before, this process can't know.

    Raises StoreError, one line without the password, where the database can't be reached, needs a
    newer release, or a migration that is not wanted; and where it is empty, and is to stay so.
    Where the server's disk is full it is a NoRoomError.
    """
    started = time.perf_counter()
    step = partial(_bring_up, may_migrate=migrate, create=create, created_at=created_at)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="READ COMMITTED")
            async with connection.begin():
                before, after = await connection.run_sync(step)
    except (DBAPIError, OSError) as error:
        cause = cause_of(error)
        kind = NoRoomError if sqlstate(cause) in NO_ROOM else StoreError
        # What follows the first line may hold what was to be stored.
        said = (str(cause) or type(cause).__name__).splitlines()[0]
        raise kind(f"database.url: {said}") from None
    return Opened(before, after, seconds=time.perf_counter() - started)


def _bring_up(
    connection: Connection, *, may_migrate: bool, create: bool, created_at: int | None
) -> tuple[str | None, str]:
    """Do that within a transaction, at whose end the next process has its turn."""
    where = need_fit_server(connection)
    take_turn(connection)
    found, head = current(connection, where), upgrades.latest()
    if found is None and not create:
        raise StoreError(f"{where}: {_EMPTY}")
    if found is not None and found >= head:
        return found, found
    if not may_migrate:
        raise StoreError(f"{where}: {upgrades.outdated(found)}")
    upgrades.migrate(connection, head)
    if found is None:
        notes = upgrades.notes_of_new(created_at)
        rows = [{"key": key, "value": value} for key, value in notes.items()]
        connection.execute(insert(installation), rows)
    return found, head


def need_fit_server(connection: Connection) -> str:
    """Return how messages name the database. Raises StoreError where no release could use it."""
    server = _server(connection)
    where = f"database.url: {server.database}"
    if (why_not := _unfit(server)) is not None:
        raise StoreError(f"{where}: {why_not}")
    return where


class _Server(NamedTuple):
    """What the server says of itself and of the database; `version` is 150004 for 15.4."""

    database: str
    version: int
    encoding: str
    is_standby: bool
    schema: str | None
    commit: str


def _server(connection: Connection) -> _Server:
    row = connection.exec_driver_sql(
        "SELECT current_database(), current_setting('server_version_num')::int, "
        "current_setting('server_encoding'), pg_is_in_recovery(), current_schema(), "
        "current_setting('synchronous_commit')"
    ).one()
    return _Server(*row)


def _unfit(server: _Server) -> str | None:
    """Return why no release could use the database; None if there is no such reason."""
    major = server.version // 10_000
    if major < OLDEST_SERVER:
        return f"this is PostgreSQL {major}: {OLDEST_SERVER} or later is needed"
    if server.encoding != "UTF8":
        return (
            f"its encoding is {server.encoding}: make one with "
            "'createdb --template=template0 --encoding=UTF8'"
        )
    if server.is_standby:
        return "this server is a standby, which can't be written to: name the primary"
    if server.schema is None:
        return "no schema of its search_path exists, or the user may not use it"
    if server.commit == "off":
        return (
            "synchronous_commit is off: what was answered would be lost where the server fails; "
            "'ALTER ROLE … SET synchronous_commit = on'"
        )
    return None


def take_turn(connection: Connection) -> None:
    """Wait until no other process migrates; none does then before this transaction has ended.

    Nor does a service begin to work on the database.
    """
    # Limits that are meant for the usual statements would break off the wait, or the migration.
    connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": MIGRATION_KEY})


def current(connection: Connection, where: str) -> str | None:
    """Return the migration that the schema is at; None where it has no tables.

    Raises StoreError where the tables are another program's, or need a newer release.
    """
    query = "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = current_schema()"
    tables = set(connection.exec_driver_sql(query).scalars())
    if not tables:
        return None
    if not {"alembic_version", "installation"} <= tables:
        raise StoreError(f"{where}: {FOREIGN}")
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if found is None:
        raise StoreError(f"{where}: {FOREIGN}")
    oldest = select(installation.c.value).where(installation.c.key == OLDEST_KEY)
    why_not = upgrades.too_new(found, connection.execute(oldest).scalar())
    if why_not is not None:
        raise StoreError(f"{where}: {why_not}")
    return str(found)


def copied_from(connection: Connection) -> str | None:
    """Return the id of the database that this one is an unfinished copy of; None if it is none."""
    query = select(installation.c.value).where(installation.c.key == COPY_KEY)
    return connection.execute(query).scalar()


def refuse_unfinished(connection: Connection) -> None:
    """Raise StoreError where a database is a copy that is not final."""
    if copied_from(connection) is not None:
        raise StoreError(f"database.url: {UNFINISHED}")
