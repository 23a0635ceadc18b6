"""Doubts about an identity: the gate closes, and the client is asked."""

from service.model.events import HashUnreadable, SendBlocked
from service.model.moments import Moment, date
from service.model.users import AuditEntry, Context, Kind, State, User, Work

MAX_BLOCKED_IDS = 16


def block(user: User, blocked: SendBlocked, context: Context) -> None:
    """Take a message that failed with 480."""
    if user.identity.state not in (None, State.ACKNOWLEDGED):
        return
    if not known_already(user, blocked.message_id):
        _suspect(user, context)


def doubt(user: User, unreadable: HashUnreadable, context: Context) -> None:
    """Take an identity whose hash can't be read: as a message that failed with 480.

    The client is asked even where the gate is closed already: it has the hash to decide about.
    """
    if known_already(user, unreadable.message_id):
        return
    if user.identity.state in (None, State.ACKNOWLEDGED):
        _suspect(user, context, "an identity hash could not be read")
    else:
        _ask_anew(user, "unreadable", context)


def known_already(user: User, message_id: str | None) -> bool:
    """Tell whether this failed message has been heeded before; from now on it has."""
    if message_id is None:
        return False
    if message_id in user.blocked_ids:
        return True
    user.blocked_ids = [*user.blocked_ids, message_id][-MAX_BLOCKED_IDS:]
    user.changed = True
    return False


def heed_claim(user: User, claimed: bool, said: Moment | None, context: Context) -> None:
    """Let the client be asked where a message claims another state than the one known."""
    acknowledged = user.identity.state is State.ACKNOWLEDGED
    if claimed and not acknowledged:
        want_answer(user, "claimed", context)
    if not claimed and acknowledged and _newer(user, said, context):
        _suspect(user, context)


def _newer(user: User, said: Moment | None, context: Context) -> bool:
    known = [
        user.identity.confirmed_at,
        user.identity.latest and user.identity.latest.acknowledged_at,
    ]
    return date(said, context.arrived).moment.until > max(at or 0 for at in known)


def _suspect(user: User, context: Context, why: str | None = None) -> None:
    """Close the gate until the client has been asked."""
    if user.identity.blocked_since is None:
        user.identity.blocked_since = context.now
        user.record(AuditEntry(context.now, "send_blocked", user.hash, reason=why))
        user.touch(context.now)
    _ask_anew(user, "send_blocked", context)


def _ask_anew(user: User, reason: str, context: Context) -> None:
    """Let the client be asked; an answer that is under way is too old."""
    if user.identity.ask is not None and user.identity.ask.holder is not None:
        user.identity.version += 1
        user.changed = True
    want_answer(user, reason, context)


def want_answer(user: User, reason: str, context: Context) -> None:
    """Put a GET into the outbox, one at a time for a user; none where there is no client to ask."""
    if user.identity.ask is None and not context.policies.local:
        user.identity.ask = Work(
            Kind.ASK, context.now, reason=reason, request_id=context.request_id
        )
        user.changed = True


def unblock(user: User, context: Context) -> None:
    """Open the gate again, as far as a blocked message had closed it."""
    if user.identity.blocked_since is not None:
        user.identity.blocked_since = None
        user.touch(context.now)
