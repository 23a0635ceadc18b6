"""May I write to this recipient now, and if not, why not?"""

from typing import Any

import pytest

from service.model.contacts import DAY_MS
from service.model.gate import CLEARS_WHEN, AccountStatus, Reason, Rules, Verdict, judge
from service.model.numbers import spell
from service.model.recipients import LatestCheck, ManualBlock, Recipient, RecipientData
from service.model.timeline import Moment
from service.model.users import Link, State

NOW = 1_600_000_000_000
WA_ID, NEW = "16315550001", "16315550002"
COUNTRY_OF = "+16315550100"
MOVED = Link(NEW, "successor", Moment(NOW - 9))


def user(state: State | None = None, wa_id: str = WA_ID, **more: Any) -> Recipient:
    number = int(wa_id) if wa_id else 0
    hash_, received_at = (None, None) if state is None else ("A", NOW - 400)
    return Recipient(number, wa_id, state, received_at, hash=hash_)._replace(**more)


def check(
    status: str = "valid", checked_at: int = NOW, wa_id: str | None = WA_ID, **more: Any
) -> LatestCheck:
    return LatestCheck("an input", None, wa_id, status, checked_at, **more)


def answer(
    text: str = WA_ID,
    *users: Recipient,
    checks: dict[str, list[LatestCheck]] | None = None,
    alike: dict[str, list[LatestCheck]] | None = None,
    newest: dict[str, list[LatestCheck]] | None = None,
    now: int = NOW,
    **status: Any,
) -> Verdict:
    """Return the gate's answer where so much is known; `checks` are of the text as it stands."""
    data = RecipientData(
        COUNTRY_OF,
        {text: spell(text, COUNTRY_OF)},
        {alias: user for user in users for alias in (user.wa_id, user.user_id) if alias},
        checks or {},
        alike or {},
        newest or {},
    )
    verdict = judge(text, data, AccountStatus(now, **status))
    assert verdict is not None
    return verdict


def of_number(*checks: LatestCheck) -> dict[str, Any]:
    return {"newest": {WA_ID: list(checks)}}


def codes(reasons: tuple[Reason, ...]) -> list[str]:
    return [reason.code for reason in reasons]


def told(reason: Reason) -> tuple[str, int | None, str | None]:
    return reason.code, reason.since, reason.of


@pytest.mark.parametrize("state", sorted({*State} - {State.ACKNOWLEDGED, State.AWAITING_HASH}))
def test_an_identity_that_is_not_acknowledged_blocks_since_it_was_received(state: State) -> None:
    verdict = answer(WA_ID, user(state))
    assert [told(r) for r in verdict.reasons] == [(f"identity_{state}", NOW - 400, WA_ID)]
    assert not verdict.sendable


@pytest.mark.parametrize("state", [None, State.ACKNOWLEDGED])
def test_an_acknowledged_identity_or_none_lets_pass(state: State | None) -> None:
    verdict = answer(WA_ID, user(state))
    assert (verdict.sendable, verdict.known, verdict.warnings) == (True, True, ())


@pytest.mark.parametrize("state", [None, State.ACKNOWLEDGED])
def test_a_blocked_send_blocks(state: State | None) -> None:
    [reason] = answer(WA_ID, user(state, blocked_since=NOW - 7)).reasons
    assert told(reason) == ("send_blocked", NOW - 7, WA_ID)


def test_a_number_change_blocks_and_names_the_new_number() -> None:
    [reason] = answer(WA_ID, user(moved_to=MOVED)).reasons
    assert (*told(reason), reason.alias) == ("number_changed", NOW - 9, WA_ID, NEW)


def test_the_newest_check_of_a_number_counts() -> None:
    old, new = check("invalid", NOW - 5), check("valid", NOW)
    assert answer(**of_number(old, new)).sendable
    [reason] = answer(**of_number(check("invalid"), check("valid", NOW - 5))).reasons
    assert told(reason) == ("contact_invalid", NOW, WA_ID)


@pytest.mark.parametrize("status", ["valid", "processing", "failed", "brand_new"])
def test_only_an_invalid_contact_blocks(status: str) -> None:
    assert answer(**of_number(check(status))).sendable


@pytest.mark.parametrize("status", ["processing", "failed", "brand_new"])
def test_a_check_without_a_result_makes_nobody_known(status: str) -> None:
    verdict = answer(**of_number(check(status)), rules=Rules(block=frozenset({"contact_unknown"})))
    assert (verdict.known, codes(verdict.reasons)) == (False, ["contact_unknown"])


@pytest.mark.parametrize("status", ["processing", "failed"])
def test_a_check_without_a_result_leaves_the_one_before_in_force(status: str) -> None:
    verdict = answer(**of_number(check("invalid", NOW - 5), check(status)))
    assert codes(verdict.reasons) == ["contact_invalid"]


