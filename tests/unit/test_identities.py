"""What arrives, and what becomes of it: every row of that table has a test here."""

import sys
from collections.abc import Sequence

import pytest

from service.model.contacts import record_user_message
from service.model.decisions import Decision, Verb, decide
from service.model.events import IdentitySeen, NumberChanged, SendBlocked, UserWrote
from service.model.identity import ask_client, come_due, mark_acknowledged, start_acknowledging
from service.model.merges import MAX_LINKS, add_link, link_users
from service.model.outcomes import Answer, apply_client_answer, apply_not_found, begin_put
from service.model.policy import Policies, Policy
from service.model.send_blocks import MAX_BLOCKED_IDS, record_send_block
from service.model.sightings import record_sighting
from service.model.timeline import Moment, Precision
from service.model.users import BY_CLIENT, Context, Kind, Link, State, User, by_key, by_policy

T = 1_600_000_000_000
NOW = T + 1_000_000
WA_ID, NEW = "16315550001", "16315550002"
MANUAL = Policy("default")
AUTO = Policy("default", "auto")
DELAYED = Policy("default", "auto", delay_seconds=60)


def context(policy: Policy = MANUAL, now: int = NOW, arrived: int | None = None) -> Context:
    return Context(now, Policies((), policy), now if arrived is None else arrived)


def user(wa_id: str = WA_ID) -> User:
    return User(1, "main", wa_id, NOW)


def exact(second: float) -> Moment:
    return Moment(T + round(second * 1000))


def second(at: int) -> Moment:
    return Moment(T + at * 1000, Precision.SECOND)


def sight(known: User, hash_: str, at: Moment | None, policy: Policy = MANUAL) -> None:
    record_sighting(known, IdentitySeen(WA_ID, hash_, at), context(policy))


def claim(
    known: User, hash_: str, acknowledged: bool, at: float = 10, said: Moment | None = None
) -> None:
    message = IdentitySeen(WA_ID, hash_, exact(at), said or exact(at), acknowledged)
    record_sighting(known, message, context())


def acknowledged(hash_: str = "A", at: float = 10) -> User:
    """Return a user whose identity the client said is acknowledged, five seconds after."""
    known, then = user(), T + round(at * 1000)
    record_sighting(known, IdentitySeen(WA_ID, hash_, exact(at)), context(now=then + 100))
    apply_client_answer(known, Answer(hash_, None, acknowledged=True), context(now=then + 5_000))
    known.audit.clear()
    return known


def in_state(state: State) -> User:
    known = acknowledged() if state is State.ACKNOWLEDGED else user()
    if known.identity.latest is None:
        sight(known, "A", exact(10))
    known.identity.state = state
    known.audit.clear()
    return known


def events(known: User) -> list[str]:
    return [entry.event for entry in known.audit]


def history(known: User) -> list[tuple[str, str | None]]:
    return [(c.hash, c.outcome) for c in known.history]


def asks(known: User) -> str | None:
    return known.identity.ask and known.identity.ask.reason


UNSETTLED = [s for s in State if s is not State.ACKNOWLEDGED]


class TestTheFirstHash:
    def test_a_manual_policy_leaves_it_to_a_person(self) -> None:
        known = user()
        sight(known, "A", exact(10))
        assert (known.hash, known.identity.state, known.identity.work) == ("A", State.PENDING, None)
        assert known.identity.latest is not None
        assert known.identity.latest.decided_by is None
        assert events(known) == ["changed"]

    def test_an_automatic_policy_acknowledges_it_at_once(self) -> None:
        known = user()
        sight(known, "A", exact(10), AUTO)
        assert known.identity.state is State.ACKNOWLEDGING
        assert known.identity.latest is not None
        assert known.identity.latest.decided_by == by_policy("default")
        assert known.identity.work is not None
        assert (known.identity.work.kind, known.identity.work.hash, known.identity.work.due_at) == (
            Kind.ACKNOWLEDGE,
            "A",
            NOW,
        )
        assert events(known) == ["changed", "decided"]

    def test_a_delay_schedules_it_and_nobody_has_decided_yet(self) -> None:
        known = user()
        sight(known, "A", exact(10), DELAYED)
        assert (known.identity.state, known.identity.due_at) == (State.SCHEDULED, NOW + 60_000)
        assert known.identity.latest is not None
        assert known.identity.latest.decided_by is None
        assert known.identity.work is not None
        assert known.identity.work.due_at == NOW + 60_000


