"""What a call to the WhatsApp client came to: every row of "After a PUT", and of a GET."""

import pytest

from service.model.identity import block_sends
from service.model.outcomes import (
    Accepted,
    Answer,
    Answered,
    Gone,
    NoEffect,
    NotTried,
    PutOutcome,
    Settled,
    Unknown,
    begin_put,
    settle_get,
    settle_put,
)
from service.model.policy import Policies, Policy
from service.model.timeline import Change, Moment
from service.model.users import BY_CLIENT, Context, Identity, Kind, State, User, Work, by_key

NOW = 1_600_000_000_000
MANUAL = Policy("default")
AUTO = Policy("default", "auto")
CRM = by_key("crm")


def context(now: int = NOW, policy: Policy = MANUAL) -> Context:
    return Context(now, Policies((), policy), now, chance=0.5)


def user() -> User:
    """Return a user whose acknowledgement is under way."""
    latest = Change("A", Moment(NOW - 500), NOW - 400, [Moment(NOW - 500)])
    latest.decided_by, latest.decided_at = CRM, NOW - 300
    work = Work(Kind.ACKNOWLEDGE, NOW - 300, "A", begun=True)
    lease(work)
    identity = Identity(latest, State.ACKNOWLEDGING, version=1, work=work)
    return User(1, "main", "16315550001", NOW - 9_000, identity)


def lease(work: Work | None, until: int = NOW + 10_000) -> None:
    assert work is not None
    work.holder, work.lease_until = "holder", until


def told(hash_: str = "A", *, acknowledged: bool = False, refused: bool = False) -> Answered:
    return Answered(Answer(hash_, None, acknowledged), refused, "PUT was answered with 4xx")


def put(known: User, outcome: PutOutcome, now: int = NOW, policy: Policy = MANUAL) -> Settled:
    return settle_put(known, "holder", "A", outcome, context(now, policy))


def events(known: User) -> list[str]:
    return [entry.event for entry in known.audit]


class TestAfterAPut:
    def test_a_2xx_is_acknowledged(self) -> None:
        known = user()
        assert put(known, Accepted()) is Settled.TAKEN
        assert (known.identity.state, known.identity.work, known.identity.attempts) == (
            State.ACKNOWLEDGED,
            None,
            1,
        )
        assert known.identity.latest is not None
        assert (known.identity.latest.acknowledged_at, known.identity.latest.decided_by) == (
            NOW,
            CRM,
        )
        assert events(known) == ["acknowledged"]

    def test_a_2xx_clears_what_was_blocked_and_the_last_error(self) -> None:
        known = user()
        known.identity.blocked_since, known.identity.last_error = NOW - 5, "503"
        put(known, Accepted())
        assert (known.identity.blocked_since, known.identity.last_error) == (None, None)

    def test_what_had_no_effect_is_tried_later_and_no_get_comes_first(self) -> None:
        known = user()
        assert put(known, NoEffect("PUT was answered with 503")) is Settled.TAKEN
        assert known.identity.work is not None
        assert (
            known.identity.work.begun,
            known.identity.work.holder,
            known.identity.work.due_at,
        ) == (False, None, NOW + 1000)
        assert (known.identity.state, known.identity.attempts) == (State.ACKNOWLEDGING, 1)
        assert known.identity.last_error == "PUT was answered with 503"

    def test_an_unknown_outcome_is_asked_about_before_the_next_try(self) -> None:
        known = user()
        put(known, Unknown("no answer"))
        assert known.identity.work is not None
        assert (known.identity.work.begun, known.identity.work.holder) == (True, None)

    def test_the_hash_acknowledged_there_is_acknowledged(self) -> None:
        known = user()
        put(known, told(acknowledged=True))
        assert (known.identity.state, known.identity.work, known.identity.attempts) == (
            State.ACKNOWLEDGED,
            None,
            1,
        )
        assert known.identity.latest is not None
        assert known.identity.latest.decided_by == CRM

    @pytest.mark.parametrize(
        ("policy", "state"), [(MANUAL, State.PENDING), (AUTO, State.ACKNOWLEDGING)]
    )
    def test_another_hash_there_is_a_change(self, policy: Policy, state: State) -> None:
        known = user()
        put(known, told("B"), policy=policy)
        assert (known.hash, known.identity.state) == ("B", state)
        assert [(c.hash, c.outcome, c.decided_by) for c in known.history] == [
            ("A", "superseded", CRM)
        ]

    def test_another_hash_acknowledged_there_is_acknowledged_by_the_client(self) -> None:
        known = user()
        put(known, told("B", acknowledged=True))
        assert (known.hash, known.identity.state) == ("B", State.ACKNOWLEDGED)
        assert known.identity.latest is not None
        assert known.identity.latest.decided_by == BY_CLIENT

    def test_unacknowledged_there_after_a_5xx_it_is_tried_without_end(self) -> None:
        known = user()
        for _ in range(50):
            put(known, told())
            lease(known.identity.work)
        assert (known.identity.state, known.identity.attempts) == (State.ACKNOWLEDGING, 50)

    def test_unacknowledged_there_after_a_4xx_three_tries_are_all(self) -> None:
        known = user()
        for n in (1, 2):
            put(known, told(refused=True))
            assert (known.identity.state, known.identity.attempts) == (State.ACKNOWLEDGING, n)
            lease(known.identity.work)
        put(known, told(refused=True))
        assert (known.identity.state, known.identity.work, known.identity.attempts) == (
            State.FAILED,
            None,
            3,
        )
        assert known.identity.last_error == "PUT was answered with 4xx"
        (entry,) = known.audit
        assert (entry.event, entry.reason, entry.by) == ("failed", known.identity.last_error, CRM)

    def test_only_refusals_count_towards_the_three(self) -> None:
        known = user()
        for outcome in (told(), NoEffect("429"), Unknown("cut"), told(refused=True), told()):
            put(known, outcome)
            lease(known.identity.work)
        assert known.identity.state is State.ACKNOWLEDGING
        assert known.identity.work is not None
        assert (known.identity.work.refusals, known.identity.work.attempts) == (1, 5)

    def test_a_404_to_the_get_is_failed(self) -> None:
        known = user()
        put(known, Gone())
        assert (known.identity.state, known.identity.work, known.identity.attempts) == (
            State.FAILED,
            None,
            1,
        )
        assert events(known) == ["failed"]

    @pytest.mark.parametrize("begun", [True, False])
    def test_a_refused_login_counts_as_no_try_at_all(self, begun: bool) -> None:
        known = user()
        put(known, NotTried(begun))
        assert known.identity.work is not None
        assert (
            known.identity.work.begun,
            known.identity.work.attempts,
            known.identity.work.holder,
        ) == (begun, 0, None)
        assert (known.identity.state, known.identity.attempts, known.identity.last_error) == (
            State.ACKNOWLEDGING,
            0,
            None,
        )

    def test_tries_come_about_one_two_four_and_so_on_seconds_apart_at_most_five_minutes(
        self,
    ) -> None:
        known, pauses = user(), []
        for _ in range(11):
            put(known, NoEffect("503"))
            assert known.identity.work is not None
            pauses.append((known.identity.work.due_at - NOW) / 1000)
            lease(known.identity.work)
        assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def leased() -> User:
    """Return a user whose work is leased, and no PUT has begun."""
    known = user()
    assert known.identity.work is not None
    known.identity.work.begun = False
    return known


