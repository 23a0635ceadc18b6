"""Either database for tests of queries, and how many rows a query looks at there."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, event

from service.store.database import Clock, Database, wall_clock
from tests.storing import database_at, opening, url_on

T = TypeVar("T")

BOTH = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))
"""The databases that a test runs on, by the parameter of a fixture."""


@asynccontextmanager
async def database_of(
    request: pytest.FixtureRequest, clock: Clock = wall_clock
) -> AsyncIterator[Database]:
    """Open the database that a fixture's parameter names, without a row."""
    async with opening(database_at(url_on(request.param, request), clock)) as database:
        yield database


STEPS_A_ROW = 100
"""More than SQLite takes for a row that it looks for by an index, reads and sorts."""


async def looked_at(database: Database, query: Callable[[Connection], T]) -> tuple[T, float, int]:
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
