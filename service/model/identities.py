"""The identity state machine: what arrives, and what becomes of it.

A callback may close the gate; only the client's own answer opens it.
"""

from bisect import insort
from dataclasses import dataclass

from service.model.events import IdentitySeen, NumberChanged, SendBlocked, UserWrote
from service.model.moments import Dating, Moment, Precision, date
from service.model.policy import Verdict, judge
from service.model.timeline import (
    Change,
    Place,
    count_within,
    insert_earlier,
    locate,
    repeat,
)
from service.model.users import (
    BY_CLIENT,
    AuditEntry,
    By,
    Context,
    Kind,
    Link,
    State,
    User,
    Work,
    by_policy,
)

HOUR_MS = 3_600_000
MAX_BLOCKED_IDS = 16
MAX_CLAIMS = 8
MAX_LINKS = 16
"""Number changes that are kept of a user: the newest."""


def see(user: User, seen: IdentitySeen, context: Context) -> None:
    """Take a sighting of a hash: a repeat, a change, an earlier change, or one in dispute."""
    dating = date(seen.changed, context.arrived)
    _place(user, seen.hash, dating, context)
    if seen.acknowledged is None or user.latest is None or user.latest.hash != seen.hash:
        return
    if user.latest.spans(dating.moment):
        _heed_claim(user, seen.acknowledged, seen.said, context)


def _place(user: User, hash_: str, dating: Dating, context: Context) -> None:
    latest, moment = user.latest, dating.moment
    if latest is None:
        _begin(user, _change(hash_, dating, context), context)
        return
    if _claimed_before(user, hash_, dating):
        return
    place = locate(latest, user.history, hash_, moment)
    if place in {Place.EARLIER, Place.UNTOLD} and _claims_later(latest, dating):
        place, dating = Place.LATER, _just_after(latest, dating)
    match place:
        case Place.REPEAT:
            repeat(latest, user.history, hash_, moment)
        case Place.LATER:
            _succeed(user, latest, _change(hash_, dating, context), context)
        case Place.EARLIER:
            _earlier(user, latest, _change(hash_, dating, context), context)
        case Place.UNTOLD:
            _dispute(user, latest, _change(hash_, dating, context), context)


def _change(hash_: str, dating: Dating, context: Context) -> Change:
    claims = [] if dating.claimed_ahead is None else [dating.claimed_ahead]
    return Change(hash_, dating.moment, context.arrived, [dating.moment], claims)


def _claimed_before(user: User, hash_: str, dating: Dating) -> bool:
    """Know a repeat whose event time can't be believed by that very time."""
    if dating.claimed_ahead is None:
        return False
    changes = [c for c in (user.latest, *user.history[-MAX_CLAIMS:]) if c is not None]
    return any(c.hash == hash_ and dating.claimed_ahead in c.claims for c in changes)


def _earlier(user: User, latest: Change, sighted: Change, context: Context) -> None:
    """Take an earlier change: an entry in the history, and the guard counts it."""
    began = latest.first.at
    gained = insert_earlier(latest, user.history, sighted)
    user.changed = True
    for change in gained:
        change.outcome = "superseded"
    parted = gained.pop(0) if latest.first.at > max(began, _settled_at(user, latest)) else None
    for change in gained:
        _record_change(user, change, context, "an earlier change, seen late")
    if parted is not None:
        _renew(user, latest, parted, context)
    elif gained:
        _ask_guard_again(user, latest, context)


def _settled_at(user: User, latest: Change) -> int:
    """Tell when the state that the latest has was come to."""
    known = (latest.received_at, latest.decided_at, latest.acknowledged_at, user.confirmed_at)
    return max(at or 0 for at in known)


def _renew(user: User, latest: Change, parted: Change, context: Context) -> None:
    """Take the latest as a change of its own: its state was come to before it came again."""
    held = user.state is State.HELD or user.after_hold
    parted.decided_by, parted.decided_at = latest.decided_by, latest.decided_at
    parted.acknowledged_at = latest.acknowledged_at
    latest.decided_by = latest.decided_at = latest.acknowledged_at = None
    latest.received_at = context.arrived
    _install(user, latest, context)
    _go_on(user, latest, context, held=held)
    want_answer(user, "came again", context)


