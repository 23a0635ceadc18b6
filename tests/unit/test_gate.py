"""May I write to this user now, and if not, why not?"""

from typing import Any

import pytest

from service.model.answers import Answer, heed
from service.model.contacts import DAY_MS, Contact
from service.model.gate import (
    CLEARS_WHEN,
    Reason,
    Recipient,
    Rules,
    Situation,
    Verdict,
    unite,
)
from service.model.gate import judge as judge_recipient
from service.model.moments import Moment
from service.model.policy import Policies, Policy
from service.model.timeline import Change
from service.model.users import Context, Link, State, User

NOW = 1_600_000_000_000
WA_ID, NEW = "16315550001", "16315550002"


def user(state: State | None = None) -> User:
    known = User(1, "main", WA_ID, NOW - DAY_MS)
    if state is not None:
        known.state = state
        known.latest = Change("A", Moment(NOW - 500), NOW - 400, [Moment(NOW - 500)])
    return known


def contact(status: str = "valid", checked_at: int = NOW) -> Contact:
    return Contact("main", "+16315550001", status, WA_ID, checked_at)


def judge(
    wa_id: str | None,
    known: User | Recipient | None,
    contacts: list[Contact],
    now: int,
    **situation: Any,
) -> Verdict:
    recipient = Recipient.of(known) if isinstance(known, User) else known
    return judge_recipient(wa_id, recipient, contacts, Situation(now, **situation))


def codes(reasons: tuple[Reason, ...]) -> list[str]:
    return [reason.code for reason in reasons]


@pytest.mark.parametrize("state", sorted({*State} - {State.ACKNOWLEDGED, State.AWAITING_HASH}))
def test_an_identity_that_is_not_acknowledged_blocks_since_it_was_received(state: State) -> None:
    verdict = judge(WA_ID, user(state), [], NOW)
    assert verdict.reasons == (Reason(f"identity_{state}", NOW - 400),)
    assert not verdict.sendable


@pytest.mark.parametrize("state", [None, State.ACKNOWLEDGED])
def test_an_acknowledged_identity_or_none_lets_pass(state: State | None) -> None:
    verdict = judge(WA_ID, user(state), [], NOW)
    assert (verdict.sendable, verdict.known, verdict.warnings) == (True, True, ())


@pytest.mark.parametrize("state", [None, State.ACKNOWLEDGED])
def test_a_blocked_send_blocks(state: State | None) -> None:
    known = user(state)
    known.blocked_since = NOW - 7
    assert judge(WA_ID, known, [], NOW).reasons == (Reason("send_blocked", NOW - 7),)


def test_a_number_change_blocks_and_names_the_new_number() -> None:
    known = user()
    known.links = [Link(NEW, "successor", Moment(NOW - 9))]
    assert judge(WA_ID, known, [], NOW).reasons == (Reason("number_changed", NOW - 9, NEW),)


def test_the_new_number_of_a_user_is_not_blocked() -> None:
    known = user()
    known.links = [Link(NEW, "predecessor", Moment(NOW - 9))]
    assert judge(WA_ID, known, [], NOW).sendable


def test_a_user_who_came_back_to_the_number_is_blocked_until_the_client_answered() -> None:
    known = user(State.ACKNOWLEDGED)
    known.links = [
        Link(NEW, "predecessor", Moment(NOW - 5)),
        Link(NEW, "successor", Moment(NOW - 9)),
    ]
    assert codes(judge(WA_ID, known, [], NOW).reasons) == ["number_changed"]
    around = Context(NOW, Policies((), Policy("default")), NOW)
    heed(known, Answer("A", None, acknowledged=True), around)
    assert judge(WA_ID, known, [], NOW).sendable


def test_the_newest_check_of_a_number_counts() -> None:
    old, new = contact("invalid", NOW - 5), contact("valid", NOW)
    assert judge(WA_ID, None, [old, new], NOW).sendable
    found = judge(WA_ID, None, [contact("invalid", NOW), contact("valid", NOW - 5)], NOW)
    assert found.reasons == (Reason("contact_invalid", NOW),)


@pytest.mark.parametrize("status", ["valid", "processing", "failed", "brand_new"])
def test_only_an_invalid_contact_blocks(status: str) -> None:
    assert judge(WA_ID, None, [contact(status)], NOW).sendable


def test_a_user_never_heard_of_is_sendable_with_a_warning() -> None:
    verdict = judge(WA_ID, None, [], NOW)
    assert (verdict.known, verdict.sendable) == (False, True)
    assert verdict.warnings == (Reason("contact_unknown", None),)


def test_a_contact_checked_longer_than_seven_days_ago_warns() -> None:
    checked_at = NOW - 7 * DAY_MS
    assert judge(WA_ID, None, [contact("valid", checked_at + 1)], NOW).warnings == ()
    verdict = judge(WA_ID, None, [contact("valid", checked_at)], NOW)
    assert verdict.warnings == (Reason("contact_stale", NOW),)
    assert verdict.sendable


def test_a_user_who_wrote_to_the_business_of_late_is_no_stale_contact() -> None:
    known = user()
    known.wrote_at = NOW - DAY_MS
    assert judge(WA_ID, known, [contact("valid", NOW - 30 * DAY_MS)], NOW).warnings == ()
    known.wrote_at = NOW - 8 * DAY_MS
    verdict = judge(WA_ID, known, [contact("valid", NOW - 30 * DAY_MS)], NOW)
    assert codes(verdict.warnings) == ["contact_stale"]


