"""A database of a test's own, opened and closed, and one step within a transaction."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from service.store.database import Database, Transaction
from service.store.sqlite import SQLiteDatabase

T = TypeVar("T")


@asynccontextmanager
async def opening(database: SQLiteDatabase) -> AsyncIterator[SQLiteDatabase]:
    """Open a database, and close it whatever happens: its threads would outlive the test."""
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def within(database: Database, work: Callable[[Transaction], Awaitable[T]]) -> T:
    """Do one step in a transaction of its own."""
    async with database.transaction() as transaction:
        return await work(transaction)