def _ask_guard_again(user: User, latest: Change, context: Context) -> None:
    """Let the guard stop what policy alone decided, as long as nothing has been done yet."""
    by = latest.decided_by
    work = user.work
    if work is None or work.begun or work.attempts or work.holder:
        return
    if by is not None and by["kind"] != "policy":
        return
    verdict = _judge(user, latest, context)
    if not verdict.automatic:
        _stop(user, latest, verdict.reason, context)


def _begin(user: User, change: Change, context: Context) -> None:
    """Take the first change of a user."""
    _install(user, change, context)
    _apply_policy(user, change, context)


def _succeed(user: User, old: Change, change: Change, context: Context) -> None:
    """Take a later change: no decision about the old one carries over, but a hold warns."""
    held = user.state is State.HELD or user.after_hold
    _retire(user, old, "superseded", context)
    _install(user, change, context)
    _go_on(user, change, context, held=held)


def _go_on(user: User, change: Change, context: Context, *, held: bool) -> None:
    """Let the policy decide about a change, or a person where the one before was held."""
    if not held:
        _apply_policy(user, change, context)
        return
    user.after_hold = True
    _wait_for_person(user, change, context)
    _record_change(user, change, context, "the identity before was held")


def _dispute(user: User, old: Change, change: Change, context: Context) -> None:
    """Take a change that can't be told from the end of the latest: a GET says which it is."""
    held = user.state is State.HELD or user.after_hold
    _retire(user, old, "disputed", context)
    _install(user, change, context)
    user.disputed, user.after_hold = True, held
    _wait_for_person(user, change, context)
    _record_change(user, change, context, "disputed: the order of two changes can't be told")
    want_answer(user, "disputed", context)


def _retire(user: User, old: Change, outcome: str, context: Context) -> None:
    old.outcome, old.touched = outcome, True
    insort(user.history, old, key=lambda c: c.first.at)
    user.record(AuditEntry(context.now, "superseded", old.hash, reason=outcome))


def _install(user: User, change: Change, context: Context) -> None:
    """Make a change the latest; what was under way for another is cancelled."""
    user.latest = change
    user.version += 1
    user.work = user.ask = None
    user.blocked_since = None
    user.due_at = user.last_error = user.confirmed_at = None
    user.attempts = 0
    user.disputed = user.after_hold = False
    user.checked_at = context.now
    user.touch(context.now)


def _record_change(user: User, change: Change, context: Context, reason: str | None) -> None:
    user.record(AuditEntry(context.now, "changed", change.hash, reason=reason))
    if change.claims:
        user.record(
            AuditEntry(
                context.now,
                "clock_skew",
                change.hash,
                reason="the event time lay more than five minutes ahead: the arrival counts",
            )
        )


def _judge(user: User, change: Change, context: Context) -> Verdict:
    policy = context.policies.of(user.wa_id)
    return judge(policy, count_within(change, user.history, policy.per_seconds))


def _apply_policy(user: User, change: Change, context: Context) -> None:
    verdict = _judge(user, change, context)
    delay_ms = round(verdict.policy.delay_seconds * 1000)
    _record_change(user, change, context, verdict.reason)
    if not verdict.automatic or (delay_ms and user.moved_to):
        _wait_for_person(user, change, context)
    elif delay_ms:
        user.state, user.due_at = State.SCHEDULED, context.now + delay_ms
        user.work = Work(Kind.ACKNOWLEDGE, user.due_at, change.hash, request_id=context.request_id)
    else:
        _go_ahead(user, change, verdict, context)


def _go_ahead(user: User, change: Change, verdict: Verdict, context: Context) -> None:
    start(user, change, by_policy(verdict.policy.name), context)
    by = change.decided_by
    user.record(AuditEntry(context.now, "decided", change.hash, by, verdict.reason))


def _wait_for_person(user: User, change: Change, context: Context) -> None:
    user.state, user.due_at, user.work = State.PENDING, None, None
    change.decided_by = change.decided_at = change.acknowledged_at = None
    change.touched = True
    user.touch(context.now)