def test_an_account_that_does_not_answer_warns_and_blocks_nothing() -> None:
    verdict = judge(WA_ID, user(), [], NOW, unreachable_since=NOW - 3)
    assert verdict.sendable
    assert verdict.warnings == (Reason("account_unreachable", NOW - 3),)


def test_all_reasons_are_given_at_once() -> None:
    known = user(State.ACKNOWLEDGED)
    known.blocked_since = NOW
    known.links = [Link(NEW, "successor", Moment(NOW))]
    found = codes(judge(WA_ID, known, [contact("invalid")], NOW).reasons)
    assert found == ["send_blocked", "number_changed", "contact_invalid"]


def test_every_reason_says_what_would_clear_it() -> None:
    open_ = {State.ACKNOWLEDGED, State.AWAITING_HASH}
    known = {f"identity_{state}" for state in State if state not in open_}
    known |= {"send_blocked", "number_changed", "contact_invalid"}
    known |= {"contact_unknown", "contact_stale", "account_unreachable"}
    assert set(CLEARS_WHEN) >= known
    assert all(Reason(code, NOW).clears_when for code in known)


@pytest.mark.parametrize("state", [None, State.ACKNOWLEDGED])
def test_whom_the_client_was_not_asked_about_since_a_restore_is_blocked(
    state: State | None,
) -> None:
    left = Recipient.of(user(state))._replace(unverified=True)
    verdict = judge(WA_ID, left, [], NOW, restored_at=NOW - 3)
    assert verdict.reasons == (Reason("unverified", NOW - 3),)
    assert verdict.warnings == ()
    assert judge(WA_ID, user(state), [], NOW, restored_at=NOW - 3).sendable


def test_whom_nobody_ever_heard_of_is_not_blocked_by_a_restore() -> None:
    verdict = judge(WA_ID, None, [], NOW, restored_at=NOW - 3)
    assert verdict.sendable
    assert codes(verdict.warnings) == ["contact_unknown", "account_unverified"]
    assert judge(WA_ID, None, [contact()], NOW, restored_at=NOW - 3).sendable


def blocked(until: int | None) -> Recipient:
    reason = Reason("blocked", NOW - 9, until=until, detail="asked us to stop")
    return Recipient.of(user(State.ACKNOWLEDGED))._replace(blocked=reason)


def test_a_person_s_block_blocks_until_it_ends_by_itself() -> None:
    assert codes(judge(WA_ID, blocked(None), [], NOW).reasons) == ["blocked"]
    [reason] = judge(WA_ID, blocked(NOW + 1), [], NOW).reasons
    assert (reason.since, reason.until, reason.detail) == (NOW - 9, NOW + 1, "asked us to stop")
    assert judge(WA_ID, blocked(NOW), [], NOW).sendable


def test_who_is_known_by_a_block_alone_is_still_unknown() -> None:
    stranger = blocked(NOW)._replace(state=None, heard_of=False)
    verdict = judge(WA_ID, stranger, [], NOW)
    assert (verdict.known, codes(verdict.warnings)) == (False, ["contact_unknown"])
    assert judge(WA_ID, stranger, [contact()], NOW).known


def test_catching_up_warns_until_it_ends() -> None:
    reason = Reason("catching_up", NOW - 5, until=NOW + 5)
    assert judge(WA_ID, user(), [], NOW, catching_up=reason).warnings == (reason,)
    assert judge(WA_ID, user(), [], NOW + 5, catching_up=reason).warnings == ()


def test_an_account_says_which_reasons_only_warn_and_which_warnings_block() -> None:
    rules = Rules(frozenset({"identity_held"}), frozenset({"account_unreachable"}))
    verdict = judge(WA_ID, user(State.HELD), [], NOW, unreachable_since=NOW - 3, rules=rules)
    assert codes(verdict.reasons) == ["account_unreachable"]
    assert codes(verdict.warnings) == ["identity_held"]
    pending = judge(WA_ID, user(State.PENDING), [], NOW, rules=rules)
    assert codes(pending.reasons) == ["identity_pending"]


def test_an_account_may_refuse_whom_nobody_ever_heard_of() -> None:
    rules = Rules(block=frozenset({"contact_unknown"}))
    verdict = judge(WA_ID, None, [], NOW, rules=rules)
    assert (verdict.known, codes(verdict.reasons), verdict.warnings) == (
        False, ["contact_unknown"], ()
    )  # fmt: skip
    assert judge(WA_ID, user(), [], NOW, rules=rules).sendable


def test_by_several_names_every_reason_counts_once() -> None:
    one = Verdict(WA_ID, False, (Reason("blocked", 1),), (Reason("contact_stale", 1),))
    other = Verdict(NEW, True, (Reason("blocked", 1), Reason("send_blocked", 2)), ())
    both = unite([one, other])
    assert (both.wa_id, both.known) == (WA_ID, True)
    assert codes(both.reasons) == ["blocked", "send_blocked"]
    assert codes(both.warnings) == ["contact_stale"]


def test_the_hash_to_send_along_is_the_trusted_one_and_none_while_anything_blocks() -> None:
    known = Recipient.of(user(State.ACKNOWLEDGED))
    assert judge(WA_ID, known, [], NOW).hash == "A"
    assert judge(WA_ID, known._replace(blocked=Reason("blocked", NOW)), [], NOW).hash is None
    for state in set(State) - {State.ACKNOWLEDGED}:
        assert judge(WA_ID, known._replace(state=state), [], NOW).hash is None


def test_while_a_hash_is_awaited_a_message_without_one_may_be_sent() -> None:
    assert judge(WA_ID, user(State.AWAITING_HASH), [], NOW).sendable