def test_what_nobody_asked_for_makes_no_number_valid_that_a_fresh_answer_calls_invalid() -> None:
    asked = check("invalid", NOW - 9, answered_at=NOW - 9)
    checks = {"+1 631": [asked], "+1631": [check("valid", NOW)]}
    data = {"alike": {"1631": [check for some in checks.values() for check in some]}}
    assert codes(answer("1631", **data).reasons) == ["contact_invalid"]
    assert answer("1631", **data, now=NOW - 9 + 7 * DAY_MS).sendable


def test_the_wa_id_is_that_of_the_answer_that_was_asked_for_while_it_is_fresh() -> None:
    asked, other = check(wa_id="1", checked_at=NOW - 9, answered_at=NOW - 9), check(wa_id="2")
    data = {"alike": {WA_ID: [other, asked]}}
    assert answer("+16315550001", **data).wa_id == "1"
    assert answer("+16315550001", **data, now=NOW - 9 + 7 * DAY_MS).wa_id == "2"


def test_a_user_never_heard_of_is_sendable_with_a_warning() -> None:
    verdict = answer()
    assert (verdict.known, verdict.sendable) == (False, True)
    assert [told(warning) for warning in verdict.warnings] == [("contact_unknown", None, WA_ID)]


def test_a_contact_checked_longer_than_seven_days_ago_warns() -> None:
    checked_at = NOW - 7 * DAY_MS
    assert answer(**of_number(check(checked_at=checked_at + 1))).warnings == ()
    verdict = answer(**of_number(check(checked_at=checked_at)))
    assert [told(warning) for warning in verdict.warnings] == [("contact_stale", NOW, WA_ID)]
    assert verdict.sendable


def test_a_user_who_wrote_to_the_business_of_late_is_no_stale_contact() -> None:
    old = of_number(check(checked_at=NOW - 30 * DAY_MS))
    assert answer(WA_ID, user(wrote_at=NOW - DAY_MS), **old).warnings == ()
    assert codes(answer(WA_ID, user(wrote_at=NOW - 8 * DAY_MS), **old).warnings) == [
        "contact_stale"
    ]


def test_on_the_cloud_api_a_message_shows_that_the_number_is_one() -> None:
    invalid = of_number(check("invalid", NOW - DAY_MS))
    for wrote_at, sendable in ((NOW - 2 * DAY_MS, False), (NOW, True)):
        writer = user(wrote_at=wrote_at)
        assert answer(WA_ID, writer, **invalid, cloud=True).sendable is sendable
        assert not answer(WA_ID, writer, **invalid).sendable


def test_an_account_that_does_not_answer_warns_and_blocks_nothing() -> None:
    verdict = answer(WA_ID, user(), unreachable_since=NOW - 3)
    assert verdict.sendable
    assert [told(warning) for warning in verdict.warnings] == [
        ("account_unreachable", NOW - 3, None)
    ]


def test_all_reasons_are_given_at_once() -> None:
    known = user(State.ACKNOWLEDGED, blocked_since=NOW, moved_to=MOVED)
    found = codes(answer(WA_ID, known, **of_number(check("invalid"))).reasons)
    assert found == ["send_blocked", "number_changed", "contact_invalid"]


@pytest.mark.parametrize("cloud", [False, True])
def test_every_reason_says_what_would_clear_it(cloud: bool) -> None:
    open_ = {State.ACKNOWLEDGED, State.AWAITING_HASH}
    known = {f"identity_{state}" for state in State if state not in open_}
    known |= {"send_blocked", "number_changed", "contact_invalid"}
    known |= {"contact_unknown", "contact_stale", "account_unreachable", "other_spelling"}
    assert set(CLEARS_WHEN) >= known
    worst = user(State.HELD, blocked_since=NOW, moved_to=MOVED, unverified=True)
    status = {"restored_at": NOW, "unreachable_since": NOW, "cloud": cloud}
    verdict = answer(WA_ID, worst, **of_number(check("invalid", 1)), **status)
    assert all(reason.clears_when for reason in (*verdict.reasons, *verdict.warnings))


@pytest.mark.parametrize("state", [None, State.ACKNOWLEDGED])
def test_whom_the_client_was_not_asked_about_since_a_restore_is_blocked(
    state: State | None,
) -> None:
    verdict = answer(WA_ID, user(state, unverified=True), restored_at=NOW - 3)
    assert [told(reason) for reason in verdict.reasons] == [("unverified", NOW - 3, WA_ID)]
    assert verdict.warnings == ()
    assert answer(WA_ID, user(state), restored_at=NOW - 3).sendable


def test_whom_nobody_ever_heard_of_is_not_blocked_by_a_restore() -> None:
    verdict = answer(restored_at=NOW - 3)
    assert verdict.sendable
    assert codes(verdict.warnings) == ["contact_unknown", "account_unverified"]
    assert answer(**of_number(check()), restored_at=NOW - 3).sendable


def blocked(until: int | None) -> Recipient:
    return user(State.ACKNOWLEDGED, blocked=ManualBlock(NOW - 9, until, "asked us to stop"))


