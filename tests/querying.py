"""Queries over a plain connection to either database, and how many rows they looked at."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.store.sqlite import SQLiteDatabase
from tests.postgres import engine_of
from tests.storing import opening

T = TypeVar("T")

BOTH = ("sqlite", pytest.param("postgres", marks=pytest.mark.postgres))
"""The databases that a test of queries runs on, by the parameter of a fixture."""


class Queries(Protocol):
    """What runs queries, in transactions of their own; see `service.store.database.Database`."""

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run queries on a snapshot."""

    async def write(self, query: Callable[[Connection], T]) -> T:
        """Run queries in a transaction, and commit it."""


class PostgresQueries:
    """Runs queries on PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run queries on a snapshot."""
        async with self.begun("REPEATABLE READ") as run:
            return await run(query)

    async def write(self, query: Callable[[Connection], T]) -> T:
        """Run queries in a transaction, and commit it."""
        async with self.begun("READ COMMITTED") as run:
            return await run(query)

    @asynccontextmanager
    async def begun(self, isolation: Any = "READ COMMITTED") -> AsyncIterator[Callable[..., Any]]:
        """Begin a transaction, and give what runs queries in it; it is committed at the end."""
        async with self.engine.connect() as connection:
            await connection.execution_options(isolation_level=isolation)
            async with connection.begin():
                # As the service has it: a fresh database has no statistics.
                await connection.execute(text("SET LOCAL enable_seqscan = off"))
                yield connection.run_sync


@asynccontextmanager
async def queries_of(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Queries]:
    """Open the database that a fixture's parameter names, with all tables and no rows."""
    if request.param == "sqlite":
        async with opening(SQLiteDatabase(folder / "ackgate.db")) as database:
            yield database
    else:
        async with engine_of(request.getfixturevalue("postgres_url")) as engine:
            yield PostgresQueries(engine)


STEPS_A_ROW = 100
"""More than SQLite takes for a row that it looks for by an index, reads and sorts."""


async def looked_at(database: Queries, query: Callable[[Connection], T]) -> tuple[T, float, int]:
    """Run a query; give its answer, about how many rows it looked at, and its statements."""
    return await database.read(lambda connection: _counted(connection, query))


def _counted(connection: Connection, query: Callable[[Connection], T]) -> tuple[T, float, int]:
    statements: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        statements.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    try:
        if connection.dialect.name == "sqlite":
            answer, rows = _with_steps(connection, query)
        else:
            answer, rows = query(connection), 0.0
    finally:
        event.remove(connection, "before_cursor_execute", note)
    if connection.dialect.name != "sqlite":
        rows = sum(_rows_of(connection, *one) for one in statements)
    return answer, rows, len(statements)


def _with_steps(connection: Connection, query: Callable[[Connection], T]) -> tuple[T, float]:
    """Count in tens the steps of SQLite's own programs: a row that is looked at takes some."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    driver: Any = connection.connection.dbapi_connection
    driver.run_async(lambda raw: raw.set_progress_handler(step, 10))
    try:
        return query(connection), 10 * count / STEPS_A_ROW
    finally:
        driver.run_async(lambda raw: raw.set_progress_handler(None, 0))


def _rows_of(connection: Connection, statement: str, parameters: Any) -> float:
    """Return the rows that PostgreSQL looks at for a statement, by its own account."""
    explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
    found = connection.exec_driver_sql(explained, parameters).scalar_one()
    return _looked_at(found[0]["Plan"])


OF_OTHERS = {"Subquery Scan", "CTE Scan", "WorkTable Scan", "Function Scan", "Bitmap Heap Scan"}
"""Scans of what other nodes of the plan have found."""


def _looked_at(plan: dict[str, Any]) -> float:
    rows = 0.0
    if "Scan" in plan["Node Type"] and plan["Node Type"] not in OF_OTHERS:
        looked = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        rows = looked * plan["Actual Loops"]
    return rows + sum(_looked_at(one) for one in plan.get("Plans", ()))
