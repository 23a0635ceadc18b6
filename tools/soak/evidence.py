"""What is found in the end: in the database, at the client, at the gate and in the log."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tools.soak.database import Database

EXPECTED_ERRORS = {"login refused", "the database can't be written"}
"""Errors that the faults lead to; every other one in the log is an error of the service's own."""
OUTBOX = """
SELECT u.wa_id, o.kind, o.due_at, o.lease_until, o.attempts, u.last_error
FROM outbox o JOIN users u ON u.id = o.user_id
"""
HISTORY = """
SELECT u.wa_id, c.hash FROM changes c JOIN users u ON u.id = c.user_id WHERE u.account = 'main'
"""
IDENTITIES = "SELECT wa_id, hash, state FROM users WHERE account = 'main'"
CLOUD_USERS = """
SELECT a.account, a.alias, u.id, u.hash, u.state FROM aliases a
JOIN users u ON u.id = a.user_id WHERE a.account != 'main'
"""
CLOUD_DUPLICATES = """
SELECT account, event, user_id, hash FROM audit
WHERE account != 'main' AND hash IS NOT NULL AND event IN ('first_use', 'merged')
GROUP BY 1, 2, 3, 4 HAVING count(*) > 1
"""
AUDIT = """
SELECT u.wa_id, a.event, a.hash, count(*)
FROM audit a JOIN users u ON u.id = a.user_id WHERE u.account = 'main' GROUP BY 1, 2, 3
"""


class JournalRow(NamedTuple):
    """A callback in the journal."""

    body: bytes
    state: str


class Identity(NamedTuple):
    """A user's latest identity, of the table of users."""

    hash: str | None
    state: str | None


class Work(NamedTuple):
    """A row of the outbox; times in Unix ms. `error` says why it was not done yet."""

    wa_id: str
    kind: str
    due_at: int
    lease_until: int | None
    attempts: int
    error: str | None

    def waits(self, now: int) -> bool:
        """Return whether it rightly waits for another try."""
        return self.lease_until is None and self.due_at > now and self.attempts > 0


class ClientIdentity(NamedTuple):
    """A user's identity at the client."""

    hash: str
    acknowledged: bool


class GateAnswer(NamedTuple):
    """The gate's answer about a user of the Cloud API: reasons against it, the hash to send."""

    reasons: frozenset[str]
    hash: str | None


class CloudIdentity(NamedTuple):
    """A user of the Cloud API: its row of the table of users, and the gate's answer."""

    id: int
    hash: str | None
    state: str | None
    answer: GateAnswer | None


class Put(NamedTuple):
    """A PUT as the client saw it; `at` in Unix seconds, `faulty` if a fault concerned it."""

    wa_id: str
    hash: str
    at: float
    outcome: str
    faulty: bool


class Restored(NamedTuple):
    """What a restored database has in the end.

    `journal` is by id; `undelivered` are, by relay, the ids that it had not delivered at the backup
    and those that have arrived since.
    """

    journal: Mapping[int, bytes]
    undelivered: Mapping[str, frozenset[int]]


NOTHING_RESTORED = Restored({}, {})


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was found, and when (Unix ms)."""

    now: int
    integrity_errors: Sequence[str] = ()
    """What the database's own checks found."""
    journal: Sequence[JournalRow] = ()
    """In the order in which the callbacks took effect."""
    identities: Mapping[str, Identity] = field(default_factory=dict)
    history: frozenset[tuple[str, str]] = frozenset()
    """(wa_id, hash) of the changes that are not the latest."""
    audit: Counter[tuple[str, str, str | None]] = field(default_factory=Counter)
    """(wa_id, event, hash)."""
    outbox: Sequence[Work] = ()
    contacts: Mapping[str, str] = field(default_factory=dict)
    cloud: Mapping[tuple[str, str], CloudIdentity] = field(default_factory=dict)
    """Users of the Cloud API, by account and name."""
    cloud_duplicates: Sequence[str] = ()
    """What the audit trail of Cloud API accounts has twice, and must have once."""
    gate: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The codes of the gate's reasons, by wa_id or literal input."""
    client: Mapping[str, ClientIdentity] = field(default_factory=dict)
    puts: Sequence[Put] = ()
    asked_at: Mapping[str, float] = field(default_factory=dict)
    """When the client was last asked about a user, in Unix seconds."""
    log_errors: Sequence[str] = ()
    """Lines of the log that report an internal error."""
    restored: Restored = NOTHING_RESTORED


class GateAnswers(NamedTuple):
    """The gate's answers: about users of the On-Premises API, and by account of the Cloud API."""

    reasons: dict[str, frozenset[str]]
    cloud: dict[tuple[str, str], GateAnswer]


async def outbox(database: Database) -> list[Work]:
    """Return the work that is left."""
    return [Work(*row) for row in await database.rows(OUTBOX)]


async def gather(
    database: Database, logs: Iterable[Path], seen: dict[str, Any], gate: GateAnswers
) -> Evidence:
    """Gather everything, of a service that has ended, and of what its client has `seen`."""
    journal = await database.rows("SELECT body, state FROM journal ORDER BY id")
    return Evidence(
        now=time.time_ns() // 1_000_000,
        integrity_errors=await database.faults(),
        journal=[JournalRow(*row) for row in journal],
        identities={
            wa_id: Identity(hash_, state) for wa_id, hash_, state in await database.rows(IDENTITIES)
        },
        history=frozenset([(wa_id, hash_) for wa_id, hash_ in await database.rows(HISTORY)]),
        audit=Counter({(w, event, h): count for w, event, h, count in await database.rows(AUDIT)}),
        outbox=await outbox(database),
        contacts=dict(await database.rows("SELECT input, status FROM contacts")),
        gate=gate.reasons,
        cloud={
            (account, name): CloudIdentity(id_, hash_, state, gate.cloud.get((account, name)))
            for account, name, id_, hash_, state in await database.rows(CLOUD_USERS)
        },
        cloud_duplicates=[str(row) for row in await database.rows(CLOUD_DUPLICATES)],
        client={wa_id: ClientIdentity(hash_, known) for wa_id, hash_, known in seen["users"]},
        puts=[Put(*put) for put in seen["puts"]],
        asked_at=dict(seen["gets"]),
        log_errors=[
            line
            for log in logs
            for line in log.read_text(errors="replace").splitlines()
            if _is_error(line)
        ],
    )


async def gather_restored(backup: Database, database: Database) -> Restored:
    """Gather what a backup says of its relays, and what its database has in the end."""
    journal = dict(await database.rows("SELECT id, body FROM journal"))
    rest = {id_ for id_, *_ in await backup.rows("SELECT id FROM journal")}
    new = journal.keys() - rest
    undelivered = {}
    relays = await backup.rows("SELECT name, read_up_to, undone FROM relays")
    for name, read_up_to, undone in relays:
        left = await backup.rows(f"SELECT log_id FROM deliveries WHERE relay = '{name}'")
        ids = {*json.loads(undone), *(id_ for (id_,) in left)}
        undelivered[name] = frozenset(new | ids | {id_ for id_ in rest if id_ > read_up_to})
    return Restored(journal, undelivered)


def _is_error(line: str) -> bool:
    """Return whether a line reports an internal error, or is no line of the log at all."""
    try:
        entry = json.loads(line)
    except ValueError:
        return True
    is_expected = entry.get("event") in EXPECTED_ERRORS
    return entry.get("level") not in {"info", "warning"} and not is_expected
