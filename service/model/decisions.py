"""What a person decides: about an identity, as a table over its states, and to block a user.

A block needs no identity change at hand; it ends by itself at its time, or by a person.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum, auto

from service.model.gate import Reason
from service.model.identity import ask_client, note_owner, start_acknowledging
from service.model.telling import tell_reason, tell_state
from service.model.timeline import LATEST_MS, Change
from service.model.users import OPEN_STATES, AuditEntry, By, Context, State, User


class Verb(StrEnum):
    """The two decisions about an identity."""

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
    HOLD_UNLESS_UNDER_WAY = auto()
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
    (Verb.HOLD, State.ACKNOWLEDGING): _Effect.HOLD_UNLESS_UNDER_WAY,
    (Verb.HOLD, State.ACKNOWLEDGED): _Effect.TOO_LATE,
    (Verb.HOLD, State.AWAITING_HASH): _Effect.HOLD,
}


def decide(user: User, decision: Decision, context: Context) -> Result:
    """Apply a decision about the latest identity, if that is the one that was seen."""
    identity, latest = user.identity, user.identity.latest
    if latest is None or identity.state is None:
        return Result.NO_IDENTITY
    if latest.hash != decision.hash:
        return Result.ANOTHER_HASH
    effect = _EFFECTS[decision.verb, identity.state]
    if effect is _Effect.HOLD_UNLESS_UNDER_WAY:
        # A PUT that has begun can't be called back; one that has not finds that it may not.
        work = identity.work
        under_way = work is not None and work.begun and work.is_leased(context.now)
        effect = _Effect.TOO_LATE if under_way else _Effect.HOLD
    match effect:
        case _Effect.TOO_LATE:
            return Result.TOO_LATE
        case _Effect.START:
            user.record(_entry("decided", decision, context))
            start_acknowledging(user, latest, decision.by, context)
        case _Effect.HOLD:
            _hold(user, latest, decision, context)
        case _Effect.UNCHANGED:
            _confirm_owner(user, latest, decision, context)
    return Result.TAKEN


def _hold(user: User, latest: Change, decision: Decision, context: Context) -> None:
    """Keep the block. A try whose outcome is unknown is cleared up by a GET."""
    identity = user.identity
    begun = identity.work is not None and identity.work.begun
    is_new = identity.state is not State.HELD
    if is_new:
        latest.decided_by, latest.decided_at = decision.by, context.now
    identity.state, identity.work, identity.due_at = State.HELD, None, None
    identity.after_hold = False
    user.touch(context.now)
    if is_new:
        tell_state(user, context)
    if begun:
        ask_client(user, "held between tries", context)
    user.record(_entry("held", decision, context))


def _confirm_owner(user: User, latest: Change, decision: Decision, context: Context) -> None:
    """Accept a person's word for who has a number that its user had left before.

    Policy had acknowledged the identity before the move was known, which says nothing of it.
    """
    moved = user.moved_to
    is_open = user.identity.state in OPEN_STATES
    if is_open and moved is not None and latest.first.after(moved.since):
        latest.decided_by, latest.decided_at = decision.by, context.now
        user.record(_entry("decided", decision, context))
        note_owner(user)
        user.touch(context.now)


def _entry(event: str, decision: Decision, context: Context) -> AuditEntry:
    return context.entry(
        event,
        decision.hash,
        decision.by,
        note=decision.note,
        evidence=decision.evidence,
    )


@dataclass(frozen=True, slots=True)
class Block:
    """Why nobody is to write to a user, since when, and until when (Unix ms); None: for good."""

    reason: str
    since: int
    by: By
    until: int | None = None

    def in_force(self, now: int) -> bool:
        """Return whether it has not ended by itself."""
        return self.until is None or now < self.until


def stricter(one: Block | None, other: Block | None, now: int) -> Block | None:
    """Return the block in force, of two the one that ends later.

    So the stricter one holds where two users turned out to be one.
    """
    blocks = [block for block in (one, other) if block is not None]
    return max(
        blocks, key=lambda block: (block.in_force(now), block.until or LATEST_MS), default=None
    )


def block_user(
    user: User, known: Block | None, wanted: Block, context: Context, note: str | None = None
) -> Block:
    """Block a user, leave one audit entry with the note, and return the block as it is then.

    Asked for again, it stays as it is. One that says something else takes its place, and has been
    in force since the first.
    """
    if known is not None and known.in_force(context.now):
        if (known.reason, known.until) == (wanted.reason, wanted.until):
            return known
        wanted = replace(wanted, since=known.since)
    user.record(context.entry("blocked", user.hash, wanted.by, wanted.reason, note))
    tell_blocked(user, wanted, context)
    return wanted


def tell_blocked(user: User, block: Block, context: Context, *, ended: bool = False) -> None:
    """Record for the event log that a block of a user came into force, or ended."""
    reason = Reason("blocked", block.since, until=block.until, detail=block.reason)
    tell_reason(user, reason, context, ended=ended)


def copy_block(block: Block, known: Block | None, other: User, context: Context) -> bool:
    """Return whether a user's block is to hold for another one too; leave an audit entry if so.

    The other is the same person under another number, or has the number that the user had. A block
    of the other's own that ends no earlier stays as it is.
    """
    now = context.now
    if not block.in_force(now) or stricter(known, block, now) is known:
        return False
    note = "copied: the block is of who had another number or user id before, or had this number"
    other.record(AuditEntry(now, "blocked", other.hash, block.by, block.reason, note))
    tell_blocked(other, block, context)
    return True


def unblock_user(user: User, known: Block | None, by: By, context: Context) -> bool:
    """End a block, leave one audit entry, and return whether there was one in force."""
    if known is None or not known.in_force(context.now):
        return False
    user.record(context.entry("unblocked", user.hash, by))
    tell_blocked(user, known, context, ended=True)
    return True


def end_block(user: User, known: Block | None, context: Context) -> bool:
    """Tell that the time of a block is up, and return whether it is."""
    if known is None or known.in_force(context.now):
        return False
    tell_blocked(user, known, context, ended=True)
    return True
