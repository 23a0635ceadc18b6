"""An identity whose hash can't be read closes the gate; a hash that can be read fills it in."""

from itertools import permutations

import pytest

from service.model.decisions import Decision, Verb, decide
from service.model.events import HashRefused, HashUnreadable, IdentitySeen
from service.model.outcomes import Answer, apply_client_answer
from service.model.policy import Policies, Policy
from service.model.send_blocks import (
    ask_about_unreadable_hash,
    place_unreadable_hash,
    record_refusal,
)
from service.model.sightings import record_sighting
from service.model.timeline import Moment, Precision
from service.model.users import Context, State, User, by_key

T = 1_700_000_000_000
NOW = T + 1_000_000
WA_ID = "16505551234"
MANUAL, AUTO = Policy("default"), Policy("default", "auto")
DELAYED = Policy("default", "auto", delay_seconds=60)
FIRST_USE = Policy("trust_first_use", "auto")


def second(at: int) -> Moment:
    return Moment(T + at * 1000, Precision.SECOND)


def user() -> User:
    return User(1, "shop", WA_ID, NOW)


class TestOnTheCloudApi:
    """There is no client to ask: nobody knows the hash, and a person decides."""

    def context(self, policy: Policy = MANUAL, now: int = NOW) -> Context:
        return Context(now, Policies((), policy, local=True, first_use=FIRST_USE), now)

    def sight(self, known: User, hash_: str, at: int, policy: Policy = MANUAL) -> None:
        record_sighting(known, IdentitySeen(WA_ID, hash_, second(at)), self.context(policy))

    def place(self, known: User, at: int, id_: str | None = None, policy: Policy = MANUAL) -> None:
        place_unreadable_hash(known, HashUnreadable(WA_ID, second(at), id_), self.context(policy))

    def decide(self, known: User, verb: Verb, hash_: str | None) -> None:
        decide(known, Decision(verb, hash_, by_key("crm")), self.context())

    def trusted(self, at: int = 10) -> User:
        known = user()
        context = self.context(now=T + at * 1000)
        record_sighting(known, IdentitySeen(WA_ID, "A", second(at)), context)
        assert known.identity.state is State.ACKNOWLEDGED
        return known

    def history(self, known: User) -> list[str | None]:
        return [change.hash for change in known.history]

    @pytest.mark.parametrize("policy", [MANUAL, AUTO, DELAYED])
    def test_the_trusted_one_gives_way_to_one_that_nobody_knows(self, policy: Policy) -> None:
        known = self.trusted()
        self.place(known, 20, policy=policy)
        assert (known.hash, known.identity.state, known.identity.work) == (
            None,
            State.PENDING,
            None,
        )
        assert self.history(known) == ["A"]
        assert [entry.event for entry in known.audit][-2:] == ["superseded", "changed"]

    def test_that_came_late_is_not_hidden_by_the_time_of_the_trust(self) -> None:
        known = user()
        self.sight(known, "A", 10)
        assert known.identity.latest is not None
        assert known.identity.latest.acknowledged_at == NOW
        self.place(known, 20)
        assert (known.hash, known.identity.state) == (None, State.PENDING)

    def test_in_the_very_second_of_the_trusted_one_is_another(self) -> None:
        known = self.trusted()
        self.place(known, 10)
        assert (known.hash, known.identity.state) == (None, State.PENDING)

    @pytest.mark.parametrize("at", [20, 100_000])
    def test_no_decision_about_the_one_before_stands(self, at: int) -> None:
        for policy, verb in ((MANUAL, None), (DELAYED, None), (MANUAL, Verb.HOLD)):
            known = self.trusted()
            self.sight(known, "B", 15, policy)
            if verb is not None:
                self.decide(known, verb, "B")
            self.place(known, at)
            assert (known.hash, known.identity.state, known.identity.work) == (
                None,
                State.PENDING,
                None,
            )
            assert known.identity.after_hold is (verb is Verb.HOLD)

    def test_after_a_hold_the_hash_that_comes_waits_for_a_person_too(self) -> None:
        known = self.trusted()
        self.sight(known, "B", 15)
        self.decide(known, Verb.HOLD, "B")
        self.place(known, 20)
        self.sight(known, "C", 20, AUTO)
        assert (known.hash, known.identity.state) == ("C", State.PENDING)

    def test_of_a_user_without_an_identity_it_says_nothing(self) -> None:
        known = user()
        self.place(known, 20, "wamid.1")
        assert (known.identity.state, known.identity.latest, known.audit) == (None, None, [])

    def test_from_before_the_trusted_one_says_nothing(self) -> None:
        known = self.trusted()
        self.place(known, 5)
        assert (known.hash, known.identity.state) == ("A", State.ACKNOWLEDGED)

    def test_the_same_message_says_nothing_twice(self) -> None:
        known = self.trusted()
        self.place(known, 20, "wamid.1")
        self.decide(known, Verb.ACKNOWLEDGE, None)
        self.sight(known, "B", 900)
        assert known.identity.state is State.ACKNOWLEDGED
        for at in (20, 1_100):
            self.place(known, at, "wamid.1")
        assert (known.hash, known.identity.state) == ("B", State.ACKNOWLEDGED)

    def test_while_the_hash_is_awaited_another_send_is_not_approved(self) -> None:
        known = self.trusted()
        self.place(known, 20, "wamid.1")
        self.decide(known, Verb.ACKNOWLEDGE, None)
        self.place(known, 30, "wamid.2")
        assert known.identity.state is State.AWAITING_HASH, "it is from before the approval"
        self.place(known, 1_000, "wamid.3")
        assert (known.hash, known.identity.state) == (None, State.PENDING)

    def test_between_two_sightings_of_the_trusted_one_a_person_is_to_decide(self) -> None:
        for order in permutations(("A", None)):
            known = self.trusted()
            for hash_ in order:
                if hash_ is None:
                    self.place(known, 20)
                else:
                    self.sight(known, hash_, 30)
            assert (known.hash, known.identity.state) == ("A", State.PENDING)

    def test_between_two_sightings_told_at_once_it_takes_back_a_trust_on_first_use(self) -> None:
        known = user()
        self.sight(known, "A", 10)
        self.sight(known, "A", 30)
        assert known.identity.state is State.ACKNOWLEDGED
        self.place(known, 20)
        assert (known.hash, known.identity.state) == ("A", State.PENDING)

    def test_what_a_person_decided_after_it_came_again_stands(self) -> None:
        known = self.trusted()
        self.sight(known, "B", 15)
        self.sight(known, "B", 25)
        self.decide(known, Verb.ACKNOWLEDGE, "B")
        self.place(known, 20)
        assert (known.hash, known.identity.state) == ("B", State.ACKNOWLEDGED)

    def test_a_time_far_ahead_is_still_later(self) -> None:
        known = self.trusted(at=1_000)
        self.place(known, 90_000)
        assert (known.hash, known.identity.state) == (None, State.PENDING)

    @pytest.mark.parametrize(
        ("policy", "state"), [(MANUAL, State.PENDING), (AUTO, State.ACKNOWLEDGED)]
    )
    def test_a_hash_of_the_same_time_that_can_be_read_fills_it_in(
        self, policy: Policy, state: State
    ) -> None:
        known = self.trusted()
        self.place(known, 20, "wamid.1", policy)
        self.sight(known, "B", 20, policy)
        assert (known.hash, known.identity.state) == ("B", state)
        assert self.history(known) == ["A"]

    def test_once_a_later_one_is_known_it_is_filled_in_between(self) -> None:
        known = self.trusted()
        self.place(known, 20, "wamid.1")
        self.sight(known, "C", 30)
        self.decide(known, Verb.ACKNOWLEDGE, "C")
        self.sight(known, "B", 20)
        assert (known.hash, known.identity.state) == ("C", State.ACKNOWLEDGED)
        assert self.history(known) == ["A", "B"]

    def test_beside_a_refusal_from_before_the_trust_it_counts(self) -> None:
        known = user()
        self.sight(known, "A", 10)
        record_refusal(known, HashRefused(WA_ID, second(20), "wamid.1"), self.context())
        assert known.identity.state is State.ACKNOWLEDGED
        self.place(known, 20)
        assert (known.hash, known.identity.state) == (None, State.PENDING)


