"""Which database it is, by its URL: the only place that asks."""

from service.store.database import Database, StoreError
from service.store.sqlite import SQLiteDatabase
from service.store.sqlite_files import path_of

NO_DRIVER = (
    "database.url: needs asyncpg, which is in the extra ackgate[postgres]; "
    "install what requirements/postgres.txt locks"
)


async def open_database(url: str, *, migrate: bool = True, create: bool = True) -> Database:
    """Open the configured database, which is made where there is none and `create` says so.

    Raises StoreError, one line, where it can't be used.
    """
    if url.startswith("postgresql"):
        # Only here, for its driver is an extra.
        try:
            from service.store.postgres import PostgresDatabase  # noqa: PLC0415
        except ImportError:
            raise StoreError(NO_DRIVER) from None
        server = PostgresDatabase(url)
        await server.open(migrate=migrate, create=create)
        return server
    file = SQLiteDatabase(path_of(url))
    await file.open(migrate=migrate, create=create)
    return file
