"""What was sent to the service and what was answered: all that the oracle may hold against it."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from tools.soak.customers import Life

MAX_CHANGES = 3
"""The guard of the policies: so many changes of a user are acknowledged without a person."""


class Handling(StrEnum):
    """What the configured policy does with a user's changes."""

    AUTO = "auto"
    DELAYED = "delayed"
    MANUAL = "manual"


PREFIXES = {Handling.AUTO: "1631", Handling.MANUAL: "1632", Handling.DELAYED: "1633"}
"""How the wa_ids of each begin; others have no identity."""


class Change(NamedTuple):
    """A user's identity as the client has it: the hash, and its event time (Unix ms)."""

    wa_id: str
    hash: str
    at_ms: int


class Move(NamedTuple):
    """A change of a number: the new wa_id, and the event time (Unix ms)."""

    wa_id: str
    at_ms: int


@dataclass(slots=True)
class Decision:
    """A person's decision, sent until it is answered; times in Unix seconds.

    `lost` counts the tries without an answer: each may have taken effect all the same.
    """

    wa_id: str
    hash: str
    verb: str
    sent_at: float
    answered_at: float | None = None
    status: int | None = None
    lost: int = 0

    @property
    def taken(self) -> bool:
        """Whether the service said that it is in effect."""
        return self.status in {200, 202}

    @property
    def possible(self) -> bool:
        """Whether it may be in effect."""
        return self.taken or self.lost > 0


class Wrong(NamedTuple):
    """Something that must not be: what, without naming anybody, and the detail for the folder."""

    what: str
    detail: str


@dataclass(slots=True)
class Record:
    """Everything that was sent, and what was answered."""

    sent: set[bytes] = field(default_factory=set)
    """The bodies that were sent in whole."""
    accepted: Counter[bytes] = field(default_factory=Counter)
    """How often each body was answered with 200."""
    owed: int = 0
    """Callbacks that never got their 200."""
    sightings: dict[bytes, Change] = field(default_factory=dict)
    """The identity that a body tells of."""
    decisions: list[Decision] = field(default_factory=list)
    moves: dict[str, Move] = field(default_factory=dict)
    """Accepted changes of numbers, by the old wa_id."""
    checks: dict[str, str] = field(default_factory=dict)
    """Accepted results of contact checks: the status by the literal input."""
    lives: list[Life] = field(default_factory=list)
    """What was told of users of the Cloud API."""
    wrongs: list[Wrong] = field(default_factory=list)
    """What was seen to be wrong under way."""
    counts: Counter[str] = field(default_factory=Counter)

    def complain(self, what: str, detail: str) -> None:
        """Note something that must not be."""
        self.wrongs.append(Wrong(what, detail))


def handling_of(wa_id: str) -> Handling | None:
    """Tell how a user's changes are handled; None for a user without an identity."""
    return next((kind for kind, prefix in PREFIXES.items() if wa_id.startswith(prefix)), None)
