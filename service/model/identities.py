"""The identity state machine: a hash is seen, and what becomes of it.

A callback may close the gate; only the client's own answer opens it.
"""

from bisect import insort

from service.model.doubts import heed_claim, unblock, want_answer
from service.model.events import IdentitySeen
from service.model.moments import Dating, Moment, Precision, date
from service.model.policy import Policy, Verdict, judge
from service.model.timeline import (
    Change,
    Order,
    count_within,
    insert_earlier,
    locate,
    repeat,
    start_of,
)
from service.model.users import (
    OPEN,
    AuditEntry,
    By,
    Context,
    Kind,
    State,
    User,
    Work,
    by_policy,
    newest,
    standing,
)

MAX_CLAIMS = 8
MOVED = "the user has another number now"


def record_sighting(user: User, seen: IdentitySeen, context: Context) -> None:
    """Take a sighting of a hash: a repeat, a change, an earlier change, or one in dispute."""
    dating = date(seen.changed, context.arrived)
    _place(user, seen.hash, dating, context)
    if (
        seen.acknowledged is None
        or user.identity.latest is None
        or user.identity.latest.hash != seen.hash
    ):
        return
    if user.identity.latest.spans(dating.moment):
        heed_claim(user, seen.acknowledged, seen.said, context)


def _place(user: User, hash_: str, dating: Dating, context: Context) -> None:
    latest, moment = user.identity.latest, dating.moment
    if latest is None:
        begin(user, change_of(hash_, dating, context), context)
        return
    if latest.hash is None:
        _take_awaited(user, latest, change_of(hash_, dating, context), context)
        return
    if latest.hash == hash_ and moment in latest.seen:
        return  # the same sighting again, as every message brings it
    if _claimed_before(user, hash_, dating):
        return
    place = locate(latest, user.history, hash_, moment)
    if place in {Order.EARLIER, Order.AMBIGUOUS} and _claims_later(latest, dating):
        place, dating = Order.LATER, just_after(latest, dating)
    match place:
        case Order.REPEAT:
            _repeat(user, latest, hash_, moment, context)
        case Order.LATER:
            succeed(user, latest, change_of(hash_, dating, context), context)
        case Order.EARLIER:
            _earlier(user, latest, change_of(hash_, dating, context), context)
        case Order.AMBIGUOUS:
            _dispute(user, latest, change_of(hash_, dating, context), context)


def _repeat(user: User, latest: Change, hash_: str, moment: Moment, context: Context) -> None:
    """Take a repeat, which may show that an identity did not come after a move."""
    doubted = _came_after_a_move(user, latest)
    repeat(latest, user.history, hash_, moment)
    if doubted and not _came_after_a_move(user, latest):
        _trust_after_all(user, latest, context)


def _take_awaited(user: User, unknown: Change, sighted: Change, context: Context) -> None:
    """Take a hash while all that is known of the latest change is that there was one (Cloud API).

    Whatever was seen after the change before is taken for the hash of this one.
    """
    moment = sighted.first
    before = user.history[-1] if user.history else None
    if before is not None and sighted.hash == before.hash and not moment.after(unknown.last):
        before.absorb(moment)  # the old one, delivered late
    elif locate(unknown, user.history, sighted.hash, moment) is Order.REPEAT:
        repeat(unknown, user.history, sighted.hash, moment)
    elif before is not None and moment.until < before.last.at:
        _earlier(user, unknown, sighted, context)
    else:
        _fill_in(user, unknown, sighted, context)


def _fill_in(user: User, unknown: Change, sighted: Change, context: Context) -> None:
    """Take the hash of a change that nobody knew.

    One that came of the message that a person approved is trusted, and the decider stays.
    """
    awaited, held = (
        user.identity.state is State.AWAITING_HASH,
        user.identity.state is State.HELD or user.identity.after_hold,
    )
    unknown.hash, unknown.changed = sighted.hash, sighted.changed
    unknown.seen, unknown.claims = sighted.seen, sighted.claims
    if awaited:
        record_change(user, unknown, context, "the hash that was awaited")
        finish(user, unknown, context)
    else:
        user.identity.version += 1
        _go_on(user, unknown, context, held=held)