class TestBeforeAPut:
    def test_it_begins_and_the_lease_lasts_as_long_from_then_on(self) -> None:
        known = leased()
        assert begin_put(known, "holder", "A", NOW + 9_000)
        work = known.identity.work
        assert work is not None
        assert (work.begun, work.holder, work.lease_until) == (True, "holder", NOW + 19_000)
        assert begin_put(known, "holder", "A", NOW + 9_500), "a repeat, after a 401"
        assert (known.identity.state, known.audit) == (State.ACKNOWLEDGING, [])

    @pytest.mark.parametrize(
        ("holder", "hash_", "now"),
        [("other", "A", NOW), ("holder", "B", NOW), ("holder", "A", NOW + 10_000)],
        ids=["another holder", "another hash", "an expired lease"],
    )
    def test_what_is_not_ours_does_not_begin(self, holder: str, hash_: str, now: int) -> None:
        known = leased()
        assert not begin_put(known, holder, hash_, now)
        work = known.identity.work
        assert work is not None
        assert (work.begun, work.lease_until) == (False, NOW + 10_000)

    def test_what_was_cancelled_does_not_begin(self) -> None:
        known = leased()
        known.identity.work = None
        assert not begin_put(known, "holder", "A", NOW)

    def test_what_another_change_has_superseded_does_not_begin(self) -> None:
        known = leased()
        assert known.identity.latest is not None
        known.identity.latest.hash = "B"
        assert not begin_put(known, "holder", "A", NOW)


OUTCOMES: list[PutOutcome] = [
    Accepted(),
    NoEffect("503"),
    Unknown("cut"),
    told(acknowledged=True),
    told("B"),
    told(refused=True),
    Gone(),
    NotTried(),
]


