"""A SQLite file is copied to PostgreSQL: all of it, in as many runs as it takes."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Integer,
    LargeBinary,
    Table,
    create_engine,
    delete,
    func,
    insert,
    make_url,
    select,
    text,
    update,
)

from service.store import maintenance
from service.store.database import JournalRow, StoreError, Transaction
from service.store.events import read_events, span_of
from service.store.logs import append
from service.store.postgres import PostgresDatabase
from service.store.postgres_copy import CHUNK_ROWS, COPIED, OWN_KEYS, Outcome, copy
from service.store.postgres_maintenance import OperatedPostgres
from service.store.postgres_peers import TAKEN
from service.store.postgres_upgrades import UNFINISHED
from service.store.restore import unverified_accounts
from service.store.schema import events, installation, journal, outbox, users
from service.store.sqlite_files import FileLock
from tests.acceptance.commands import parsed, refused
from tests.acceptance.commands import run as command
from tests.postgres import Databases, engine_of, execute, fetch, run
from tests.storing import opening, within

pytestmark = pytest.mark.postgres

ROWS = 7
Rows = dict[str, list[tuple[Any, ...]]]


class Odd(NamedTuple):
    """Values that a row may have; an int is one that its column can hold."""

    texts: list[str]
    bigs: list[int]
    integers: list[int]
    flags: list[bool]
    bodies: list[bytes]


def some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=1, max_size=5)


odd_values = st.builds(
    Odd,
    some(st.text(st.characters(exclude_categories=["Cs"]))),
    some(st.integers(-(1 << 63), (1 << 63) - 1)),
    some(st.integers(-(1 << 31), (1 << 31) - 1)),
    some(st.booleans()),
    some(st.binary(max_size=300)),
)
PLAIN = Odd(['{"a": [1, "ä"]}', "", "'\\N\t\n"], [1 << 40, 0, -1], [3], [True, False], [b"\0\xff"])


def value_of(column: Column[Any], number: int, odd: Odd) -> Any:
    def nth(values: list[Any]) -> Any:
        return values[number % len(values)]

    if column.foreign_keys or column.name in {"id", "day"}:
        return number
    if column.nullable and number % 3 == 0:
        return None
    if isinstance(column.type, Boolean):
        return nth(odd.flags)
    if isinstance(column.type, BigInteger):
        return nth(odd.bigs)
    if isinstance(column.type, Integer):
        return nth(odd.integers)
    return nth(odd.bodies) if isinstance(column.type, LargeBinary) else f"{number}{nth(odd.texts)}"


def row_of(table: Table, number: int, odd: Odd = PLAIN) -> dict[str, Any]:
    return {column.name: value_of(column, number, odd) for column in table.c}


def tables() -> list[Table]:
    return [*COPIED]


def write(path: Path, *queries: Callable[[Connection], Any]) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for query in queries:
            query(connection)
    engine.dispose()


def filling(odd: Odd = PLAIN) -> Callable[[Connection], None]:
    def fill(connection: Connection) -> None:
        for table in tables():
            rows = [row_of(table, number, odd) for number in range(1, ROWS + 1)]
            connection.execute(insert(table), rows)
        noted = {"key": "events_deleted", "value": "0"}
        connection.execute(insert(installation), noted)

    return fill


def all_rows(connection: Connection) -> Rows:
    found: Rows = {}
    for table in tables():
        rows = connection.execute(select(*table.c))
        found[table.name] = sorted((tuple(row) for row in rows), key=repr)
    own = select(*installation.c).where(installation.c.key.not_in(OWN_KEYS))
    found["installation"] = sorted(tuple(row) for row in connection.execute(own))
    return found


def rows_of_file(path: Path) -> Rows:
    with maintenance.reading(path) as connection:
        return all_rows(connection)


def rows_of(url: str) -> Rows:
    async def read() -> Rows:
        async with engine_of(url) as engine, engine.connect() as connection:
            return await connection.run_sync(all_rows)

    return run(read())


def no_progress(done: int, total: int) -> None:
    assert 0 <= done <= total


def copied(path: Path, url: str) -> Outcome:
    return copy(path, url, no_progress)


def refusal(path: Path, url: str) -> str:
    with pytest.raises(StoreError) as caught:
        copied(path, url)
    assert str(caught.value).isprintable(), "one line"
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that has rows in every table."""
    made = tmp_path / "ackgate.db"
    maintenance.create(made)
    write(made, filling())
    return made


