"""What is left of a user who was erased: a tombstone, which opens nothing.

Nothing in it names the user, and nobody bears it again: whoever comes under one of the names is
somebody new (`begin_anew`, `take_name`). Where the gate was closed it stays so; blocks by hand
stay; and the next identity is a change that waits for a person, never one that is trusted for being
the first.
"""

from service.model.identity import stop
from service.model.timeline import Change
from service.model.users import OPEN_STATES, By, Context, Identity, Link, State, User, mark_of

NAMED_AGAIN = "somebody who was erased was called so: a person is to decide"


def is_closed(user: User) -> bool:
    """Return whether anything that is known of the user itself closes the gate."""
    identity = user.identity
    is_open = identity.state is None or identity.state in OPEN_STATES
    is_blocked = identity.blocked_since is not None or user.moved_to is not None
    return not is_open or is_blocked or identity.after_hold


def erase_user(user: User, by: By, context: Context, *, closed: bool) -> None:
    """Forget everything of a user but that there was one; `closed` keeps the gate closed.

    `after_hold` does both: every identity that comes waits for a person, and until then the gate
    gives the reason `erased`.
    """
    keeps_closed = closed or is_closed(user)
    user.identity = Identity(
        version=user.identity.version + 1, updated_at=context.now, after_hold=keeps_closed
    )
    user.history, user.links, user.blocked_ids = [], [], []
    user.wa_id = user.user_id = user.named_at = user.wrote_at = user.owner_since = None
    user.erased_at = context.now
    user.record(context.entry("erased", by=by))


def begin_anew(user: User, erased: User) -> None:
    """Let a new user, who has a name of somebody who was erased, begin where that one ended.

    Whatever else that one was called may be this user too, and is closed: by that name nobody would
    learn what becomes known of this one.
    """
    user.erased_at = erased.erased_at
    user.identity.after_hold = erased.identity.after_hold
    erased.identity.after_hold = True


def take_name(user: User, erased: User, context: Context) -> None:
    """Let a user have a name of somebody who was erased: it may be the same person, or another.

    Whatever is known of the user's identity waits for a person; where none is known, the gate is
    closed. So it is to what else that one was called.
    """
    user.erased_at = max(user.erased_at or 0, erased.erased_at or 0)
    if user.identity.latest is not None:
        _leave_to_person(user, user.identity.latest, context)
    user.identity.after_hold = erased.identity.after_hold = True


def leave_erased_to_person(user: User, latest: Change, erased_at: int, context: Context) -> None:
    """Let a person decide about an identity, unless that was done since the user was erased."""
    if not latest.is_decided_by_somebody or (latest.decided_at or 0) <= erased_at:
        _leave_to_person(user, latest, context)
        user.identity.after_hold = True


def _leave_to_person(user: User, latest: Change, context: Context) -> None:
    if user.identity.state not in (State.PENDING, State.HELD):
        stop(user, latest, NAMED_AGAIN, context)


def close_erased(user: User) -> None:
    """Close the gate to a user of whom no identity is known, and who was erased.

    For a message was refused, or had a hash that can't be read: had the user an identity before,
    there is another one now.
    """
    if user.erased_at is not None:
        user.identity.after_hold = True


def erase_links(user: User, names: frozenset[str], erased_id: int) -> bool:
    """Rename those whom a user's links name so; return whether any was."""
    if all(link.alias not in names for link in user.links):
        return False
    mark = mark_of(erased_id)
    user.links = [
        Link(mark, link.relation, link.since) if link.alias in names else link
        for link in user.links
    ]
    return True
