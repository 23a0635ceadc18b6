"""Cloud API: who is who. A user is a set of aliases; the user id is the strongest of them.

What an element calls one user may so far have been two, and a wa_id may have changed hands.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from service.model.doubts import MAX_BLOCKED_IDS
from service.model.events import Named
from service.model.identities import apply_policy, start, stop
from service.model.moments import Moment, date
from service.model.timeline import Change
from service.model.users import AuditEntry, Context, State, User

NAMED_EVERY_MS = 3_600_000
"""So closely it is kept when a user's names were last used together, where nothing else changed."""

_IDENTITY = (
    "latest", "state", "version", "updated_at", "due_at", "attempts", "last_error", "after_hold",
    "disputed", "confirmed_at", "checked_at", "blocked_since", "work", "ask",
)  # fmt: skip
"""What belongs to the latest identity, whose user it is."""


class Known(NamedTuple):
    """The users whom an element's names lead to so far."""

    by_user_id: User | None
    by_wa_id: User | None
    by_parent: User | None


class Names(NamedTuple):
    """What a user is called, and nothing else of the user; `named_at` as in `User`."""

    id: int
    wa_id: str | None
    user_id: str | None
    named_at: int | None


@dataclass(slots=True)
class Naming:
    """What became of an element's names: the user they lead to from now on.

    `owned` are the names that are this user's from now on, `merged` the one who turned out to be
    the same person.
    """

    user: User
    owned: list[str]
    merged: User | None = None


def name(
    named: Named, known: Known, context: Context, new_user: Callable[[str], User]
) -> Naming | None:
    """Decide who is meant; None where nobody is known by these names and none is to be kept."""
    user = known.by_user_id
    holder = known.by_wa_id
    if user is None and holder is not None and holder.user_id is None:
        user = holder
        user.user_id = named.user_id
        user.touch(context.now)
    if user is None:
        if holder is None and not named.heard_of:
            return None
        user = new_user(named.user_id)
    naming = Naming(user, [named.user_id])
    if named.wa_id is not None:
        _take_wa_id(naming, named.wa_id, holder, date(named.at, context.arrived).moment.at, context)
    if named.parent is not None and (known.by_parent is None or known.by_parent is naming.merged):
        naming.owned.append(named.parent)
    return naming


def says_nothing(named: Named, arrived: int, find: Callable[[str], Names | None]) -> bool:
    """Tell whether `name` would change nothing: all this is known, or nobody is by these names.

    For elements that are no reason to keep a user, such as most statuses: they need not be loaded.
    """
    user = find(named.user_id)
    holder = find(named.wa_id) if named.wa_id else None
    if user is None or holder is None or named.wa_id is None:
        return user is None and holder is None
    if named.parent is not None and find(named.parent) is None:
        return False
    at = date(named.at, arrived).moment.at
    same = user.id == holder.id and user.wa_id == named.wa_id
    return same and at < (user.named_at or 0) + NAMED_EVERY_MS


def _take_wa_id(naming: Naming, wa_id: str, holder: User | None, at: int, context: Context) -> None:
    """Let the user have the wa_id, unless somebody else is known to have had it later."""
    user = naming.user
    if holder is not None and holder is not user:
        if holder.user_id is None:
            _merge(user, holder, context)
            naming.merged = holder
        elif at >= (holder.named_at or 0):
            _lose(holder, context)
        else:
            return
    naming.owned.append(wa_id)
    if any(link.alias == wa_id for link in user.links):
        user.links = [link for link in user.links if link.alias != wa_id]
        user.touch(context.now)
    if user.wa_id != wa_id and (user.wa_id is None or at >= (user.named_at or 0)):
        user.wa_id, user.named_at = wa_id, at
        user.touch(context.now)
    elif user.wa_id == wa_id and at >= (user.named_at or 0) + NAMED_EVERY_MS:
        user.named_at = at
        user.changed = True


def _lose(user: User, context: Context) -> None:
    """Take a wa_id away from a user who has a user id: the number changed hands."""
    user.wa_id = None
    user.record(
        AuditEntry(context.now, "alias_moved", user.hash, reason="another user id has the wa_id")
    )
    user.touch(context.now)