class TestOnTheOnPremisesApi:
    """The client is asked: it has the hash."""

    def context(self, policy: Policy = MANUAL) -> Context:
        return Context(NOW, Policies((), policy), NOW)

    def ask(self, known: User, id_: str | None = None) -> None:
        ask_about_unreadable_hash(known, HashUnreadable(WA_ID, second(20), id_), self.context())

    def known_as(self, state: State | None) -> User:
        known = user()
        if state is None:
            return known
        policy = DELAYED if state is State.SCHEDULED else MANUAL
        record_sighting(known, IdentitySeen(WA_ID, "A", second(10)), self.context(policy))
        if state is State.ACKNOWLEDGED:
            apply_client_answer(known, Answer("A", None, acknowledged=True), self.context())
        elif state in {State.HELD, State.ACKNOWLEDGING}:
            verb = Verb.HOLD if state is State.HELD else Verb.ACKNOWLEDGE
            decide(known, Decision(verb, "A", by_key("crm")), self.context())
        assert known.identity.state is state
        return known

    @pytest.mark.parametrize("state", [None, State.ACKNOWLEDGED])
    def test_the_gate_closes_and_the_client_is_asked(self, state: State | None) -> None:
        known = self.known_as(state)
        self.ask(known)
        assert known.identity.blocked_since == NOW
        assert known.identity.ask is not None
        assert known.audit[-1].event == "send_blocked"
        assert known.audit[-1].reason == "an identity hash could not be read"

    @pytest.mark.parametrize(
        "state", [State.PENDING, State.SCHEDULED, State.HELD, State.ACKNOWLEDGING]
    )
    def test_where_it_is_closed_already_the_client_is_asked(self, state: State) -> None:
        known = self.known_as(state)
        self.ask(known)
        assert (known.identity.state, known.hash, known.identity.blocked_since) == (
            state,
            "A",
            None,
        )
        assert known.identity.ask is not None

    def test_an_answer_that_is_under_way_does_not_count(self) -> None:
        for state in (None, State.ACKNOWLEDGED, State.ACKNOWLEDGING):
            known = self.known_as(state)
            self.ask(known, "m1")
            assert known.identity.ask is not None
            known.identity.ask.holder, version = "worker", known.identity.version
            self.ask(known, "m2")
            assert known.identity.version == version + 1

    def test_the_same_message_asks_nothing_twice(self) -> None:
        known = self.known_as(None)
        self.ask(known, "m1")
        apply_client_answer(known, Answer("B", None, acknowledged=True), self.context())
        self.ask(known, "m1")
        assert (known.identity.state, known.identity.ask, known.identity.blocked_since) == (
            State.ACKNOWLEDGED,
            None,
            None,
        )

    def test_the_hash_once_it_can_be_read_is_a_change_like_any(self) -> None:
        known = self.known_as(State.ACKNOWLEDGED)
        self.ask(known, "m1")
        record_sighting(known, IdentitySeen(WA_ID, "B", second(20)), self.context())
        assert (known.hash, known.identity.state, known.identity.blocked_since) == (
            "B",
            State.PENDING,
            None,
        )
