"""Three ways to the driver for the ledger's hot statements, interleaved in one run.

The work is one batch of identity changes of new users: load by alias, journal, users, aliases,
audit trail, outbox; one transaction, WAL and FULL, on a file in a temporary folder. Run it with
`python -m benchmarks.drivers`; what it prints went into docs/architecture.md.
"""

import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import Table, create_engine, event, insert, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import StaticPool

from service.ledger.callbacks import RecordCallback
from service.ledger.unit_of_work import UnitOfWork
from service.model.events import IdentitySeen
from service.model.policy import Policies, Policy
from service.model.timeline import Moment
from service.store import rows, tables
from service.store import sqlite_statements as hot
from service.store.database import JournalRow, Transaction
from service.store.sqlite import SQLiteDatabase

BATCH = 30
ROUNDS = 7
BATCHES_A_ROUND = 60
POLICIES = {"main": Policies((), Policy("default"))}
BODY = b"x" * 433

Way = Callable[[list[RecordCallback]], Awaitable[None]]


def entries(start: int) -> list[RecordCallback]:
    """Make a batch of callbacks, each of a user never seen."""
    made = []
    for n in range(start, start + BATCH):
        row = JournalRow("main", n, "applied", "application/json", "", "[]", BODY)
        seen = IdentitySeen(f"1631{n:09}", f"{n:08}abc=", Moment(1_602_535_356_332 + n))
        made.append(RecordCallback("main", n, BODY, (seen,), row))
    return made


class Recorder:
    """Stands where a transaction does, and keeps the statements that a batch would make."""

    def __init__(self) -> None:
        self.made: list[tuple[str, list[tuple[Any, ...]]]] = []
        self._ids = iter(range(1, 10**9))

    def new_user_id(self) -> int:
        """Count."""
        return next(self._ids)

    def load_users(self, *_: object) -> dict[Any, Any]:
        """Know nobody."""
        return {}

    def collect(self, batch: list[RecordCallback]) -> list[tuple[str, list[tuple[Any, ...]]]]:
        """Let the rules run, and give the statements with their rows."""
        book = UnitOfWork(self, POLICIES, 1, 0.5)  # type: ignore[arg-type] # a stand-in
        book.load([entry.required(self) for entry in batch])  # type: ignore[arg-type] # a stand-in
        for entry in batch:
            entry.apply(book)
        users = list(book._by_id.values())  # noqa: SLF001  the very rows that would be saved
        later, short = len(rows.LATER_COLUMNS), rows.SHORT_AUDIT
        audit = [rows.audit_row(u.account, u.id, e) for u in users for e in u.audit]
        return [
            (hot.INSERT_PLAIN_JOURNAL, [entry.row[:-1] for entry in batch if entry.row]),
            (hot.NOTE_CALLBACK, [("main", 1, 1)]),
            (hot.INSERT_FRESH_USER, [rows.user_row(u)[:-later] for u in users]),
            (hot.INSERT_ALIAS, [(u.account, u.wa_id, u.id) for u in users]),
            (hot.INSERT_SHORT_AUDIT, [row[:short] for row in audit]),
        ]


SELECT = (
    "SELECT a.alias, u.* FROM aliases a JOIN users u ON u.id = a.user_id "
    f"WHERE a.account = ? AND a.alias IN ({','.join('?' * BATCH)})"
)


async def one_hop(database: SQLiteDatabase, batch: list[RecordCallback]) -> None:
    """Run the whole batch in one hop to the thread, the driver called directly there."""

    def work(transaction: Transaction) -> None:
        book = UnitOfWork(transaction, POLICIES, 1, 0.5)
        book.load([entry.required(transaction) for entry in batch])
        for entry in batch:
            entry.apply(book)
        book.save()

    await database.write(work)


