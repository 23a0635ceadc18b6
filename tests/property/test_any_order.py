"""The promise that everything rests on: callbacks may come in any order, and more than once.

For distinct event times and no work done in between, every order of delivery, with any repeats,
ends in the same state.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.contacts import record_user_message
from service.model.events import HashRefused, IdentitySeen, NumberChanged, SendBlocked, UserWrote
from service.model.merges import link_users
from service.model.policy import Policies, Policy
from service.model.send_blocks import record_refusal, record_send_block
from service.model.sightings import record_sighting
from service.model.timeline import Change, Moment, Precision
from service.model.users import BY_CLIENT, Context, Kind, State, User, Work, by_key

START = 1_600_000_000_000
SLOT_MS = 4_000
"""Wider than the second of tolerance on either side of a span, and a timestamp's whole second."""
SLOTS = 9
NOW = START + 1_000 * SLOT_MS
OLD, NEW, OTHER = "16315550001", "16315550002", "16315550003"
MONTH = 30 * 86_400

POLICIES = {
    "manual": Policy("default", "manual", per_seconds=MONTH),
    "at once": Policy("default", "auto", per_seconds=MONTH),
    "delayed": Policy("default", "auto", delay_seconds=60, per_seconds=MONTH),
}
NO_CLAIMS = st.none()
CLAIMS = st.sampled_from([None, True, False])
STATES = (None, *(state for state in State if state is not State.AWAITING_HASH))
CLOUD_STATES = (None, State.PENDING, State.SCHEDULED, State.HELD, State.ACKNOWLEDGED)
FIRST_USE = st.sampled_from([None, Policy("trust_first_use", "auto")])

Event = IdentitySeen | NumberChanged | SendBlocked | UserWrote | HashRefused
Users = dict[str, User]


@dataclass(frozen=True, repr=False)
class Story:
    """What happened, in the order of time, and how it was delivered."""

    before: Users
    happened: list[Event]
    delivered: list[Event]
    policies: Policies

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """Say it shortly: hypothesis prints it where an order matters that must not."""
        before = self.before[OLD]
        latest = before.identity.latest
        lines = [f"before: {before.identity.state} {before.hash} {latest and latest.seen}"]
        lines += [f"policies: {self.policies}"]
        lines += ["happened:", *(f"  {event}" for event in self.happened)]
        lines += ["delivered:", *(f"  {event}" for event in self.delivered)]
        printer.text("\n".join(lines))


def user(wa_id: str, number: int) -> User:
    return User(number, "main", wa_id, START)


def users_with(state: State | None, hash_: str, at: int) -> Users:
    """Return the users as they were before; the first has an identity in that state."""
    users = {wa_id: user(wa_id, n) for n, wa_id in enumerate((OLD, NEW, OTHER), 1)}
    if state is None:
        return users
    known = users[OLD]
    known.identity.latest = Change(hash_, Moment(at), at + 100, [Moment(at)])
    known.identity.state, known.identity.version = state, 1
    if state not in {State.PENDING, State.SCHEDULED}:
        known.identity.latest.decided_by, known.identity.latest.decided_at = by_key("crm"), at + 200
    if state in {State.SCHEDULED, State.ACKNOWLEDGING}:
        known.identity.work = Work(Kind.ACKNOWLEDGE, at + 60_000, hash_)
    if state is State.ACKNOWLEDGED:
        known.identity.latest.decided_by = dict(BY_CLIENT)
        known.identity.latest.acknowledged_at = known.identity.confirmed_at = at + 300
        known.owner_since = at
    return users


def apply(users: Users, events: Iterable[Event], policies: Policies) -> Users:
    """Let events arrive, as the ledger does."""
    context = Context(NOW, policies, NOW)
    for event in events:
        who = users[event.user or ""]
        match event:
            case HashRefused():
                record_refusal(who, event, context)
            case IdentitySeen():
                record_sighting(who, event, context)
            case UserWrote():
                record_user_message(who, event, context)
            case SendBlocked():
                record_send_block(who, event, context)
            case NumberChanged():
                link_users(who, users[event.new_user], event, context)
    return users


def shown(users: Users) -> dict[str, Any]:
    """Return what must not depend on the order; times of arrival and of decisions may."""
    return {wa_id: state_of(who) for wa_id, who in users.items()}


