"""After a downtime: until when callbacks may still be under way that could not be delivered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.gate import LONGEST_SECONDS, MARGIN_SECONDS, catching_up, next_try_seconds

NOW = 1_600_000_000_000


def pauses() -> list[int]:
    """The client's schedule: 3, 6, 9 … s, at most 900, for a day."""
    return [min(900, 3 * n) for n in range(1, 400)]


@pytest.mark.parametrize(
    ("down", "pause"), [(0, 3), (3, 3), (4, 6), (9, 6), (10, 9), (60, 18), (3600, 147)]
)
def test_the_longer_the_downtime_the_longer_the_client_may_pause(down: float, pause: int) -> None:
    assert next_try_seconds(down) == pause


@given(st.floats(0, 86_400), st.floats(0, 1))
def test_whatever_failed_meanwhile_is_tried_again_within_that_time(
    down: float, part: float
) -> None:
    first_failed = part * down
    tried_at, schedule = first_failed, iter(pauses())
    while tried_at < down:
        tried_at += next(schedule)
    assert tried_at - down <= next_try_seconds(down)


def test_it_is_never_longer_than_a_quarter_of_an_hour() -> None:
    week = catching_up(NOW - 7 * 86_400_000, NOW)
    assert week is not None
    assert (week.since, week.until) == (NOW, NOW + 1000 * LONGEST_SECONDS)
    assert LONGEST_SECONDS == 15 * 60


def test_after_a_short_downtime_it_is_short() -> None:
    short = catching_up(NOW - 2000, NOW)
    assert short is not None
    assert short.until == NOW + 1000 * (3 + MARGIN_SECONDS)


def test_a_clock_that_was_set_back_makes_it_short() -> None:
    assert catching_up(NOW + 5000, NOW) == catching_up(NOW, NOW)


def test_a_service_that_never_ran_has_missed_nothing() -> None:
    assert catching_up(None, NOW) is None