def _merge(user: User, other: User, context: Context) -> None:
    """Make two one person; the identity that was seen last is the latest."""
    if _seen(other) > _seen(user):
        for field in _IDENTITY:
            mine, theirs = getattr(user, field), getattr(other, field)
            setattr(user, field, theirs)
            setattr(other, field, mine)
    earlier, state, held = other.latest, other.state, _held(user) or _held(other)
    user.history_count += other.history_count
    if user.latest is not None:
        both = [*user.history, *other.history, user.latest, *([earlier] if earlier else [])]
        _join(user, both)
    if user.latest is not None and earlier is not None:
        _decide_again(user, user.latest, earlier, state, context, held=held)
    names = {user.wa_id, user.user_id, other.wa_id}
    links = {link for link in (*user.links, *other.links) if link.alias not in names}
    user.links = sorted(links, key=lambda link: link.since.at)
    user.blocked_ids = [*other.blocked_ids, *user.blocked_ids][-MAX_BLOCKED_IDS:]
    user.wrote_at = max(filter(None, (user.wrote_at, other.wrote_at)), default=None)
    user.record(AuditEntry(context.now, "merged", user.hash, reason="two turned out to be one"))
    user.touch(context.now)
    _empty(other, user)


def _seen(user: User) -> tuple[int, str]:
    """Tell when the latest identity was last seen; the hash settles a tie, each time the same."""
    return (0, "") if user.latest is None else (user.latest.last.at, user.latest.hash or "")


def _held(user: User) -> bool:
    return user.state is State.HELD or user.after_hold


def _join(user: User, changes: list[Change]) -> None:
    """Make one timeline of two: whose hash was seen when, whichever name it was seen by."""
    sightings = [(moment, change) for change in changes for moment in change.seen]
    sightings.sort(key=lambda sighting: sighting[0].at)
    spans: list[list[tuple[Moment, Change]]] = []
    for sighting in sightings:
        if spans and spans[-1][-1][1].hash == sighting[1].hash:
            spans[-1].append(sighting)
        else:
            spans.append([sighting])
    latest = spans.pop()
    taken = {id(user.latest)}
    _grow(user.latest or latest[0][1], latest)
    user.history = []
    for span in spans:
        change = next((c for _, c in span if id(c) not in taken), None)
        if change is None:
            change = Change(span[0][1].hash, span[0][0], span[0][1].received_at)
        change.outcome = change.outcome or "superseded"
        _grow(change, span)
        taken.add(id(change))
        user.history.append(change)
    user.restored += [c for c in changes if c.id and id(c) not in taken]


def _grow(change: Change, span: list[tuple[Moment, Change]]) -> None:
    change.seen = []
    change.changed = span[0][0]
    for moment, _ in span:
        change.absorb(moment)
    change.touched = True


def _decide_again(
    user: User,
    latest: Change,
    earlier: Change,
    state: State | None,
    context: Context,
    *,
    held: bool,
) -> None:
    """Let what was decided about one of the two hold for the person that they are.

    What a person decided about the latest hash stays, the stricter where two did. Nothing else is
    acknowledged for being the first, or by a rule that is not for this person.
    """
    same = latest.hash == earlier.hash
    if same and _by_a_person(earlier) and not (_by_a_person(latest) and user.state is State.HELD):
        latest.decided_by, latest.decided_at = earlier.decided_by, earlier.decided_at
        latest.acknowledged_at, user.state, user.work = earlier.acknowledged_at, state, None
    elif _by_a_person(latest):
        return
    elif earlier.hash is None and state is State.AWAITING_HASH and earlier.decided_by is not None:
        user.history = [change for change in user.history if change is not earlier]
        start(user, latest, earlier.decided_by, context)
    elif held or (not same and earlier.last.at == latest.last.at):
        user.after_hold = held
        stop(user, latest, "two turned out to be one, and a person is to decide", context)
    elif (user.history or state is not user.state) and user.state is not State.PENDING:
        apply_policy(user, latest, context)


def _by_a_person(change: Change) -> bool:
    return change.decided_by is not None and change.decided_by["kind"] != "policy"


def _empty(other: User, user: User) -> None:
    """Leave nothing but the trail of the one who is no more."""
    other.merged_into = user.id
    other.wa_id = None
    other.latest, other.state, other.work, other.ask = None, None, None, None
    other.history, other.history_count, other.links = [], 0, []
    other.wrote_at = other.checked_at = other.blocked_since = other.due_at = None
    other.version += 1
    other.changed = True