class TestTheLatestHashAgain:
    @pytest.mark.parametrize("state", list(State))
    def test_it_is_the_same_change_in_every_state(self, state: State) -> None:
        known = in_state(state)
        sight(known, "A", exact(500), AUTO)
        assert (known.identity.state, history(known), events(known)) == (state, [], [])
        assert known.identity.latest is not None
        assert known.identity.latest.last == exact(500)

    def test_its_time_is_kept_as_precisely_as_it_was_ever_told(self) -> None:
        known = user()
        sight(known, "A", None)
        sight(known, "A", second(10))
        sight(known, "A", exact(10.5))
        assert known.identity.latest is not None
        assert known.identity.latest.changed == exact(10.5)


def test_a_hash_within_its_own_span_in_the_history_is_a_repeat() -> None:
    known = acknowledged("A", 10)
    sight(known, "B", exact(30))
    known.audit.clear()
    for at in (9.5, 10, 10.9):
        sight(known, "A", exact(at))
    assert (known.hash, history(known), events(known)) == ("B", [("A", "superseded")], [])


class TestALaterChange:
    @pytest.mark.parametrize("state", [s for s in State if s is not State.HELD])
    def test_it_is_the_new_latest_and_the_policy_is_asked_afresh(self, state: State) -> None:
        known = in_state(state)
        sight(known, "B", exact(30), AUTO)
        assert (known.hash, known.identity.state) == ("B", State.ACKNOWLEDGING)
        assert history(known) == [("A", "superseded")]
        assert events(known) == ["superseded", "changed", "decided"]

    def test_a_decision_about_the_old_one_does_not_carry_over(self) -> None:
        known = user()
        sight(known, "A", exact(10))
        assert known.identity.latest is not None
        start_acknowledging(known, known.identity.latest, by_key("crm"), context())
        sight(known, "B", exact(30))
        assert (known.identity.state, known.identity.work, known.identity.attempts) == (
            State.PENDING,
            None,
            0,
        )
        assert known.identity.latest.decided_by is None
        assert known.history[0].decided_by == by_key("crm")

    def test_the_questions_about_the_old_one_are_cancelled(self) -> None:
        known = acknowledged()
        record_send_block(known, SendBlocked(WA_ID, exact(20), "m1"), context())
        sight(known, "B", exact(30))
        assert (known.identity.ask, known.identity.blocked_since) == (None, None)

    def test_after_a_hold_it_waits_for_a_person_whatever_the_policy(self) -> None:
        known = in_state(State.HELD)
        sight(known, "B", exact(30), AUTO)
        assert (known.hash, known.identity.state, known.identity.work) == ("B", State.PENDING, None)
        sight(known, "C", exact(50), AUTO)
        assert (known.hash, known.identity.state) == ("C", State.PENDING)

    def test_the_hash_from_before_the_latest_comes_again_as_a_new_change(self) -> None:
        known = acknowledged("A", 10)
        sight(known, "B", exact(30))
        sight(known, "A", exact(50))
        assert (known.hash, known.identity.state) == ("A", State.PENDING)
        assert history(known) == [("A", "superseded"), ("B", "superseded")]


