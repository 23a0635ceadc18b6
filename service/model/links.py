"""Number changes: the old and the new user of a link, each readable as itself."""

from service.model.events import NumberChanged
from service.model.identities import leave_to_person
from service.model.moments import Moment, Precision, date
from service.model.users import AuditEntry, Context, Link, User

MAX_LINKS = 16
"""Links of each kind that are kept of a user: the newest."""


def link(old: User, new: User, changed: NumberChanged, context: Context) -> bool:
    """Link the two users of a number change; tell whether it was unknown.

    The new one inherits nothing. On the Cloud API one user may have both names.
    """
    if old is new:
        return False
    since = date(changed.at, context.arrived).moment
    unknown = add_link(old, Link(new.alias, "successor", since), context)
    add_link(new, Link(old.alias, "predecessor", since), context)
    if not unknown:
        return False
    old.record(AuditEntry(context.now, "number_changed", old.hash, reason="has another number now"))
    new.record(AuditEntry(context.now, "number_changed", reason="had another number before"))
    leave_to_person(old, context)
    return True


def add_link(user: User, new: Link, context: Context) -> bool:
    """Add a link, or tell one that is known more precisely; tell whether it was unknown."""
    alike = [x for x in user.links if x.relation == new.relation]
    known = [x for x in alike if x.alias == new.alias]
    same = next((x for x in known if _same_event(x.since, new.since)), None)
    if same is None:
        others = [x for x in user.links if x.relation != new.relation]
        kept = sorted([*alike, new], key=_since)[-MAX_LINKS:]
        user.links = sorted([*others, *kept], key=_since)
        user.touch(context.now)
        return True
    if new.since.better(same.since):
        user.links = [new if x is same else x for x in user.links]
        user.changed = True
    return False


def _since(link: Link) -> int:
    return link.since.at


def _same_event(one: Moment, other: Moment) -> bool:
    if Precision.ARRIVAL in (one.precision, other.precision):
        return True
    return one.at <= other.until and other.at <= one.until
