"""What was sent to the service and what it answered: all that the oracle may hold against it."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from tools.soak.cloud_model import Life

MAX_CHANGES = 3
"""The guard of the policies: so many changes of a user are acknowledged without a person."""


class Handling(StrEnum):
    """What the configured policy does with a user's changes."""

    AUTO = "auto"
    DELAYED = "delayed"
    MANUAL = "manual"


PREFIXES = {Handling.AUTO: "1631", Handling.MANUAL: "1632", Handling.DELAYED: "1633"}
"""How the wa_ids of each begin; other users have no identity."""


class Change(NamedTuple):
    """A user's identity as the client has it: the hash, and its event time (Unix ms)."""

    wa_id: str
    hash: str
    at_ms: int


class NumberChange(NamedTuple):
    """A change of a number: the new wa_id, and the event time (Unix ms)."""

    wa_id: str
    at_ms: int


@dataclass(slots=True)
class Decision:
    """A person's decision, sent until it is answered; times in Unix seconds.

    `unanswered` counts the tries without an answer: each may have taken effect all the same.
    """

    wa_id: str
    hash: str
    verb: str
    sent_at: float
    answered_at: float | None = None
    status: int | None = None
    unanswered: int = 0

    @property
    def accepted(self) -> bool:
        """Whether the service answered that it is in effect."""
        return self.status in {200, 202}

    @property
    def possible(self) -> bool:
        """Whether it may be in effect."""
        return self.accepted or self.unanswered > 0


class Violation(NamedTuple):
    """A broken promise: which, without naming anybody, and the detail for the folder."""

    what: str
    detail: str


@dataclass(slots=True)
class Record:
    """Everything that was sent, and what was answered."""

    sent: set[bytes] = field(default_factory=set)
    """The bodies that were sent in whole."""
    accepted: Counter[bytes] = field(default_factory=Counter)
    """How often each body was answered with 200."""
    undelivered: int = 0
    """The number of callbacks that never got their 200."""
    sightings: dict[bytes, Change] = field(default_factory=dict)
    """The identity that is in a body."""
    decisions: list[Decision] = field(default_factory=list)
    number_changes: dict[str, NumberChange] = field(default_factory=dict)
    """Accepted changes of numbers, by the old wa_id."""
    checks: dict[str, str] = field(default_factory=dict)
    """Accepted results of contact checks: the status by the literal input."""
    relayed: dict[str, dict[int, bytes]] = field(default_factory=dict)
    """What each sink took first, in order: the body by the id in the journal."""
    relayed_again: dict[str, dict[int, bytes]] = field(default_factory=dict)
    """The same of the database that was restored in the end."""
    lives: list[Life] = field(default_factory=list)
    """What was accepted about users of the Cloud API."""
    violations: list[Violation] = field(default_factory=list)
    """The broken promises that were seen at once."""
    counts: Counter[str] = field(default_factory=Counter)

    def add_violation(self, what: str, detail: str) -> None:
        """Note a broken promise."""
        self.violations.append(Violation(what, detail))


def handling_of(wa_id: str) -> Handling | None:
    """Return how a user's changes are handled; None for a user without an identity."""
    return next((kind for kind, prefix in PREFIXES.items() if wa_id.startswith(prefix)), None)
