"""Cloud API: a user has another hash than the one that is known, and nobody knows which.

A message was refused for that, or a hash came that can't be read.
"""

from service.model.doubts import known_already
from service.model.events import HashRefused, HashUnreadable, IdentitySeen
from service.model.identities import (
    change_of,
    install,
    just_after,
    on_first_use,
    record_change,
    record_sighting,
    retire,
    settled_at,
    stop,
    wait_for_person,
)
from service.model.moments import Dating, Moment, date
from service.model.timeline import Change
from service.model.users import Context, State, User

REFUSED = "a message was refused: there is another hash, not told"
UNREADABLE = "an identity hash came that could not be read"


def refuse(user: User, refused: HashRefused, context: Context) -> None:
    """Take a 137000: where the identity was trusted, there is another now, and nobody knows which.

    One that is older than the trust says nothing new, and one that was heeded says nothing twice.
    """
    latest = user.identity.latest
    if latest is None or known_already(user, refused.message_id):
        return
    dating = date(refused.at, context.arrived)
    if refused.hash is not None:
        _take_told(user, latest, refused, refused.hash, context)
        return
    if latest.hash is None and user.identity.state is State.PENDING:
        _hear_again(user, latest, dating.moment)
    if user.identity.state is State.ACKNOWLEDGED and not _is_old(latest, dating.moment):
        _lose(user, latest, dating, REFUSED, context)


def misread(user: User, unreadable: HashUnreadable, context: Context) -> None:
    """Take a hash that can't be read: it is another one than every hash that can be.

    It is placed by its time, as one that can be read is. After the latest, that gives way to a hash
    that nobody knows, whatever was decided about it. Between two sightings of the latest, the user
    came back to it, and a person is to decide, unless its state was come to after that by more than
    trust on first use. For a user of whom no hash is known it says nothing.
    """
    latest = user.identity.latest
    if latest is None or known_already(user, unreadable.message_id):
        return
    dating = date(unreadable.at, context.arrived)
    moment = dating.moment
    if latest.hash is None:
        _hear_again(user, latest, moment)
        if user.identity.state is State.AWAITING_HASH and moment.until >= (latest.decided_at or 0):
            stop(user, latest, UNREADABLE, context)
    elif dating.claimed_ahead is not None or moment.until >= latest.last.at:
        _lose(user, latest, dating, UNREADABLE, context)
    elif moment.until >= latest.first.at and user.identity.state in (
        State.ACKNOWLEDGED,
        State.SCHEDULED,
    ):
        came_back = next(seen.at for seen in latest.seen if seen.at > moment.until)
        if on_first_use(latest, context) or came_back > settled_at(user, latest):
            stop(user, latest, f"{UNREADABLE}, and then this one again", context)


def _lose(user: User, latest: Change, dating: Dating, reason: str, context: Context) -> None:
    """Let a hash that nobody knows be the latest.

    A person decides whatever the policy is, for there is no hash to decide about.
    """
    if not dating.moment.after(latest.last):
        dating = just_after(latest, dating)
    change = change_of(None, dating, context)
    held = user.identity.state is State.HELD or user.identity.after_hold
    retire(user, latest, "superseded", context)
    install(user, change, context)
    user.identity.after_hold = held
    wait_for_person(user, change, context)
    record_change(user, change, context, reason)


def _is_old(latest: Change, moment: Moment) -> bool:
    """Tell a refusal from before the latest hash was trusted, or came to be."""
    return moment.until < max(latest.acknowledged_at or 0, latest.first.at)


def _take_told(
    user: User, latest: Change, refused: HashRefused, told: str, context: Context
) -> None:
    """Take a refusal that tells the hash, which is then as in any message."""
    trusted = user.identity.state is State.ACKNOWLEDGED
    if not (trusted and _is_old(latest, date(refused.at, context.arrived).moment)):
        record_sighting(user, IdentitySeen(user.alias, told, refused.at), context)


def _hear_again(user: User, unknown: Change, moment: Moment) -> None:
    """Take another sign of the same change, which may have been the first."""
    if not user.history or moment.after(user.history[-1].last):
        unknown.absorb(moment)