def state_of(who: User) -> dict[str, Any]:
    latest = who.identity.latest
    return {
        "hash": who.hash,
        "state": who.identity.state,
        "changed_at": latest and latest.changed,
        "decided_by": latest and latest.decided_by,
        "history": [(c.hash, c.changed, c.outcome) for c in who.history],
        "blocked": who.identity.blocked_since is not None,
        "moved_to": who.moved_to,
        "links": sorted(who.links, key=lambda x: (x.since.at, x.alias, x.relation)),
        "wrote_at": who.wrote_at,
        "work": None
        if who.identity.work is None
        else (who.identity.work.kind, who.identity.work.hash),
        "asks": who.identity.ask is not None,
        "after_hold": who.identity.after_hold,
    }


def everything(users: Users) -> dict[str, Any]:
    """Return all that is kept of the users, but for the marks of what is to be written."""
    return {
        wa_id: (
            state_of(who),
            who.identity.due_at,
            who.identity.version,
            who.identity.updated_at,
            who.blocked_ids,
            len(who.audit),
            [(c.changed, c.seen, c.claims) for c in (*who.history, who.identity.latest) if c],
        )
        for wa_id, who in users.items()
    }


def time_of(event: Event) -> int:
    at = event.changed if isinstance(event, IdentitySeen) else event.at
    assert at is not None
    return at.at


def exact(slot: int, offset: int) -> Moment:
    return Moment(START + slot * SLOT_MS + offset)


def second(slot: int) -> Moment:
    return Moment(START + slot * SLOT_MS, Precision.SECOND)


@st.composite
def sightings(
    draw: st.DrawFn, slot: int, wa_id: str, hashes: str, claims: st.SearchStrategy[Any]
) -> list[Event]:
    """Return one change as it is reported: by notification or message, exactly or to the second."""
    hash_ = draw(st.sampled_from(hashes))
    moment = exact(slot, draw(st.integers(0, 999)))
    said = Moment(second(slot).at + 1_000 * draw(st.integers(0, 3)), Precision.SECOND)
    exactly = IdentitySeen(wa_id, hash_, moment)
    to_the_second = IdentitySeen(wa_id, hash_, second(slot))
    stamped = IdentitySeen(wa_id, hash_, moment, said, draw(claims))
    unstamped = IdentitySeen(wa_id, hash_, second(slot), second(slot), draw(claims))
    told = st.lists(
        st.sampled_from([exactly, to_the_second, stamped, unstamped]), min_size=1, max_size=3
    )
    return list(draw(told))


@st.composite
def happenings(
    draw: st.DrawFn,
    slot: int,
    hashes: str,
    claims: st.SearchStrategy[Any],
    moves: tuple[tuple[str, str], ...],
) -> list[Event]:
    """Return what happened within one slot of time."""
    wa_id = draw(st.sampled_from([OLD, OLD, OLD, NEW]))
    kind = draw(st.sampled_from(["seen"] * 5 + ["blocked", "moved", "wrote"]))
    at = draw(st.sampled_from([exact(slot, 250), second(slot)]))
    match kind:
        case "blocked":
            message_id = draw(st.sampled_from([f"message-{slot}", None]))
            return [SendBlocked(wa_id, at, message_id)]
        case "moved" if moves:
            old, new = draw(st.sampled_from(moves))
            told = [NumberChanged(old, new, exact(slot, 250)), NumberChanged(old, new, at)]
            return told[: draw(st.integers(1, 2))]
        case "wrote":
            return [UserWrote(wa_id, at)]
    return draw(sightings(slot, wa_id, hashes, claims))


@st.composite
def stories(
    draw: st.DrawFn,
    *,
    states: tuple[State | None, ...] = STATES,
    hashes: str = "ABC",
    before_hash: str = "ABC",
    claims: st.SearchStrategy[Any] = NO_CLAIMS,
    moves: tuple[tuple[str, str], ...] = ((OLD, NEW), (OLD, OTHER)),
    policies: tuple[str, ...] = tuple(POLICIES),
    cloud: bool = False,
) -> Story:
    """Return a story whose events are far enough apart for hashes to come again."""
    slots = draw(st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=7, unique=True))
    first, *others = slots
    before = users_with(
        draw(st.sampled_from(states)), draw(st.sampled_from(before_hash)), exact(first, 500).at
    )
    happened: list[Event] = []
    for slot in sorted(others):
        told = draw(happenings(slot, hashes, claims, moves))
        happened += [event for event in told if not (cloud and isinstance(event, SendBlocked))]
    repeats = draw(st.lists(st.sampled_from(happened), max_size=4)) if happened else []
    delivered = draw(st.permutations(happened + repeats))
    policy = POLICIES[draw(st.sampled_from(policies))]
    of_account = Policies((), policy)
    if cloud:
        of_account = Policies((), policy, local=True, first_use=draw(FIRST_USE))
    return Story(before, sorted(happened, key=time_of), delivered, of_account)


