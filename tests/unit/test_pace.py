"""A destination is sent to as fast as it takes, and hardly at all while it is down."""

from itertools import pairwise

import pytest

from service.model.pace import (
    DOWN_AFTER,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LONGEST_WISH_SECONDS,
    Pace,
)


def down(pace: Pace, now: float = 0.0) -> None:
    for _ in range(DOWN_AFTER):
        pace.failed(now, now, 0.5, None)


def test_as_many_are_open_as_are_allowed() -> None:
    pace = Pace(4)
    assert pace.may_begin(3, 0.0)
    assert not pace.may_begin(4, 0.0)


def test_a_failure_allows_fewer_and_successes_more_again() -> None:
    pace = Pace(10)
    pace.failed(0, 0, 0.5, None)
    assert pace.may_begin(6, 0.0)
    assert not pace.may_begin(7, 0.0)
    for _ in range(3):
        pace.succeeded()
    assert pace.may_begin(9, 0.0)
    pace.succeeded()
    assert not pace.may_begin(10, 0.0)


def test_one_that_fails_now_and_then_is_not_taken_for_down() -> None:
    pace = Pace(10)
    for _ in range(100):
        for _ in range(DOWN_AFTER - 1):
            pace.failed(0, 0, 0.5, None)
        pace.succeeded()
    assert not pace.is_backing_off
    assert pace.may_begin(0, 0.0)


def test_failures_in_a_row_are_a_pause_with_one_probe_after_it() -> None:
    pace = Pace(10)
    down(pace)
    assert pace.is_backing_off
    assert not pace.may_begin(0, FIRST_PAUSE_SECONDS * 0.7)
    assert pace.may_begin(0, FIRST_PAUSE_SECONDS * 1.3)
    assert not pace.may_begin(1, FIRST_PAUSE_SECONDS * 1.3)


def test_pauses_double_up_to_half_a_minute_give_or_take_a_quarter() -> None:
    pace, now, pauses = Pace(10), 0.0, []
    down(pace)
    for chance in (0.0, 1.0) * 20:
        pauses.append(pace.paused_until - now)
        now = pace.paused_until
        pace.failed(now, now, chance, None)
    assert pauses[0] == FIRST_PAUSE_SECONDS
    assert all(b <= 3.4 * a for a, b in pairwise(pauses))
    assert min(pauses[-10:]) == 0.75 * LONGEST_PAUSE_SECONDS
    assert max(pauses) == 1.25 * LONGEST_PAUSE_SECONDS


def test_what_was_open_as_the_pause_began_makes_it_no_longer() -> None:
    pace = Pace(100)
    down(pace, 10.0)
    until = pace.paused_until
    for _ in range(50):
        pace.failed(9.0, 10.1, 0.5, None)
    assert pace.paused_until == until


def test_after_a_success_it_begins_again_with_one_more_each_time() -> None:
    pace = Pace(10)
    down(pace)
    pace.succeeded()
    assert not pace.is_backing_off
    now = pace.paused_until
    assert not pace.may_begin(1, now)
    pace.succeeded()
    assert pace.may_begin(1, now)
    assert not pace.may_begin(2, now)


@pytest.mark.parametrize(("wish", "seconds"), [(7.0, 7.0), (10**6, LONGEST_WISH_SECONDS)])
def test_a_wish_is_obeyed_within_an_hour_by_one_failure_alone(wish: float, seconds: float) -> None:
    pace = Pace(10)
    pace.failed(0, 0, 0.5, wish)
    assert not pace.may_begin(0, seconds - 0.1)
    assert pace.may_begin(0, seconds)


def test_a_rate_is_kept_and_a_pause_is_made_up_for_by_a_second_s_worth() -> None:
    pace, begun = Pace(1000, per_second=10), []
    for tick in range(300):
        now = 100 + tick / 100
        while pace.may_begin(0, now):
            pace.begin(now)
            begun.append(now)
    assert 35 <= len(begun) <= 41
    assert sum(now < 101 for now in begun) <= 21
