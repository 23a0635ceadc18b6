"""What a person decides about an identity, as a table over its states."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from service.model.doubts import want_answer
from service.model.identities import note_owner, start
from service.model.timeline import Change
from service.model.users import OPEN, AuditEntry, By, Context, State, User


class Verb(StrEnum):
    """The two decisions."""

    ACKNOWLEDGE = "acknowledge"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's decision about the hash that they saw, and what it rests on.

    On the Cloud API the hash may be None: that of a change whose hash nobody knows yet.
    """

    verb: Verb
    hash: str | None
    by: By
    note: str | None = None
    evidence: Mapping[str, str] | None = None


class Result(Enum):
    """What became of a decision."""

    TAKEN = auto()
    """It is in effect, or was before."""
    NO_IDENTITY = auto()
    """The user has none."""
    ANOTHER_HASH = auto()
    """Another hash is the latest than the one that was seen."""
    TOO_LATE = auto()
    """It is acknowledged, or about to be."""


class _Effect(Enum):
    START = auto()
    HOLD = auto()
    HOLD_BETWEEN_TRIES = auto()
    UNCHANGED = auto()
    TOO_LATE = auto()


_EFFECTS: dict[tuple[Verb, State], _Effect] = {
    (Verb.ACKNOWLEDGE, State.PENDING): _Effect.START,
    (Verb.ACKNOWLEDGE, State.SCHEDULED): _Effect.START,
    (Verb.ACKNOWLEDGE, State.HELD): _Effect.START,
    (Verb.ACKNOWLEDGE, State.FAILED): _Effect.START,
    (Verb.ACKNOWLEDGE, State.ACKNOWLEDGING): _Effect.UNCHANGED,
    (Verb.ACKNOWLEDGE, State.ACKNOWLEDGED): _Effect.UNCHANGED,
    (Verb.ACKNOWLEDGE, State.AWAITING_HASH): _Effect.UNCHANGED,
    (Verb.HOLD, State.PENDING): _Effect.HOLD,
    (Verb.HOLD, State.SCHEDULED): _Effect.HOLD,
    (Verb.HOLD, State.HELD): _Effect.HOLD,
    (Verb.HOLD, State.FAILED): _Effect.HOLD,
    (Verb.HOLD, State.ACKNOWLEDGING): _Effect.HOLD_BETWEEN_TRIES,
    (Verb.HOLD, State.ACKNOWLEDGED): _Effect.TOO_LATE,
    (Verb.HOLD, State.AWAITING_HASH): _Effect.HOLD,
}


def decide(user: User, decision: Decision, context: Context) -> Result:
    """Take a decision about the latest identity, if that is the one that was seen."""
    latest = user.identity.latest
    if latest is None or user.identity.state is None:
        return Result.NO_IDENTITY
    if latest.hash != decision.hash:
        return Result.ANOTHER_HASH
    effect = _EFFECTS[decision.verb, user.identity.state]
    if effect is _Effect.HOLD_BETWEEN_TRIES:
        under_way = user.identity.work is not None and user.identity.work.under_way(context.now)
        effect = _Effect.TOO_LATE if under_way else _Effect.HOLD
    if effect is _Effect.TOO_LATE:
        return Result.TOO_LATE
    if effect is _Effect.START:
        user.record(_entry("decided", decision, context))
        start(user, latest, decision.by, context)
    elif effect is _Effect.HOLD:
        _hold(user, latest, decision, context)
        user.record(_entry("held", decision, context))
    elif effect is _Effect.UNCHANGED:
        _vouch(user, latest, decision, context)
    return Result.TAKEN


def _vouch(user: User, latest: Change, decision: Decision, context: Context) -> None:
    """Take a person's word for who has a number that another user had left before.

    Policy had acknowledged the identity before the move was heard of, which says nothing of it.
    """
    moved = user.moved_to
    if user.identity.state in OPEN and moved is not None and latest.first.after(moved.since):
        latest.decided_by, latest.decided_at = decision.by, context.now
        latest.touched = True
        user.record(_entry("decided", decision, context))
        note_owner(user)
        user.touch(context.now)


def _hold(user: User, latest: Change, decision: Decision, context: Context) -> None:
    """Keep the block. A try whose outcome is unknown is cleared up by a GET."""
    begun = user.identity.work is not None and user.identity.work.begun
    if user.identity.state is not State.HELD:
        latest.decided_by, latest.decided_at = decision.by, context.now
    user.identity.state, user.identity.work, user.identity.due_at = State.HELD, None, None
    user.identity.after_hold = False
    user.touch(context.now)
    if begun:
        want_answer(user, "held between tries", context)


def _entry(event: str, decision: Decision, context: Context) -> AuditEntry:
    return AuditEntry(
        context.now,
        event,
        decision.hash,
        decision.by,
        note=decision.note,
        evidence=decision.evidence,
    )
