"""A hash is seen: a repeat, a later change, an earlier one, or one whose order is unknown.

For distinct event times, and no work done in between, every order of delivery, with any repeats,
ends in the same state: `tests/property/test_any_order.py` holds the rules to it.
"""

from service.model.events import IdentitySeen
from service.model.identity import (
    apply_policy,
    ask_client,
    ask_guard_again,
    block_sends,
    came_after_a_move,
    decide_about,
    install,
    install_first,
    install_later,
    is_trusted_as_first,
    mark_acknowledged,
    new_change,
    record_change,
    retire,
    settled_at,
    trust_first_after_all,
    wait_for_person,
)
from service.model.timeline import (
    Change,
    Dating,
    Moment,
    Order,
    date_event,
    insert_earlier,
    just_after,
    locate,
    record_repeat,
)
from service.model.users import Context, State, User

MAX_CLAIMS = 8
"""Changes of the history in which an event time is looked for that can't be believed."""


def record_sighting(user: User, seen: IdentitySeen, context: Context) -> None:
    """Record that a user's hash was seen, and what the message claims of it."""
    dating = date_event(seen.changed, context.arrived)
    _place(user, seen.hash, dating, context)
    latest = user.identity.latest
    if seen.acknowledged is None or latest is None or latest.hash != seen.hash:
        return
    if latest.spans(dating.moment):
        _check_claim(user, latest, seen.acknowledged, seen.said, context)


def _place(user: User, hash_: str, dating: Dating, context: Context) -> None:
    latest, moment = user.identity.latest, dating.moment
    if latest is None:
        install_first(user, new_change(hash_, dating, context), context)
        return
    if latest.hash is None:
        _place_beside_unknown(user, latest, new_change(hash_, dating, context), context)
        return
    if latest.hash == hash_ and moment in latest.seen:
        return  # the same sighting again, as every message brings it
    if _is_claimed_before(user, hash_, dating):
        return
    order = locate(latest, user.history, hash_, moment)
    is_later_by_claim = (dating.claimed_ahead or 0) > latest.last.until
    if order in {Order.EARLIER, Order.AMBIGUOUS} and is_later_by_claim:
        # It is later by its own claim, though that is too far ahead to go by.
        order, dating = Order.LATER, just_after(latest, dating)
    match order:
        case Order.REPEAT:
            _record_repeat(user, latest, hash_, moment, context)
        case Order.LATER:
            install_later(user, latest, new_change(hash_, dating, context), context)
        case Order.EARLIER:
            _record_earlier(user, latest, new_change(hash_, dating, context), context)
        case Order.AMBIGUOUS:
            _dispute(user, latest, new_change(hash_, dating, context), context)


def _is_claimed_before(user: User, hash_: str, dating: Dating) -> bool:
    """Return whether it is a repeat whose event time can't be believed, known by that very time."""
    if dating.claimed_ahead is None:
        return False
    changes = [c for c in (user.identity.latest, *user.history[-MAX_CLAIMS:]) if c is not None]
    return any(c.hash == hash_ and dating.claimed_ahead in c.claims for c in changes)


def _record_repeat(
    user: User, latest: Change, hash_: str, moment: Moment, context: Context
) -> None:
    """Record a repeat, which may show that an identity did not come after a move."""
    came_late = came_after_a_move(user, latest)
    record_repeat(latest, user.history, hash_, moment)
    if came_late and not came_after_a_move(user, latest):
        trust_first_after_all(user, latest, context)


def _record_earlier(user: User, latest: Change, sighted: Change, context: Context) -> None:
    """Record an earlier change: it becomes an entry of the history, and the guard counts it."""
    began = latest.first.at
    gained = insert_earlier(latest, user.history, sighted)
    for change in gained:
        change.outcome = "superseded"
    # Where the latest was split it came, went and came again. If it came again only after its
    # state had been settled, that state was about the time before.
    came_again = latest.first.at > max(began, settled_at(user, latest))
    before = gained.pop(0) if came_again else None
    for change in gained:
        record_change(user, change, context, "an earlier change, seen late")
    if before is not None:
        _renew(user, latest, before, context)
    elif gained and is_trusted_as_first(latest, context):
        # It is not the first any more. Else it would depend on the order of delivery whether a
        # changed hash is trusted.
        apply_policy(user, latest, context)
    elif gained:
        ask_guard_again(user, latest, context)


def _renew(user: User, latest: Change, before: Change, context: Context) -> None:
    """Make the latest, which came again, a change of its own: what was decided is about before."""
    held = user.identity.is_held
    before.decided_by, before.decided_at = latest.decided_by, latest.decided_at
    before.acknowledged_at = latest.acknowledged_at
    latest.forget_decision()
    latest.received_at = context.arrived
    install(user, latest, context)
    decide_about(user, latest, context, held=held)
    ask_client(user, "came again", context)


def _dispute(user: User, old: Change, change: Change, context: Context) -> None:
    """Install a change whose order to the latest is unknown: a GET says which of them it is."""
    held = user.identity.is_held
    retire(user, old, "disputed", context)
    install(user, change, context)
    user.identity.disputed, user.identity.after_hold = True, held
    wait_for_person(user, change, context)
    record_change(user, change, context, "disputed: the order of two changes can't be told")
    ask_client(user, "disputed", context)


def _place_beside_unknown(user: User, unknown: Change, sighted: Change, context: Context) -> None:
    """Place a hash while all that is known of the latest change is that there was one (Cloud API).

    Whatever was seen after the change before is taken for the hash of this one.
    """
    moment = sighted.first
    before = user.history[-1] if user.history else None
    if before is not None and sighted.hash == before.hash and not moment.after(unknown.last):
        before.absorb(moment)  # the old one, delivered late
    elif locate(unknown, user.history, sighted.hash, moment) is Order.REPEAT:
        record_repeat(unknown, user.history, sighted.hash, moment)
    elif before is not None and moment.until < before.last.at:
        _record_earlier(user, unknown, sighted, context)
    else:
        _fill_in(user, unknown, sighted, context)


def _fill_in(user: User, unknown: Change, sighted: Change, context: Context) -> None:
    """Fill in the hash of a change, which nobody knew.

    One that came of the message that a person approved is trusted, and the decider stays.
    """
    is_awaited, held = user.identity.state is State.AWAITING_HASH, user.identity.is_held
    unknown.hash, unknown.changed = sighted.hash, sighted.changed
    unknown.seen, unknown.claims = sighted.seen, sighted.claims
    if is_awaited:
        record_change(user, unknown, context, "the hash that was awaited")
        mark_acknowledged(user, unknown, context)
    else:
        user.identity.version += 1
        decide_about(user, unknown, context, held=held)


def _check_claim(
    user: User, latest: Change, claimed: bool, said: Moment | None, context: Context
) -> None:
    """Have the client asked where a message claims another state than the one known.

    The claim itself opens nothing. One that is newer than the acknowledgement closes the gate.
    """
    acknowledged = user.identity.state is State.ACKNOWLEDGED
    if claimed and not acknowledged:
        ask_client(user, "claimed", context)
    if acknowledged and not claimed:
        known = max(user.identity.confirmed_at or 0, latest.acknowledged_at or 0)
        if date_event(said, context.arrived).moment.until > known:
            block_sends(user, context)
