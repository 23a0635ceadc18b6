"""What becomes of the latest identity: the steps that the other rules are made of.

Callbacks of the On-Premises API are unsigned. So a callback may close the gate; only the client's
own answer opens it. On the Cloud API, where there is no client to ask (`Policies.local`), to
acknowledge is a decision of our own, in effect at once.
"""

from bisect import insort

from service.model.policy import Policy, PolicyResult, evaluate_policy
from service.model.telling import tell_sends_blocked, tell_state, tell_superseded
from service.model.timeline import Change, Dating, count_within, start_of
from service.model.users import (
    OPEN_STATES,
    By,
    Context,
    Identity,
    Kind,
    State,
    User,
    Work,
    by_policy,
    newest_link,
    standing_moves,
)

MOVED = "the user has another number now"
ERASED = "the user was erased: whether it is another identity than before is not known"


# A change becomes the latest.


def new_change(hash_: str | None, dating: Dating, context: Context) -> Change:
    """Return a change with its first sighting."""
    claims = [] if dating.claimed_ahead is None else [dating.claimed_ahead]
    return Change(hash_, dating.moment, context.arrived, [dating.moment], claims)


def install(user: User, change: Change, context: Context) -> None:
    """Make a change the latest; what was under way for another is cancelled.

    What becomes of the new identity is for the caller to say: it has no state yet.
    """
    before = user.identity
    # Nobody decided about what was erased: whatever is the first to come waits for a person.
    held = before.latest is None and user.erased_at is not None
    user.identity = Identity(
        change, version=before.version + 1, checked_at=context.now, after_hold=held
    )
    user.touch(context.now)
    if before.blocked_since is not None:
        tell_sends_blocked(user, before.blocked_since, context, ended=True)


def install_first(user: User, change: Change, context: Context) -> None:
    """Install the first change of a user, trusted where the account says so.

    Whoever comes after the user has left the number may be somebody else, and is not trusted. Nor
    is who was erased: what was known of the user before is not known any more.
    """
    install(user, change, context)
    if user.identity.after_hold:
        wait_for_person(user, change, context)
        record_change(user, change, context, ERASED)
        return
    first_use = context.policies.first_use
    if first_use is None or came_after_a_move(user, change):
        apply_policy(user, change, context)
    else:
        _trust_first(user, change, first_use, context)


def install_later(user: User, old: Change, change: Change, context: Context) -> None:
    """Install a later change: no decision about the old one carries over, but a hold does."""
    held = user.identity.is_held
    retire(user, old, "superseded", context)
    install(user, change, context)
    decide_about(user, change, context, held=held)


def retire(user: User, old: Change, outcome: str, context: Context) -> None:
    """Move what was the latest to the history."""
    tell_superseded(user, context)
    old.outcome = outcome
    insort(user.history, old, key=start_of)
    user.record(context.entry("superseded", old.hash, reason=outcome))


def record_change(user: User, change: Change, context: Context, reason: str | None) -> None:
    """Add the one entry that every change leaves in the audit trail."""
    user.record(context.entry("changed", change.hash, reason=reason))
    if change.claims:
        ahead = "the event time lay more than five minutes ahead: the arrival counts"
        user.record(context.entry("clock_skew", change.hash, reason=ahead))


# Trust on first use (Cloud API).


def _trust_first(user: User, change: Change, first_use: Policy, context: Context) -> None:
    """Acknowledge a hash for being the first."""
    # One entry is enough for the change and the trust in it: nearly every user begins so.
    user.record(context.entry("first_use", change.hash, by_policy(first_use.name)))
    change.decided_by, change.decided_at = by_policy(first_use.name), context.now
    _set_acknowledged(user, change, context)
    unblock_sends(user, context)


def trust_first_after_all(user: User, change: Change, context: Context) -> None:
    """Trust the first hash that seemed to have come after the user had left the number.

    It had not, as an earlier sighting shows. Nothing else may speak against it.
    """
    first_use, identity = context.policies.first_use, user.identity
    doubtful = user.history or identity.after_hold or identity.disputed
    taken_over = newest_link(user.links, "former_owner") is not None
    if first_use is None or identity.state is not State.PENDING or doubtful or taken_over:
        return
    _trust_first(user, change, first_use, context)
    tell_state(user, context)  # that it was pending was told before


