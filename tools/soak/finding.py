"""Gathering the evidence, once the load is over and all that can be done is done."""

import asyncio
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from tools.soak.client import Client
from tools.soak.evidence import AtClient, AtShop, Evidence, Identity, Kept, Put, Shown, Work

POLL_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 300.0
"""What is promised of the pause between two tries."""
WAITING_ON_OTHERS = {"login refused", "the database can't be written"}
"""Errors that the faults bring about. Every other one in the log is a fault of the service."""
_WORK = """
SELECT u.wa_id, o.kind, o.due_at, o.lease_until, o.attempts, u.last_error
FROM outbox o JOIN users u ON u.id = o.user_id
"""
_HISTORY = (
    "SELECT u.wa_id, c.hash FROM changes c JOIN users u ON u.id = c.user_id "
    "WHERE u.account = 'main'"
)
_IDENTITIES = "SELECT wa_id, hash, state FROM users WHERE account = 'main'"
_CUSTOMERS = (
    "SELECT a.account, a.alias, u.id, u.hash, u.state FROM aliases a "
    "JOIN users u ON u.id = a.user_id WHERE a.account != 'main'"
)
_TWICE = """
SELECT account, event, user_id, hash FROM audit
WHERE account != 'main' AND hash NOT NULL AND event IN ('first_use', 'merged')
GROUP BY 1, 2, 3, 4 HAVING count(*) > 1
"""
_AUDIT = """
SELECT u.wa_id, a.event, a.hash, count(*)
FROM audit a JOIN users u ON u.id = a.user_id WHERE u.account = 'main' GROUP BY 1, 2, 3
"""


class Gate(NamedTuple):
    """What the gate said: of users of the On-Premises API, and by account of the Cloud API's."""

    reasons: dict[str, frozenset[str]]
    shown: dict[tuple[str, str], Shown]


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """Ask the database, beside whoever has it open."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(query).fetchall()


async def until_done(database: Path, seconds: float) -> None:
    """Wait until nothing is left to be done, so many seconds at most after the last is due."""
    began = time.time()
    while left := [Work(*row) for row in rows(database, _WORK)]:
        last_due = min(max(work.due_at for work in left) / 1000, began + LONGEST_PAUSE_SECONDS)
        if time.time() > max(began, last_due) + seconds:
            return
        await asyncio.sleep(POLL_SECONDS)


async def find(database: Path, log: Path, client: Client, gate: Gate) -> Evidence:
    """Gather everything; `gate` is what the gate said before the service stopped."""
    seen = await client.do("seen")
    return await asyncio.to_thread(_gather, database, log, seen, gate)


def _gather(database: Path, log: Path, seen: dict[str, Any], gate: Gate) -> Evidence:
    checked = rows(database, "PRAGMA integrity_check")
    return Evidence(
        now=time.time_ns() // 1_000_000,
        unsound=_unsound(checked, rows(database, "PRAGMA foreign_key_check")),
        journal=[
            Kept(*row) for row in rows(database, "SELECT body, state FROM journal ORDER BY id")
        ],
        identities={
            wa_id: Identity(hash_, state) for wa_id, hash_, state in rows(database, _IDENTITIES)
        },
        history=frozenset((wa_id, hash_) for wa_id, hash_ in rows(database, _HISTORY)),
        audit=Counter({(w, event, h): count for w, event, h, count in rows(database, _AUDIT)}),
        outbox=[Work(*row) for row in rows(database, _WORK)],
        contacts=dict(rows(database, "SELECT input, status FROM contacts")),
        gate=gate.reasons,
        customers={
            (account, name): AtShop(id_, hash_, state, gate.shown.get((account, name)))
            for account, name, id_, hash_, state in rows(database, _CUSTOMERS)
        },
        told_twice=[str(row) for row in rows(database, _TWICE)],
        client={wa_id: AtClient(hash_, known) for wa_id, hash_, known in seen["users"]},
        puts=[Put(*put) for put in seen["puts"]],
        asked_at=dict(seen["gets"]),
        said=_faults_in(log.read_text(errors="replace").splitlines()),
    )


def _unsound(checked: list[tuple[Any, ...]], dangling: list[tuple[Any, ...]]) -> list[str]:
    return [str(row) for row in (*checked, *dangling) if row != ("ok",)]


def _faults_in(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if _tells_of_a_fault(line)]


def _tells_of_a_fault(line: str) -> bool:
    """Tell whether a line is an error of the service's own, or no line of its log at all."""
    try:
        entry = json.loads(line)
    except ValueError:
        return True
    return entry.get("level") not in {"info", "warning"} and (
        entry.get("event") not in WAITING_ON_OTHERS
    )
