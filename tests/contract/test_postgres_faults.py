"""A PostgreSQL server that fails, connections that are lost: nothing that was stored is lost."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from signal import SIGQUIT
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from service.store import postgres
from service.store.database import Database, JournalRow, UnavailableError
from service.store.postgres import PostgresDatabase
from service.store.schema import accounts, journal
from tests.postgres import execute, with_database
from tests.storing import opening, within
from tools.postgres import LocalServer, local_server

pytestmark = pytest.mark.postgres

ROW = JournalRow("main", 1_700_000_000_000, "applied", "application/json", "", "[]", b"{}")


END_CONNECTIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = 'faults' AND application_name = 'ackgate'"
)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    """A server of these tests' own, which they may kill; what it has committed is on disk."""
    with local_server(durable=True) as started:
        yield started


@pytest.fixture
async def url(server: LocalServer) -> AsyncIterator[str]:
    await execute(server.url, "CREATE DATABASE faults")
    yield with_database(server.url, "faults")
    await execute(server.url, "DROP DATABASE faults WITH (FORCE)")


async def store(database: Database, number: int) -> None:
    body = str(number).encode()
    await within(database, lambda t: t.add_journal([ROW._replace(body=body)]))


async def stored(database: Database) -> list[int]:
    query = select(journal.c.body).order_by(journal.c.id)
    rows = await database.read(lambda c: c.execute(query).scalars().all())
    return [int(body) for body in rows]


async def once_available(work: Any, seconds: float = 30) -> None:
    """Do something as soon as the database can be used again."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                await work()
            except UnavailableError:
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.slow
async def test_what_was_stored_is_there_after_the_server_was_killed(
    server: LocalServer, url: str
) -> None:
    acknowledged: list[int] = []
    over = asyncio.Event()

    async def write(database: Database, first: int) -> None:
        number = first
        while not over.is_set():
            try:
                await store(database, number)
            except UnavailableError:
                await asyncio.sleep(0.01)
            else:
                acknowledged.append(number)
                number += 10

    async with opening(PostgresDatabase(url)) as database:
        writing = [asyncio.create_task(write(database, first)) for first in range(3)]
        for _ in range(3):
            count = len(acknowledged)
            async with asyncio.timeout(30):
                while len(acknowledged) < count + 50:
                    await asyncio.sleep(0.01)
            # In this thread, with whose end the server's would come.
            server.stop(SIGQUIT)
            server.start()
        count = len(acknowledged)
        async with asyncio.timeout(30):
            while len(acknowledged) < count + 50:
                await asyncio.sleep(0.01)
        over.set()
        await asyncio.gather(*writing)
        assert {*acknowledged} <= {*await stored(database)}


@pytest.mark.slow
async def test_no_id_is_given_twice_where_the_server_dies_in_the_transaction_that_took_some(
    server: LocalServer, url: str
) -> None:
    database = PostgresDatabase(url)
    await database.open()
    with pytest.raises(UnavailableError):
        async with database.transaction():
            server.stop(SIGQUIT)
    server.start()
    taken = database._user_ids
    other = PostgresDatabase(url)
    await other.open()
    await once_available(lambda: store(other, 1))
    await once_available(lambda: store(database, 2))
    assert not {*taken, *database._user_ids} & {*other._user_ids}
    await other.close()
    await database.close()


class Proxy:
    """Stands between a service and its server, and cuts connections, or lets nothing through."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            self._flows.set()
            self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        both = {writer, to_server}
        self._open |= both
        await asyncio.gather(self._copy(reader, to_server), self._copy(theirs, writer))
        self._open -= both

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                await self._flows.wait()
                writer.write(chunk)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        """End every connection at once."""
        for writer in [*self._open]:
            writer.transport.abort()

    def stall(self) -> None:
        """Let nothing through, without a word to either side, until `flow`."""
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()


@pytest.fixture
async def proxy(server: LocalServer) -> Proxy:
    return Proxy(server.port)


async def test_connections_that_are_cut_are_made_anew(
    server: LocalServer, url: str, proxy: Proxy
) -> None:
    async with proxy.running() as port:
        through = url.replace(f":{server.port}/", f":{port}/")
        async with opening(PostgresDatabase(through)) as database:
            await store(database, 1)
            for number in range(2, 6):
                proxy.cut()
                await once_available(lambda number=number: store(database, number))  # type: ignore[misc]
                await once_available(lambda: stored(database))
            assert await stored(database) == [1, 2, 3, 4, 5]


async def test_connections_on_which_nothing_comes_back_are_given_up(
    server: LocalServer, url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "COMMAND_SECONDS", 0.5)
    monkeypatch.setattr(postgres, "CONNECT_SECONDS", 0.5)
    async with proxy.running() as port:
        through = url.replace(f":{server.port}/", f":{port}/")
        async with opening(PostgresDatabase(through)) as database:
            await store(database, 1)
            proxy.stall()
            with pytest.raises(UnavailableError):
                await store(database, 2)
            with pytest.raises(UnavailableError):
                await stored(database)
            proxy.flow()
            await once_available(lambda: store(database, 3))
            assert {1, 3} <= {*await stored(database)}


async def test_a_server_that_takes_no_more_connections_is_unavailable_until_it_does(
    server: LocalServer, url: str
) -> None:
    database = PostgresDatabase(url)
    await database.open()
    await execute(server.superuser_url, "ALTER DATABASE faults CONNECTION LIMIT 0")
    try:
        await execute(server.superuser_url, END_CONNECTIONS)
        with suppress(UnavailableError):
            await store(database, 1)  # on a connection that has just ended
        with pytest.raises(UnavailableError, match="too many connections"):
            await store(database, 1)
    finally:
        await execute(server.superuser_url, "ALTER DATABASE faults CONNECTION LIMIT -1")
    await once_available(lambda: store(database, 2))
    assert await stored(database) == [2]
    await database.close()


async def test_a_server_that_only_reads_is_unavailable_until_it_writes(
    server: LocalServer, url: str
) -> None:
    async with opening(PostgresDatabase(url)) as database:
        await execute(url, "ALTER DATABASE faults SET default_transaction_read_only = on")
        await execute(server.superuser_url, END_CONNECTIONS)
        with suppress(UnavailableError):
            await store(database, 1)  # on a connection that has just ended
        with pytest.raises(UnavailableError, match="read-only transaction"):
            await store(database, 1)
        await execute(
            server.superuser_url, "ALTER DATABASE faults RESET default_transaction_read_only"
        )
        await execute(server.superuser_url, END_CONNECTIONS)
        await once_available(lambda: store(database, 2))
        assert await stored(database) == [2]


async def test_an_error_tells_nothing_of_what_was_to_be_stored(url: str) -> None:
    async with opening(PostgresDatabase(url)) as database:
        row = {"name": "of nobody's business"}
        await database.write(lambda c: c.execute(insert(accounts).values(row)))
        with pytest.raises(UnavailableError) as caught:
            await database.write(lambda c: c.execute(insert(accounts).values(row)))
        assert "business" not in str(caught.value)
        wrong = row | {"last_callback_at": "business"}
        with pytest.raises(ValueError, match="refuses") as refused:
            await database.write(lambda c: c.execute(insert(accounts).values(wrong)))
        assert "business" not in str(refused.value)
        query = select(func.count()).select_from(accounts)
        assert await database.read(lambda c: c.execute(query).scalar_one()) == 1
