"""A user's changes in the order of their event times, whatever the order of arrival.

A *change* is a hash over the span of the moments at which it was seen. Two changes that follow
each other have different hashes: the same hash again only grows the span. A sighting that falls
between two sightings of another hash parts them, for then the hash came, went and came again.
The timeline is therefore the same for every order in which the same sightings arrive.
"""

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice

from service.model.moments import SECOND_MS, Moment, Precision

MAX_SIGHTINGS = 32
"""Sightings kept of a change, to part it rightly should another hash turn out to lie within."""

MAX_NEAR = 64
"""Changes that are looked at for one that began earlier and is not over: a bound, for a user who is
flooded with them."""


@dataclass(slots=True)
class Change:
    """This user has this hash, since this time; and what became of it.

    `seen` are the moments at which the hash was seen, in their order; `claims` the event times
    (ms) that lay too far ahead to be believed, to know a repeat by. The hash is None where the
    Cloud API said that there is another one, and not which.
    """

    hash: str | None
    changed: Moment
    received_at: int
    seen: list[Moment] = field(default_factory=list)
    claims: list[int] = field(default_factory=list)
    outcome: str | None = None
    decided_by: dict[str, str] | None = None
    decided_at: int | None = None
    acknowledged_at: int | None = None
    id: int | None = None
    touched: bool = True

    @property
    def first(self) -> Moment:
        """The earliest sighting."""
        return self.seen[0]

    @property
    def last(self) -> Moment:
        """The sighting that the span ends with."""
        return self.seen[-1]

    def spans(self, moment: Moment) -> bool:
        """Tell whether the moment lies in the span, or within a second of it."""
        return _touch(self.first.at, self.last.until, moment) or _touch(
            self.changed.at, self.changed.until, moment
        )

    def absorb(self, moment: Moment) -> None:
        """Take a further sighting of the same change; of the same second the exact one stays."""
        if moment in self.seen or self._knows_better(moment):
            return
        if moment.precision is Precision.EXACT:
            self.seen = [m for m in self.seen if not _vaguer(m, moment)]
        insort(self.seen, moment)
        if len(self.seen) > MAX_SIGHTINGS:
            del self.seen[1]
        if moment.better(self.changed):
            self.changed = moment
        self.touched = True

    def _knows_better(self, moment: Moment) -> bool:
        return any(_vaguer(moment, m) for m in self.seen)


def _vaguer(moment: Moment, exact: Moment) -> bool:
    """Tell whether the moment is the whole second that the exact one lies in."""
    return (
        moment.precision is Precision.SECOND
        and exact.precision is Precision.EXACT
        and moment.at <= exact.at <= moment.until
    )


class Order(Enum):
    """Where a sighting falls on the timeline."""

    REPEAT = auto()
    """It says nothing new."""
    LATER = auto()
    """It lies after the whole span of the latest: a new latest."""
    EARLIER = auto()
    """It lies before the end of the latest's span: a matter of history."""
    AMBIGUOUS = auto()
    """It can't be told from the end of the latest's span."""


def locate(latest: Change, history: list[Change], hash_: str | None, moment: Moment) -> Order:
    """Tell where a sighting falls. `history` is sorted by the first sighting."""
    if latest.hash == hash_:
        return _locate_again(latest, history, moment)
    if any(c.spans(moment) for c in _near(history, hash_, moment)):
        return Order.REPEAT
    if moment.after(latest.last):
        return Order.LATER
    if moment.until < latest.last.at:
        return Order.EARLIER
    return Order.AMBIGUOUS


def _locate_again(latest: Change, history: list[Change], moment: Moment) -> Order:
    """Place the latest hash seen again: a change of its own if another lies in between."""
    if latest.spans(moment) or moment.at >= latest.first.at or not history:
        return Order.REPEAT
    return Order.EARLIER if history[-1].last.at > moment.at else Order.REPEAT


def repeat(latest: Change, history: list[Change], hash_: str | None, moment: Moment) -> None:
    """Take a repeat: the latest's span grows; one in the history is only told more precisely."""
    if latest.hash == hash_:
        latest.absorb(moment)
        return
    for change in _near(history, hash_, moment):
        if change.first.at <= moment.at <= change.last.until:
            change.absorb(moment)
            return


def insert_earlier(latest: Change, history: list[Change], sighted: Change) -> list[Change]:
    """Place an earlier sighting among the changes; give the entries that history gained."""
    moment = sighted.first
    index = bisect_right(history, moment.at, key=start_of)
    neighbours = [*history[max(0, index - 1) : index + 1], latest]
    before = max((c for c in neighbours if c.first.at <= moment.at), key=start_of, default=None)
    after = min((c for c in neighbours if c.first.at > moment.at), key=start_of, default=None)
    gained = [sighted]
    inside = before is not None and before.first.at < moment.at < before.last.at
    if before is not None and inside and before.hash != sighted.hash:
        gained.insert(0, _part(before, moment))
    else:
        for neighbour in (before, after):
            if neighbour is not None and neighbour.hash == sighted.hash:
                neighbour.absorb(moment)
                return []
    for change in gained:
        insort(history, change, key=start_of)
    return gained


def count_within(
    latest: Change, history: list[Change], per_seconds: float, most: int | None = None
) -> int:
    """Count the changes in the window that ends with the latest, the latest included.

    A change whose hash was not known is the same one as that which brought the hash. `history` is
    sorted by the first sighting; `most` is where to stop counting, so that a flood of changes costs
    each of them no more than the first.
    """
    since = latest.changed.at - per_seconds * SECOND_MS
    began_within = bisect_right(history, since, key=start_of)
    counted = (
        change
        for change in islice(reversed(history), len(history) - began_within + MAX_NEAR)
        if change.hash is not None and since < change.changed.at <= latest.changed.at
    )
    return 1 + sum(1 for _ in islice(counted, None if most is None else max(0, most - 1)))


def _touch(first: int, last: int, moment: Moment) -> bool:
    return first - SECOND_MS <= moment.until and moment.at <= last + SECOND_MS


def start_of(change: Change) -> int:
    """Give what a history is sorted by."""
    return change.seen[0].at


def _near(history: list[Change], hash_: str | None, moment: Moment) -> list[Change]:
    """Give the changes to this hash whose span may hold the moment."""
    end = bisect_right(history, moment.until + SECOND_MS, key=start_of)
    return [c for c in history[max(0, end - MAX_NEAR) : end] if c.hash == hash_]


def _part(change: Change, moment: Moment) -> Change:
    """Cut off what was seen before the moment; the change itself keeps what came after."""
    left = [m for m in change.seen if m.at < moment.at]
    change.seen = [m for m in change.seen if m.at >= moment.at]
    change.changed = _best(change.seen)
    change.touched = True
    return Change(change.hash, _best(left), change.received_at, left)


def _best(moments: list[Moment]) -> Moment:
    return min(moments, key=lambda m: (m.precision, m.at))
