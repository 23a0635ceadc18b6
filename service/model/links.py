"""Number changes: the old and the new user of a link, each readable as itself."""

from service.model.events import NumberChanged
from service.model.identities import stop
from service.model.moments import Moment, Precision, date
from service.model.users import AuditEntry, Context, Link, State, User

MAX_LINKS = 16
"""Number changes that are kept of a user: the newest."""


def link(old: User, new: User, changed: NumberChanged, context: Context) -> None:
    """Link the two users of a number change; the new one inherits nothing.

    On the Cloud API one user may have both names.
    """
    if old is new:
        return
    since = date(changed.at, context.arrived).moment
    unknown = _add_link(old, Link(new.alias, "successor", since), context)
    _add_link(new, Link(old.alias, "predecessor", since), context)
    if not unknown:
        return
    old.record(AuditEntry(context.now, "number_changed", old.hash, reason="has another number now"))
    new.record(AuditEntry(context.now, "number_changed", reason="had another number before"))
    if old.state is State.SCHEDULED and old.latest:
        stop(old, old.latest, "the user has another number now", context)


def _add_link(user: User, new: Link, context: Context) -> bool:
    """Add a link, or tell one that is known more precisely; tell whether it was unknown."""
    known = [x for x in user.links if (x.alias, x.relation) == (new.alias, new.relation)]
    same = next((x for x in known if _same_event(x.since, new.since)), None)
    if same is None:
        user.links = sorted([*user.links, new], key=lambda x: x.since.at)[-MAX_LINKS:]
        user.touch(context.now)
        return True
    if new.since.better(same.since):
        user.links = [new if x is same else x for x in user.links]
        user.changed = True
    return False


def _same_event(one: Moment, other: Moment) -> bool:
    if Precision.ARRIVAL in (one.precision, other.precision):
        return True
    return one.at <= other.until and other.at <= one.until
