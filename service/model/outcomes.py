"""What a call to the WhatsApp client came to, and what becomes of the identity then."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar

from service.model.answers import Answer, apply_client_answer, unknown_there
from service.model.identities import finish
from service.model.retries import delay_seconds
from service.model.timeline import Change
from service.model.users import AuditEntry, Context, State, User, Work

MAX_REFUSALS = 3


@dataclass(frozen=True, slots=True)
class Accepted:
    """The PUT was answered with a 2xx."""

    name: ClassVar[str] = "accepted"


@dataclass(frozen=True, slots=True)
class NoEffect:
    """The call had no effect for sure: 429, 503, or no connection came about."""

    name: ClassVar[str] = "no_effect"

    error: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """What the call came to is unknown, and the GET that should tell was not answered."""

    name: ClassVar[str] = "unknown"

    error: str


@dataclass(frozen=True, slots=True)
class Told:
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
    """Nothing was sent, for the login is refused; `begun` as it was before this try."""

    name: ClassVar[str] = "not_tried"

    begun: bool = False


PutOutcome = Accepted | NoEffect | Unknown | Told | Gone | NotTried
GetOutcome = Told | Gone | Unknown | NotTried


class Settled(Enum):
    """What became of an outcome."""

    TAKEN = auto()
    NOT_OURS = auto()
    """The lease has ended or the work was cancelled: the outcome does not count."""
    CHANGED = auto()
    """The identity changed since the question was sent: it is to be asked again."""


def settle(user: User, holder: str, hash_: str, outcome: PutOutcome, context: Context) -> Settled:
    """Write down what a try to acknowledge came to; see `docs/architecture.md`, "After a PUT"."""
    work, latest = user.identity.work, user.identity.latest
    if work is None or latest is None or not _ours(work, holder, hash_, latest, context):
        return Settled.NOT_OURS
    user.changed = True
    match outcome:
        case NotTried(begun):
            work.begun = begun
            work.release()
        case Accepted():
            user.identity.attempts = work.attempts + 1
            finish(user, latest, context)
        case NoEffect(error):
            work.begun = False
            _try_later(user, work, error, context)
        case Unknown(error):
            _try_later(user, work, error, context)
        case Gone(error):
            user.identity.attempts = work.attempts + 1
            _fail(user, latest, error, context)
        case Told():
            _settle_told(user, work, latest, outcome, context)
    return Settled.TAKEN


def _ours(work: Work, holder: str, hash_: str, latest: Change, context: Context) -> bool:
    return work.held_by(holder, context.now) and work.hash == hash_ == latest.hash


def _settle_told(user: User, work: Work, latest: Change, told: Told, context: Context) -> None:
    """Go by what the client knows after a PUT whose own answer did not tell."""
    if told.answer.hash != latest.hash:
        apply_client_answer(user, told.answer, context)
        return
    if told.answer.acknowledged:
        user.identity.attempts = work.attempts + 1
        apply_client_answer(user, told.answer, context)
        return
    work.begun = False
    work.refusals += told.refused
    error = told.error or "the client has not acknowledged it"
    if work.refusals >= MAX_REFUSALS:
        user.identity.attempts = work.attempts + 1
        _fail(user, latest, error, context)
    else:
        _try_later(user, work, error, context)


def _try_later(user: User, work: Work, error: str, context: Context) -> None:
    work.later(context.now + round(1000 * delay_seconds(work.attempts + 1, context.chance)))
    user.identity.attempts, user.identity.last_error = work.attempts, error
    user.touch(context.now)


def _fail(user: User, latest: Change, error: str, context: Context) -> None:
    user.identity.state, user.identity.work, user.identity.last_error = State.FAILED, None, error
    user.record(AuditEntry(context.now, "failed", latest.hash, latest.decided_by, error))
    user.touch(context.now)


def answered(
    user: User, holder: str, version: int, outcome: GetOutcome, context: Context
) -> Settled:
    """Write down what the client answered when it was asked about an identity."""
    ask = user.identity.ask
    if ask is None or not ask.held_by(holder, context.now):
        return Settled.NOT_OURS
    user.changed = True
    match outcome:
        case NotTried():
            ask.release()
        case Unknown():
            ask.later(context.now + round(1000 * delay_seconds(ask.attempts + 1, context.chance)))
        case _ if user.identity.version != version:
            ask.release()
            return Settled.CHANGED
        case Gone():
            unknown_there(user, context)
        case Told(answer):
            apply_client_answer(user, answer, context)
    return Settled.TAKEN