async def hop_a_statement(
    connection: aiosqlite.Connection, recorder: Recorder, batch: list[RecordCallback]
) -> None:
    """Run every statement through aiosqlite's own methods."""
    statements = recorder.collect(batch)
    await connection.execute("BEGIN IMMEDIATE")
    names = [entry.required(recorder).aliases[0][1] for entry in batch]  # type: ignore[arg-type] # a stand-in
    async with connection.execute(SELECT, ("main", *names)) as cursor:
        await cursor.fetchall()
    for sql, made in statements:
        await connection.executemany(sql, made)
    await connection.execute("COMMIT")


_COLUMNS: dict[str, tuple[Table, tuple[str, ...]]] = {
    hot.INSERT_PLAIN_JOURNAL: (tables.journal, JournalRow._fields[:-1]),
    hot.INSERT_FRESH_USER: (tables.users, rows.FRESH_COLUMNS),
    hot.INSERT_ALIAS: (tables.aliases, ("account", "alias", "user_id")),
    hot.INSERT_SHORT_AUDIT: (tables.audit, rows.AUDIT_COLUMNS[: rows.SHORT_AUDIT]),
}
_FIXED = {hot.INSERT_FRESH_USER: rows.LATER_COLUMNS}


def _core(engine: Engine, recorder: Recorder, batch: list[RecordCallback]) -> None:
    names = [entry.required(recorder).aliases[0][1] for entry in batch]  # type: ignore[arg-type] # a stand-in
    with engine.begin() as connection:
        query = select(tables.aliases.c.alias, tables.users).join(tables.users)
        where = tables.aliases.c.alias.in_(names)
        connection.execute(query.where(tables.aliases.c.account == "main", where)).all()
        for sql, made in recorder.collect(batch):
            if sql not in _COLUMNS:
                connection.exec_driver_sql(sql, made[0])
                continue
            table, columns = _COLUMNS[sql]
            fixed = _FIXED.get(sql, {})
            connection.execute(
                insert(table), [fixed | dict(zip(columns, row, strict=True)) for row in made]
            )


async def core_one_hop(engine: Engine, recorder: Recorder, batch: list[RecordCallback]) -> None:
    """Run the batch through SQLAlchemy Core, in one hop to a thread."""
    await asyncio.to_thread(_core, engine, recorder, batch)


async def _prepared(path: Path) -> SQLiteDatabase:
    database = SQLiteDatabase(path)
    await database.open()
    return database


async def _measure(way: Way) -> float:
    start = time.perf_counter()
    for _ in range(BATCHES_A_ROUND):
        await way(entries(next(_starts)))
    return BATCH * BATCHES_A_ROUND / (time.perf_counter() - start)


_starts = iter(range(0, 10**9, BATCH))


async def main() -> None:
    """Measure, interleaved, and print callbacks/s and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        first = await _prepared(Path(folder) / "one.db")
        for name in ("two.db", "three.db"):
            await (await _prepared(Path(folder) / name)).close()
        second = await aiosqlite.connect(Path(folder) / "two.db", isolation_level=None)
        for pragma in ("synchronous = FULL", "cache_size = -65536", "foreign_keys = ON"):
            await second.execute(f"PRAGMA {pragma}")
        third = _engine(Path(folder) / "three.db")
        ways: dict[str, Way] = {
            "whole batch in one hop, driver": partial(one_hop, first),
            "aiosqlite, one hop a statement": partial(hop_a_statement, second, Recorder()),
            "SQLAlchemy Core in one hop": partial(core_one_hop, third, Recorder()),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        try:
            for _ in range(ROUNDS):
                for name, way in ways.items():
                    rates[name].append(await _measure(way))
        finally:
            await first.close()
            await second.close()
            third.dispose()
    best = statistics.median(next(iter(rates.values())))
    for name, found in rates.items():
        median = statistics.median(found)
        sys.stdout.write(
            f"{name:34} {median:8.0f}/s  {median / best:5.2f}  "
            f"({min(found):.0f} to {max(found):.0f})\n"
        )


def _engine(path: Path) -> Engine:

    raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    raw.execute("PRAGMA synchronous = FULL")
    raw.execute("PRAGMA cache_size = -65536")
    raw.execute("PRAGMA foreign_keys = ON")
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


if __name__ == "__main__":
    asyncio.run(main())
