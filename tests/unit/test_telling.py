"""The rules tell the event log what they set, in order, with the state at that moment."""

from typing import Any

import pytest

from service.model import shapes
from service.model.account_checks import Issue
from service.model.contacts import Check, Contact
from service.model.decisions import (
    Block,
    Decision,
    Verb,
    block_user,
    copy_block,
    decide,
    end_block,
    unblock_user,
)
from service.model.event_log import LoggedEvent
from service.model.events import HashRefused, IdentitySeen, SendBlocked
from service.model.identity import come_due, mark_acknowledged
from service.model.merges import merge_users
from service.model.outcomes import (
    Accepted,
    Answer,
    Gone,
    NoEffect,
    apply_client_answer,
    migrate_to_cloud,
    settle_put,
)
from service.model.policy import Policies, Policy
from service.model.send_blocks import record_refusal, record_send_block
from service.model.sightings import record_sighting
from service.model.telling import contact_event, issue_event
from service.model.timeline import Moment
from service.model.users import Context, State, User, by_key

NOW = 1_600_000_000_000
WA_ID, OTHER = "16315550001", "16315550002"
BY = by_key("desk")
MANUAL, AUTO = Policy("default"), Policy("default", "auto")
DELAYED = Policy("default", "auto", delay_seconds=60)
TRUSTING = Policies((), MANUAL, first_use=Policy("trust_first_use", "auto"), local=True)


class Told:
    """An event log in memory, and the contexts that write to it."""

    def __init__(self, policies: Policies = Policies((), MANUAL)) -> None:  # noqa: B008  frozen
        self.events: list[LoggedEvent] = []
        self.policies = policies

    def context(self, after: int = 0) -> Context:
        return Context(NOW + after, self.policies, NOW + after, told=self.events)

    @property
    def types(self) -> list[str]:
        return [str(event.type) for event in self.events]

    @property
    def states(self) -> list[tuple[str, Any, Any]]:
        return [(str(e.type), e.data["hash"], e.data["state"]) for e in self.events]

    def forget(self) -> None:
        self.events.clear()


@pytest.fixture
def told() -> Told:
    return Told()


def under(policy: Policy) -> Told:
    return Told(Policies((), policy))


def user(wa_id: str = WA_ID, user_id: int = 1) -> User:
    return User(user_id, "main", wa_id, NOW)


def sight(known: User, hash_: str, second: int, told: Told) -> None:
    seen = IdentitySeen(known.alias, hash_, Moment(NOW - 10_000 + second * 1000))
    record_sighting(known, seen, told.context(second))


def decided(known: User, verb: Verb, told: Told) -> None:
    decide(known, Decision(verb, known.hash, BY), told.context(20))


def leased(known: User) -> str:
    work = known.identity.work
    assert work is not None
    work.holder, work.lease_until = "worker", NOW + 1_000_000
    return "worker"


def settle(known: User, outcome: Any, told: Told) -> None:
    settle_put(known, leased(known), known.hash or "", outcome, told.context(30))


def test_a_change_tells_that_it_is_pending_with_the_identity_as_it_is(told: Told) -> None:
    known = user()
    sight(known, "A", 1, told)
    [event] = told.events
    assert (event.at, event.account, event.type) == (NOW + 1, "main", "identity.pending")
    assert event.names == (WA_ID,)
    assert event.data == shapes.identity(known)
    assert (event.data["state"], event.data["blocking"]) == ("pending", True)


def test_a_later_change_tells_first_that_the_one_before_is_superseded(told: Told) -> None:
    known = user()
    sight(known, "A", 1, told)
    sight(known, "B", 2, told)
    assert told.states == [
        ("identity.pending", "A", "pending"),
        ("identity.superseded", "A", "pending"),
        ("identity.pending", "B", "pending"),
    ]


def test_a_repeat_and_an_earlier_change_tell_nothing(told: Told) -> None:
    known = user()
    sight(known, "B", 5, told)
    told.forget()
    sight(known, "B", 5, told)
    sight(known, "B", 6, told)
    sight(known, "A", 1, told)
    assert told.types == []


def test_what_policy_schedules_is_told_and_again_once_the_client_has_accepted_it() -> None:
    told, known = under(DELAYED), user()
    sight(known, "A", 1, told)
    come_due(known, told.context(60_000))
    settle(known, Accepted(), told)
    assert told.states == [
        ("identity.scheduled", "A", "scheduled"),
        ("identity.acknowledged", "A", "acknowledged"),
    ]
    assert told.events[0].data["due_at"] is not None