class TestWhoMayWriteAResult:
    @pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda o: type(o).__name__)
    def test_not_who_holds_no_lease(self, outcome: PutOutcome) -> None:
        known = user()
        assert settle_put(known, "other", "A", outcome, context()) is Settled.NOT_OURS
        assert known == user()

    @pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda o: type(o).__name__)
    def test_not_whose_lease_has_expired(self, outcome: PutOutcome) -> None:
        known = user()
        assert put(known, outcome, now=NOW + 10_000) is Settled.NOT_OURS
        assert (known.identity.state, known.audit) == (State.ACKNOWLEDGING, [])

    def test_who_writes_in_the_last_millisecond_still_may(self) -> None:
        assert put(user(), Accepted(), now=NOW + 9_999) is Settled.TAKEN

    def test_not_for_another_hash_than_was_leased(self) -> None:
        known = user()
        assert settle_put(known, "holder", "B", Accepted(), context()) is Settled.NOT_OURS

    def test_not_when_another_hash_is_the_latest_meanwhile(self) -> None:
        known = user()
        known.identity.latest = Change("B", Moment(NOW), NOW, [Moment(NOW)])
        assert put(known, Accepted()) is Settled.NOT_OURS
        assert known.identity.state is State.ACKNOWLEDGING

    def test_not_for_the_latest_hash_when_another_was_leased(self) -> None:
        known = user()
        known.identity.latest = Change("B", Moment(NOW), NOW, [Moment(NOW)])
        assert settle_put(known, "holder", "B", Accepted(), context()) is Settled.NOT_OURS

    def test_not_when_the_work_was_cancelled(self) -> None:
        known = user()
        known.identity.work = None
        assert put(known, Accepted()) is Settled.NOT_OURS

    def test_not_when_there_is_no_identity(self) -> None:
        assert put(User(1, "main", "1", NOW), Accepted()) is Settled.NOT_OURS


class TestAfterAGet:
    def asked(self, state: State | None = State.ACKNOWLEDGED) -> User:
        known = user()
        known.identity.state, known.identity.work = state, None
        known.identity.blocked_since = NOW - 5
        if state is None:
            known.identity.latest = None
        known.identity.ask = Work(Kind.ASK, NOW - 5, reason="send_blocked")
        lease(known.identity.ask)
        return known

    def test_an_answer_is_heeded_and_ends_the_question(self) -> None:
        known = self.asked()
        outcome = told(acknowledged=True)
        assert settle_get(known, "holder", 1, outcome, context()) is Settled.TAKEN
        assert (known.identity.ask, known.identity.blocked_since) == (None, None)
        assert known.identity.state is State.ACKNOWLEDGED

    def test_no_answer_is_tried_again_with_growing_pauses(self) -> None:
        known = self.asked()
        for pause in (1_000, 2_000, 4_000):
            assert settle_get(known, "holder", 1, Unknown("cut"), context()) is Settled.TAKEN
            assert known.identity.ask is not None
            assert (known.identity.ask.due_at, known.identity.ask.holder) == (NOW + pause, None)
            lease(known.identity.ask)
        assert known.identity.blocked_since is not None

    def test_an_identity_unknown_there_ends_the_question_and_clears_the_block(self) -> None:
        known = self.asked(None)
        assert settle_get(known, "holder", 1, Gone(), context()) is Settled.TAKEN
        assert (known.identity.ask, known.identity.blocked_since, known.identity.state) == (
            None,
            None,
            None,
        )

    def test_a_refused_login_gives_the_question_back_as_it_was(self) -> None:
        known = self.asked()
        assert settle_get(known, "holder", 1, NotTried(), context()) is Settled.TAKEN
        assert known.identity.ask is not None
        assert (
            known.identity.ask.holder,
            known.identity.ask.attempts,
            known.identity.ask.due_at,
        ) == (None, 0, NOW - 5)

    @pytest.mark.parametrize("outcome", [told(acknowledged=True), told("B"), Gone()])
    def test_an_answer_from_before_the_identity_changed_is_asked_for_again(
        self, outcome: Answered | Gone
    ) -> None:
        known = self.asked()
        known.identity.version = 2
        assert settle_get(known, "holder", 1, outcome, context()) is Settled.CHANGED
        assert known.identity.ask is not None
        assert (known.identity.ask.holder, known.identity.ask.due_at) == (None, NOW - 5)
        assert (known.hash, known.identity.state) == ("A", State.ACKNOWLEDGED)
        assert known.identity.blocked_since is not None

    def test_an_answer_from_before_another_message_was_blocked_is_asked_for_again(self) -> None:
        known = self.asked()
        block_sends(known, context())
        answer = settle_get(known, "holder", 1, told(acknowledged=True), context())
        assert answer is Settled.CHANGED
        assert known.identity.blocked_since is not None

    def test_an_answer_after_the_lease_ended_does_not_count(self) -> None:
        known = self.asked()
        late = context(NOW + 10_000)
        assert settle_get(known, "holder", 1, Gone(), late) is Settled.NOT_OURS
        assert settle_get(known, "other", 1, Gone(), context()) is Settled.NOT_OURS
        assert known.identity.blocked_since is not None

    def test_an_answer_to_nothing_does_not_count(self) -> None:
        known = user()
        assert settle_get(known, "holder", 1, Gone(), context()) is Settled.NOT_OURS
