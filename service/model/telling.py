"""Recording events for the event log, as the rules set a state.

A rule that is applied for nobody in particular, in a context without a log, tells nothing.
"""

from service.model import shapes
from service.model.account_checks import Issue
from service.model.contacts import PROCESSING, Contact
from service.model.event_log import EventType, LoggedEvent
from service.model.gate import CLEARS_WHEN, Reason
from service.model.users import Context, State, User

_OF_STATE = {
    State.PENDING: EventType.PENDING,
    State.SCHEDULED: EventType.SCHEDULED,
    State.ACKNOWLEDGED: EventType.ACKNOWLEDGED,
    State.HELD: EventType.HELD,
    State.FAILED: EventType.FAILED,
}
"""The states that are told. `acknowledging` and `awaiting_hash` only lead to one of them."""


def tell_state(user: User, context: Context) -> None:
    """Record which state the identity of a user has now, if it is one that is told."""
    type_ = None if user.identity.state is None else _OF_STATE.get(user.identity.state)
    if type_ is not None:
        _tell(user, type_, context)


def tell_superseded(user: User, context: Context) -> None:
    """Record that the identity of a user, as it still is, is not the latest any more."""
    _tell(user, EventType.SUPERSEDED, context)


def tell_sends_blocked(user: User, since: int, context: Context, *, ended: bool) -> None:
    """Record that a failed message closed the gate since then (Unix ms), or that this ended."""
    tell_reason(user, Reason("send_blocked", since), context, ended=ended)


def tell_reason(user: User, reason: Reason, context: Context, *, ended: bool) -> None:
    """Record that the gate closed to a user for a reason, or that the reason ended."""
    type_ = EventType.RESUMED if ended else EventType.BLOCKED
    whole = reason._replace(of=user.alias, clears_when=CLEARS_WHEN[reason.code])
    _tell(user, type_, context, whole)


def _tell(user: User, type_: EventType, context: Context, reason: Reason | None = None) -> None:
    if context.told is None:
        return
    data = shapes.identity(user)
    if reason is not None:
        data["reason"] = shapes.reason(reason)
    names = tuple(name for name in (user.wa_id, user.user_id) if name)
    context.told.append(LoggedEvent(context.now, user.account, type_, names, data))


def contact_event(known: Contact | None, contact: Contact, now: int) -> LoggedEvent | None:
    """Return the event of a contact that was `known` before, None where nothing was resolved.

    It is resolved where it got another status or wa_id, and where a check of it ended.
    """
    if contact.check is not None or contact.status == PROCESSING:
        return None
    is_same = known is not None and (known.status, known.wa_id) == (contact.status, contact.wa_id)
    if known is not None and is_same and known.check is None:
        return None
    data = shapes.contact(contact)
    names = (data["wa_id"],) if data["wa_id"] else ()
    return LoggedEvent(now, contact.account, EventType.RESOLVED, names, data)


def issue_event(owner: str, issue: Issue, now: int, *, cleared: bool = False) -> LoggedEvent:
    """Return the event of an issue; `owner` is the account or app as the journal names it."""
    type_ = EventType.CLEARED if cleared else EventType.RAISED
    return LoggedEvent(now, owner, type_, (), shapes.issue(issue))