@pytest.fixture
def in_use(path: Path) -> Iterator[FileLock]:
    """A service has the file."""
    lock = FileLock(path)
    lock.take()
    yield lock
    lock.release()


class TestAFinalCopy:
    def test_has_everything_of_every_table(self, path: Path, empty_postgres_url: str) -> None:
        outcome = copied(path, empty_postgres_url)
        assert outcome.is_final
        assert outcome.replaced == []
        assert {name: tally.rows for name, tally in outcome.tallies.items()} == dict.fromkeys(
            [table.name for table in tables()], ROWS
        )
        assert rows_of(empty_postgres_url) == rows_of_file(path)
        report, _ = OperatedPostgres(empty_postgres_url).check()
        assert report.faults == ()

    @settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(odd=odd_values)
    def test_has_every_value_as_it_was(
        self, tmp_path_factory: pytest.TempPathFactory, postgres_databases: Databases, odd: Odd
    ) -> None:
        path = tmp_path_factory.mktemp("odd") / "ackgate.db"
        maintenance.create(path)
        write(path, filling(odd))
        with postgres_databases.empty() as url:
            outcome = copied(path, url)
            found = rows_of(url)
        kept = {
            name: sorted((tuple(map(without_nul, row)) for row in rows), key=repr)
            for name, rows in rows_of_file(path).items()
        }
        assert found == kept
        has_nul = any("\0" in text for text in odd.texts)
        assert bool(outcome.replaced) == has_nul


def without_nul(value: Any) -> Any:
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value


class TestARunThatWasCut:
    @pytest.mark.parametrize(
        "point", ["copy.after_part_of_log:2", "copy.after_table:6", "copy.before_final"]
    )
    def test_is_run_again_and_goes_on(
        self, path: Path, empty_postgres_url: str, point: str
    ) -> None:
        write(path, more_entries)
        code = ended_at(point, path, empty_postgres_url)
        assert code == -signal.SIGKILL
        assert refused_by_the_service(empty_postgres_url) == f"database.url: {UNFINISHED}"
        before = writers_of(empty_postgres_url)
        assert len(before) >= CHUNK_ROWS
        assert copied(path, empty_postgres_url).is_final
        assert rows_of(empty_postgres_url) == rows_of_file(path)
        after = writers_of(empty_postgres_url)
        assert before.items() <= after.items(), "what was there is not copied again"


def more_entries(connection: Connection) -> None:
    rows = [row_of(journal, number) for number in range(ROWS + 1, 2 * CHUNK_ROWS + 9)]
    connection.execute(insert(journal), rows)


def ended_at(point: str, path: Path, url: str) -> int:
    """Kill the command at a point."""
    bare, password = without_password(url)
    words = ["db", "copy", "--yes", "--from", f"sqlite:///{path}", "--to", bare]
    process = subprocess.run(
        [sys.executable, "-m", "service", *words],
        env={**os.environ, "ACKGATE_KILL_AT": point, "ACKGATE_DATABASE__PASSWORD": password},
        capture_output=True,
        check=False,
    )
    return process.returncode


def without_password(url: str) -> tuple[str, str]:
    password = str(make_url(url).password)
    return url.replace(f":{password}@", "@"), password


def writers_of(url: str) -> dict[int, str]:
    """Give which transaction wrote each entry of the journal."""
    return dict(run(fetch(url, "SELECT id, xmin::text FROM journal")))


def refused_by_the_service(url: str) -> str:
    with pytest.raises(StoreError) as caught:
        run(PostgresDatabase(url).open())
    return str(caught.value)