class TestAnEarlierChange:
    @pytest.mark.parametrize("state", list(State))
    def test_it_is_one_entry_in_the_history_and_has_no_other_effect(self, state: State) -> None:
        known = in_state(state)
        sight(known, "B", exact(5), AUTO)
        assert (known.hash, known.identity.state) == ("A", state)
        assert history(known) == [("B", "superseded")]
        assert events(known) == ["changed"]

    def test_the_guard_counts_it_while_nothing_has_been_done_yet(self) -> None:
        known = user()
        sight(known, "D", exact(40), AUTO)
        for hash_, at in (("A", 10), ("B", 20)):
            sight(known, hash_, exact(at), AUTO)
        assert known.identity.state is State.ACKNOWLEDGING
        sight(known, "C", exact(30), AUTO)
        assert (known.identity.state, known.identity.work) == (State.PENDING, None)
        assert known.identity.latest is not None
        assert known.identity.latest.decided_by is None
        assert "guard, more than 3 changes" in (known.audit[-1].reason or "")

    def test_the_guard_stops_what_is_leased_but_has_not_begun(self) -> None:
        known = user()
        sight(known, "Z", exact(90), AUTO)
        assert known.identity.work is not None
        known.identity.work.holder, known.identity.work.lease_until = "worker", NOW + 10_000
        for n, hash_ in enumerate("ABCD"):
            sight(known, hash_, exact(n * 10), AUTO)
        assert (known.identity.state, known.identity.work) == (State.PENDING, None)
        assert not begin_put(known, "worker", "Z", NOW)

    @pytest.mark.parametrize("done", ["begun", "attempts"])
    def test_the_guard_stops_nothing_that_has_begun(self, done: str) -> None:
        known = user()
        sight(known, "Z", exact(90), AUTO)
        assert known.identity.work is not None
        setattr(known.identity.work, done, 1)
        for n, hash_ in enumerate("ABCD"):
            sight(known, hash_, exact(n * 10), AUTO)
        assert known.identity.state is State.ACKNOWLEDGING

    def test_the_guard_stops_nothing_that_a_person_decided(self) -> None:
        known = user()
        sight(known, "Z", exact(90), AUTO)
        assert known.identity.latest is not None
        start_acknowledging(known, known.identity.latest, by_key("crm"), context())
        for n, hash_ in enumerate("ABCD"):
            sight(known, hash_, exact(n * 10), AUTO)
        assert known.identity.state is State.ACKNOWLEDGING

    def test_a_change_between_two_sightings_of_the_latest_makes_the_last_one_new(self) -> None:
        """It was acknowledged before it went and came again: that no longer counts."""
        known = acknowledged("A", 10)
        sight(known, "A", exact(50))
        sight(known, "B", exact(30))
        assert (known.hash, known.identity.state) == ("A", State.PENDING)
        assert history(known) == [("A", "superseded"), ("B", "superseded")]
        assert [c.acknowledged_at is not None for c in known.history] == [True, False]
        assert known.identity.latest is not None
        assert (known.identity.latest.decided_by, known.identity.latest.acknowledged_at) == (
            None,
            None,
        )
        assert asks(known) == "came again"

    def test_what_was_decided_after_the_latest_came_again_still_counts(self) -> None:
        known = user()
        sight(known, "A", exact(10))
        sight(known, "A", exact(50))
        apply_client_answer(known, Answer("A", None, acknowledged=True), context())
        sight(known, "B", exact(30))
        assert (known.hash, known.identity.state) == ("A", State.ACKNOWLEDGED)

    def test_what_came_again_after_a_hold_waits_for_a_person(self) -> None:
        known = user()
        record_sighting(known, IdentitySeen(WA_ID, "A", exact(10)), context(now=T + 11_000))
        known.identity.state = State.HELD
        sight(known, "A", exact(50), AUTO)
        sight(known, "B", exact(30), AUTO)
        assert (known.hash, known.identity.state) == ("A", State.PENDING)


class TestADispute:
    def dispute(self, state: State = State.PENDING) -> User:
        known = in_state(state)
        known.identity.latest = None
        known.identity.state = None
        sight(known, "A", second(10))
        known.identity.state = state
        known.audit.clear()
        sight(known, "B", second(10), AUTO)
        return known

    def test_the_later_arrival_is_shown_pending_and_the_client_is_asked(self) -> None:
        known = self.dispute()
        assert (known.hash, known.identity.state, known.identity.work) == ("B", State.PENDING, None)
        assert history(known) == [("A", "disputed")]
        assert asks(known) == "disputed"

    def test_a_get_that_names_the_one_shown_leaves_it_pending(self) -> None:
        known = self.dispute()
        apply_client_answer(known, Answer("B", None, acknowledged=False), context(AUTO))
        assert (known.hash, known.identity.state, known.identity.ask) == ("B", State.PENDING, None)
        assert history(known) == [("A", "disputed")]

    def test_a_get_that_names_the_other_brings_that_back_pending(self) -> None:
        known = self.dispute()
        apply_client_answer(known, Answer("A", None, acknowledged=False), context(AUTO))
        assert (known.hash, known.identity.state) == ("A", State.PENDING)
        assert history(known) == [("B", "disputed")]
        assert known.identity.latest is not None
        assert known.identity.latest.changed == second(10)

    @pytest.mark.parametrize("hash_", ["A", "B"])
    def test_a_get_that_says_acknowledged_settles_it(self, hash_: str) -> None:
        known = self.dispute()
        apply_client_answer(known, Answer(hash_, None, acknowledged=True), context())
        assert (known.hash, known.identity.state) == (hash_, State.ACKNOWLEDGED)
        assert not known.identity.disputed

    def test_a_get_that_names_a_third_leaves_that_to_a_person(self) -> None:
        known = self.dispute()
        apply_client_answer(known, Answer("C", None, acknowledged=False), context(AUTO))
        assert (known.hash, known.identity.state) == ("C", State.PENDING)

    def test_a_dispute_after_a_hold_still_warns(self) -> None:
        known = self.dispute(State.HELD)
        sight(known, "C", exact(30), AUTO)
        assert (known.hash, known.identity.state) == ("C", State.PENDING)


