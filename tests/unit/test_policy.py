"""Which changes are acknowledged without a person, the guard, and the pause between tries."""

import pytest

from service.model.policy import (
    MAX_DELAY_SECONDS,
    Policies,
    Policy,
    Rule,
    delay_seconds,
    evaluate_policy,
)

MANUAL, AUTO = Policy("default"), Policy("default", "auto")


def test_the_default_waits_for_a_person() -> None:
    assert Policy("default") == Policy("default", "manual", 0, 3, 86_400)
    assert not evaluate_policy(MANUAL, 1).automatic


def test_an_automatic_policy_needs_nobody() -> None:
    verdict = evaluate_policy(AUTO, 1)
    assert verdict.automatic
    assert verdict.reason == "policy default: auto"


def test_the_fourth_change_in_the_window_waits_for_a_person_and_says_why() -> None:
    assert evaluate_policy(AUTO, 3).automatic
    verdict = evaluate_policy(AUTO, 4)
    assert not verdict.automatic
    assert verdict.reason == "policy default: guard, more than 3 changes within 86400 s"


def test_no_change_at_all_may_be_allowed() -> None:
    assert not evaluate_policy(Policy("none", "auto", max_changes=0), 1).automatic


def test_manual_stays_manual_whatever_the_guard_says() -> None:
    assert evaluate_policy(MANUAL, 9).reason == "policy default: manual"


def test_a_rule_names_users_by_whatsapp_id_or_by_first_digits() -> None:
    rule = Rule(Policy("vip"), frozenset({"491234"}), ("1631555", "44"))
    assert rule.matches("491234")
    assert rule.matches("16315550001")
    assert rule.matches("44")
    assert not rule.matches("4912345")
    assert not rule.matches("1631554")


def test_a_rule_that_names_nobody_matches_nobody() -> None:
    assert not Rule(Policy("vip")).matches("16315550001")


def test_the_first_rule_that_names_the_user_decides() -> None:
    first = Rule(Policy("first"), wa_id_prefixes=("1631",))
    second = Rule(Policy("second", "auto"), wa_ids=frozenset({"16315550001", "4912"}))
    policies = Policies((first, second), AUTO)
    assert policies.of("16315550001").name == "first"
    assert policies.of("4912").name == "second"
    assert policies.of("3312") is AUTO


@pytest.mark.parametrize(("tries", "about"), [(1, 1), (2, 2), (3, 4), (4, 8), (8, 128)])
def test_tries_come_about_one_two_four_and_so_on_seconds_apart(tries: int, about: int) -> None:
    assert delay_seconds(tries, 0.5) == pytest.approx(about)


@pytest.mark.parametrize("tries", [1, 5, 8])
def test_a_fifth_of_jitter_either_way_spreads_what_failed_together(tries: int) -> None:
    middle = delay_seconds(tries, 0.5)
    assert delay_seconds(tries, 0.0) == pytest.approx(0.8 * middle)
    assert delay_seconds(tries, 1.0) == pytest.approx(1.2 * middle)


@pytest.mark.parametrize("tries", [10, 31, 1_000, 10**9])
@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_five_minutes_is_the_longest_wait(tries: int, chance: float) -> None:
    assert delay_seconds(tries, chance) == MAX_DELAY_SECONDS == 300


def test_no_try_yet_waits_like_the_first() -> None:
    assert delay_seconds(0, 0.5) == delay_seconds(1, 0.5)


def test_the_longest_wait_can_be_chosen() -> None:
    assert delay_seconds(20, 0.5, cap=7) == 7
