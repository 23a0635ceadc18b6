"""When something happened, and how well that is known."""

from enum import IntEnum
from typing import NamedTuple

SECOND_MS = 1000
MAX_SKEW_MS = 5 * 60 * SECOND_MS
LATEST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999: what RFC 3339 can still write."""


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
        """Tell whether this was surely later than the other."""
        return self.at > other.until

    def better(self, other: "Moment") -> bool:
        """Tell whether this says better when a change came: more precise, else earlier."""
        return (self.precision, self.at) < (other.precision, other.at)


class Dating(NamedTuple):
    """The moment to go by, and what was claimed where the claim is not to be believed."""

    moment: Moment
    claimed_ahead: int | None = None


def date(claimed: Moment | None, arrived: int) -> Dating:
    """Believe a claimed moment, unless there is none or it lies too far ahead of the arrival."""
    if claimed is None:
        return Dating(Moment(arrived, Precision.ARRIVAL))
    if claimed.at > arrived + MAX_SKEW_MS:
        return Dating(Moment(arrived, Precision.ARRIVAL), claimed.at)
    return Dating(claimed)