class TestABlockedSend:
    @pytest.mark.parametrize("state", UNSETTLED)
    def test_it_is_nothing_while_the_identity_is_not_acknowledged(self, state: State) -> None:
        known = in_state(state)
        record_send_block(known, SendBlocked(WA_ID, exact(20), "m1"), context())
        assert (known.identity.state, known.identity.blocked_since, known.identity.ask) == (
            state,
            None,
            None,
        )
        assert events(known) == []

    @pytest.mark.parametrize("known", [user(), acknowledged()], ids=["none", "acknowledged"])
    def test_else_it_closes_the_gate_and_asks_the_client(self, known: User) -> None:
        record_send_block(known, SendBlocked(WA_ID, exact(20), "m1"), context())
        assert known.identity.blocked_since == NOW
        assert known.identity.ask is not None
        assert (known.identity.ask.kind, known.identity.ask.reason, known.identity.ask.due_at) == (
            Kind.ASK,
            "send_blocked",
            NOW,
        )

    def test_one_question_at_a_time_is_asked(self) -> None:
        known = acknowledged()
        for n in range(5):
            record_send_block(known, SendBlocked(WA_ID, exact(20), f"m{n}"), context(now=NOW + n))
        assert known.identity.blocked_since == NOW
        assert known.identity.ask is not None
        assert known.identity.ask.due_at == NOW
        assert events(known) == ["send_blocked"]

    def test_the_same_message_does_not_ask_again_once_answered(self) -> None:
        known = acknowledged()
        record_send_block(known, SendBlocked(WA_ID, exact(20), "m1"), context())
        apply_client_answer(known, Answer("A", None, acknowledged=True), context())
        assert (known.identity.state, known.identity.blocked_since) == (State.ACKNOWLEDGED, None)
        record_send_block(known, SendBlocked(WA_ID, exact(20), "m1"), context())
        assert (known.identity.blocked_since, known.identity.ask) == (None, None)
        record_send_block(known, SendBlocked(WA_ID, exact(21), "m2"), context())
        assert known.identity.blocked_since is not None

    def test_a_message_without_an_id_asks_too(self) -> None:
        known = acknowledged()
        record_send_block(known, SendBlocked(WA_ID, exact(20), None), context())
        assert known.identity.ask is not None

    def test_only_so_many_messages_are_remembered(self) -> None:
        known = acknowledged()
        for n in range(100):
            record_send_block(known, SendBlocked(WA_ID, None, f"m{n}"), context())
        assert known.blocked_ids == [f"m{n}" for n in range(100 - MAX_BLOCKED_IDS, 100)]

    def test_acknowledged_there_clears_it(self) -> None:
        known = acknowledged()
        record_send_block(known, SendBlocked(WA_ID, exact(20), "m1"), context())
        apply_client_answer(known, Answer("A", None, acknowledged=True), context())
        assert (known.identity.state, known.identity.blocked_since, known.identity.ask) == (
            State.ACKNOWLEDGED,
            None,
            None,
        )

    def test_another_hash_there_is_a_change(self) -> None:
        known = acknowledged()
        record_send_block(known, SendBlocked(WA_ID, exact(20), "m1"), context())
        apply_client_answer(known, Answer("B", exact(15), acknowledged=False), context(AUTO))
        assert (known.hash, known.identity.state) == ("B", State.ACKNOWLEDGING)
        assert history(known) == [("A", "superseded")]

    def test_the_first_hash_there_is_a_change(self) -> None:
        known = user()
        record_send_block(known, SendBlocked(WA_ID, exact(20), "m1"), context())
        apply_client_answer(known, Answer("A", exact(15), acknowledged=False), context(AUTO))
        assert (known.hash, known.identity.state, known.identity.blocked_since) == (
            "A",
            State.ACKNOWLEDGING,
            None,
        )

    def test_the_acknowledged_hash_now_unacknowledged_waits_for_a_person(self) -> None:
        known = acknowledged()
        record_send_block(known, SendBlocked(WA_ID, exact(20), "m1"), context())
        apply_client_answer(known, Answer("A", None, acknowledged=False), context(AUTO))
        assert (known.identity.state, known.identity.work, known.identity.blocked_since) == (
            State.PENDING,
            None,
            None,
        )
        assert known.identity.latest is not None
        assert (known.identity.latest.decided_by, known.identity.latest.acknowledged_at) == (
            None,
            None,
        )
        assert events(known)[-1] == "pending"

    def test_an_identity_unknown_there_clears_it(self) -> None:
        known = user()
        record_send_block(known, SendBlocked(WA_ID, exact(20), "m1"), context())
        apply_not_found(known, context())
        assert (known.identity.state, known.identity.blocked_since, known.identity.ask) == (
            None,
            None,
            None,
        )


