"""When hashes were seen, and a user's changes in the order of their event times.

A *change* is a hash over the span of the moments at which it was seen. Two changes that follow
each other have different hashes: the same hash again only grows the span. A sighting that falls
between two sightings of another hash splits them, for then the hash came, went and came again.
The timeline is therefore the same for every order in which the same sightings arrive, which is
what delivery requires: callbacks come at least once, and in any order.
"""

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from itertools import islice
from typing import NamedTuple

SECOND_MS = 1000
MAX_SKEW_MS = 5 * 60 * SECOND_MS
"""An event time that lies further ahead of its arrival is not believed."""
LATEST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999: what RFC 3339 can still write."""
MAX_SIGHTINGS = 32
"""Sightings kept of a change, to split it rightly should another hash turn out to lie within.

`created_timestamp` makes nearly all sightings of a change equal, so that there are one or two.
"""
MAX_NEAR = 64
"""Changes that are looked at for one that began earlier and is not over: a bound, for a user who is
flooded with them."""


class Precision(IntEnum):
    """How well a moment is known; of the same change the smaller is kept."""

    EXACT = 0
    """To the millisecond: from the message id or `created_timestamp`."""
    SECOND = 1
    """To the whole second that a `timestamp` stands for."""
    ARRIVAL = 2
    """Only that it was before the callback arrived."""


class Moment(NamedTuple):
    """A time in Unix milliseconds, and its precision."""

    at: int
    precision: Precision = Precision.EXACT

    @property
    def until(self) -> int:
        """The last millisecond that the moment may stand for."""
        return self.at + SECOND_MS - 1 if self.precision is Precision.SECOND else self.at

    def after(self, other: "Moment") -> bool:
        """Return whether this was surely later than the other."""
        return self.at > other.until

    def better(self, other: "Moment") -> bool:
        """Return whether this says better when a change came: more precise, else earlier."""
        return (self.precision, self.at) < (other.precision, other.at)


class Dating(NamedTuple):
    """The moment to go by, and the claimed time (ms) where the claim is not believed."""

    moment: Moment
    claimed_ahead: int | None = None


def date_event(claimed: Moment | None, arrived: int) -> Dating:
    """Return when something happened: as claimed, unless that is too far ahead of the arrival."""
    if claimed is None:
        return Dating(Moment(arrived, Precision.ARRIVAL))
    if claimed.at > arrived + MAX_SKEW_MS:
        return Dating(Moment(arrived, Precision.ARRIVAL), claimed.at)
    return Dating(claimed)


@dataclass(slots=True)
class Change:
    """This user has this hash, since this time; and what was decided about it.

    `seen` are the moments at which the hash was seen, in their order; `claims` the event times
    (ms) that lay too far ahead to be believed, by which a repeat is recognized. The hash is None
    where the Cloud API said that there is another one, and not which.
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

    @property
    def first(self) -> Moment:
        """The earliest sighting."""
        return self.seen[0]

    @property
    def last(self) -> Moment:
        """The sighting that the span ends with."""
        return self.seen[-1]

    @property
    def is_decided_by_policy(self) -> bool:
        """Whether a policy decided about the change, and neither a person nor the client."""
        return self.decided_by is not None and self.decided_by["kind"] == "policy"

    @property
    def is_decided_by_somebody(self) -> bool:
        """Whether a person or the client decided about the change, and not a policy."""
        return self.decided_by is not None and self.decided_by["kind"] != "policy"

    def forget_decision(self) -> None:
        """Forget who decided about the change, and that it was acknowledged."""
        self.decided_by = self.decided_at = self.acknowledged_at = None

    def spans(self, moment: Moment) -> bool:
        """Return whether the moment lies in the span, or within a second of it."""
        return _touch(self.first.at, self.last.until, moment) or _touch(
            self.changed.at, self.changed.until, moment
        )

    def absorb(self, moment: Moment) -> None:
        """Add a sighting of the same change; of the same second only the exact one is kept."""
        if moment in self.seen or any(_is_second_of(moment, m) for m in self.seen):
            return
        self.seen = [m for m in self.seen if not _is_second_of(m, moment)]
        insort(self.seen, moment)
        if len(self.seen) > MAX_SIGHTINGS:
            del self.seen[1]
        if moment.better(self.changed):
            self.changed = moment