def _stop(user: User, change: Change, reason: str, context: Context) -> None:
    """Let a person decide about what was on its way without one."""
    _wait_for_person(user, change, context)
    user.record(AuditEntry(context.now, "pending", change.hash, reason=reason))


def start(user: User, change: Change, by: By, context: Context) -> None:
    """Begin to acknowledge: decided, with work that is due at once."""
    known_as = context.request_id or (user.work.request_id if user.work else None)
    user.state, user.due_at = State.ACKNOWLEDGING, None
    user.attempts, user.last_error, user.after_hold = 0, None, False
    change.decided_by, change.decided_at = by, context.now
    user.work = Work(Kind.ACKNOWLEDGE, context.now, change.hash, request_id=known_as)
    user.touch(context.now)


def come_due(user: User, context: Context) -> bool:
    """Ask the policy once more about what was scheduled; tell whether to go on."""
    change = user.latest
    if user.state is not State.SCHEDULED or change is None:
        return user.state is State.ACKNOWLEDGING
    verdict = _judge(user, change, context)
    if not verdict.automatic:
        _stop(user, change, verdict.reason, context)
        return False
    _go_ahead(user, change, verdict, context)
    return True


def _heed_claim(user: User, claimed: bool, said: Moment | None, context: Context) -> None:
    """Let the client be asked where a message claims another state than the one known."""
    acknowledged = user.state is State.ACKNOWLEDGED
    if claimed and not acknowledged:
        want_answer(user, "claimed", context)
    if not claimed and acknowledged and _newer(user, said, context):
        _suspect(user, context)


def _newer(user: User, said: Moment | None, context: Context) -> bool:
    known = [user.confirmed_at, user.latest and user.latest.acknowledged_at]
    return date(said, context.arrived).moment.until > max(at or 0 for at in known)


def _suspect(user: User, context: Context) -> None:
    """Close the gate until the client has been asked; an answer that is under way is too old."""
    if user.ask is not None and user.ask.holder is not None:
        user.version += 1
        user.changed = True
    if user.blocked_since is None:
        user.blocked_since = context.now
        user.record(AuditEntry(context.now, "send_blocked", user.hash))
        user.touch(context.now)
    want_answer(user, "send_blocked", context)


def want_answer(user: User, reason: str, context: Context) -> None:
    """Put a GET into the outbox, one at a time for a user."""
    if user.ask is None:
        user.ask = Work(Kind.ASK, context.now, reason=reason, request_id=context.request_id)
        user.changed = True


def block(user: User, blocked: SendBlocked, context: Context) -> None:
    """Take a message that failed with 480."""
    if user.state not in (None, State.ACKNOWLEDGED):
        return
    if blocked.message_id is not None:
        if blocked.message_id in user.blocked_ids:
            return
        user.blocked_ids = [*user.blocked_ids, blocked.message_id][-MAX_BLOCKED_IDS:]
        user.changed = True
    _suspect(user, context)


def link(old: User, new: User, changed: NumberChanged, context: Context) -> None:
    """Link the two users of a number change; the new one inherits nothing."""
    since = date(changed.at, context.arrived).moment
    unknown = _add_link(old, Link(new.wa_id, "successor", since), context)
    _add_link(new, Link(old.wa_id, "predecessor", since), context)
    if not unknown:
        return
    old.record(AuditEntry(context.now, "number_changed", old.hash, reason="has another number now"))
    new.record(AuditEntry(context.now, "number_changed", reason="had another number before"))
    if old.state is State.SCHEDULED and old.latest:
        _stop(old, old.latest, "the user has another number now", context)


def _add_link(user: User, new: Link, context: Context) -> bool:
    """Add a link, or tell one that is known more precisely; tell whether it was unknown."""
    known = [x for x in user.links if (x.wa_id, x.relation) == (new.wa_id, new.relation)]
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