class TestAClaim:
    @pytest.mark.parametrize("state", UNSETTLED)
    def test_a_claimed_acknowledgement_of_the_latest_is_asked_about(self, state: State) -> None:
        known = in_state(state)
        claim(known, "A", acknowledged=True)
        assert (known.identity.state, asks(known)) == (state, "claimed")

    def test_a_callback_never_opens_the_gate(self) -> None:
        known = user()
        claim(known, "A", acknowledged=True)
        assert known.identity.state is State.PENDING

    def test_a_claim_about_what_is_acknowledged_says_nothing_new(self) -> None:
        known = acknowledged()
        claim(known, "A", acknowledged=True)
        assert known.identity.ask is None

    def test_a_claim_about_another_hash_than_the_latest_is_nothing(self) -> None:
        known = in_state(State.PENDING)
        sight(known, "B", exact(30))
        claim(known, "A", acknowledged=True)
        assert known.identity.ask is None

    def test_a_claim_from_before_the_hash_went_and_came_again_is_nothing(self) -> None:
        known = in_state(State.PENDING)
        sight(known, "B", exact(30))
        sight(known, "A", exact(50))
        claim(known, "A", acknowledged=True, at=10)
        assert known.identity.ask is None

    def test_a_message_newer_than_the_acknowledgement_that_denies_it_closes_the_gate(self) -> None:
        known = acknowledged()
        claim(known, "A", acknowledged=False, said=exact(16))
        assert known.identity.state is State.ACKNOWLEDGED
        assert known.identity.blocked_since == NOW
        assert asks(known) == "send_blocked"

    def test_an_older_message_that_denies_it_is_nothing(self) -> None:
        known = acknowledged()
        claim(known, "A", acknowledged=False, said=exact(14))
        assert (known.identity.blocked_since, known.identity.ask) == (None, None)

    @pytest.mark.parametrize("state", UNSETTLED)
    def test_a_message_that_denies_what_is_not_acknowledged_is_nothing(self, state: State) -> None:
        known = in_state(state)
        claim(known, "A", acknowledged=False)
        assert (known.identity.state, known.identity.ask, known.identity.blocked_since) == (
            state,
            None,
            None,
        )

    def test_a_message_that_claims_nothing_asks_nothing(self) -> None:
        known = acknowledged()
        record_sighting(known, IdentitySeen(WA_ID, "A", exact(10), exact(60), None), context())
        assert known.identity.ask is None