def outcomes(story: Story) -> tuple[Users, Users]:
    in_order = apply(deepcopy(story.before), story.happened, story.policies)
    as_delivered = apply(deepcopy(story.before), story.delivered, story.policies)
    return in_order, as_delivered


@st.composite
def dense_stories(draw: st.DrawFn) -> Story:
    """Return a story of changes as close as a millisecond, each to a hash of its own."""
    offsets = draw(st.lists(st.integers(0, 40), min_size=1, max_size=8, unique=True))
    first, *others = offsets
    before = users_with(draw(st.sampled_from(STATES)), "before", START + first)
    happened = [IdentitySeen(OLD, f"hash-{at}", Moment(START + at)) for at in sorted(others)]
    repeats = draw(st.lists(st.sampled_from(happened), max_size=4)) if happened else []
    delivered = draw(st.permutations(happened + repeats))
    policy = POLICIES[draw(st.sampled_from(tuple(POLICIES)))]
    return Story(before, list(happened), delivered, Policies((), policy))


def asked_where_due(users: Users, delivered: Iterable[Event]) -> bool:
    """Return whether the client will be asked wherever a callback left a doubt."""
    for event in delivered:
        who = users[event.user or ""]
        if who.identity.blocked_since is not None and who.identity.ask is None:
            return False
        if not isinstance(event, IdentitySeen) or not event.acknowledged or not event.changed:
            continue
        latest = who.identity.latest
        assert latest is not None
        current = latest.hash == event.hash and latest.first.at <= event.changed.at
        if current and who.identity.state is not State.ACKNOWLEDGED and who.identity.ask is None:
            return False
    return True


