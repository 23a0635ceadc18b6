"""How long to wait before the next try."""

import pytest

from service.model.policy import MAX_DELAY_SECONDS, delay_seconds


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