class TestBesideAService:
    def test_a_copy_is_not_final_and_no_service_starts_on_it(
        self, path: Path, in_use: FileLock, empty_postgres_url: str
    ) -> None:
        assert not copied(path, empty_postgres_url).is_final
        assert rows_of(empty_postgres_url)["journal"] == rows_of_file(path)["journal"]
        assert refused_by_the_service(empty_postgres_url) == f"database.url: {UNFINISHED}"
        report, _ = OperatedPostgres(empty_postgres_url).check()
        assert report.faults == (UNFINISHED,)
        in_use.release()
        assert copied(path, empty_postgres_url).is_final
        report, _ = OperatedPostgres(empty_postgres_url).check()
        assert report.faults == ()

    def test_what_changes_until_it_stops_is_copied_then(
        self, path: Path, in_use: FileLock, empty_postgres_url: str
    ) -> None:
        write(path, more_entries)
        copied(path, empty_postgres_url)
        before = writers_of(empty_postgres_url)
        write(path, changing)
        in_use.release()
        assert copied(path, empty_postgres_url).is_final
        assert rows_of(empty_postgres_url) == rows_of_file(path)
        after = writers_of(empty_postgres_url)
        kept = {id_ for id_, writer in before.items() if after.get(id_) == writer}
        assert kept == {*range(CHUNK_ROWS + 1, 2 * CHUNK_ROWS + 1)}, "the chunk without a change"


def changing(connection: Connection) -> None:
    """Let every kind of change happen to the file."""
    read = update(journal).where(journal.c.id == 2).values(state="applied", replayed_at=9)
    connection.execute(read)
    connection.execute(insert(journal).values(row_of(journal, 1 << 20)))
    connection.execute(delete(events).where(events.c.id.in_((1, ROWS))))
    connection.execute(insert(events), [row_of(events, number) for number in (99, 100)])
    for table in (table for table in tables() if table.foreign_keys):
        connection.execute(delete(table).where(table.c.user_id == ROWS))
    connection.execute(delete(users).where(users.c.id == ROWS))
    # Its key was another row's before.
    again = {**row_of(outbox, 1), "id": 2}
    connection.execute(delete(outbox).where(outbox.c.id.in_((1, 2))))
    connection.execute(insert(outbox).values(again))


class TestWhatIsRefused:
    @pytest.mark.usefixtures("in_use")
    def test_an_unfinished_copy_of_another_file(
        self, path: Path, empty_postgres_url: str, tmp_path: Path
    ) -> None:
        copied(path, empty_postgres_url)
        other = tmp_path / "other.db"
        maintenance.create(other)
        assert "an unfinished copy of another database" in refusal(other, empty_postgres_url)

    def test_a_database_that_has_rows(self, path: Path, empty_postgres_url: str) -> None:
        assert copied(path, empty_postgres_url).is_final
        before = rows_of(empty_postgres_url)
        assert "has rows, and is no unfinished copy" in refusal(path, empty_postgres_url)
        assert rows_of(empty_postgres_url) == before

    def test_another_programs_database(self, path: Path, empty_postgres_url: str) -> None:
        run(execute(empty_postgres_url, "CREATE TABLE mine (id int)"))
        assert "not a database of Ackgate" in refusal(path, empty_postgres_url)

    async def test_a_database_that_a_service_works_on(self, path: Path, postgres_url: str) -> None:
        async with opening(PostgresDatabase(postgres_url)):
            assert await asyncio.to_thread(refusal, path, postgres_url) == TAKEN

    def test_a_file_of_another_release(self, path: Path, empty_postgres_url: str) -> None:
        older = text("UPDATE alembic_version SET version_num = '0016'")
        write(path, lambda connection: connection.execute(older))
        assert "run 'ackgate db upgrade'" in refusal(path, empty_postgres_url)

    def test_a_damaged_file(self, path: Path, empty_postgres_url: str) -> None:
        with closing(sqlite3.connect(path)) as raw:
            query = "SELECT rootpage FROM sqlite_master WHERE name = 'contacts'"
            ((page,),) = raw.execute(query).fetchall()
            ((size,),) = raw.execute("PRAGMA page_size").fetchall()
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.seek((page - 1) * size)
            file.write(b"\xff" * size)
        line = refusal(path, empty_postgres_url)
        assert line == "the table contacts can't be read: database disk image is malformed"
        assert refused_by_the_service(empty_postgres_url) == f"database.url: {UNFINISHED}"

    def test_no_file(self, tmp_path: Path, empty_postgres_url: str) -> None:
        assert "no such file" in refusal(tmp_path / "none.db", empty_postgres_url)