class TestANumberChange:
    def moved(self, known: User, other: User | None = None, at: Moment | None = None) -> User:
        new = other or user(NEW)
        change = NumberChanged(known.wa_id, new.wa_id, at or exact(30))
        link_users(known, new, change, context(DELAYED))
        return new

    def test_old_and_new_are_linked_and_each_stays_itself(self) -> None:
        known = acknowledged()
        new = self.moved(known)
        assert known.links == [Link(NEW, "successor", exact(30))]
        assert new.links == [Link(WA_ID, "predecessor", exact(30))]
        assert known.moved_to == known.links[0]
        assert new.moved_to is None
        assert events(known) == events(new) == ["number_changed"]

    def test_the_new_one_inherits_nothing(self) -> None:
        new = self.moved(acknowledged())
        assert (new.hash, new.identity.state, new.identity.work) == (None, None, None)

    def test_what_is_scheduled_waits_for_a_person_then(self) -> None:
        known = user()
        sight(known, "A", exact(10), DELAYED)
        self.moved(known)
        assert (known.identity.state, known.identity.work, known.identity.due_at) == (
            State.PENDING,
            None,
            None,
        )

    @pytest.mark.parametrize("state", [s for s in State if s is not State.SCHEDULED])
    def test_every_other_state_stays(self, state: State) -> None:
        known = in_state(state)
        self.moved(known)
        assert known.identity.state is state

    def test_a_change_is_not_scheduled_for_a_number_that_was_left(self) -> None:
        known = user()
        self.moved(known)
        sight(known, "A", exact(50), DELAYED)
        assert (known.identity.state, known.identity.work) == (State.PENDING, None)

    def test_told_twice_it_is_one_change_told_as_precisely_as_ever(self) -> None:
        known = acknowledged()
        new = self.moved(known, at=second(30))
        self.moved(known, new, exact(30.5))
        self.moved(known, new, second(30))
        link_users(known, new, NumberChanged(WA_ID, NEW, None), context())
        assert known.links == [Link(NEW, "successor", exact(30.5))]
        assert new.links == [Link(WA_ID, "predecessor", exact(30.5))]
        assert events(new) == ["number_changed"]

    def test_who_comes_back_is_believed_only_when_the_client_acknowledges_a_later_identity(
        self,
    ) -> None:
        known = acknowledged()
        new = self.moved(known)
        link_users(new, known, NumberChanged(NEW, WA_ID, exact(90)), context())
        assert new.moved_to == Link(WA_ID, "successor", exact(90))
        assert known.moved_to == Link(NEW, "successor", exact(30))
        apply_client_answer(known, Answer("A", None, acknowledged=True), context())
        assert known.moved_to is not None, "that identity is from before the move"
        apply_client_answer(known, Answer("B", exact(95), acknowledged=True), context())
        assert known.moved_to is None

    def test_no_callback_about_a_move_ends_another(self) -> None:
        known = user()
        sight(known, "A", exact(50), AUTO)
        apply_client_answer(known, Answer("A", None, acknowledged=True), context())
        self.moved(known, at=exact(60))
        link_users(user("third"), known, NumberChanged("third", WA_ID, exact(70)), context())
        assert known.moved_to == Link(NEW, "successor", exact(60))

    def decided(self, known: User, verb: Verb = Verb.ACKNOWLEDGE) -> None:
        decide(known, Decision(verb, known.hash, by_key("crm")), context())

    def test_what_policy_is_about_to_acknowledge_at_once_waits_for_a_person_too(self) -> None:
        known = user()
        sight(known, "A", exact(10), AUTO)
        assert known.identity.state is State.ACKNOWLEDGING
        self.moved(known)
        assert (known.identity.state, known.identity.work) == (State.PENDING, None)

    def test_what_a_person_decided_or_may_have_reached_the_client_goes_on(self) -> None:
        for begun in (False, True):
            known = user()
            sight(known, "A", exact(10), AUTO if begun else MANUAL)
            if not begun:
                self.decided(known)
            assert known.identity.work is not None
            known.identity.work.begun = begun
            self.moved(known)
            assert known.identity.state is State.ACKNOWLEDGING

    def test_it_stands_until_a_person_acknowledges_who_came_after_it(self) -> None:
        known = acknowledged()
        self.moved(known)
        sight(known, "B", exact(50), AUTO)
        assert (known.identity.state, known.moved_to is None) == (State.PENDING, False)
        self.decided(known)
        assert known.moved_to is not None, "the client has not accepted it"
        assert known.identity.latest is not None
        mark_acknowledged(known, known.identity.latest, context())
        assert (known.moved_to, known.owner_since) == (None, exact(50).at)

    def test_it_stands_for_who_came_after_it_and_was_held(self) -> None:
        known = acknowledged()
        self.moved(known)
        sight(known, "B", exact(50), AUTO)
        self.decided(known, Verb.HOLD)
        assert known.moved_to is not None

    def test_it_stands_where_policy_acknowledged_before_it_was_heard_of(self) -> None:
        known = user()
        sight(known, "A", exact(50), AUTO)
        assert known.identity.latest is not None
        mark_acknowledged(known, known.identity.latest, context())
        self.moved(known)
        apply_client_answer(known, Answer("A", None, acknowledged=True), context())
        assert (known.identity.state, known.moved_to is None) == (State.ACKNOWLEDGED, False)
        self.decided(known)
        assert (known.identity.state, known.moved_to) == (State.ACKNOWLEDGED, None)
        assert known.identity.latest.decided_by == by_key("crm")

    def test_the_clients_own_answer_ends_it_for_who_came_after_it(self) -> None:
        known = acknowledged()
        self.moved(known)
        sight(known, "B", exact(50), AUTO)
        apply_client_answer(known, Answer("B", None, acknowledged=True), context())
        assert known.moved_to is None

    def test_an_identity_of_the_same_second_is_not_surely_after_it(self) -> None:
        known = user()
        self.moved(known, at=second(30))
        sight(known, "A", exact(30.5), MANUAL)
        apply_client_answer(known, Answer("A", None, acknowledged=True), context())
        assert known.moved_to is not None

    def test_links_of_another_kind_do_not_push_it_out(self) -> None:
        known = user()
        self.moved(known)
        for n in range(100):
            add_link(known, Link(f"US.{n}", "next_owner", exact(50 + n)), context())
        assert known.moved_to is not None

    def test_only_so_many_number_changes_are_kept_the_newest(self) -> None:
        known = user()
        for n in range(100):
            link_users(known, user(f"new{n}"), NumberChanged(WA_ID, f"new{n}", exact(n)), context())
        assert [x.alias for x in known.links] == [f"new{n}" for n in range(100 - MAX_LINKS, 100)]


