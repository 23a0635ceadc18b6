"""Databases of any size, written directly: users with an acknowledged identity, and a journal."""

import asyncio
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Table

from benchmarks.bodies import FIRST_SEEN_MS, everyday, hash_of, wa_id
from service.model.contacts import Contact
from service.model.timeline import Change, Moment
from service.model.users import BY_CLIENT, AuditEntry, Identity, State, User
from service.store import rows, tables
from service.store import sqlite_statements as hot
from service.store.sqlite import SQLiteDatabase

CHUNK = 10_000
DISTINCT_BODIES = 50_000
ENTRIES_A_USER = 5
JOURNAL_MS = 20 * 86_400_000
"""The time that the journal spans, younger than what retention takes away."""
_NOW_MS = time.time_ns() // 1_000_000
SOME = 5_000
"""Rows from which on a bar shows how far it is."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much a database holds."""

    users: int
    entries: int
    contacts: int = 0

    @classmethod
    def of(cls, users: int) -> "Size":
        """Give the size with five journal entries a user."""
        return cls(users, ENTRIES_A_USER * users)


def user(number: int) -> User:
    """Make a user whose identity the client itself has called acknowledged."""
    at = FIRST_SEEN_MS + number
    moment = Moment(at)
    latest = Change(
        hash_of(number),
        moment,
        at,
        [moment],
        decided_by=BY_CLIENT,
        decided_at=at,
        acknowledged_at=at,
    )
    identity = Identity(
        latest,
        State.ACKNOWLEDGED,
        version=1,
        updated_at=at,
        confirmed_at=at,
        checked_at=at,
    )
    return User(number + 1, "main", wa_id(number), at, identity)


def contact(number: int) -> Contact:
    """Make what the client said of a user's number: one spelling of it, valid, and not stale."""
    name = wa_id(number)
    return Contact("main", phone_number(number), "valid", name, _NOW_MS, canonical=name)


def phone_number(number: int) -> str:
    """Give the number of a user as the business holds it."""
    return f"+{wa_id(number)}"


def seed(path: Path, size: Size) -> None:
    """Make a database; the schema is the service's own."""
    asyncio.run(_prepare(path))
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA synchronous = OFF")
    raw.execute("PRAGMA cache_size = -262144")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, disable=size.users < SOME) as progress:
        bar = progress.add_task(
            f"{size.users:,} identities", total=4 * size.users + size.entries + size.contacts
        )
        for sql, made in _all_rows(size):
            _insert(raw, sql, made, lambda count: progress.advance(bar, count))
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()


async def _prepare(path: Path) -> None:
    database = SQLiteDatabase(path)
    await database.open()
    await database.close()


def _all_rows(size: Size) -> Iterator[tuple[str, Iterable[tuple[Any, ...]]]]:
    numbers = range(size.users)
    aliases = sorted((wa_id(n), n + 1) for n in numbers)
    entry = AuditEntry(FIRST_SEEN_MS, "changed", reason="policy default: manual")
    done = AuditEntry(FIRST_SEEN_MS, "acknowledged", by=BY_CLIENT)
    yield hot.INSERT_USER, (rows.user_row(user(n)) for n in numbers)
    yield hot.INSERT_ALIAS, (("main", alias, id_) for alias, id_ in aliases)
    for what in (entry, done):
        yield hot.INSERT_AUDIT, (rows.audit_row("main", n + 1, what) for n in numbers)
    yield hot.UPSERT_CONTACT, (rows.contact_row(contact(n)) for n in range(size.contacts))
    yield _journal(size)


def _journal(size: Size) -> tuple[str, Iterator[tuple[Any, ...]]]:
    bodies = list(islice(everyday(0, FIRST_SEEN_MS, max(size.users, 1)), DISTINCT_BODIES))
    entry = {
        "account": "main",
        "state": "applied",
        "content_type": "application/json",
        "content_encoding": "",
        "headers": "[]",
    }
    sql = _insert_sql(tables.journal, [*entry, "received_at", "body"])
    common = tuple(entry.values())
    first = time.time_ns() // 1_000_000 - JOURNAL_MS
    step = JOURNAL_MS / max(size.entries, 1)
    made = ((*common, first + int(n * step), bodies[n % len(bodies)]) for n in range(size.entries))
    return sql, made


def _insert_sql(table: Table, columns: list[str]) -> str:
    marks = ",".join("?" * len(columns))
    return f"INSERT INTO {table.name} ({','.join(columns)}) VALUES ({marks})"


def _insert(raw: sqlite3.Connection, sql: str, made: Iterable[tuple[Any, ...]], note: Any) -> None:
    iterator = iter(made)
    while chunk := list(islice(iterator, CHUNK)):
        raw.execute("BEGIN")
        raw.executemany(sql, chunk)
        raw.execute("COMMIT")
        note(len(chunk))
