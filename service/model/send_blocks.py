"""A message failed because of the identity, or a hash came that can't be read.

On-Premises the failure (480) says only that something is not acknowledged: the gate closes, and
the client is asked. On the Cloud API a refusal (137000) says that the user has another hash than
the one that is known; where it does not say which, there is a change whose hash is None.
"""

from service.model.erasure import close_erased
from service.model.events import HashRefused, HashUnreadable, IdentitySeen, SendBlocked
from service.model.identity import (
    ask_client_anew,
    block_sends,
    install,
    is_trusted_as_first,
    new_change,
    record_change,
    retire,
    settled_at,
    stop,
    wait_for_person,
)
from service.model.sightings import record_sighting
from service.model.timeline import Change, Dating, Moment, date_event, just_after
from service.model.users import Context, State, User

MAX_BLOCKED_IDS = 16
"""Ids of failed messages that are kept of a user, so that a redelivery has no effect."""
REFUSED = "a message was refused: there is another hash, not told"
UNREADABLE = "an identity hash came that could not be read"


def record_send_block(user: User, blocked: SendBlocked, context: Context) -> None:
    """Record a message that failed with 480: it closes the gate, unless that is closed already."""
    if user.identity.state not in (None, State.ACKNOWLEDGED):
        return
    if not _is_repeat(user, blocked.message_id):
        block_sends(user, context)


def ask_about_unreadable_hash(user: User, unreadable: HashUnreadable, context: Context) -> None:
    """Record a hash that can't be read as a message that failed with 480.

    The client is asked even where the gate is closed already: it has the hash to decide about.
    """
    if _is_repeat(user, unreadable.message_id):
        return
    if user.identity.state in (None, State.ACKNOWLEDGED):
        block_sends(user, context, "an identity hash could not be read")
    else:
        ask_client_anew(user, "unreadable", context)


def _is_repeat(user: User, message_id: str | None) -> bool:
    """Return whether this failed message has taken effect before, and note that it has now."""
    if message_id is None:
        return False
    if message_id in user.blocked_ids:
        return True
    user.blocked_ids = [*user.blocked_ids, message_id][-MAX_BLOCKED_IDS:]
    return False


def record_refusal(user: User, refused: HashRefused, context: Context) -> None:
    """Record a 137000 (Cloud API): where the identity was trusted, there is another now.

    One that is older than the trust says nothing new, and one that took effect says nothing twice.
    """
    latest = user.identity.latest
    if latest is None:
        close_erased(user)
        return
    if _is_repeat(user, refused.message_id):
        return
    dating = date_event(refused.at, context.arrived)
    moment = dating.moment
    trusted_at = max(latest.acknowledged_at or 0, latest.first.at)
    is_trusted, is_old = user.identity.state is State.ACKNOWLEDGED, moment.until < trusted_at
    if refused.hash is not None:
        if not (is_trusted and is_old):
            record_sighting(user, IdentitySeen(user.alias, refused.hash, refused.at), context)
        return
    if latest.hash is None and user.identity.state is State.PENDING:
        _record_another_sign(user, latest, moment)
    if is_trusted and not is_old:
        _install_unknown(user, latest, dating, REFUSED, context)


def place_unreadable_hash(user: User, unreadable: HashUnreadable, context: Context) -> None:
    """Record a hash that can't be read (Cloud API): it is another one than all that can be.

    It is placed by its time, as one that can be read is. After the latest, that gives way to a hash
    that nobody knows, whatever was decided about it: trust in the hash before says nothing of this
    one. Between two sightings of the latest, the user came back to it, and a person is to decide,
    unless its state was settled after that by more than trust on first use. For a user of whom no
    hash is known it says nothing.
    """
    latest, state = user.identity.latest, user.identity.state
    if latest is None:
        close_erased(user)
        return
    if _is_repeat(user, unreadable.message_id):
        return
    dating = date_event(unreadable.at, context.arrived)
    moment = dating.moment
    if latest.hash is None:
        _record_another_sign(user, latest, moment)
        if state is State.AWAITING_HASH and moment.until >= (latest.decided_at or 0):
            stop(user, latest, UNREADABLE, context)
    elif dating.claimed_ahead is not None or moment.until >= latest.last.at:
        _install_unknown(user, latest, dating, UNREADABLE, context)
    elif moment.until >= latest.first.at and state in (State.ACKNOWLEDGED, State.SCHEDULED):
        came_back = next(seen.at for seen in latest.seen if seen.at > moment.until)
        if is_trusted_as_first(latest, context) or came_back > settled_at(user, latest):
            stop(user, latest, f"{UNREADABLE}, and then this one again", context)


def _install_unknown(
    user: User, latest: Change, dating: Dating, reason: str, context: Context
) -> None:
    """Make a hash that nobody knows the latest.

    A person decides whatever the policy is, for there is no hash to decide about.
    """
    if not dating.moment.after(latest.last):
        dating = just_after(latest, dating)
    change = new_change(None, dating, context)
    held = user.identity.is_held
    retire(user, latest, "superseded", context)
    install(user, change, context)
    user.identity.after_hold = held
    wait_for_person(user, change, context)
    record_change(user, change, context, reason)


def _record_another_sign(user: User, unknown: Change, moment: Moment) -> None:
    """Record another sign of a change to an unknown hash, which may have been the first sign."""
    if not user.history or moment.after(user.history[-1].last):
        unknown.absorb(moment)
