"""Two users who have to do with each other: by a number change, or as one and the same person.

Users who turn out to be one get one timeline, made anew of the sightings of both, so that it does
not matter by which name a hash was seen. What is stricter holds for both: a hold, a block, and
what waits for a person. Trust that was to be had if all had come in time is not given back.
"""

from collections.abc import Callable

from service.model.erasure import leave_erased_to_person
from service.model.events import NumberChanged
from service.model.identity import apply_policy, leave_to_person, start_acknowledging, stop
from service.model.send_blocks import MAX_BLOCKED_IDS
from service.model.telling import tell_sends_blocked, tell_state, tell_superseded
from service.model.timeline import Change, Moment, Precision, date_event
from service.model.users import Context, Identity, Link, State, User

MAX_LINKS = 16
"""Links of each kind that are kept of a user: the newest."""
MOVES = ("successor", "predecessor")
"""Links to the same person under another number."""
OWNERS = ("former_owner", "next_owner")
"""Links to somebody else, who had the number before or has it since."""

Find = Callable[[str], User | None]
"""Returns the user whom an alias leads to."""


# Links.


def link_users(old: User, new: User, changed: NumberChanged, context: Context) -> bool:
    """Link the two users of a number change, and return whether it was unknown.

    The new one inherits nothing. On the Cloud API one user may have both names.
    """
    if old is new:
        return False
    since = date_event(changed.at, context.arrived).moment
    unknown = add_link(old, Link(new.alias, "successor", since), context)
    add_link(new, Link(old.alias, "predecessor", since), context)
    if not unknown:
        return False
    old.record(context.entry("number_changed", old.hash, reason="has another number now"))
    new.record(context.entry("number_changed", reason="had another number before"))
    leave_to_person(old, context)
    return True


def add_link(user: User, new: Link, context: Context) -> bool:
    """Add a link, or make a known one more precise, and return whether it was unknown."""
    alike = [x for x in user.links if x.relation == new.relation]
    known = [x for x in alike if x.alias == new.alias]
    same = next((x for x in known if _is_same_event(x.since, new.since)), None)
    if same is None:
        others = [x for x in user.links if x.relation != new.relation]
        kept = sorted([*alike, new], key=_since)[-MAX_LINKS:]
        user.links = sorted([*others, *kept], key=_since)
        user.touch(context.now)
        return True
    if new.since.better(same.since):
        user.links = [new if x is same else x for x in user.links]
    return False


def _since(link: Link) -> int:
    return link.since.at


def _is_same_event(one: Moment, other: Moment) -> bool:
    if Precision.ARRIVAL in (one.precision, other.precision):
        return True
    return one.at <= other.until and other.at <= one.until


def are_linked(one: User, other: User, relations: tuple[str, ...], find: Find) -> bool:
    """Return whether a link of such a kind leads from one user to the other."""
    return any(x.relation in relations and find(x.alias) is other for x in one.links)


# Who is one person.


def has_hash(user: User, hash_: str) -> bool:
    """Return whether the user has the hash, or had it once."""
    return user.hash == hash_ or any(change.hash == hash_ for change in user.history)


def share_a_hash(one: User, other: User) -> bool:
    """Return whether two users have ever had the same hash: then they are one person."""
    mine = {change.hash for change in (*one.history, one.identity.latest) if change is not None}
    return any(hash_ is not None and has_hash(other, hash_) for hash_ in mine)


def used_at(user: User) -> int:
    """Return when a user was last seen under the names that the user has, as far as is kept."""
    return max(user.named_at or 0, user.wrote_at or 0, _seen(user)[0])


def _seen(user: User) -> tuple[int, str]:
    """Return when the latest identity was last seen; the hash settles a tie, each time alike."""
    latest = user.identity.latest
    return (0, "") if latest is None else (latest.last.at, latest.hash or "")