class TestAnAnswer:
    def test_it_outranks_every_timestamp(self) -> None:
        known = in_state(State.PENDING)
        apply_client_answer(known, Answer("B", exact(1), acknowledged=False), context())
        assert known.hash == "B"
        assert known.identity.latest is not None
        assert known.identity.latest.changed == exact(1)
        assert history(known) == [("A", "superseded")]

    def test_a_callback_from_before_it_can_not_undo_it(self) -> None:
        known = in_state(State.PENDING)
        apply_client_answer(known, Answer("B", exact(1), acknowledged=True), context())
        sight(known, "A", exact(10))
        sight(known, "B", exact(1))
        assert (known.hash, known.identity.state) == ("B", State.ACKNOWLEDGED)
        sight(known, "C", exact(30))
        assert (known.hash, known.identity.state) == ("C", State.PENDING)

    @pytest.mark.parametrize("state", [State.PENDING, State.SCHEDULED, State.HELD, State.FAILED])
    def test_acknowledged_there_is_acknowledged_here_by_the_client(self, state: State) -> None:
        known = in_state(state)
        apply_client_answer(known, Answer("A", None, acknowledged=True), context())
        assert known.identity.state is State.ACKNOWLEDGED
        assert known.identity.latest is not None
        assert known.identity.latest.decided_by == BY_CLIENT
        assert known.identity.latest.acknowledged_at == NOW
        assert events(known) == ["acknowledged"]

    def test_the_decider_stays_where_the_acknowledgement_was_under_way(self) -> None:
        known = user()
        sight(known, "A", exact(10), AUTO)
        apply_client_answer(known, Answer("A", None, acknowledged=True), context())
        assert known.identity.state is State.ACKNOWLEDGED
        assert known.identity.latest is not None
        assert known.identity.latest.decided_by == by_policy("default")
        assert known.identity.work is None

    @pytest.mark.parametrize("state", UNSETTLED)
    def test_unacknowledged_there_leaves_what_is_not_acknowledged_here(self, state: State) -> None:
        known = in_state(state)
        apply_client_answer(known, Answer("A", None, acknowledged=False), context(AUTO))
        assert known.identity.state is state

    def test_the_time_of_the_identity_there_is_a_sighting(self) -> None:
        known = user()
        sight(known, "A", second(10))
        apply_client_answer(known, Answer("A", exact(10.5), acknowledged=False), context())
        assert known.identity.latest is not None
        assert known.identity.latest.changed == exact(10.5)

    def test_another_hash_after_a_hold_waits_for_a_person(self) -> None:
        known = in_state(State.HELD)
        apply_client_answer(known, Answer("B", exact(30), acknowledged=False), context(AUTO))
        assert (known.hash, known.identity.state) == ("B", State.PENDING)


class TestComingDue:
    def scheduled(self) -> User:
        known = user()
        sight(known, "A", exact(10), DELAYED)
        known.audit.clear()
        return known

    def test_the_policy_is_asked_once_more_and_goes_ahead(self) -> None:
        known = self.scheduled()
        assert come_due(known, context(DELAYED))
        assert (known.identity.state, known.identity.due_at) == (State.ACKNOWLEDGING, None)
        assert known.identity.latest is not None
        assert known.identity.latest.decided_by == by_policy("default")

    def test_manual_by_then_it_waits_for_a_person(self) -> None:
        known = self.scheduled()
        assert not come_due(known, context(MANUAL))
        assert (known.identity.state, known.identity.work) == (State.PENDING, None)
        assert known.audit[-1].reason == "policy default: manual"

    def test_the_guard_is_asked_once_more_too(self) -> None:
        known = self.scheduled()
        strict = Policy("default", "auto", delay_seconds=60, max_changes=0)
        assert not come_due(known, context(strict))
        assert known.identity.state is State.PENDING

    @pytest.mark.parametrize("state", list(State))
    def test_else_only_what_is_being_acknowledged_goes_on(self, state: State) -> None:
        if state is not State.SCHEDULED:
            assert come_due(in_state(state), context()) is (state is State.ACKNOWLEDGING)