def is_trusted_as_first(change: Change, context: Context) -> bool:
    """Return whether a change was trusted for being the first, and for nothing else."""
    first_use = context.policies.first_use
    return first_use is not None and change.decided_by == by_policy(first_use.name)


# The policy decides, or a person does.


def decide_about(user: User, change: Change, context: Context, *, held: bool) -> None:
    """Let the policy decide about a change, or a person where the one before was held."""
    if not held:
        apply_policy(user, change, context)
        return
    user.identity.after_hold = True
    wait_for_person(user, change, context)
    record_change(user, change, context, "the identity before was held")


def apply_policy(user: User, change: Change, context: Context) -> None:
    """Let the policy decide about a change, whatever was decided before."""
    identity = user.identity
    change.forget_decision()
    result = _ask_policy(user, change, context)
    delay_ms = round(result.policy.delay_seconds * 1000)
    record_change(user, change, context, result.reason)
    if not result.automatic:
        wait_for_person(user, change, context)
    elif delay_ms:
        due_at = context.now + delay_ms
        identity.state, identity.due_at = State.SCHEDULED, due_at
        request_id = context.request_id
        identity.work = Work(Kind.ACKNOWLEDGE, due_at, change.hash, request_id=request_id)
        tell_state(user, context)
    else:
        _start_by_policy(user, change, result, context)


def come_due(user: User, context: Context) -> bool:
    """Ask the policy once more about what was scheduled, and return whether to go on."""
    change, state = user.identity.latest, user.identity.state
    if state is not State.SCHEDULED or change is None:
        return state is State.ACKNOWLEDGING
    result = _ask_policy(user, change, context)
    if not result.automatic:
        stop(user, change, result.reason, context)
        return False
    _start_by_policy(user, change, result, context)
    return True


def ask_guard_again(user: User, latest: Change, context: Context) -> None:
    """Let the guard stop what policy alone decided, as long as nothing has been done yet.

    An earlier change that is seen late counts too: it must not matter which of them came last.
    """
    if _can_be_stopped(user, latest):
        result = _ask_policy(user, latest, context)
        if not result.automatic:
            stop(user, latest, result.reason, context)


def _ask_policy(user: User, change: Change, context: Context) -> PolicyResult:
    policy = context.policies.of(user.wa_id or "", user.user_id or "")
    enough = policy.max_changes + 1
    changes = count_within(change, user.history, policy.per_seconds, enough)
    result = evaluate_policy(policy, changes)
    if result.automatic and user.moved_to is not None:
        return result._replace(automatic=False, reason=MOVED)
    return result


def _start_by_policy(user: User, change: Change, result: PolicyResult, context: Context) -> None:
    by = by_policy(result.policy.name)
    user.record(context.entry("decided", change.hash, by, result.reason))
    start_acknowledging(user, change, by, context)


def wait_for_person(user: User, change: Change, context: Context, *, tells: bool = True) -> None:
    """Leave the decision to a person; it is not told where it has been taken elsewhere already."""
    identity = user.identity
    identity.state, identity.due_at, identity.work = State.PENDING, None, None
    change.forget_decision()
    user.touch(context.now)
    if tells:
        tell_state(user, context)


def stop(user: User, change: Change, reason: str, context: Context) -> None:
    """Let a person decide about what was on its way without one."""
    wait_for_person(user, change, context)
    user.record(context.entry("pending", change.hash, reason=reason))


def _can_be_stopped(user: User, latest: Change) -> bool:
    """Return whether policy alone is about to acknowledge, and nothing has been done yet.

    Work that is leased can be stopped too, as long as no PUT has begun.
    """
    work = user.identity.work
    if work is None or work.begun or work.attempts:
        return False
    return not latest.is_decided_by_somebody


# Acknowledging.