def but_for_questions(states: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the client is asked: it decides nothing, and one too many does no harm."""
    return {wa_id: state | {"asks": None} for wa_id, state in states.items()}


@given(stories(before_hash="Z"))
def test_every_order_of_delivery_with_any_repeats_ends_in_the_same_state(story: Story) -> None:
    in_order, as_delivered = outcomes(story)
    assert shown(as_delivered) == shown(in_order)


@given(stories(before_hash="Z", states=CLOUD_STATES, policies=("manual", "delayed"), cloud=True))
def test_on_the_cloud_api_every_order_of_delivery_ends_in_the_same_state(story: Story) -> None:
    in_order, as_delivered = outcomes(story)
    assert shown(as_delivered) == shown(in_order)
    assert not any(who.identity.ask for who in as_delivered.values()), "there is no client to ask"


@st.composite
def refused_stories(draw: st.DrawFn) -> Story:
    """Return a story of a user whose hash was trusted, with messages refused with 137000."""
    story: Story = draw(
        stories(before_hash="Z", states=(State.ACKNOWLEDGED,), policies=("manual",), cloud=True)
    )
    slots = draw(st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=2, unique=True))
    refused = [HashRefused(OLD, exact(slot, 900), f"message-{slot}") for slot in slots]
    happened: list[Event] = [*story.happened, *refused]
    delivered = draw(st.permutations(happened))
    return replace(story, happened=sorted(happened, key=time_of), delivered=delivered)


@given(refused_stories())
def test_a_refused_message_may_come_in_any_order_too(story: Story) -> None:
    in_order, as_delivered = outcomes(story)
    assert shown(as_delivered) == shown(in_order)


@given(stories(hashes="AB", before_hash="AB", claims=CLAIMS))
def test_the_hash_known_before_may_come_again_in_any_order(story: Story) -> None:
    in_order, as_delivered = outcomes(story)
    assert but_for_questions(shown(as_delivered)) == but_for_questions(shown(in_order))
    assert asked_where_due(in_order, story.happened)
    assert asked_where_due(as_delivered, story.delivered)


@given(dense_stories())
def test_changes_a_millisecond_apart_may_come_in_any_order(story: Story) -> None:
    in_order, as_delivered = outcomes(story)
    assert shown(as_delivered) == shown(in_order)


@given(stories(before_hash="Z", moves=((OLD, NEW), (NEW, OLD), (OLD, OTHER))))
def test_a_user_may_go_to_another_number_and_come_back_in_any_order(story: Story) -> None:
    in_order, as_delivered = outcomes(story)
    assert shown(as_delivered) == shown(in_order)


@given(stories(before_hash="Z", moves=((OLD, NEW), (NEW, OLD)), policies=("delayed",)))
def test_what_is_scheduled_is_the_same_whenever_a_number_change_is_heard_of(story: Story) -> None:
    in_order, as_delivered = outcomes(story)
    assert shown(as_delivered) == shown(in_order)


@given(stories(claims=CLAIMS))
def test_what_was_delivered_changes_nothing_when_it_is_delivered_once_more(story: Story) -> None:
    once = apply(deepcopy(story.before), story.delivered, story.policies)
    known = deepcopy(everything(once))
    twice = apply(once, story.delivered, story.policies)
    assert everything(twice) == known


@pytest.mark.parametrize("policy", ["delayed", "at once"])
def test_no_policy_acknowledges_who_left_a_number_whenever_that_is_heard_of(policy: str) -> None:
    before = users_with(State.ACKNOWLEDGED, "Z", exact(0, 500).at)
    left, back = NumberChanged(OLD, NEW, exact(1, 0)), NumberChanged(NEW, OLD, exact(2, 0))
    changed = IdentitySeen(OLD, "A", exact(6, 0))
    for order in permutations([left, back, changed]):
        users = apply(deepcopy(before), order, Policies((), POLICIES[policy]))
        assert (users[OLD].identity.state, users[OLD].identity.work) == (State.PENDING, None)


@pytest.mark.parametrize(("policy", "state"), [("delayed", "scheduled"), ("manual", "pending")])
def test_a_move_from_before_what_the_client_acknowledged_is_over_whenever_it_is_heard_of(
    policy: str, state: str
) -> None:
    before = users_with(State.ACKNOWLEDGED, "Z", exact(4, 500).at)
    left, changed = NumberChanged(OLD, NEW, exact(1, 0)), IdentitySeen(OLD, "A", exact(6, 0))
    for order in permutations([left, changed]):
        users = apply(deepcopy(before), order, Policies((), POLICIES[policy]))
        assert (users[OLD].identity.state, users[OLD].moved_to) == (state, None)


def test_a_first_hash_between_two_moves_waits_for_a_person_whenever_they_are_heard_of() -> None:
    first, second_ = NumberChanged(OLD, NEW, exact(1, 0)), NumberChanged(OLD, NEW, exact(4, 0))
    seen = IdentitySeen(OLD, "A", exact(2, 0))
    trusting = Policies((), POLICIES["manual"], local=True, first_use=Policy("trust_first_use"))
    for order in permutations([first, second_, seen]):
        users = apply(users_with(None, "", 0), order, trusting)
        assert users[OLD].identity.state is State.PENDING


@pytest.mark.parametrize("precisely", [False, True])
def test_a_first_hash_seen_before_and_after_a_move_is_the_former_owners_in_every_order(
    *, precisely: bool
) -> None:
    before = IdentitySeen(OLD, "A", exact(1, 0) if precisely else second(1))
    told = [before, NumberChanged(OLD, NEW, exact(2, 0)), IdentitySeen(OLD, "A", exact(4, 0))]
    trusting = Policies((), POLICIES["manual"], local=True, first_use=Policy("trust_first_use"))
    for order in permutations(told):
        known = apply(users_with(None, "", 0), order, trusting)[OLD]
        assert known.identity.state is State.ACKNOWLEDGED
        assert known.moved_to is not None, "the gate stays closed"


@given(stories(before_hash="Z", policies=("at once", "delayed")))
def test_policy_never_acknowledges_for_who_left_the_number(story: Story) -> None:
    for users in outcomes(story):
        for who in users.values():
            decided_by = who.identity.latest and who.identity.latest.decided_by
            if who.moved_to is not None and decided_by is not None:
                assert decided_by["kind"] != "policy"
