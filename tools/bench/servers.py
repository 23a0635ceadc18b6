"""The servers under load: Ackgate, the no-op that it is measured by, and Ackgate's database."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tools.bench.work import everyday
from tools.bodies import FIRST_SEEN_MS, hash_of, wa_id
from tools.installation import WEBHOOK, Installation
from tools.processes import SERVER_CORE, Process, RunError, free_port, python

ACKGATE, NOOP = "Ackgate", "no-op"
CHUNK = 10_000
DISTINCT_BODIES = 50_000
ENTRIES_A_USER = 5
JOURNAL_MS = 20 * 86_400_000
"""The time that the journal spans: nothing is so old that retention would delete it."""
SOME = 5_000
"""From so many users on a bar shows how far it is."""
BY_CLIENT = '{"kind":"client"}'
NOW_MS = time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its name in tables, and where its callbacks go."""

    name: str
    port: int
    path: str
    process: Process

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


def start_ackgate(
    installation: Installation, *, core: int | None = SERVER_CORE, name: str = ACKGATE
) -> tuple[Server, float]:
    """Start Ackgate; return it, and the seconds until it was ready."""
    port = free_port()
    process = Process(installation.command(port), name=name, core=core)
    try:
        seconds = process.wait_for(f"http://127.0.0.1:{port}/health/ready")
    except RunError:
        process.end()
        raise
    return Server(name, port, WEBHOOK, process), seconds


@contextmanager
def ackgate(
    installation: Installation, *, core: int | None = SERVER_CORE, name: str = ACKGATE
) -> Iterator[Server]:
    """Run Ackgate."""
    server, _ = start_ackgate(installation, core=core, name=name)
    try:
        yield server
    finally:
        server.process.end()


@contextmanager
def noop(*, core: int | None = SERVER_CORE) -> Iterator[Server]:
    """Run the no-op."""
    port = free_port()
    process = Process(python("tools.bench.noop", str(port)), name=NOOP, core=core)
    try:
        process.wait_for(f"http://127.0.0.1:{port}/", accepted=(405,))
        yield Server(NOOP, port, "/", process)
    finally:
        process.end()


def seed(
    installation: Installation, users: int, *, entries: int | None = None, contacts: int = 0
) -> None:
    """Create a database with users, each with an identity that the client acknowledged.

    The rows are written into the tables, past the service: it would take hours. `entries` of the
    journal are five a user unless given; `contacts` are results of contact checks.
    """
    installation.create_database()
    entries = ENTRIES_A_USER * users if entries is None else entries
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with (
        closing(sqlite3.connect(installation.database, isolation_level=None)) as database,
        Progress(*columns, disable=users < SOME) as progress,
    ):
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA cache_size = -262144")
        total = 4 * users + entries + contacts
        bar = progress.add_task(f"{users:,} identities", total=total)
        for table, rows in _tables(users, entries, contacts):
            while chunk := list(islice(rows, CHUNK)):
                _insert(database, table, chunk)
                progress.advance(bar, len(chunk))
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _insert(database: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    columns, marks = ",".join(rows[0]), ",".join(f":{name}" for name in rows[0])
    database.execute("BEGIN")
    database.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)
    database.execute("COMMIT")


def _tables(
    users: int, entries: int, contacts: int
) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    """Yield the tables, each with its rows in an order that suits it."""
    numbers = range(users)
    aliases = sorted((wa_id(n), n + 1) for n in numbers)
    yield "users", map(_user, numbers)
    yield "aliases", ({"account": "main", "alias": name, "user_id": id_} for name, id_ in aliases)
    changed = {"event": "changed", "reason": "policy default: manual", "decided_by": None}
    acknowledged = {"event": "acknowledged", "reason": None, "decided_by": BY_CLIENT}
    for event in (changed, acknowledged):
        common = {"account": "main", "at": FIRST_SEEN_MS, **event}
        yield "audit", ({**common, "user_id": n + 1} for n in numbers)
    yield "contacts", map(_contact, range(contacts))
    yield "journal", _journal(entries, max(users, 1))


def _user(number: int) -> dict[str, Any]:
    at, name = FIRST_SEEN_MS + number, wa_id(number)
    times = ("created_at", "changed_at", "received_at", "decided_at", "acknowledged_at")
    return {
        "id": number + 1,
        "account": "main",
        "wa_id": name,
        "hash": hash_of(number),
        "state": "acknowledged",
        "seen": f"[[{at},0]]",
        "decided_by": BY_CLIENT,
        **dict.fromkeys((*times, "updated_at", "confirmed_at", "checked_at"), at),
        "version": 1,
        **dict.fromkeys(("changed_precision", "attempts", "history_count"), 0),
        **dict.fromkeys(("after_hold", "disputed", "has_work", "has_ask"), 0),
    }


def _contact(number: int) -> dict[str, Any]:
    name = wa_id(number)
    return {
        "account": "main",
        "input": f"+{name}",
        "wa_id": name,
        "canonical": name,
        "status": "valid",
        "checked_at": NOW_MS,
        "digests": "[]",
    }


def _journal(entries: int, users: int) -> Iterator[dict[str, Any]]:
    bodies = list(islice(everyday(0, FIRST_SEEN_MS, users), min(DISTINCT_BODIES, entries)))
    for number in range(entries):
        yield {
            "account": "main",
            "state": "applied",
            "content_type": "application/json",
            "content_encoding": "",
            "headers": "[]",
            "received_at": NOW_MS - JOURNAL_MS + number * JOURNAL_MS // entries,
            "body": bodies[number % len(bodies)],
        }
