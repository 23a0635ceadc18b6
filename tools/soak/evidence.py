"""What is found in the end: in the database, at the client, at the gate and in the log."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Kept(NamedTuple):
    """A row of the journal."""

    body: bytes
    state: str


class Identity(NamedTuple):
    """A user's latest identity: a row of users."""

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
        """Tell whether it rightly waits for another try."""
        return self.lease_until is None and self.due_at > now and self.attempts > 0


class AtClient(NamedTuple):
    """What the client has of a user."""

    hash: str
    acknowledged: bool


class Shown(NamedTuple):
    """What the gate says of a user of the Cloud API: reasons against it, the hash to send along."""

    reasons: frozenset[str]
    hash: str | None


class AtShop(NamedTuple):
    """A user of the Cloud API: a row of users, and what the gate said."""

    id: int
    hash: str | None
    state: str | None
    shown: Shown | None


class Put(NamedTuple):
    """A PUT as the client saw it; `at` in Unix seconds, `faulty` where a fault struck it."""

    wa_id: str
    hash: str
    at: float
    outcome: str
    faulty: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was found, and when (Unix ms)."""

    now: int
    unsound: Sequence[str] = ()
    """What SQLite's own checks object to."""
    journal: Sequence[Kept] = ()
    """In the order in which they took effect."""
    identities: Mapping[str, Identity] = field(default_factory=dict)
    history: frozenset[tuple[str, str]] = frozenset()
    """(wa_id, hash) of the changes that are not the latest."""
    audit: Counter[tuple[str, str, str | None]] = field(default_factory=Counter)
    """(wa_id, event, hash)."""
    outbox: Sequence[Work] = ()
    contacts: Mapping[str, str] = field(default_factory=dict)
    customers: Mapping[tuple[str, str], AtShop] = field(default_factory=dict)
    """Users of the Cloud API, by account and name."""
    told_twice: Sequence[str] = ()
    """What the audit trail of the Cloud API's accounts has twice, and must have once."""
    gate: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The codes of the reasons against writing, by wa_id or literal input."""
    client: Mapping[str, AtClient] = field(default_factory=dict)
    puts: Sequence[Put] = ()
    asked_at: Mapping[str, float] = field(default_factory=dict)
    """When the client was last asked about a user, in Unix seconds."""
    said: Sequence[str] = ()
    """Lines of the log that tell of a fault of the service's own."""