def _is_second_of(moment: Moment, exact: Moment) -> bool:
    """Return whether the moment is the whole second that the exact one lies in."""
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
    """Whether it lies before or after the end of the latest's span is unknown."""


def locate(latest: Change, history: list[Change], hash_: str | None, moment: Moment) -> Order:
    """Return where a sighting falls. `history` is sorted by the first sighting."""
    if latest.hash == hash_:
        # A change of its own only if another hash lies in between.
        if latest.spans(moment) or moment.at >= latest.first.at or not history:
            return Order.REPEAT
        return Order.EARLIER if history[-1].last.at > moment.at else Order.REPEAT
    if any(change.spans(moment) for change in _near(history, hash_, moment)):
        return Order.REPEAT
    if moment.after(latest.last):
        return Order.LATER
    if moment.until < latest.last.at:
        return Order.EARLIER
    return Order.AMBIGUOUS


def record_repeat(latest: Change, history: list[Change], hash_: str | None, moment: Moment) -> None:
    """Record a repeat: the latest's span grows; one in the history only becomes more precise."""
    if latest.hash == hash_:
        latest.absorb(moment)
        return
    for change in _near(history, hash_, moment):
        if change.first.at <= moment.at <= change.last.until:
            change.absorb(moment)
            return


def insert_earlier(latest: Change, history: list[Change], sighted: Change) -> list[Change]:
    """Place an earlier sighting among the changes, and return the entries that history gained.

    Where it lies within the span of another hash there are two: the sighting, after what that hash
    was seen at before.
    """
    moment = sighted.first
    index = bisect_right(history, moment.at, key=start_of)
    neighbours = [*history[max(0, index - 1) : index + 1], latest]
    before = max((c for c in neighbours if c.first.at <= moment.at), key=start_of, default=None)
    after = min((c for c in neighbours if c.first.at > moment.at), key=start_of, default=None)
    gained = [sighted]
    inside = before is not None and before.first.at < moment.at < before.last.at
    if before is not None and inside and before.hash != sighted.hash:
        gained.insert(0, _split(before, moment))
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
    """Return how many changes lie in the window that ends with the latest, the latest included.

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


def just_after(latest: Change, dating: Dating) -> Dating:
    """Return the dating of a sighting right behind the latest, for one whose own time is not used.

    So it is when the client says which hash is the latest: its answer outranks every timestamp.
    """
    return dating._replace(moment=Moment(latest.last.until + 1, Precision.ARRIVAL))


def start_of(change: Change) -> int:
    """Return what a history is sorted by."""
    return change.seen[0].at


def _touch(first: int, last: int, moment: Moment) -> bool:
    return first - SECOND_MS <= moment.until and moment.at <= last + SECOND_MS


def _near(history: list[Change], hash_: str | None, moment: Moment) -> list[Change]:
    """Return the changes to this hash whose span may hold the moment."""
    end = bisect_right(history, moment.until + SECOND_MS, key=start_of)
    return [c for c in history[max(0, end - MAX_NEAR) : end] if c.hash == hash_]


def _split(change: Change, moment: Moment) -> Change:
    """Cut off and return what was seen before the moment; the change keeps what came after."""
    left = [m for m in change.seen if m.at < moment.at]
    change.seen = [m for m in change.seen if m.at >= moment.at]
    change.changed = _best(change.seen)
    return Change(change.hash, _best(left), change.received_at, left)


def _best(moments: list[Moment]) -> Moment:
    return min(moments, key=lambda m: (m.precision, m.at))