def test_text_that_postgresql_can_not_keep_is_replaced_and_told(
    path: Path, empty_postgres_url: str
) -> None:
    broken = text("UPDATE journal SET reason = CAST(x'61ff00' AS TEXT) WHERE id = 3")
    write(path, lambda connection: connection.execute(broken))
    outcome = copied(path, empty_postgres_url)
    assert outcome.replaced == ["journal 3"]
    query = "SELECT reason FROM journal WHERE id = 3"
    assert run(fetch(empty_postgres_url, query)) == [("a\ufffd\ufffd",)]


class TestAServiceGoesOn:
    async def test_with_higher_ids_and_another_epoch(
        self, path: Path, empty_postgres_url: str
    ) -> None:
        high = 1 << 50  # as a busy journal of another cluster has them
        write(path, lambda connection: connection.execute(insert(journal), row_of(journal, high)))
        await asyncio.to_thread(copied, path, empty_postgres_url)
        with maintenance.reading(path) as connection:
            before = span_of(connection)
        async with opening(PostgresDatabase(empty_postgres_url)) as database:
            after = await database.read(span_of)
            assert after.newest == before.newest
            assert after.epoch != before.epoch
            told = [{"account": "", "at": 9, "type": "t", "names": "[]", "data": "{}"}]
            await database.write(lambda c: append(c, events, told))
            [new] = await database.read(lambda c: read_events(c, before.newest, 9))
            assert new.id > high
            entry = JournalRow("main", 9, "applied", "", "", "[]", b"")
            await within(database, lambda t: t.add_journal([entry]))
            newest = select(func.max(journal.c.id))
            assert (await database.read(lambda c: c.execute(newest).scalar()) or 0) > high
            assert await within(database, user_id) > ROWS
            free = {**row_of(outbox, 1), "kind": "free"}
            del free["id"]
            await database.write(lambda c: c.execute(insert(outbox).values(free)))
            of_work = select(func.max(outbox.c.id))
            assert await database.read(lambda c: c.execute(of_work).scalar()) == ROWS + 1

    async def test_and_nobody_is_unverified(self, tmp_path: Path, empty_postgres_url: str) -> None:
        path = tmp_path / "ackgate.db"
        maintenance.create(path)
        write(path, lambda c: c.execute(insert(users).values(row_of(users, 1))))
        await asyncio.to_thread(copied, path, empty_postgres_url)
        async with opening(PostgresDatabase(empty_postgres_url)) as database:
            assert await database.read(unverified_accounts) == {}


async def user_id(transaction: Transaction) -> int:
    return transaction.new_user_id()


class TestTheCommand:
    async def test_tells_what_it_has_copied(
        self, path: Path, empty_postgres_url: str, tmp_path: Path
    ) -> None:
        bare, password = without_password(empty_postgres_url)
        file = tmp_path / "password"
        file.write_text(f"{password}\n")
        words = ["db", "copy", "--from", f"sqlite:///{path}", "--to", bare]
        given = ["--password-file", str(file), "--json"]
        unasked = await command(*words, *given, expect=1)
        assert "nothing was changed" in unasked.stderr
        document = parsed(await command(*words, *given, "--yes"))
        assert document["final"] is True
        assert document["database"] == bare
        assert document["rows"]["journal"] == ROWS
        assert set(document["rows"]) == set(document["checksums"])

    @pytest.mark.parametrize(
        ("source", "target", "said"),
        [
            ("postgresql://u@h/d", "postgresql://u@h/d", "--from must be sqlite:///PATH"),
            ("sqlite:///a.db", "sqlite:///b.db", "--to must be postgresql://USER@HOST/DATABASE"),
            ("sqlite:///a.db", "postgresql://u:pass@h/d", "the URL may hold no password"),
            ("sqlite:///", "postgresql://u@h/d", "--from: "),
            ("sqlite:///a.db", "postgresql://u@h", "--to: "),
        ],
    )
    async def test_refuses_what_it_can_not_copy(self, source: str, target: str, said: str) -> None:
        words = ["db", "copy", "--from", source, "--to", target, "--yes"]
        line = await refused(*words, expect=2)
        assert said in line
        assert "pass@" not in line
