"""After a downtime: until when callbacks may still be under way that could not be delivered.

The client tries again 3 s after the first failure, then after 6, 9 … s, at most 900 s
("callback_backoff_delay_ms" and "max_callback_backoff_delay_ms" of its settings): the longer we
were away, the longer it may be until its next try.
"""

from math import ceil, sqrt

from service.model.gate import Reason

STEP_SECONDS = 3
LONGEST_SECONDS = 900
MARGIN_SECONDS = 10
"""For the requests themselves: all that failed are on their way at once then."""


def catching_up(alive_at: int | None, now: int) -> Reason | None:
    """Give the gate's reason after a downtime, from when we were last alive (Unix ms).

    None where that is not known: nothing was ever missed.
    """
    if alive_at is None:
        return None
    seconds = min(LONGEST_SECONDS, next_try_seconds((now - alive_at) / 1000) + MARGIN_SECONDS)
    return Reason("catching_up", now, until=now + 1000 * seconds)


def next_try_seconds(down_seconds: float) -> int:
    """Give the longest that the client may pause before it tries again what failed in this time.

    After n tries it has waited 3 + 6 + … + 3n s, which is 1.5 n (n + 1).
    """
    waited = max(0.0, down_seconds) / (STEP_SECONDS / 2)
    tries = ceil((sqrt(1 + 4 * waited) - 1) / 2)
    return min(LONGEST_SECONDS, STEP_SECONDS * max(1, tries))
