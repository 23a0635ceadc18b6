"""Points of the charts: what happened, added up by stretches of time, so that a chart reads few.

Everything is added up for three spans at once, each with a step of its own: whatever the traffic, a
chart has as many points as its span has steps.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

MINUTE_MS = 60_000


class Series(StrEnum):
    """What is counted. `blocked` and `lag` are measured besides, in milliseconds."""

    CALLBACKS = "callbacks"
    CHANGES = "changes"
    ACKNOWLEDGED = "acknowledged"
    BLOCKED = "blocked"
    LAG = "lag"


class Span(NamedTuple):
    """How far back a chart goes: so many steps of so many milliseconds."""

    name: str
    step: int
    steps: int

    def first(self, now: int) -> int:
        """Return when (Unix ms) the first step begins; the last is the one that is under way."""
        return now - now % self.step - (self.steps - 1) * self.step


SPANS: Mapping[str, Span] = {
    span.name: span
    for span in (
        Span("hour", MINUTE_MS, 60),
        Span("day", 15 * MINUTE_MS, 96),
        Span("week", 60 * MINUTE_MS, 168),
    )
}


class Point(NamedTuple):
    """What happened from a time (Unix ms) on, for the length of a step.

    `name` is an account or app as the journal names it, for a lag the relay. `times` is how often
    it happened, or was measured; `total` and `longest` are of what is measured (ms).
    """

    step: int
    at: int
    series: str
    name: str
    times: int
    total: int = 0
    longest: int = 0


def added_up(minutes: Iterable[Point]) -> list[Point]:
    """Return for what happened in some minutes the points of all spans."""
    sums: dict[tuple[int, int, str, str], Point] = {}
    for one in minutes:
        for span in SPANS.values():
            at = one.at - one.at % span.step
            key = (span.step, at, one.series, one.name)
            before = sums.get(key, Point(*key, 0))
            sums[key] = before._replace(
                times=before.times + one.times,
                total=before.total + one.total,
                longest=max(before.longest, one.longest),
            )
    return [*sums.values()]


@dataclass(frozen=True, slots=True)
class Chart:
    """The steps of a span, oldest first: when each begins (Unix ms), and what happened in it.

    Times are in milliseconds: the mean and the longest `blocked` until it was acknowledged, and the
    longest a relay was behind; None where nothing was measured.
    """

    span: Span
    at: Sequence[int]
    callbacks: Sequence[int]
    changes: Sequence[int]
    acknowledged: Sequence[int]
    blocked: Sequence[int | None]
    blocked_longest: Sequence[int | None]
    lag: Sequence[int | None]


def chart(span: Span, points: Iterable[Point], now: int) -> Chart:
    """Lay points out over the steps of a span that ends now (Unix ms); others are left out."""
    first = span.first(now)
    at = [first + place * span.step for place in range(span.steps)]
    by_step = {(one.series, one.at): one for one in points}

    def found(series: Series) -> list[Point | None]:
        return [by_step.get((series, begin)) for begin in at]

    def counts(series: Series) -> list[int]:
        return [0 if one is None else one.times for one in found(series)]

    blocked = found(Series.BLOCKED)
    return Chart(
        span,
        at,
        counts(Series.CALLBACKS),
        counts(Series.CHANGES),
        counts(Series.ACKNOWLEDGED),
        [one.total // one.times if one and one.times else None for one in blocked],
        [one.longest if one else None for one in blocked],
        [one.longest if one else None for one in found(Series.LAG)],
    )