def test_what_policy_scheduled_and_a_person_must_decide_tells_that_it_is_pending() -> None:
    told, known = under(DELAYED), user()
    sight(known, "A", 1, told)
    told.policies = Policies((), MANUAL)
    come_due(known, told.context(60_000))
    assert told.types == ["identity.scheduled", "identity.pending"]


def test_a_hold_is_told_once(told: Told) -> None:
    known = user()
    sight(known, "A", 1, told)
    decided(known, Verb.HOLD, told)
    decided(known, Verb.HOLD, told)
    assert told.types == ["identity.pending", "identity.held"]
    assert told.events[1].data["decided_by"] == BY


def test_a_refusal_for_good_is_told_and_one_to_be_tried_again_is_not() -> None:
    told, known = under(AUTO), user()
    sight(known, "A", 1, told)
    settle(known, NoEffect("503"), told)
    assert told.types == []
    settle(known, Gone(), told)
    [event] = told.events
    assert (event.type, event.data["last_error"]) == ("identity.failed", Gone().error)


def test_the_first_hash_that_is_trusted_tells_nothing_and_the_next_one_does() -> None:
    told, known = Told(TRUSTING), user()
    sight(known, "A", 1, told)
    assert told.types == []
    sight(known, "B", 2, told)
    assert told.states == [
        ("identity.superseded", "A", "acknowledged"),
        ("identity.pending", "B", "pending"),
    ]


def test_a_decision_of_our_own_is_told_at_once_and_one_without_a_hash_once_the_hash_is_known() -> (
    None
):
    told, known = Told(TRUSTING), user()
    sight(known, "A", 1, told)
    record_refusal(known, HashRefused(WA_ID, Moment(NOW + 2), "m1"), told.context(2))
    assert told.states[-1] == ("identity.pending", None, "pending")
    told.forget()
    decided(known, Verb.ACKNOWLEDGE, told)
    assert known.identity.state is State.AWAITING_HASH
    assert told.types == []
    sight(known, "B", 40, told)
    assert told.states == [("identity.acknowledged", "B", "acknowledged")]


def test_what_was_acknowledged_elsewhere_is_never_told_as_pending(told: Told) -> None:
    known = user()
    sight(known, "A", 1, told)
    told.forget()
    answer = Answer("B", Moment(NOW + 5), acknowledged=True)
    apply_client_answer(known, answer, told.context(5))
    assert told.types == ["identity.superseded", "identity.acknowledged"]


def acknowledged(told: Told) -> User:
    known = user()
    sight(known, "A", 1, told)
    latest = known.identity.latest
    assert latest is not None
    mark_acknowledged(known, latest, told.context(2))
    told.forget()
    return known


def reason(event: LoggedEvent) -> dict[str, Any]:
    return dict(event.data["reason"])


def test_a_message_that_failed_tells_that_sends_are_blocked_until_the_client_answers(
    told: Told,
) -> None:
    known = acknowledged(told)
    record_send_block(known, SendBlocked(WA_ID, Moment(NOW + 3), "m1"), told.context(3))
    record_send_block(known, SendBlocked(WA_ID, Moment(NOW + 4), "m2"), told.context(4))
    apply_client_answer(known, Answer("A", None, acknowledged=True), told.context(5))
    assert told.types == ["recipient.blocked", "recipient.resumed"]
    assert [reason(event)["code"] for event in told.events] == ["send_blocked"] * 2
    assert reason(told.events[0]) == reason(told.events[1])
    assert reason(told.events[0])["clears_when"]


def test_a_change_ends_what_a_failed_message_blocked_and_says_that_the_identity_blocks(
    told: Told,
) -> None:
    known = acknowledged(told)
    record_send_block(known, SendBlocked(WA_ID, Moment(NOW + 3), "m1"), told.context(3))
    told.forget()
    sight(known, "B", 20, told)
    assert told.types == ["identity.superseded", "recipient.resumed", "identity.pending"]
    assert told.events[1].data["blocking"]


def test_a_block_by_hand_is_told_with_its_words_and_its_end(told: Told) -> None:
    known, block = user(), Block("asked us to stop", NOW, BY, NOW + 60_000)
    block_user(known, None, block, told.context())
    block_user(known, block, block, told.context())
    [event] = told.events
    assert (event.type, event.data["state"], event.data["blocking"]) == (
        "recipient.blocked", None, False,
    )  # fmt: skip
    shown = reason(event)
    assert (shown["code"], shown["detail"]) == ("blocked", "asked us to stop")
    assert shown["until"] == shapes.time_of(NOW + 60_000)


