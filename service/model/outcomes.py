"""The outcomes of calls to the WhatsApp client, and what each does to the identity.

A PUT acknowledges a hash, a GET asks for the latest identity. The client's own answer outranks
every timestamp, and nothing else opens the gate (On-Premises).
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar

from service.model.identity import (
    install,
    install_first,
    install_later,
    mark_acknowledged,
    new_change,
    note_owner,
    record_change,
    retire,
    start_acknowledging,
    stop,
    unblock_sends,
    wait_for_person,
)
from service.model.policy import delay_seconds
from service.model.telling import tell_state
from service.model.timeline import (
    Change,
    Moment,
    Order,
    date_event,
    just_after,
    locate,
    record_repeat,
)
from service.model.users import BY_CLIENT, Context, State, User, Work

MAX_REFUSALS = 3
"""PUTs answered with a 4xx, after which the identity is `failed` and a person is to look."""
BLOCKED = "a message had been blocked when the account moved to the Cloud API"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client says of a user's identity: the latest hash, and whether it is acknowledged.

    Follows Meta's page on the contacts node, "Retrieve the latest identity hash for a user".
    """

    hash: str
    created: Moment | None
    acknowledged: bool


# The outcomes of a call; `name` is their label in metrics.


@dataclass(frozen=True, slots=True)
class Accepted:
    """The PUT was answered with a 2xx."""

    name: ClassVar[str] = "accepted"


@dataclass(frozen=True, slots=True)
class NoEffect:
    """The call certainly had no effect: 429, 503, or no connection came about."""

    name: ClassVar[str] = "no_effect"

    error: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It is unknown what effect the call had, and the GET that was to find out was not answered."""

    name: ClassVar[str] = "unknown"

    error: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The GET was answered; `refused` says that a PUT before it had got a 4xx."""

    name: ClassVar[str] = "told"

    answer: Answer
    refused: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """The GET was answered with 404: the client knows no identity of this user."""

    name: ClassVar[str] = "gone"

    error: str = "the client does not know this identity (404)"


@dataclass(frozen=True, slots=True)
class NotTried:
    """Nothing was sent that could have an effect: the login is refused, or the PUT may not begin.

    `begun` is as it was before this try.
    """

    name: ClassVar[str] = "not_tried"

    begun: bool = False


PutOutcome = Accepted | NoEffect | Unknown | Answered | Gone | NotTried
GetOutcome = Answered | Gone | Unknown | NotTried


class Settled(Enum):
    """Whether an outcome was applied, and if not, why."""

    TAKEN = auto()
    NOT_OURS = auto()
    """The lease has ended or the work was cancelled: the outcome does not count."""
    CHANGED = auto()
    """The identity changed since the question was sent: it is to be asked again."""


def begin_put(user: User, holder: str, hash_: str, now: int) -> bool:
    """Mark a PUT as begun, right before it is sent, and return whether it may be.

    It may not where the lease has ended, the work was cancelled, or another hash is the latest.
    """
    work = _work_of(user, holder, hash_, now)
    if work is None:
        return False
    work.begun = True
    work.prolong(now)
    return True


def _work_of(user: User, holder: str, hash_: str, now: int) -> Work | None:
    """Return the PUT that is the holder's, by an unexpired lease for the latest hash."""
    work, latest = user.identity.work, user.identity.latest
    if work is None or latest is None or not work.held_by(holder, now):
        return None
    return work if work.hash == hash_ == latest.hash else None


def settle_put(
    user: User, holder: str, hash_: str, outcome: PutOutcome, context: Context
) -> Settled:
    """Apply the outcome of a PUT; see `docs/architecture.md`, "After a PUT".

    It counts only for the holder of an unexpired lease, and only for the hash that was leased.
    """
    identity, latest = user.identity, user.identity.latest
    work = _work_of(user, holder, hash_, context.now)
    if work is None or latest is None:
        return Settled.NOT_OURS
    match outcome:
        case NotTried(begun):
            work.begun = begun
            work.release()
        case Accepted():
            identity.attempts = work.attempts + 1
            mark_acknowledged(user, latest, context)
        case NoEffect(error):
            work.begun = False
            _try_later(user, work, error, context)
        case Unknown(error):
            _try_later(user, work, error, context)
        case Gone(error):
            _fail(user, work, latest, error, context)
        case Answered():
            _settle_answered(user, work, latest, outcome, context)
    return Settled.TAKEN


def _settle_answered(
    user: User, work: Work, latest: Change, outcome: Answered, context: Context
) -> None:
    """Go by what the client knows after a PUT whose own answer left that open."""
    answer = outcome.answer
    if answer.hash != latest.hash:
        apply_client_answer(user, answer, context)
        return
    if answer.acknowledged:
        user.identity.attempts = work.attempts + 1
        apply_client_answer(user, answer, context)
        return
    work.begun = False
    work.refusals += outcome.refused
    error = outcome.error or "the client has not acknowledged it"
    if work.refusals >= MAX_REFUSALS:
        _fail(user, work, latest, error, context)
    else:
        _try_later(user, work, error, context)


def _try_later(user: User, work: Work, error: str, context: Context) -> None:
    work.later(_next_try(work, context))
    user.identity.attempts, user.identity.last_error = work.attempts, error
    user.touch(context.now)