def write(user: User, wrote: UserWrote, context: Context) -> None:
    """Take a message of the user: kept to the hour, which is all that freshness needs."""
    at = date(wrote.at, context.arrived).moment.at
    hour = at - at % HOUR_MS
    if user.wrote_at is None or hour > user.wrote_at:
        user.wrote_at = hour
        user.changed = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client says of a user's identity: the latest hash, and whether it is acknowledged.

    Follows Meta's page on the contacts node, "Retrieve the latest identity hash for a user".
    """

    hash: str
    created: Moment | None
    acknowledged: bool


def heed(user: User, answer: Answer, context: Context) -> None:
    """Take the client's own answer, which outranks every timestamp."""
    user.ask = None
    user.checked_at = context.now
    user.changed = True
    latest = user.latest
    if latest is None or latest.hash != answer.hash:
        latest = _replace(user, latest, answer, context)
    elif answer.created:
        _repeat(user, latest, date(answer.created, context.arrived).moment)
    if answer.acknowledged:
        user.confirmed_at = context.now
        _confirm(user, latest, context)
    elif user.state is State.ACKNOWLEDGED:
        _stop(user, latest, "the client says that it is not acknowledged", context)
    _unblock(user, context)
    user.disputed = False


def _claims_later(latest: Change, dating: Dating) -> bool:
    """Tell a change that is later by its own claim, though the claim is too far ahead to go by."""
    return dating.claimed_ahead is not None and dating.claimed_ahead > latest.last.until


def _just_after(latest: Change, dating: Dating) -> Dating:
    return dating._replace(moment=Moment(latest.last.until + 1, Precision.ARRIVAL))


def _repeat(user: User, latest: Change, moment: Moment) -> None:
    if locate(latest, user.history, latest.hash, moment) is Place.REPEAT:
        repeat(latest, user.history, latest.hash, moment)


def _replace(user: User, old: Change | None, answer: Answer, context: Context) -> Change:
    """Make the client's answer the latest, whatever the timestamps say."""
    dating = date(answer.created, context.arrived)
    change = _change(answer.hash, dating, context)
    if old is None:
        _begin(user, change, context)
        return change
    if not dating.moment.after(old.last):
        change.seen = [_just_after(old, dating).moment]
    if user.disputed:
        _settle_dispute(user, old, change, context)
    else:
        _succeed(user, old, change, context)
    return change


def _settle_dispute(user: User, old: Change, change: Change, context: Context) -> None:
    """Bring back the one that the other had displaced; it waits for a person."""
    held = user.after_hold
    displaced = [c for c in user.history if c.hash == change.hash and c.outcome == "disputed"]
    for entry in displaced[-1:]:
        change.changed, change.received_at = entry.changed, entry.received_at
        user.history.remove(entry)
        user.restored.append(entry)
    _retire(user, old, "disputed", context)
    _install(user, change, context)
    user.after_hold = held
    _wait_for_person(user, change, context)
    _record_change(user, change, context, "the client says that this is the latest")


def _confirm(user: User, latest: Change, context: Context) -> None:
    """Take the client's word that the latest hash is acknowledged."""
    if user.state is State.ACKNOWLEDGED:
        return
    if user.state is not State.ACKNOWLEDGING:
        latest.decided_by, latest.decided_at = dict(BY_CLIENT), context.now
    finish(user, latest, context)


def finish(user: User, latest: Change, context: Context) -> None:
    """Write down that the latest hash is acknowledged; an answer under way is too old now."""
    user.version += 1
    user.state = State.ACKNOWLEDGED
    user.work, user.due_at, user.last_error = None, None, None
    user.after_hold = False
    latest.acknowledged_at = context.now
    latest.touched = True
    user.record(AuditEntry(context.now, "acknowledged", latest.hash, latest.decided_by))
    _unblock(user, context)
    user.touch(context.now)


def _unblock(user: User, context: Context) -> None:
    if user.blocked_since is not None:
        user.blocked_since = None
        user.touch(context.now)


def unknown_there(user: User, context: Context) -> None:
    """Take the client's word that it knows no identity of the user: nothing is blocked by one."""
    user.ask = None
    user.checked_at = context.now
    user.changed = True
    _unblock(user, context)