def merge_users(user: User, other: User, find: Find, context: Context) -> None:
    """Make two one person; the identity that was seen last is the latest."""
    # A hold was in effect for sure when its user last changed: only what a person decides after
    # that can outweigh it.
    holds = [
        one.identity.updated_at or one.created_at for one in (user, other) if one.identity.is_held
    ]
    if are_linked(user, other, OWNERS, find):
        _forget_handover(user)
        _forget_handover(other)
    _take_names(user, other, find)
    is_closed = any(one.identity.after_hold for one in (user, other))
    before = [(one.hash, one.identity.state) for one in (user, other)]
    _take_latest(user, other, context)
    told = len(context.told or ())
    latest, earlier, state = user.identity.latest, other.identity.latest, other.identity.state
    if latest is not None:
        changes = [*user.history, *other.history, latest, *([earlier] if earlier else [])]
        _join(user, latest, changes)
    if latest is not None and earlier is not None:
        held_until = max(holds, default=None)
        _decide_again(user, latest, earlier, state, context, held_until=held_until)
    user.erased_at = max(filter(None, (user.erased_at, other.erased_at)), default=None)
    if latest is None:
        user.identity.after_hold = is_closed
    elif user.erased_at is not None:
        leave_erased_to_person(user, latest, user.erased_at, context)
    user.blocked_ids = [*other.blocked_ids, *user.blocked_ids][-MAX_BLOCKED_IDS:]
    user.wrote_at = max(filter(None, (user.wrote_at, other.wrote_at)), default=None)
    user.owner_since = max(filter(None, (user.owner_since, other.owner_since)), default=None)
    user.record(context.entry("merged", user.hash, reason="two turned out to be one"))
    user.touch(context.now)
    known = [(hash_, state) for hash_, state in before if state is not None]
    is_news = any(one != (user.hash, user.identity.state) for one in known)
    if is_news and len(context.told or ()) == told:
        tell_state(user, context)  # of one of the two it was another
    _empty(other, user)


def _take_latest(user: User, other: User, context: Context) -> None:
    """Let the user have the identity that was seen last, and tell what that ends."""
    is_other_later = _seen(other) > _seen(user)
    earlier = user if is_other_later else other
    is_another = user.identity.latest and other.identity.latest and user.hash != other.hash
    if is_another and earlier.identity.state is not State.AWAITING_HASH:
        tell_superseded(earlier, context)
    mine, theirs = user.identity.blocked_since, other.identity.blocked_since
    if is_other_later:
        user.identity, other.identity = other.identity, user.identity
    since = user.identity.blocked_since
    if since is None and (ended := mine or theirs) is not None:
        tell_sends_blocked(user, ended, context, ended=True)
    elif since is not None and mine is None:
        tell_sends_blocked(user, since, context, ended=False)


def _forget_handover(user: User) -> None:
    """Remove the change of which a number in other hands was the only sign: it is in the same.

    Of such a change no hash is known, and there was none before it. It stays where a person decided
    about it, and where there was another sign: a refusal, or a hash that could not be read.
    """
    identity, latest = user.identity, user.identity.latest
    if latest is None or latest.hash is not None or user.history:
        return
    if identity.state is State.PENDING and len(latest.seen) == 1 and not user.blocked_ids:
        identity.latest = identity.state = None
        identity.after_hold = user.erased_at is not None


def _take_names(user: User, other: User, find: Find) -> None:
    """Call the person by the names that were used last; no link leads to the person itself."""
    names = {user.wa_id, user.user_id, other.wa_id, other.user_id}

    def leads_elsewhere(link: Link) -> bool:
        found = find(link.alias)
        return link.alias not in names and found is not user and found is not other

    links = {link for link in (*user.links, *other.links) if leads_elsewhere(link)}
    user.links = sorted(links, key=_since)
    if other.user_id and (user.user_id is None or used_at(other) > used_at(user)):
        user.user_id = other.user_id
    if other.wa_id and (user.wa_id is None or (other.named_at or 0) > (user.named_at or 0)):
        user.wa_id, user.named_at = other.wa_id, other.named_at