def _next_try(work: Work, context: Context) -> int:
    return context.now + round(1000 * delay_seconds(work.attempts + 1, context.chance))


def _fail(user: User, work: Work, latest: Change, error: str, context: Context) -> None:
    identity = user.identity
    identity.attempts, identity.last_error = work.attempts + 1, error
    identity.state, identity.work = State.FAILED, None
    user.record(context.entry("failed", latest.hash, latest.decided_by, error))
    user.touch(context.now)
    tell_state(user, context)


def settle_get(
    user: User, holder: str, version: int, outcome: GetOutcome, context: Context
) -> Settled:
    """Apply the outcome of a GET, by the same rule of the lease.

    `version` is that of the identity when the GET was sent: a change since makes the answer void.
    """
    ask = user.identity.ask
    if ask is None or not ask.held_by(holder, context.now):
        return Settled.NOT_OURS
    match outcome:
        case NotTried():
            ask.release()
        case Unknown():
            ask.later(_next_try(ask, context))
        case _ if user.identity.version != version:
            ask.release()
            return Settled.CHANGED
        case Gone():
            apply_not_found(user, context)
        case Answered(answer):
            apply_client_answer(user, answer, context)
    return Settled.TAKEN


def apply_not_found(user: User, context: Context) -> None:
    """Apply the client's answer that it knows no identity of the user: none blocks anything."""
    user.identity.ask = None
    user.identity.checked_at = context.now
    unblock_sends(user, context)


def apply_client_answer(user: User, answer: Answer, context: Context) -> None:
    """Apply the client's own answer, which outranks every timestamp.

    Where it lies before the end of what was the latest, the new latest is taken to have been seen
    just after that; `changed` keeps the client's own time.
    """
    user.identity.ask = None
    user.identity.checked_at = context.now
    latest = user.identity.latest
    if latest is None or latest.hash != answer.hash:
        latest = _replace(user, latest, answer, context)
    elif answer.created:
        moment = date_event(answer.created, context.arrived).moment
        if locate(latest, user.history, latest.hash, moment) is Order.REPEAT:
            record_repeat(latest, user.history, latest.hash, moment)
    identity = user.identity
    if answer.acknowledged:
        identity.confirmed_at = context.now
        if identity.state is not State.ACKNOWLEDGED:
            if identity.state is not State.ACKNOWLEDGING:
                latest.decided_by, latest.decided_at = dict(BY_CLIENT), context.now
            mark_acknowledged(user, latest, context)
        note_owner(user)
    elif identity.state is State.ACKNOWLEDGED:
        stop(user, latest, "the client says that it is not acknowledged", context)
    unblock_sends(user, context)
    identity.disputed = False


def _replace(user: User, old: Change | None, answer: Answer, context: Context) -> Change:
    """Make the client's answer the latest, whatever the timestamps say, and return the change."""
    dating = date_event(answer.created, context.arrived)
    change = new_change(answer.hash, dating, context)
    if old is None and not answer.acknowledged:
        install_first(user, change, context)
        return change
    if old is not None and not dating.moment.after(old.last):
        change.seen = [just_after(old, dating).moment]
    if old is not None and user.identity.disputed:
        _settle_dispute(user, old, change, context, is_final=not answer.acknowledged)
    elif old is not None and not answer.acknowledged:
        install_later(user, old, change, context)
    else:
        # It was acknowledged elsewhere: the policy is not asked.
        if old is not None:
            retire(user, old, "superseded", context)
        reason = "the client says that it is acknowledged"
        _install_pending(user, change, reason, context, is_final=False)
    return change


def _settle_dispute(
    user: User, old: Change, change: Change, context: Context, *, is_final: bool
) -> None:
    """Bring back the one that the other had displaced; it waits for a person."""
    held = user.identity.after_hold
    displaced = [c for c in user.history if c.hash == change.hash and c.outcome == "disputed"]
    for entry in displaced[-1:]:
        change.changed, change.received_at = entry.changed, entry.received_at
        user.history.remove(entry)
    retire(user, old, "disputed", context)
    reason = "the client says that this is the latest"
    _install_pending(user, change, reason, context, is_final=is_final)
    user.identity.after_hold = held


def _install_pending(
    user: User, change: Change, reason: str, context: Context, *, is_final: bool
) -> None:
    """Install a change as pending; nobody is told where that is not where the answer leaves it."""
    install(user, change, context)
    wait_for_person(user, change, context, tells=is_final)
    record_change(user, change, context, reason)


def migrate_to_cloud(user: User, context: Context) -> None:
    """Settle what was still to be sent to a client, for an account that has none any more.

    It moved from an On-Premises client to the Cloud API. What is known of its users stays, and so
    does what was decided. A decision to acknowledge is in effect: it is our own to make now. What
    the client would have been asked about a blocked message, a person decides.
    """
    identity, latest = user.identity, user.identity.latest
    was_blocked = identity.blocked_since is not None
    identity.ask = None
    unblock_sends(user, context)
    if latest is None:
        identity.work = None
    elif identity.state is State.ACKNOWLEDGING and latest.decided_by is not None:
        start_acknowledging(user, latest, latest.decided_by, context)
    elif was_blocked:
        stop(user, latest, BLOCKED, context)