def change_of(hash_: str | None, dating: Dating, context: Context) -> Change:
    """Begin a change with its first sighting."""
    claims = [] if dating.claimed_ahead is None else [dating.claimed_ahead]
    return Change(hash_, dating.moment, context.arrived, [dating.moment], claims)


def _claimed_before(user: User, hash_: str, dating: Dating) -> bool:
    """Know a repeat whose event time can't be believed by that very time."""
    if dating.claimed_ahead is None:
        return False
    changes = [c for c in (user.identity.latest, *user.history[-MAX_CLAIMS:]) if c is not None]
    return any(c.hash == hash_ and dating.claimed_ahead in c.claims for c in changes)


def _earlier(user: User, latest: Change, sighted: Change, context: Context) -> None:
    """Take an earlier change: an entry in the history, and the guard counts it."""
    began = latest.first.at
    gained = insert_earlier(latest, user.history, sighted)
    user.changed = True
    for change in gained:
        change.outcome = "superseded"
    parted = gained.pop(0) if latest.first.at > max(began, settled_at(user, latest)) else None
    for change in gained:
        record_change(user, change, context, "an earlier change, seen late")
    if parted is not None:
        _renew(user, latest, parted, context)
    elif gained and on_first_use(latest, context):
        apply_policy(user, latest, context)
    elif gained:
        _ask_guard_again(user, latest, context)


def settled_at(user: User, latest: Change) -> int:
    """Tell when the state that the latest has was come to."""
    known = (
        latest.received_at,
        latest.decided_at,
        latest.acknowledged_at,
        user.identity.confirmed_at,
    )
    return max(at or 0 for at in known)


def _renew(user: User, latest: Change, parted: Change, context: Context) -> None:
    """Take the latest as a change of its own: its state was come to before it came again."""
    held = user.identity.state is State.HELD or user.identity.after_hold
    parted.decided_by, parted.decided_at = latest.decided_by, latest.decided_at
    parted.acknowledged_at = latest.acknowledged_at
    latest.decided_by = latest.decided_at = latest.acknowledged_at = None
    latest.received_at = context.arrived
    install(user, latest, context)
    _go_on(user, latest, context, held=held)
    want_answer(user, "came again", context)


def _ask_guard_again(user: User, latest: Change, context: Context) -> None:
    """Let the guard stop what policy alone decided, as long as nothing has been done yet."""
    if not _can_be_stopped(user, latest):
        return
    verdict = _judge(user, latest, context)
    if not verdict.automatic:
        stop(user, latest, verdict.reason, context)


def _can_be_stopped(user: User, latest: Change) -> bool:
    """Tell whether policy alone is about to acknowledge, and nothing has been done yet."""
    work = user.identity.work
    if work is None or work.begun or work.attempts or work.holder:
        return False
    return not by_somebody(latest)


def by_somebody(change: Change) -> bool:
    """Tell whether a person or the client decided about a change, and not a policy."""
    return change.decided_by is not None and change.decided_by["kind"] != "policy"


def leave_to_person(user: User, context: Context) -> None:
    """Let a person decide what policy alone decided about a user who has another number now.

    What the client has accepted stays so. An acknowledgement of our own (Cloud API) is taken back
    where the identity came after the move, for that may be a new owner's.
    """
    latest = user.identity.latest
    if latest is None or user.moved_to is None:
        return
    ours = (
        context.policies.local
        and user.identity.state is State.ACKNOWLEDGED
        and not by_somebody(latest)
    )
    if _can_be_stopped(user, latest) or (ours and _came_after_a_move(user, latest)):
        stop(user, latest, MOVED, context)


def _came_after_a_move(user: User, change: Change) -> bool:
    """Tell whether a change came after the user had left the number, as far as anybody knows."""
    return any(change.first.after(link.since) for link in standing(user.links, user.owner_since))


def note_owner(user: User) -> None:
    """Note since when it is known who has the number, as far as the latest identity tells.

    That is since it came, where a person or the client acknowledged it.
    """
    latest = user.identity.latest
    if latest is None or not by_somebody(latest) or user.identity.state not in OPEN:
        return
    if latest.first.at > (user.owner_since or 0):
        user.owner_since = latest.first.at
        user.changed = True


