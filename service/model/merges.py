"""Two users turn out to be one person: what becomes of their names, identities and links.

What is stricter holds for both: a hold, and what waits for a person.
"""

from collections.abc import Callable

from service.model.doubts import MAX_BLOCKED_IDS
from service.model.identities import apply_policy, by_somebody, start, stop
from service.model.moments import Moment
from service.model.timeline import Change
from service.model.users import AuditEntry, Context, Link, State, User

MOVES = ("successor", "predecessor")
"""Links to the same person under another number."""
OWNERS = ("former_owner", "next_owner")
"""Links to somebody else, who had the number before or has it since."""

Find = Callable[[str], User | None]
"""Gives the user whom an alias leads to."""


def are_linked(one: User, other: User, relations: tuple[str, ...], find: Find) -> bool:
    """Tell whether a link of such a kind leads from one user to the other."""
    return any(x.relation in relations and find(x.alias) is other for x in one.links)


def has_hash(user: User, hash_: str) -> bool:
    """Tell whether the user has the hash, or had it once."""
    return user.hash == hash_ or any(change.hash == hash_ for change in user.history)


def share_a_hash(one: User, other: User) -> bool:
    """Tell whether two users have ever had the same hash: then they are one person."""
    mine = {change.hash for change in (*one.history, one.identity.latest) if change is not None}
    return any(hash_ is not None and has_hash(other, hash_) for hash_ in mine)


def used_at(user: User) -> int:
    """Tell when a user was last heard of under the names that the user has, as far as is kept."""
    seen = 0 if user.identity.latest is None else user.identity.latest.last.at
    return max(user.named_at or 0, user.wrote_at or 0, seen)


def was_held(user: User) -> bool:
    """Tell whether a person chose to keep the block, and nobody decided otherwise since."""
    return user.identity.state is State.HELD or user.identity.after_hold


def _held_until(user: User) -> int | None:
    """Tell when a hold that stands was in effect for sure; None where there is none.

    That is when the user last changed: only what a person decides after it can outweigh the hold.
    """
    return (user.identity.updated_at or user.created_at) if was_held(user) else None


def merge(user: User, other: User, find: Find, context: Context) -> None:
    """Make two one person; the identity that was seen last is the latest."""
    held_until = max((until for one in (user, other) if (until := _held_until(one))), default=None)
    if are_linked(user, other, OWNERS, find):
        _forget_handover(user)
        _forget_handover(other)
    _take_names(user, other, find)
    if _seen(other) > _seen(user):
        user.identity, other.identity = other.identity, user.identity
    earlier, state = other.identity.latest, other.identity.state
    user.history_count += other.history_count
    if user.identity.latest is not None:
        both = [
            *user.history,
            *other.history,
            user.identity.latest,
            *([earlier] if earlier else []),
        ]
        _join(user, both)
    if user.identity.latest is not None and earlier is not None:
        _decide_again(user, user.identity.latest, earlier, state, context, held_until=held_until)
    user.blocked_ids = [*other.blocked_ids, *user.blocked_ids][-MAX_BLOCKED_IDS:]
    user.wrote_at = max(filter(None, (user.wrote_at, other.wrote_at)), default=None)
    user.owner_since = max(filter(None, (user.owner_since, other.owner_since)), default=None)
    user.record(AuditEntry(context.now, "merged", user.hash, reason="two turned out to be one"))
    user.touch(context.now)
    _empty(other, user)


def _take_names(user: User, other: User, find: Find) -> None:
    """Call the person by the names that were used last; no link leads to the person itself."""
    names = {user.wa_id, user.user_id, other.wa_id, other.user_id}

    def leads_elsewhere(link: Link) -> bool:
        found = find(link.alias)
        return link.alias not in names and found is not user and found is not other

    links = {link for link in (*user.links, *other.links) if leads_elsewhere(link)}
    user.links = sorted(links, key=lambda link: link.since.at)
    if other.user_id and (user.user_id is None or used_at(other) > used_at(user)):
        user.user_id = other.user_id
    if other.wa_id and (user.wa_id is None or (other.named_at or 0) > (user.named_at or 0)):
        user.wa_id, user.named_at = other.wa_id, other.named_at


