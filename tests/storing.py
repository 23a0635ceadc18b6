"""A database of a test's own, opened and closed, and one step within a transaction."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from service.store import maintenance
from service.store.database import Database, StoreError, Transaction, UnavailableError
from service.store.postgres import PostgresDatabase
from service.store.sqlite import SQLiteDatabase

T = TypeVar("T")


OpenDatabase = TypeVar("OpenDatabase", SQLiteDatabase, PostgresDatabase)


@asynccontextmanager
async def opening(database: OpenDatabase) -> AsyncIterator[OpenDatabase]:
    """Open a database, and close it whatever happens: its threads would outlive the test.

    It leads where it can, as a service does.
    """
    await database.open()
    leading = asyncio.create_task(_lead(database))
    try:
        yield database
    finally:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await database.close()


async def _lead(database: Database) -> None:
    while True:
        with suppress(UnavailableError):
            await database.lead()
        await asyncio.sleep(1)


async def within(database: Database, work: Callable[[Transaction], Awaitable[T]]) -> T:
    """Do one step in a transaction of its own."""
    async with database.transaction() as transaction:
        return await work(transaction)


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[sqlite3.Connection]:
    """Let nobody else write to a database; a service on this event loop ends its transaction first.

    SQLite must not wait for that here: it would keep the event loop from turning.
    """
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        async with asyncio.timeout(30):
            while not other.in_transaction:
                with suppress(sqlite3.OperationalError):
                    other.execute("BEGIN IMMEDIATE")
                await asyncio.sleep(0.001)
        yield other
        other.execute("COMMIT")


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