def begin(user: User, change: Change, context: Context) -> None:
    """Take the first change of a user, where the account says so on trust.

    Whoever comes after the user has left the number may be somebody else, and is not trusted.
    """
    install(user, change, context)
    first_use = context.policies.first_use
    if first_use is None or _came_after_a_move(user, change):
        apply_policy(user, change, context)
        return
    _trust_first(user, change, first_use, context)


def _trust_after_all(user: User, change: Change, context: Context) -> None:
    """Trust the first hash that seemed to have come after the user had left the number.

    It had not, as an earlier sighting shows. Nothing else may speak against it.
    """
    first_use = context.policies.first_use
    waits = user.identity.state is State.PENDING and not (
        user.history or user.identity.after_hold or user.identity.disputed
    )
    if first_use is not None and waits and newest(user.links, "former_owner") is None:
        _trust_first(user, change, first_use, context)


def _trust_first(user: User, change: Change, first_use: Policy, context: Context) -> None:
    """Acknowledge a hash for being the first."""
    # One entry tells of the change and of the trust in it: nearly every user begins so.
    user.record(AuditEntry(context.now, "first_use", change.hash, by_policy(first_use.name)))
    change.decided_by, change.decided_at = by_policy(first_use.name), context.now
    _settle(user, change, context)


def on_first_use(change: Change, context: Context) -> bool:
    """Tell whether a change was trusted for being the first, and for nothing else."""
    first_use = context.policies.first_use
    return first_use is not None and change.decided_by == by_policy(first_use.name)


def succeed(user: User, old: Change, change: Change, context: Context) -> None:
    """Take a later change: no decision about the old one carries over, but a hold warns."""
    held = user.identity.state is State.HELD or user.identity.after_hold
    retire(user, old, "superseded", context)
    install(user, change, context)
    _go_on(user, change, context, held=held)


def _go_on(user: User, change: Change, context: Context, *, held: bool) -> None:
    """Let the policy decide about a change, or a person where the one before was held."""
    if not held:
        apply_policy(user, change, context)
        return
    user.identity.after_hold = True
    wait_for_person(user, change, context)
    record_change(user, change, context, "the identity before was held")


def _dispute(user: User, old: Change, change: Change, context: Context) -> None:
    """Take a change that can't be told from the end of the latest: a GET says which it is."""
    held = user.identity.state is State.HELD or user.identity.after_hold
    retire(user, old, "disputed", context)
    install(user, change, context)
    user.identity.disputed, user.identity.after_hold = True, held
    wait_for_person(user, change, context)
    record_change(user, change, context, "disputed: the order of two changes can't be told")
    want_answer(user, "disputed", context)


def retire(user: User, old: Change, outcome: str, context: Context) -> None:
    """Send what was the latest to the history."""
    old.outcome, old.touched = outcome, True
    insort(user.history, old, key=start_of)
    user.record(AuditEntry(context.now, "superseded", old.hash, reason=outcome))


def install(user: User, change: Change, context: Context) -> None:
    """Make a change the latest; what was under way for another is cancelled."""
    user.identity.latest = change
    user.identity.version += 1
    user.identity.work = user.identity.ask = None
    user.identity.blocked_since = None
    user.identity.due_at = user.identity.last_error = user.identity.confirmed_at = None
    user.identity.attempts = 0
    user.identity.disputed = user.identity.after_hold = False
    user.identity.checked_at = context.now
    user.touch(context.now)


def record_change(user: User, change: Change, context: Context, reason: str | None) -> None:
    """Add the one entry that every change leaves in the audit trail."""
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


def _claims_later(latest: Change, dating: Dating) -> bool:
    """Tell a change that is later by its own claim, though the claim is too far ahead to go by."""
    return dating.claimed_ahead is not None and dating.claimed_ahead > latest.last.until


def just_after(latest: Change, dating: Dating) -> Dating:
    """Place a sighting right behind the latest, where its own time is not to go by."""
    return dating._replace(moment=Moment(latest.last.until + 1, Precision.ARRIVAL))