def test_a_block_that_a_person_ends_or_time_is_told_as_resumed(told: Told) -> None:
    known, block = user(), Block("x", NOW, BY, NOW + 60_000)
    assert unblock_user(known, block, BY, told.context(1))
    assert not end_block(known, block, told.context(59_999))
    assert end_block(known, block, told.context(60_000))
    assert told.types == ["recipient.resumed"] * 2


def test_a_block_that_is_copied_is_told_of_the_other_user(told: Told) -> None:
    block = Block("x", NOW, BY)
    assert copy_block(block, None, user(OTHER, 2), told.context())
    assert not copy_block(block, block, user(OTHER, 2), told.context())
    [event] = told.events
    assert (event.type, event.names) == ("recipient.blocked", (OTHER,))


def alone(_: str) -> None:
    return None


def test_two_who_turn_out_to_be_one_tell_which_identity_holds_for_both(told: Told) -> None:
    one, other = user(), user(OTHER, 2)
    sight(one, "A", 1, told)
    sight(other, "B", 2, told)
    told.forget()
    merge_users(one, other, alone, told.context(30))
    assert told.states == [
        ("identity.superseded", "A", "pending"),
        ("identity.pending", "B", "pending"),
    ]


def test_two_with_one_identity_tell_nothing_when_they_turn_out_to_be_one(told: Told) -> None:
    one, other = user(), user(OTHER, 2)
    sight(one, "A", 1, told)
    sight(other, "A", 1, told)
    told.forget()
    merge_users(one, other, alone, told.context(30))
    assert told.types == []


def test_what_blocked_one_of_two_is_told_of_the_person_that_they_are(told: Told) -> None:
    one, other = acknowledged(told), user(OTHER, 2)
    sight(other, "A", 5, told)
    decided(other, Verb.ACKNOWLEDGE, told)
    settle(other, Accepted(), told)
    record_send_block(other, SendBlocked(OTHER, Moment(NOW + 40), "m1"), told.context(40))
    told.forget()
    merge_users(one, other, alone, told.context(50))
    assert one.identity.blocked_since is not None
    assert told.types == ["recipient.blocked"]


def test_a_move_to_the_cloud_api_tells_what_it_settles() -> None:
    told, known = under(AUTO), user()
    sight(known, "A", 1, told)
    told.policies = TRUSTING
    migrate_to_cloud(known, told.context(5))
    assert told.states == [("identity.acknowledged", "A", "acknowledged")]


def test_without_a_log_nothing_is_told() -> None:
    known = user()
    seen = IdentitySeen(WA_ID, "A", Moment(NOW))
    record_sighting(known, seen, Context(NOW, Policies((), MANUAL), NOW))
    assert known.identity.state is State.PENDING


# Contacts and issues


def contact(status: str = "valid", wa_id: str | None = "1631", **more: Any) -> Contact:
    return Contact("main", "+1 631", status, wa_id, NOW, **more)


OPEN = Check(NOW, NOW + 60_000)

RESOLVED: dict[str, tuple[Contact | None, Contact]] = {
    "a first result": (None, contact()),
    "another status": (contact(), contact("invalid")),
    "another wa_id": (contact(), contact(wa_id="1632")),
    "the answer to a check": (contact(check=OPEN), contact()),
    "a check that was given up": (contact("processing", None, check=OPEN), contact("failed", None)),
}
UNRESOLVED: dict[str, tuple[Contact | None, Contact]] = {
    "the same again": (contact(), contact()),
    "a check that begins": (contact(), contact(check=OPEN)),
    "a number that is being checked": (None, contact("processing", None)),
}


@pytest.mark.parametrize("name", RESOLVED)
def test_a_contact_is_told_when_a_result_or_the_end_of_a_check_is_news(name: str) -> None:
    known, now = RESOLVED[name]
    event = contact_event(known, now, NOW)
    assert event is not None
    assert (event.type, event.data) == ("contact.resolved", shapes.contact(now))
    assert event.names == ((now.wa_id,) if now.status == "valid" else ())


@pytest.mark.parametrize("name", UNRESOLVED)
def test_a_contact_is_not_told_when_nothing_is_news(name: str) -> None:
    known, now = UNRESOLVED[name]
    assert contact_event(known, now, NOW) is None


def test_an_issue_is_told_with_its_cure_when_it_comes_and_when_it_goes() -> None:
    issue = Issue("webhook_url", "main", NOW, "another URL")
    raised, cleared = issue_event("main", issue, NOW), issue_event("main", issue, NOW, cleared=True)
    assert (raised.type, cleared.type) == ("issue.raised", "issue.cleared")
    assert raised.data == cleared.data == shapes.issue(issue)
    assert raised.data["cure"]
