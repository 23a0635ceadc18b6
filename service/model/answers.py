"""The client's own answers, which outrank every timestamp: only they open the gate."""

from dataclasses import dataclass

from service.model.doubts import unblock
from service.model.identities import (
    begin,
    change_of,
    finish,
    install,
    just_after,
    note_owner,
    record_change,
    retire,
    stop,
    succeed,
    wait_for_person,
)
from service.model.moments import Moment, date
from service.model.timeline import Change, Order, locate, repeat
from service.model.users import BY_CLIENT, Context, State, User


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client says of a user's identity: the latest hash, and whether it is acknowledged.

    Follows Meta's page on the contacts node, "Retrieve the latest identity hash for a user".
    """

    hash: str
    created: Moment | None
    acknowledged: bool


def apply_client_answer(user: User, answer: Answer, context: Context) -> None:
    """Take the client's own answer, which outranks every timestamp."""
    user.identity.ask = None
    user.identity.checked_at = context.now
    user.changed = True
    latest = user.identity.latest
    if latest is None or latest.hash != answer.hash:
        latest = _replace(user, latest, answer, context)
    elif answer.created:
        _repeat(user, latest, date(answer.created, context.arrived).moment)
    if answer.acknowledged:
        user.identity.confirmed_at = context.now
        _confirm(user, latest, context)
        note_owner(user)
    elif user.identity.state is State.ACKNOWLEDGED:
        stop(user, latest, "the client says that it is not acknowledged", context)
    unblock(user, context)
    user.identity.disputed = False


def unknown_there(user: User, context: Context) -> None:
    """Take the client's word that it knows no identity of the user: nothing is blocked by one."""
    user.identity.ask = None
    user.identity.checked_at = context.now
    user.changed = True
    unblock(user, context)


def _repeat(user: User, latest: Change, moment: Moment) -> None:
    if locate(latest, user.history, latest.hash, moment) is Order.REPEAT:
        repeat(latest, user.history, latest.hash, moment)


def _replace(user: User, old: Change | None, answer: Answer, context: Context) -> Change:
    """Make the client's answer the latest, whatever the timestamps say."""
    dating = date(answer.created, context.arrived)
    change = change_of(answer.hash, dating, context)
    if old is None and answer.acknowledged:
        _install_acknowledged(user, change, context)
        return change
    if old is None:
        begin(user, change, context)
        return change
    if not dating.moment.after(old.last):
        change.seen = [just_after(old, dating).moment]
    if user.identity.disputed:
        _settle_dispute(user, old, change, context)
    elif answer.acknowledged:
        retire(user, old, "superseded", context)
        _install_acknowledged(user, change, context)
    else:
        succeed(user, old, change, context)
    return change


def _install_acknowledged(user: User, change: Change, context: Context) -> None:
    """Take a change that was acknowledged elsewhere: the policy is not asked."""
    install(user, change, context)
    wait_for_person(user, change, context)
    record_change(user, change, context, "the client says that it is acknowledged")


def _settle_dispute(user: User, old: Change, change: Change, context: Context) -> None:
    """Bring back the one that the other had displaced; it waits for a person."""
    held = user.identity.after_hold
    displaced = [c for c in user.history if c.hash == change.hash and c.outcome == "disputed"]
    for entry in displaced[-1:]:
        change.changed, change.received_at = entry.changed, entry.received_at
        user.history.remove(entry)
        user.restored.append(entry)
    retire(user, old, "disputed", context)
    install(user, change, context)
    user.identity.after_hold = held
    wait_for_person(user, change, context)
    record_change(user, change, context, "the client says that this is the latest")


def _confirm(user: User, latest: Change, context: Context) -> None:
    """Take the client's word that the latest hash is acknowledged."""
    if user.identity.state is State.ACKNOWLEDGED:
        return
    if user.identity.state is not State.ACKNOWLEDGING:
        latest.decided_by, latest.decided_at = dict(BY_CLIENT), context.now
    finish(user, latest, context)
