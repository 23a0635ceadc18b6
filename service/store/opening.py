"""Which database it is, by its URL: the only place that asks."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.store.database import Database, StoreError
from service.store.sqlite import SQLiteDatabase
from service.store.sqlite_files import path_of

NO_DRIVER = (
    "database.url: needs asyncpg, which is in the extra ackgate[postgres]; "
    "install what requirements/postgres.txt locks"
)


def is_postgres(url: str) -> bool:
    """Return whether it is a database of a PostgreSQL server; else it is a SQLite file."""
    return url.startswith("postgresql")


@contextmanager
def needing_driver() -> Iterator[None]:
    """Raise StoreError where a module is imported whose driver, which is an extra, is missing."""
    try:
        yield
    except ImportError:
        raise StoreError(NO_DRIVER) from None


async def open_database(url: str, *, migrate: bool = True, create: bool = True) -> Database:
    """Open the configured database, which is made where there is none and `create` says so.

    Raises StoreError, one line, where it can't be used.
    """
    if is_postgres(url):
        with needing_driver():
            from service.store.postgres import PostgresDatabase  # noqa: PLC0415
        server = PostgresDatabase(url)
        await server.open(migrate=migrate, create=create)
        return server
    file = SQLiteDatabase(path_of(url))
    await file.open(migrate=migrate, create=create)
    return file
