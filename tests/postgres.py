"""A PostgreSQL server for tests, and databases on it, each for one test.

`ACKGATE_TEST_POSTGRES` names a server that runs already: the URL of a database there, whose user
may create databases. Else each process of the tests starts a server of its own in a temporary
folder, with the programs that Debian's package `postgresql` installs, and stops it at its end.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from io import BytesIO
from typing import Any, TypeVar

import asyncpg
import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from service.store import upgrades
from service.store.postgres_upgrades import bring_up
from service.store.schema import metadata
from tools.postgres import local_server, programs

T = TypeVar("T")

VARIABLE = "ACKGATE_TEST_POSTGRES"


def which_server() -> str:
    """Return the server that tests with the mark `postgres` use, for people."""
    if url := os.environ.get(VARIABLE):
        return f"{make_url(url).render_as_string(hide_password=True)} ({VARIABLE})"
    if folder := programs():
        return f"a server of its own for each process of the tests, {folder}"
    return f"none: install the package postgresql, or name a server in {VARIABLE}"


class Databases:
    """Makes databases on a server: `url` is that of one whose user may create others."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._notes: list[tuple[Any, ...]] = []
        self._unused: list[str] = []

    @contextmanager
    def empty(self, options: str = "") -> Iterator[str]:
        """Make a database without tables, and give its URL; it is dropped at the end."""
        name = run(self._create(options))
        try:
            yield with_database(self.url, name)
        finally:
            run(self._drop(name))

    @contextmanager
    def migrated(self) -> Iterator[str]:
        """Give the URL of a new database that all migrations were run on.

        It is new by its rows alone, so that a test costs no more than it does on SQLite: to copy a
        whole database takes a quarter of a second. What changes tables begins with an `empty` one.
        """
        name = self._unused.pop() if self._unused else run(self._create_migrated())
        url = with_database(self.url, name)
        run(_begin_anew(url, self._notes))
        try:
            yield url
        finally:
            self._unused.append(name)

    def close(self) -> None:
        """Drop what would be used again."""
        for name in self._unused:
            run(self._drop(name))

    async def _create_migrated(self) -> str:
        name = await self._create()
        url = with_database(self.url, name)
        async with engine_of(url) as engine:
            await bring_up(engine, migrate=True, create=True)
        self._notes = await fetch(url, "SELECT key, value FROM installation")
        return name

    async def _create(self, options: str = "") -> str:
        name = f"ackgate_test_{secrets.token_hex(6)}"
        await execute(self.url, f"CREATE DATABASE {name} TEMPLATE template0 {options}")
        return name

    async def _drop(self, name: str) -> None:
        await execute(self.url, f"DROP DATABASE {name} WITH (FORCE)")


async def _begin_anew(url: str, notes: list[tuple[Any, ...]]) -> None:
    """Empty a database, but for what a new one notes of itself; end what a test left behind."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND usename = current_user "
            "AND pid <> pg_backend_pid()"
        )
        async with connection.transaction():
            for table in reversed(metadata.sorted_tables):
                await connection.execute(f"DELETE FROM {table.name}")
            await connection.execute(
                "SELECT setval(sequencename::regclass, 1, false) FROM pg_sequences"
            )
            await connection.executemany("INSERT INTO installation VALUES ($1, $2)", notes)
            await connection.execute("INSERT INTO leadership VALUES (0, '', 0)")
            await connection.execute(
                "UPDATE installation SET value = left(md5(random()::text), length(value)) "
                "WHERE key IN ('epoch', 'database_id')"
            )
            head = upgrades.latest()
            await connection.execute(f"UPDATE alembic_version SET version_num = '{head}'")
    finally:
        await connection.close()


def with_database(url: str, name: str) -> str:
    """Return the URL of another database on the same server."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


async def execute(url: str, *statements: str) -> None:
    """Run statements, each in a transaction of its own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def copy_of(url: str) -> dict[str, bytes]:
    """Return the rows of all tables, as they stand at one moment, as a dump has them."""
    connection = await asyncpg.connect(url)
    rows = {}
    try:
        async with connection.transaction(isolation="repeatable_read"):
            for table in metadata.tables:
                output = BytesIO()
                await connection.copy_from_table(table, output=output, format="binary")
                rows[table] = output.getvalue()
    finally:
        await connection.close()
    return rows


async def put_back(url: str, rows: Mapping[str, bytes]) -> None:
    """Let a database have these rows and no others, as where a dump is restored.

    The services that worked on it when it was made have long gone by then.
    """
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            for table in reversed(metadata.sorted_tables):
                await connection.execute(f"DELETE FROM {table.name}")
            for table in metadata.sorted_tables:
                source = BytesIO(rows[table.name])
                await connection.copy_to_table(table.name, source=source, format="binary")
            await connection.execute("DELETE FROM replicas")
            await connection.execute("UPDATE leadership SET until = 0")
    finally:
        await connection.close()


@asynccontextmanager
async def engine_of(url: str) -> AsyncIterator[AsyncEngine]:
    """Make an engine over a database, in autocommit like that of the service."""
    engine = create_async_engine(
        "postgresql+asyncpg://",
        connect_args={"dsn": url},
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
    )
    try:
        yield engine
    finally:
        await engine.dispose()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run something asynchronous for a fixture, which may itself be needed by either kind of test.

    In a thread: in this one the event loop of the tests has its place.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def need_programs() -> None:
    """Fail a test where no server can be started."""
    if programs() is None:
        pytest.fail(f"no PostgreSQL, and `make test-all` needs it: {which_server()}")


@pytest.fixture(scope="session")
def postgres_databases() -> Iterator[Databases]:
    """Databases on the server of the tests, which is started for the first test that needs it."""
    if url := os.environ.get(VARIABLE):
        databases = Databases(url)
        yield databases
        databases.close()
        return
    need_programs()
    with local_server() as server:
        yield Databases(server.url)


@pytest.fixture
def empty_postgres_url(postgres_databases: Databases) -> Iterator[str]:
    """The URL of a database without tables."""
    with postgres_databases.empty() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_databases: Databases) -> Iterator[str]:
    """The URL of a database that all migrations were run on, without rows."""
    with postgres_databases.migrated() as url:
        yield url