def _judge(user: User, change: Change, context: Context) -> Verdict:
    policy = context.policies.of(user.wa_id or "", user.user_id or "")
    enough = policy.max_changes + 1
    changes = count_within(change, user.history, policy.per_seconds, enough)
    verdict = judge(policy, changes)
    if verdict.automatic and user.moved_to is not None:
        return verdict._replace(automatic=False, reason=MOVED)
    return verdict


def apply_policy(user: User, change: Change, context: Context) -> None:
    """Let the policy decide about a change, whatever was decided before."""
    change.decided_by = change.decided_at = change.acknowledged_at = None
    verdict = _judge(user, change, context)
    delay_ms = round(verdict.policy.delay_seconds * 1000)
    record_change(user, change, context, verdict.reason)
    if not verdict.automatic:
        wait_for_person(user, change, context)
    elif delay_ms:
        user.identity.state, user.identity.due_at = State.SCHEDULED, context.now + delay_ms
        user.identity.work = Work(
            Kind.ACKNOWLEDGE, user.identity.due_at, change.hash, request_id=context.request_id
        )
    else:
        _go_ahead(user, change, verdict, context)


def _go_ahead(user: User, change: Change, verdict: Verdict, context: Context) -> None:
    by = by_policy(verdict.policy.name)
    user.record(AuditEntry(context.now, "decided", change.hash, by, verdict.reason))
    start(user, change, by, context)


def wait_for_person(user: User, change: Change, context: Context) -> None:
    """Leave the decision to a person."""
    user.identity.state, user.identity.due_at, user.identity.work = State.PENDING, None, None
    change.decided_by = change.decided_at = change.acknowledged_at = None
    change.touched = True
    user.touch(context.now)


def stop(user: User, change: Change, reason: str, context: Context) -> None:
    """Let a person decide about what was on its way without one."""
    wait_for_person(user, change, context)
    user.record(AuditEntry(context.now, "pending", change.hash, reason=reason))


def start(user: User, change: Change, by: By, context: Context) -> None:
    """Begin to acknowledge: decided, with work that is due at once. Our own decision is in effect.

    Where nobody knows the new hash, one message is approved that is sent without.
    """
    known_as = context.request_id or (user.identity.work.request_id if user.identity.work else None)
    (
        user.identity.attempts,
        user.identity.last_error,
        user.identity.after_hold,
        user.identity.due_at,
    ) = 0, None, False, None
    change.decided_by, change.decided_at = by, context.now
    if context.policies.local:
        user.identity.disputed = False
        if change.hash is None:
            user.identity.state, user.identity.work = State.AWAITING_HASH, None
            change.touched = True
            note_owner(user)
            user.touch(context.now)
        else:
            finish(user, change, context)
        return
    user.identity.state = State.ACKNOWLEDGING
    user.identity.work = Work(Kind.ACKNOWLEDGE, context.now, change.hash, request_id=known_as)
    user.touch(context.now)


def come_due(user: User, context: Context) -> bool:
    """Ask the policy once more about what was scheduled; tell whether to go on."""
    change = user.identity.latest
    if user.identity.state is not State.SCHEDULED or change is None:
        return user.identity.state is State.ACKNOWLEDGING
    verdict = _judge(user, change, context)
    if not verdict.automatic:
        stop(user, change, verdict.reason, context)
        return False
    _go_ahead(user, change, verdict, context)
    return True


def finish(user: User, latest: Change, context: Context) -> None:
    """Write down that the latest hash is acknowledged."""
    user.record(AuditEntry(context.now, "acknowledged", latest.hash, latest.decided_by))
    _settle(user, latest, context)


def _settle(user: User, latest: Change, context: Context) -> None:
    """Take the latest hash for acknowledged; an answer under way is too old now."""
    user.identity.version += 1
    user.identity.state = State.ACKNOWLEDGED
    user.identity.work, user.identity.due_at, user.identity.last_error = None, None, None
    user.identity.after_hold = False
    latest.acknowledged_at = context.now
    latest.touched = True
    note_owner(user)
    unblock(user, context)
    user.touch(context.now)