def start_acknowledging(user: User, change: Change, by: By, context: Context) -> None:
    """Begin to acknowledge a change by somebody's decision, with work that is due at once."""
    identity = user.identity
    request_id = context.request_id or (identity.work.request_id if identity.work else None)
    identity.attempts, identity.last_error, identity.due_at = 0, None, None
    identity.after_hold = False
    change.decided_by, change.decided_at = by, context.now
    if not context.policies.local:
        identity.state = State.ACKNOWLEDGING
        identity.work = Work(Kind.ACKNOWLEDGE, context.now, change.hash, request_id=request_id)
        user.touch(context.now)
        return
    identity.disputed = False
    if change.hash is not None:
        mark_acknowledged(user, change, context)
        return
    # Nobody knows the new hash: one message is approved that is sent without.
    identity.state, identity.work = State.AWAITING_HASH, None
    note_owner(user)
    user.touch(context.now)


def mark_acknowledged(user: User, latest: Change, context: Context) -> None:
    """Write down that the latest hash is acknowledged."""
    user.record(context.entry("acknowledged", latest.hash, latest.decided_by))
    _set_acknowledged(user, latest, context)
    tell_state(user, context)
    unblock_sends(user, context)


def _set_acknowledged(user: User, latest: Change, context: Context) -> None:
    identity = user.identity
    identity.version += 1  # an answer that is under way is too old now
    identity.state = State.ACKNOWLEDGED
    identity.work, identity.due_at, identity.last_error = None, None, None
    identity.after_hold = False
    latest.acknowledged_at = context.now
    note_owner(user)
    user.touch(context.now)


def settled_at(user: User, latest: Change) -> int:
    """Return when the latest got the state that it has (Unix ms)."""
    confirmed_at = user.identity.confirmed_at
    known = (latest.received_at, latest.decided_at, latest.acknowledged_at, confirmed_at)
    return max(at or 0 for at in known)


# A user who left the number.


def came_after_a_move(user: User, change: Change) -> bool:
    """Return whether a change came after the user had left the number, as far as anybody knows."""
    moves = standing_moves(user.links, user.owner_since)
    return any(change.first.after(link.since) for link in moves)


def note_owner(user: User) -> None:
    """Note since when it is known who has the number, as far as the latest identity says so.

    That is since it came, where a person or the client acknowledged it.
    """
    identity, latest = user.identity, user.identity.latest
    if latest is None or identity.state not in OPEN_STATES or not latest.is_decided_by_somebody:
        return
    if latest.first.at > (user.owner_since or 0):
        user.owner_since = latest.first.at


def leave_to_person(user: User, context: Context) -> None:
    """Let a person decide what policy alone decided about a user who has another number now.

    What the client has accepted stays so. An acknowledgement of our own (Cloud API) is taken back
    where the identity came after the move, for that may be a new owner's.
    """
    identity, latest = user.identity, user.identity.latest
    if latest is None or user.moved_to is None:
        return
    is_ours = context.policies.local and not latest.is_decided_by_somebody
    taken_back = (
        is_ours and identity.state is State.ACKNOWLEDGED and came_after_a_move(user, latest)
    )
    if taken_back or _can_be_stopped(user, latest):
        stop(user, latest, MOVED, context)


# The gate is closed until the client has been asked.


def block_sends(user: User, context: Context, reason: str | None = None) -> None:
    """Close the gate until the client has been asked."""
    if user.identity.blocked_since is None:
        user.identity.blocked_since = context.now
        user.record(context.entry("send_blocked", user.hash, reason=reason))
        user.touch(context.now)
        tell_sends_blocked(user, context.now, context, ended=False)
    ask_client_anew(user, "send_blocked", context)


def unblock_sends(user: User, context: Context) -> None:
    """Open the gate again, as far as `block_sends` had closed it."""
    since = user.identity.blocked_since
    if since is not None:
        user.identity.blocked_since = None
        user.touch(context.now)
        tell_sends_blocked(user, since, context, ended=True)


def ask_client(user: User, reason: str, context: Context) -> None:
    """Put a GET into the outbox, one at a time for a user; none where there is no client to ask."""
    identity = user.identity
    if identity.ask is None and not context.policies.local:
        request_id = context.request_id
        identity.ask = Work(Kind.ASK, context.now, reason=reason, request_id=request_id)


def ask_client_anew(user: User, reason: str, context: Context) -> None:
    """Put a GET into the outbox; an answer to one that is under way is too old."""
    ask = user.identity.ask
    if ask is not None and ask.holder is not None:
        user.identity.version += 1
    ask_client(user, reason, context)