def test_a_person_s_block_blocks_until_it_ends_by_itself() -> None:
    assert codes(answer(WA_ID, blocked(None)).reasons) == ["blocked"]
    [reason] = answer(WA_ID, blocked(NOW + 1)).reasons
    assert (reason.since, reason.until, reason.detail) == (NOW - 9, NOW + 1, "asked us to stop")
    assert answer(WA_ID, blocked(NOW)).sendable


def test_who_is_known_by_a_block_alone_is_still_unknown() -> None:
    stranger = blocked(NOW)._replace(state=None, is_known=False)
    verdict = answer(WA_ID, stranger)
    assert (verdict.known, codes(verdict.warnings)) == (False, ["contact_unknown"])
    assert answer(WA_ID, stranger, **of_number(check())).known


def test_catching_up_warns_until_it_ends() -> None:
    reason = Reason("catching_up", NOW - 5, until=NOW + 5)
    [warning] = answer(WA_ID, user(), catching_up=reason).warnings
    assert (warning.code, warning.until) == ("catching_up", NOW + 5)
    assert answer(WA_ID, user(), now=NOW + 5, catching_up=reason).warnings == ()


def test_an_account_says_which_reasons_only_warn_and_which_warnings_block() -> None:
    rules = Rules(frozenset({"identity_held"}), frozenset({"account_unreachable"}))
    verdict = answer(WA_ID, user(State.HELD), unreachable_since=NOW - 3, rules=rules)
    assert codes(verdict.reasons) == ["account_unreachable"]
    assert codes(verdict.warnings) == ["identity_held"]
    assert codes(answer(WA_ID, user(State.PENDING), rules=rules).reasons) == ["identity_pending"]


def test_an_account_may_refuse_whom_nobody_ever_heard_of() -> None:
    rules = Rules(block=frozenset({"contact_unknown"}))
    verdict = answer(rules=rules)
    assert (verdict.known, codes(verdict.reasons), verdict.warnings) == (
        False, ["contact_unknown"], ()
    )  # fmt: skip
    assert answer(WA_ID, user(), rules=rules).sendable


def test_by_several_names_every_reason_counts_once_and_says_of_whom_it_is() -> None:
    one = user(State.ACKNOWLEDGED)
    other = user(State.HELD, NEW, blocked_since=NOW - 2)
    by_check = {"checks": {"+16315550001": [check(wa_id=NEW)]}}
    both = answer("+16315550001", one, other, **by_check)
    assert (both.wa_id, both.known) == (NEW, True)
    assert [told(r) for r in both.reasons] == [
        ("identity_held", NOW - 400, NEW), ("send_blocked", NOW - 2, NEW)
    ]  # fmt: skip
    other_way = {"checks": {"+16315550002": [check(wa_id=WA_ID)]}}
    crossed = answer("+16315550002", one, other, **other_way)
    assert (crossed.wa_id, crossed.sendable, crossed.hash) == (WA_ID, False, None)
    assert {reason.of for reason in crossed.reasons} == {NEW}


def test_the_hash_to_send_along_is_the_trusted_one_and_none_while_anything_blocks() -> None:
    known = user(State.ACKNOWLEDGED)
    assert answer(WA_ID, known).hash == "A"
    assert answer(WA_ID, known._replace(blocked=ManualBlock(NOW, None, ""))).hash is None
    for state in set(State) - {State.ACKNOWLEDGED}:
        assert answer(WA_ID, known._replace(state=state)).hash is None


def test_while_a_hash_is_awaited_a_message_without_one_may_be_sent() -> None:
    assert answer(WA_ID, user(State.AWAITING_HASH)).sendable


BRAZIL, OTHER_BRAZIL = "551185550361", "5511985550361"


def test_a_user_found_by_another_spelling_alone_is_answered_with_a_warning_that_names_it() -> None:
    verdict = answer(OTHER_BRAZIL, user(State.ACKNOWLEDGED, BRAZIL))
    assert (verdict.wa_id, verdict.known, verdict.hash) == (BRAZIL, True, "A")
    [warning] = verdict.warnings
    assert (warning.code, warning.of, warning.alias) == ("other_spelling", BRAZIL, BRAZIL)


def test_where_the_unknown_are_not_written_to_another_spelling_is_not_enough_to_be_known() -> None:
    rules = Rules(block=frozenset({"contact_unknown"}))
    [reason] = answer(OTHER_BRAZIL, user(State.ACKNOWLEDGED, BRAZIL), rules=rules).reasons
    assert (reason.code, reason.alias) == ("contact_unknown", BRAZIL)
    assert "wa_id" in reason.clears_when
    assert answer(BRAZIL, user(State.ACKNOWLEDGED, BRAZIL), rules=rules).sendable


def test_who_is_found_by_another_spelling_adds_reasons_to_who_is_named_and_nothing_else() -> None:
    named, other = user(State.ACKNOWLEDGED, OTHER_BRAZIL), user(State.PENDING, BRAZIL)
    verdict = answer(OTHER_BRAZIL, named, other)
    assert (verdict.wa_id, verdict.hash) == (OTHER_BRAZIL, None)
    assert [told(r) for r in verdict.reasons] == [("identity_pending", NOW - 400, BRAZIL)]
    assert verdict.warnings == ()
