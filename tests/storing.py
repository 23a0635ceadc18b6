"""A database of a test's own, opened and closed, and one step within a transaction."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
from sqlalchemy import Connection, text

from service.store import maintenance
from service.store.database import (
    Clock,
    Database,
    StoreError,
    Transaction,
    UnavailableError,
    wall_clock,
)
from service.store.opening import is_postgres
from service.store.postgres import PostgresDatabase
from service.store.sqlite import SQLiteDatabase
from service.store.sqlite_files import path_of

T = TypeVar("T")

AnyDatabase = SQLiteDatabase | PostgresDatabase
OpenDatabase = TypeVar("OpenDatabase", bound=AnyDatabase)


class MakeDatabase(Protocol):
    """Gives the database of a test, not opened yet: the same one each time."""

    def __call__(self, clock: Clock = wall_clock) -> AnyDatabase: ...


def url_on(which: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of a database of a test's own, on SQLite or on PostgreSQL."""
    if which == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{request.getfixturevalue('tmp_path') / 'ackgate.db'}"


def database_at(url: str, clock: Clock = wall_clock) -> AnyDatabase:
    """Return a database that is not opened yet."""
    if is_postgres(url):
        return PostgresDatabase(url, clock=clock)
    return SQLiteDatabase(path_of(url), clock=clock)


@asynccontextmanager
async def opening(database: OpenDatabase) -> AsyncIterator[OpenDatabase]:
    """Open a database, and close it whatever happens: its threads would outlive the test.

    It leads where it can, as a service does.
    """
    await database.open()
    with suppress(UnavailableError):
        await database.lead()
    leading = asyncio.create_task(_lead(database))
    try:
        yield database
    finally:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await database.close()


async def _lead(database: Database) -> None:
    while True:
        await asyncio.sleep(1)
        with suppress(UnavailableError):
            await database.lead()


async def within(database: Database, work: Callable[[Transaction], Awaitable[T]]) -> T:
    """Do one step in a transaction of its own."""
    async with database.transaction() as transaction:
        return await work(transaction)


def open_transactions(connection: Connection) -> tuple[int, int]:
    """Return the oldest transaction on a PostgreSQL server that has not ended, and the next one."""
    oldest, end = connection.execute(_SNAPSHOT).one()
    return oldest, end


_SNAPSHOT = text(
    "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, "
    "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
)


async def settled(database: Database) -> None:
    """Wait until lists show all that is stored by now: on PostgreSQL a moment later."""
    if database.is_shared:
        await until_settled(lambda: database.read(open_transactions))


async def until_settled(ask: Callable[[], Awaitable[tuple[int, int]]]) -> None:
    """Wait until every transaction that has begun by now has ended."""
    oldest, end = await ask()
    while oldest < end:
        await asyncio.sleep(0.01)
        oldest, _ = await ask()


async def restore_once_unread(path: Path, backup: Path, now: datetime) -> None:
    """Restore a backup, once nobody reads the database any more.

    A query that a stop has cut short is ended by its connection's thread, a moment after the
    service.
    """
    async with asyncio.timeout(30):
        while True:
            try:
                maintenance.restore(path, backup, now, lambda *_: None)
            except StoreError as error:
                if "another process reads it" not in str(error):
                    raise
                await asyncio.sleep(0.05)
            else:
                return
