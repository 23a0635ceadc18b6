"""Contact checks that are asked for: what is asked, when it is asked again, what it costs."""

from dataclasses import replace

import pytest

from service.model.budget import Budget, Usage
from service.model.contacts import (
    DAY_MS,
    Check,
    CheckOptions,
    Contact,
    Next,
    Number,
    OptIn,
    apply_result,
    ask_again_or_give_up,
    count_attempt,
    count_to_check,
    plan_check,
    put_off,
    renew,
    without_opt_in,
)
from service.model.events import ContactChecked

NOW = 1_600_000_000_000
PATIENCE = 120_000
PLAIN = CheckOptions(wait=False, force=False, patience_ms=PATIENCE)
WAIT = replace(PLAIN, wait=True)
FORCE = replace(PLAIN, force=True)
NUMBER = Number("+1 631 555 1001", "16315551001")
VALID = Contact("main", NUMBER.input, "valid", "16315551001", NOW)
OPEN = Contact("main", NUMBER.input, "processing", None, NOW, check=Check(NOW, NOW + 9, 1))


def test_a_number_never_heard_of_is_asked_about_and_processing() -> None:
    todo, contact = plan_check("main", None, NUMBER, PLAIN, NOW)
    assert (todo, contact.status, contact.canonical) == (Next.ASK, "processing", "16315551001")
    assert contact.check == Check(NOW, NOW + PATIENCE, 0, forced=False)


@pytest.mark.parametrize("status", ["valid", "invalid"])
def test_a_fresh_result_answers_for_seven_days(status: str) -> None:
    known = replace(VALID, status=status)
    assert plan_check("main", known, NUMBER, WAIT, NOW + 7 * DAY_MS - 1)[0] is Next.ANSWER
    assert plan_check("main", known, NUMBER, PLAIN, NOW + 7 * DAY_MS)[0] is Next.ASK
    assert plan_check("main", known, NUMBER, FORCE, NOW)[0] is Next.ASK


def test_a_failed_check_is_no_result_to_go_by() -> None:
    assert plan_check("main", replace(VALID, status="failed"), NUMBER, PLAIN, NOW)[0] is Next.ASK


@pytest.mark.parametrize(
    ("check", "asking", "todo"),
    [
        (Check(NOW, NOW + 9, 1), PLAIN, Next.WAIT),
        (Check(NOW, NOW + 9, 1), WAIT, Next.ASK),
        (Check(NOW, NOW + 9, 1), FORCE, Next.ASK),
        (Check(NOW, NOW + 9, 1, forced=True), FORCE, Next.WAIT),
        (Check(NOW, NOW + 9, 0), PLAIN, Next.ASK),
        (Check(NOW, NOW, 1), PLAIN, Next.ASK),
    ],
)
def test_an_open_check_is_waited_for_where_it_answers_the_question(
    check: Check, asking: CheckOptions, todo: Next
) -> None:
    assert plan_check("main", replace(OPEN, check=check), NUMBER, asking, NOW)[0] is todo


def test_asking_again_counts_what_came_since_the_first_time() -> None:
    _, contact = plan_check("main", OPEN, NUMBER, WAIT, NOW + 5)
    assert contact.check is not None
    assert contact.check.asked_at == NOW
    result = ContactChecked(NUMBER.input, "valid", "16315551001")
    taken = apply_result(contact, "main", result, "digest", NOW + 1)
    assert taken is not None
    assert (taken.status, taken.check) == ("valid", None)


def test_what_came_before_a_check_does_not_answer_it() -> None:
    result = ContactChecked(NUMBER.input, "invalid", None)
    assert apply_result(OPEN, "main", result, "digest", NOW - 1) is None


def test_a_redelivery_moves_something_only_while_a_check_is_open() -> None:
    result = ContactChecked(NUMBER.input, "valid", "16315551001")
    first = apply_result(OPEN, "main", result, "digest", NOW)
    assert first is not None
    assert apply_result(first, "main", result, "digest", NOW + 1) is None
    assert apply_result(renew(first, NOW + 2), "main", result, "digest", NOW + 3) is not None


def test_processing_takes_the_place_of_no_result() -> None:
    processing = ContactChecked(NUMBER.input, "processing", "16315551001")
    assert apply_result(VALID, "main", processing, "digest", NOW + 1) is None
    assert apply_result(OPEN, "main", processing, "digest", NOW + 1) is None


def test_each_time_the_client_has_longer_and_in_the_end_it_is_failed() -> None:
    contact, waited = replace(OPEN, check=Check(NOW, NOW, 0)), []
    for _ in range(4):
        due = ask_again_or_give_up(contact, NOW, PATIENCE, 4)
        contact = count_attempt(due, NOW, PATIENCE)
        assert contact.check is not None
        waited.append((contact.check.due_at - NOW) / PATIENCE)
    assert waited == [1, 2, 4, 8]
    ended = ask_again_or_give_up(contact, NOW, PATIENCE, 4)
    assert (ended.status, ended.check) == ("failed", None)


def test_what_did_not_reach_the_client_counts_as_no_time() -> None:
    contact = put_off(OPEN, NOW + 77)
    assert contact.check == Check(NOW, NOW + 77, 1)
    assert (
        put_off(VALID, NOW + 77)
        == count_attempt(VALID, NOW, 1)
        == ask_again_or_give_up(VALID, NOW, 1, 1)
    )


def test_a_renewal_keeps_the_result_and_passes_by_the_clients_cache() -> None:
    renewed = renew(VALID, NOW + 5)
    assert (renewed.status, renewed.checked_at) == ("valid", NOW)
    assert renewed.check == Check(NOW + 5, NOW + 5, 0, forced=True)


def test_two_spellings_cost_one_and_what_is_known_costs_nothing() -> None:
    other = Number("(631) 555-1001", "16315551001")
    junk = Number("junk", "")
    assert count_to_check([NUMBER, other, junk], set(), force=False) == 2
    assert count_to_check([NUMBER, other], {"16315551001"}, force=False) == 0
    assert count_to_check([NUMBER, other], {"16315551001"}, force=True) == 1


def test_an_opt_in_holds_for_every_spelling() -> None:
    opt_in = OptIn(NOW, "shop")
    junk = Number("junk", "")
    own = replace(junk, opt_in=opt_in)
    assert without_opt_in([NUMBER, junk, own], {"16315551001": opt_in}) == [1]


BUDGET = Budget(free_checks=10, checks_per_message=0.5, window_days=7, force_cost=3, warn_at=0.8)


def test_messages_are_what_more_statuses_tell_of() -> None:
    assert Usage(sent=3, delivered=5).messages == 5
    assert Usage(sent=3, delivered=2).messages == 3


def test_the_limit_grows_with_the_messages_and_a_forced_check_weighs_more() -> None:
    usage = Usage(checks=6, forced=2, sent=4)
    assert BUDGET.limit(usage) == 12
    assert BUDGET.spent(usage) == 10
    assert BUDGET.left(usage) == 2
    assert BUDGET.used(usage) == pytest.approx(10 / 12)
    assert BUDGET.price(2, force=True) == 6
    assert BUDGET.left(usage + Usage(checks=50)) == 0


def test_a_budget_of_nothing_is_spent() -> None:
    assert replace(BUDGET, free_checks=0).used(Usage()) == 1


def test_the_window_ends_with_today() -> None:
    assert BUDGET.first_day(20 * DAY_MS + 5) == 14
