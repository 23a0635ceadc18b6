"""What a person decides about an identity: every cell of the table of decisions."""

import pytest

from service.model.decisions import Decision, Result, Verb, decide
from service.model.policy import Policies, Policy
from service.model.timeline import Change, Moment
from service.model.users import Context, Identity, Kind, State, User, Work, by_key, by_policy

NOW = 1_600_000_000_000
CONTEXT = Context(NOW, Policies((), Policy("default")), NOW, request_id="request-1")
FIRST, CRM = by_key("first"), by_key("crm", "anna")


def user(state: State) -> User:
    latest = Change("A", Moment(NOW - 500), NOW - 400, [Moment(NOW - 500)])
    identity = Identity(latest, state, attempts=7, last_error="refused")
    if state in {State.ACKNOWLEDGING, State.ACKNOWLEDGED, State.HELD, State.FAILED}:
        latest.decided_by, latest.decided_at = FIRST, NOW - 300
    if state in {State.SCHEDULED, State.ACKNOWLEDGING}:
        identity.work = Work(Kind.ACKNOWLEDGE, NOW + 60_000, "A", request_id="request-0")
    if state is State.SCHEDULED:
        identity.due_at = NOW + 60_000
    return User(1, "main", "16315550001", NOW - 9_000, identity)


def acknowledge(known: User, hash_: str = "A") -> Result:
    return decide(known, Decision(Verb.ACKNOWLEDGE, hash_, CRM, note="called her"), CONTEXT)


def hold(known: User, hash_: str = "A") -> Result:
    return decide(known, Decision(Verb.HOLD, hash_, CRM, evidence={"method": "call"}), CONTEXT)


@pytest.mark.parametrize("state", [State.PENDING, State.SCHEDULED, State.HELD, State.FAILED])
def test_acknowledging_begins_at_once_with_attempts_from_zero(state: State) -> None:
    known = user(state)
    assert acknowledge(known) is Result.TAKEN
    assert known.identity.state is State.ACKNOWLEDGING
    assert (known.identity.attempts, known.identity.last_error, known.identity.due_at) == (
        0,
        None,
        None,
    )
    assert known.identity.latest is not None
    assert (known.identity.latest.decided_by, known.identity.latest.decided_at) == (CRM, NOW)
    assert known.identity.work is not None
    assert (known.identity.work.hash, known.identity.work.due_at, known.identity.work.attempts) == (
        "A",
        NOW,
        0,
    )
    (entry,) = known.audit
    assert (entry.event, entry.by, entry.note) == ("decided", CRM, "called her")


def test_acknowledging_what_is_being_acknowledged_keeps_the_first_decider() -> None:
    known = user(State.ACKNOWLEDGING)
    before = known.identity.work
    assert acknowledge(known) is Result.TAKEN
    assert known.identity.state is State.ACKNOWLEDGING
    assert known.identity.latest is not None
    assert known.identity.latest.decided_by == FIRST
    assert known.identity.work is before
    assert known.audit == []


def test_acknowledging_what_is_acknowledged_changes_nothing() -> None:
    known = user(State.ACKNOWLEDGED)
    assert acknowledge(known) is Result.TAKEN
    assert known.identity.state is State.ACKNOWLEDGED
    assert known.identity.work is None
    assert known.audit == []


@pytest.mark.parametrize("state", [State.PENDING, State.SCHEDULED, State.FAILED])
def test_holding_keeps_the_block_and_ends_the_work(state: State) -> None:
    known = user(state)
    assert hold(known) is Result.TAKEN
    assert known.identity.state is State.HELD
    assert known.identity.work is None
    assert known.identity.due_at is None
    assert known.identity.latest is not None
    assert (known.identity.latest.decided_by, known.identity.latest.decided_at) == (CRM, NOW)
    (entry,) = known.audit
    assert (entry.event, entry.evidence) == ("held", {"method": "call"})


def test_holding_what_is_held_keeps_the_first_decider_and_is_on_record() -> None:
    known = user(State.HELD)
    assert hold(known) is Result.TAKEN
    assert known.identity.state is State.HELD
    assert known.identity.latest is not None
    assert known.identity.latest.decided_by == FIRST
    assert [entry.event for entry in known.audit] == ["held"]


def test_holding_between_two_tries_is_possible_and_the_client_is_asked() -> None:
    known = user(State.ACKNOWLEDGING)
    assert known.identity.work is not None
    known.identity.work.begun = True
    assert hold(known) is Result.TAKEN
    assert known.identity.state is State.HELD
    assert known.identity.work is None
    assert known.identity.ask is not None


def test_holding_before_the_first_try_asks_nobody() -> None:
    known = user(State.ACKNOWLEDGING)
    assert hold(known) is Result.TAKEN
    assert known.identity.ask is None


def leased(*, begun: bool, until: int = NOW + 1) -> User:
    known = user(State.ACKNOWLEDGING)
    work = known.identity.work
    assert work is not None
    work.holder, work.lease_until, work.begun = "worker", until, begun
    return known


def test_holding_what_is_leased_is_possible_until_its_put_begins_and_asks_nobody() -> None:
    known = leased(begun=False)
    assert hold(known) is Result.TAKEN
    assert (known.identity.state, known.identity.work) == (State.HELD, None)
    assert known.identity.ask is None


def test_holding_while_a_put_is_under_way_comes_too_late() -> None:
    known = leased(begun=True)
    assert hold(known) is Result.TOO_LATE
    assert known.identity.state is State.ACKNOWLEDGING
    assert known.identity.work is not None


def test_holding_is_possible_again_once_the_lease_has_ended_and_the_client_is_asked() -> None:
    known = leased(begun=True, until=NOW)
    assert hold(known) is Result.TAKEN
    assert known.identity.ask is not None


def test_holding_what_is_acknowledged_comes_too_late() -> None:
    known = user(State.ACKNOWLEDGED)
    assert hold(known) is Result.TOO_LATE
    assert known.identity.state is State.ACKNOWLEDGED


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("verb", list(Verb))
def test_a_decision_about_another_hash_than_the_latest_is_refused(state: State, verb: Verb) -> None:
    known = user(state)
    assert decide(known, Decision(verb, "B", CRM), CONTEXT) is Result.ANOTHER_HASH
    assert known.identity.state is state
    assert known.audit == []


@pytest.mark.parametrize("verb", list(Verb))
def test_where_there_is_no_identity_there_is_nothing_to_decide(verb: Verb) -> None:
    known = User(1, "main", "16315550001", NOW)
    assert decide(known, Decision(verb, "A", CRM), CONTEXT) is Result.NO_IDENTITY


def test_a_persons_decision_takes_the_place_of_the_policys() -> None:
    known = user(State.SCHEDULED)
    assert known.identity.latest is not None
    known.identity.latest.decided_by = by_policy("default")
    acknowledge(known)
    assert known.identity.latest.decided_by == CRM


def test_acknowledging_after_a_hold_ends_its_warning() -> None:
    known = user(State.PENDING)
    known.identity.after_hold = True
    acknowledge(known)
    assert not known.identity.after_hold