def _join(user: User, latest: Change, changes: list[Change]) -> None:
    """Make one timeline of two: which hash was seen when, by whichever name it was seen.

    Sightings of one hash that follow each other make one change again.
    """
    sightings = [(moment, change) for change in changes for moment in change.seen]
    sightings.sort(key=lambda sighting: (sighting[0].at, sighting[1] is latest))
    spans: list[list[tuple[Moment, Change]]] = []
    for sighting in sightings:
        if spans and spans[-1][-1][1].hash == sighting[1].hash:
            spans[-1].append(sighting)
        else:
            spans.append([sighting])
    _see_again(latest, spans.pop())
    taken = {id(latest)}
    user.history = []
    for span in spans:
        change = next((c for _, c in span if id(c) not in taken), None)
        if change is None:
            change = Change(span[0][1].hash, span[0][0], span[0][1].received_at)
        change.outcome = change.outcome or "superseded"
        _see_again(change, span)
        taken.add(id(change))
        user.history.append(change)


def _see_again(change: Change, span: list[tuple[Moment, Change]]) -> None:
    """Let a change be seen at these moments, and at no others."""
    change.seen = []
    change.changed = span[0][0]
    for moment, _ in span:
        change.absorb(moment)


def _decide_again(
    user: User,
    latest: Change,
    earlier: Change,
    state: State | None,
    context: Context,
    *,
    held_until: int | None,
) -> None:
    """Let what was decided about one of the two hold for the person that they are.

    `earlier` and `state` are those of the other identity. What a person decided about the latest
    hash stays, the stricter where two did; but a hold gives way only to what was decided later, and
    a hash that went meanwhile is decided about anew. Nothing else is acknowledged for being the
    first, or by a rule that is not for this person.
    """
    identity = user.identity
    is_same_hash = latest.hash == earlier.hash
    has_own_hold = latest.is_decided_by_somebody and identity.state is State.HELD
    if is_same_hash and earlier.is_decided_by_somebody and not has_own_hold:
        latest.decided_by, latest.decided_at = earlier.decided_by, earlier.decided_at
        latest.acknowledged_at = earlier.acknowledged_at
        identity.state, identity.work = state, None
    if identity.state is State.HELD:
        return
    if held_until is not None and not _is_decided_after(latest, held_until):
        stop(user, latest, "two turned out to be one, of whom one was held", context)
        identity.after_hold = True
    elif (
        latest.is_decided_by_somebody
        and user.history
        and not _is_decided_after(latest, latest.first.at - 1)
    ):
        stop(user, latest, "two turned out to be one, whose hash went and came again", context)
    elif latest.is_decided_by_somebody:
        identity.after_hold = False
    elif earlier.hash is None and state is State.AWAITING_HASH and earlier.decided_by is not None:
        # The hash that a person awaited had been seen by the other name.
        user.history = [change for change in user.history if change is not earlier]
        start_acknowledging(user, latest, earlier.decided_by, context)
    elif not is_same_hash and earlier.last.at == latest.last.at:
        stop(user, latest, "two turned out to be one, and a person is to decide", context)
    elif identity.state is not State.PENDING and (user.history or state is not identity.state):
        apply_policy(user, latest, context)


def _is_decided_after(latest: Change, at: int) -> bool:
    return latest.is_decided_by_somebody and (latest.decided_at or 0) > at


def _empty(other: User, user: User) -> None:
    """Leave nothing but the audit trail of the one who is no more."""
    other.merged_into = user.id
    other.wa_id = other.user_id = None
    version, updated_at = other.identity.version + 1, other.identity.updated_at
    other.identity = Identity(version=version, updated_at=updated_at)
    other.history, other.links = [], []
    other.wrote_at = other.owner_since = None
