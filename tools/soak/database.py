"""The database under test: a SQLite file, or a PostgreSQL server of the soak's own."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from tools.postgres import LocalServer, local_server, run_program
from tools.processes import RunError

PATIENCE_SECONDS = 10
UNLOCKED = ("leadership", "replicas")
"""Tables that another writer leaves alone: who leads is no part of what the service keeps."""
OWN_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"


class Command(Protocol):
    """Runs a command of `ackgate db`, or kills it after so many seconds."""

    def __call__(self, *words: str, kill_after: float | None = None) -> Awaitable[None]:
        """Run it; RunError where it fails."""


class Database(Protocol):
    """What the soak does with a database beside the service, which may be at work on it."""

    @property
    def url(self) -> str:
        """The setting `database.url`."""

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""

    async def faults(self) -> list[str]:
        """Return what the database's own checks find."""

    async def lock(self, seconds: float) -> None:
        """Let nobody else write for a while."""

    async def crash(self) -> None:
        """Let the server end at once, as at a loss of power, and start it again."""

    async def back_up(self, command: Command, file: Path) -> None:
        """Write a backup; RunError where that fails."""

    async def restore(self, command: Command, file: Path, kill_after: float | None) -> None:
        """Restore a backup, while no service runs; kill Ackgate's command where told when."""

    async def opened(self, file: Path) -> "Database":
        """Return a database to read a backup in."""


class SqliteDatabase:
    """A file, which the service's own commands back up and restore."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.url = f"sqlite:///{file}"

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return await asyncio.to_thread(self._rows, query)

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        address = f"file:{self._file}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=PATIENCE_SECONDS)) as connection:
            return connection.execute(query).fetchall()

    async def faults(self) -> list[str]:
        """Return what SQLite's checks of pages and of references find."""
        pages = await self.rows("PRAGMA integrity_check")
        found = [*pages, *await self.rows("PRAGMA foreign_key_check")]
        return [str(row) for row in found if row != ("ok",)]

    async def lock(self, seconds: float) -> None:
        """Hold the write lock from another connection."""
        await asyncio.to_thread(self._lock, seconds)

    def _lock(self, seconds: float) -> None:
        with closing(
            sqlite3.connect(self._file, isolation_level=None, timeout=PATIENCE_SECONDS)
        ) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            other.execute("ROLLBACK")

    async def crash(self) -> None:
        """Do nothing: there is no server."""

    async def back_up(self, command: Command, file: Path) -> None:
        """Run `ackgate db backup`."""
        await command("backup", str(file))

    async def restore(self, command: Command, file: Path, kill_after: float | None) -> None:
        """Run `ackgate db restore`."""
        await command("restore", str(file), "--yes", kill_after=kill_after)

    async def opened(self, file: Path) -> Database:
        """Return the backup itself."""
        return SqliteDatabase(file)


class PostgresDatabase:
    """A database on a server, which the server's own programs back up and restore."""

    def __init__(self, server: LocalServer, name: str) -> None:
        self._server = server
        self._name = name
        self._is_restored = False
        self._in_use = asyncio.Lock()
        self.url = server.create_database(name)

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        connection = await asyncpg.connect(self.url, timeout=PATIENCE_SECONDS)
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    async def faults(self) -> list[str]:
        """Return what pg_amcheck finds in tables and indexes; references the server enforces."""
        address = self._server.superuser_url.replace("/postgres?", f"/{self._name}?")
        options = ("--install-missing", "--heapallindexed", address)
        printed = await asyncio.to_thread(run_program, "pg_amcheck", *options, accepted=(0, 2))
        return printed.splitlines()

    async def lock(self, seconds: float) -> None:
        """Hold locks on the tables from another connection, which let others read."""
        connection = await asyncpg.connect(self.url, timeout=PATIENCE_SECONDS)
        try:
            names = [row[0] for row in await connection.fetch(OWN_TABLES)]
            tables = ", ".join(name for name in names if name not in UNLOCKED)
            try:
                async with connection.transaction():
                    await connection.execute(f"LOCK TABLE {tables} IN EXCLUSIVE MODE")
                    await asyncio.sleep(seconds)
            except asyncpg.DeadlockDetectedError:
                pass  # the service took them in another order, and the server let it have them
        finally:
            await connection.close()

    async def crash(self) -> None:
        """End the server so that it has to recover, and start it again."""
        async with self._in_use:
            await asyncio.to_thread(self._server.crash)

    async def back_up(self, command: Command, file: Path) -> None:  # noqa: ARG002  it is for a file
        """Run pg_dump, while the server does not crash."""
        async with self._in_use:
            await asyncio.to_thread(self.dump, file)

    def dump(self, file: Path) -> None:
        """Write all that is in the database to a file."""
        run_program("pg_dump", "--format=custom", f"--file={file}", self.url)

    async def restore(self, command: Command, file: Path, kill_after: float | None) -> None:
        """Put a dump in the place of what there is, and run `ackgate db restored`.

        At a second attempt only the command is run again, for it may have been cut short. What
        there was is dumped beside the file.
        """
        if not self._is_restored:
            await asyncio.to_thread(self._replace, file)
            self._is_restored = True
        await command("restored", "--yes", kill_after=kill_after)

    def _replace(self, file: Path) -> None:
        self.dump(file.with_name("replaced.dump"))
        self._server.drop_database(self._name)
        self._server.create_database(self._name)
        self.load(file)

    def load(self, file: Path) -> None:
        """Restore a dump; the database is empty."""
        run_program(
            "pg_restore", "--exit-on-error", "--no-owner", f"--dbname={self.url}", str(file)
        )

    async def opened(self, file: Path) -> Database:
        """Restore a dump into a database of its own."""
        other = await asyncio.to_thread(PostgresDatabase, self._server, "backup")
        await asyncio.to_thread(other.load, file)
        return other


@contextmanager
def postgres_database(folder: Path) -> Iterator[PostgresDatabase]:
    """Run a server, and dump its database into the folder at the end."""
    with local_server(durable=True) as server:
        database = PostgresDatabase(server, "ackgate")
        try:
            yield database
        finally:
            with suppress(RunError):  # what broke the soak off is told, not what follows from it
                database.dump(folder / "ackgate.dump")