class TestSkew:
    AHEAD = Moment(NOW + 300_001)

    def test_more_than_five_minutes_ahead_counts_as_of_the_arrival_and_is_on_record(self) -> None:
        known = user()
        sight(known, "A", self.AHEAD)
        assert known.identity.latest is not None
        assert known.identity.latest.changed == Moment(NOW, Precision.ARRIVAL)
        assert events(known) == ["changed", "clock_skew"]

    def test_its_redelivery_is_known_by_the_time_it_claimed(self) -> None:
        known = user()
        sight(known, "A", self.AHEAD)
        record_sighting(known, IdentitySeen(WA_ID, "B", None), context(now=NOW + 60_000))
        known.audit.clear()
        record_sighting(
            known, IdentitySeen(WA_ID, "A", self.AHEAD), context(now=NOW + 120_000, arrived=NOW)
        )
        assert (known.hash, events(known)) == ("B", [])

    def test_one_that_is_later_by_its_own_claim_alone_is_the_latest(self) -> None:
        known = user()
        sight(known, "A", Moment(NOW + 300_000))
        sight(known, "B", self.AHEAD)
        assert (known.hash, history(known)) == ("B", [("A", "superseded")])

    def test_five_minutes_ahead_are_believed(self) -> None:
        known = user()
        sight(known, "A", Moment(NOW + 300_000))
        assert known.identity.latest is not None
        assert known.identity.latest.changed == Moment(NOW + 300_000)
        assert events(known) == ["changed"]


class TestTheGuard:
    def flap(self, hashes: str, policy: Policy) -> User:
        known = user()
        for n, hash_ in enumerate(hashes):
            sight(known, hash_, exact(n * 10), policy)
        return known

    def test_with_three_allowed_the_fourth_waits_for_a_person_and_the_audit_says_why(self) -> None:
        assert self.flap("ABC", AUTO).identity.state is State.ACKNOWLEDGING
        known = self.flap("ABCD", AUTO)
        assert known.identity.state is State.PENDING
        assert "guard, more than 3 changes within 86400 s" in (known.audit[-1].reason or "")

    def test_a_hash_that_comes_and_goes_is_counted_each_time(self) -> None:
        assert self.flap("ABAB", AUTO).identity.state is State.PENDING

    def test_repeats_are_not_counted(self) -> None:
        assert self.flap("AAABBB", AUTO).identity.state is State.ACKNOWLEDGING

    def test_what_lies_before_the_window_is_not_counted(self) -> None:
        short = Policy("default", "auto", max_changes=1, per_seconds=5)
        assert self.flap("ABCD", short).identity.state is State.ACKNOWLEDGING


def test_a_user_who_wrote_is_remembered_to_the_hour() -> None:
    known = user()
    record_user_message(known, UserWrote(WA_ID, exact(10)), context())
    assert known.wrote_at == T - T % 3_600_000
    record_user_message(known, UserWrote(WA_ID, exact(11)), context())
    record_user_message(known, UserWrote(WA_ID, exact(-90_000)), context())
    assert known.wrote_at == T - T % 3_600_000
    record_user_message(known, UserWrote(WA_ID, None), context(now=NOW + 7_200_000))
    assert known.wrote_at == (NOW + 7_200_000) // 3_600_000 * 3_600_000


def test_what_waits_for_an_answer_waits_for_one() -> None:
    known = user()
    ask_client(known, "first", context())
    first = known.identity.ask
    ask_client(known, "second", context(now=NOW + 5))
    assert known.identity.ask is first


def test_changing_the_configuration_frees_nothing_that_is_pending() -> None:
    known = user()
    sight(known, "A", exact(10), MANUAL)
    sight(known, "A", exact(11), AUTO)
    assert not come_due(known, context(AUTO))
    assert known.identity.state is State.PENDING


class TestAFlood:
    """One user with thousands of changes: each costs about what the first did."""

    @pytest.mark.parametrize("policy", [MANUAL, AUTO], ids=["manual", "auto"])
    @pytest.mark.parametrize("apart", [2, 90_000], ids=["within the window", "a day apart"])
    @pytest.mark.parametrize("ascending", [True, False], ids=["ascending", "descending"])
    def test_the_work_for_a_change_does_not_grow_with_the_history(
        self, policy: Policy, apart: int, ascending: bool
    ) -> None:
        times = [number * apart for number in range(-2_100, -100)]
        order = times if ascending else times[::-1]
        known = user()
        flood(known, order[:100], policy)
        few = calls_for(known, order[100:200], policy)
        flood(known, order[200:1900], policy)
        assert len(known.history) > 1_800
        assert calls_for(known, order[1900:], policy) < 2 * few


def flood(known: User, order: Sequence[int], policy: Policy) -> None:
    for at in order:
        sight(known, f"hash-{at}", exact(at), policy)


def calls_for(known: User, order: Sequence[int], policy: Policy) -> int:
    """Count the calls of Python functions, and the steps of generators, that a flood takes."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        flood(known, order, policy)
    finally:
        sys.setprofile(None)
    return count