def _forget_handover(user: User) -> None:
    """Take back the change of which a number in other hands was the only sign: it is in the same.

    Of such a change no hash is known, and there was none before it. It stays where a person decided
    about it, and where there was another sign: a refusal, or a hash that could not be read.
    """
    latest = user.identity.latest
    if latest is None or latest.hash is not None or user.history:
        return
    if user.identity.state is State.PENDING and len(latest.seen) == 1 and not user.blocked_ids:
        user.identity.latest = user.identity.state = None
        user.identity.after_hold = False


def _seen(user: User) -> tuple[int, str]:
    """Tell when the latest identity was last seen; the hash settles a tie, each time the same."""
    return (
        (0, "")
        if user.identity.latest is None
        else (user.identity.latest.last.at, user.identity.latest.hash or "")
    )


def _join(user: User, changes: list[Change]) -> None:
    """Make one timeline of two: whose hash was seen when, whichever name it was seen by."""
    sightings = [(moment, change) for change in changes for moment in change.seen]
    sightings.sort(key=lambda sighting: (sighting[0].at, sighting[1] is user.identity.latest))
    spans: list[list[tuple[Moment, Change]]] = []
    for sighting in sightings:
        if spans and spans[-1][-1][1].hash == sighting[1].hash:
            spans[-1].append(sighting)
        else:
            spans.append([sighting])
    latest = spans.pop()
    taken = {id(user.identity.latest)}
    _grow(user.identity.latest or latest[0][1], latest)
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
    held_until: int | None,
) -> None:
    """Let what was decided about one of the two hold for the person that they are.

    What a person decided about the latest hash stays, the stricter where two did; but a hold gives
    way only to what was decided later, and a hash that went meanwhile is decided about anew.
    Nothing else is acknowledged for being the first, or by a rule that is not for this person.
    """
    same = latest.hash == earlier.hash
    if (
        same
        and by_somebody(earlier)
        and not (by_somebody(latest) and user.identity.state is State.HELD)
    ):
        latest.decided_by, latest.decided_at = earlier.decided_by, earlier.decided_at
        latest.acknowledged_at, user.identity.state, user.identity.work = (
            earlier.acknowledged_at,
            state,
            None,
        )
    if user.identity.state is State.HELD:
        return
    if held_until is not None and not _decided_after(latest, held_until):
        stop(user, latest, "two turned out to be one, of whom one was held", context)
        user.identity.after_hold = True
    elif by_somebody(latest) and user.history and not _decided_after(latest, latest.first.at - 1):
        stop(user, latest, "two turned out to be one, whose hash went and came again", context)
    elif by_somebody(latest):
        user.identity.after_hold = False
    elif earlier.hash is None and state is State.AWAITING_HASH and earlier.decided_by is not None:
        user.history = [change for change in user.history if change is not earlier]
        start(user, latest, earlier.decided_by, context)
    elif not same and earlier.last.at == latest.last.at:
        stop(user, latest, "two turned out to be one, and a person is to decide", context)
    elif (
        user.history or state is not user.identity.state
    ) and user.identity.state is not State.PENDING:
        apply_policy(user, latest, context)


def _decided_after(latest: Change, at: int) -> bool:
    return by_somebody(latest) and (latest.decided_at or 0) > at


def _empty(other: User, user: User) -> None:
    """Leave nothing but the trail of the one who is no more."""
    other.merged_into = user.id
    other.wa_id = other.user_id = None
    other.identity.latest, other.identity.state, other.identity.work, other.identity.ask = (
        None,
        None,
        None,
        None,
    )
    other.history, other.history_count, other.links = [], 0, []
    other.wrote_at = other.identity.checked_at = other.identity.blocked_since = (
        other.identity.due_at
    ) = None
    other.owner_since = None
    other.identity.version += 1
    other.changed = True
