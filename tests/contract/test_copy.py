"""A SQLite file is copied to PostgreSQL: all of it, in as many runs as it takes."""

from collections.abc import Callable, Iterator
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
    insert,
    select,
)

from service.store import maintenance
from service.store.database import StoreError
from service.store.postgres_copy import OWN_KEYS, Outcome, copy
from service.store.postgres_maintenance import OperatedPostgres
from service.store.schema import installation, metadata
from service.store.sqlite_files import FileLock
from tests.postgres import Databases, engine_of, fetch, run

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
    return [table for table in metadata.sorted_tables if table is not installation]


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


def note_of(url: str, key: str) -> Any:
    found = run(fetch(url, f"SELECT value FROM installation WHERE key = '{key}'"))
    return found[0][0] if found else None


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

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
