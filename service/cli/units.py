"""Times, sizes and durations, as people read them."""

import re
from datetime import UTC, datetime
from itertools import takewhile

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_SECONDS = ((86_400, "days"), (3600, "h"), (60, "min"), (1, "s"))
_BYTES = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "bytes"))
FEW = 2
"""From twice a unit on it is used: 90 min says more than 1 h."""
LONG_AGO_SECONDS = 60 * 86_400
"""From here on a date says more than a number of days."""


def is_time(value: object) -> bool:
    """Return whether a value is a time of the API, which is RFC 3339 in UTC."""
    return isinstance(value, str) and _TIME.fullmatch(value) is not None


def local(text: str) -> str:
    """Return a time of the API to the second, in the time zone of this machine."""
    at = _local(text)
    return text if at is None else at.replace(tzinfo=None).isoformat(" ", "seconds")


def ago(text: str) -> str:
    """Return how long ago a time of the API was, or its date where that was long ago."""
    at = _local(text)
    if at is None:
        return text
    seconds = (datetime.now(UTC) - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    if abs(seconds) >= LONG_AGO_SECONDS:
        return at.date().isoformat()
    return f"{duration(seconds)} ago" if seconds > 0 else f"in {duration(-seconds)}"


def in_full(text: str) -> str:
    """Return a time of the API with its offset, so that it is exact, and how long ago it was."""
    at = _local(text)
    return text if at is None else f"{at.isoformat(' ', 'seconds')} ({ago(text)})"


def duration(seconds: float) -> str:
    """Return a number of seconds in the unit that suits it."""
    return _counted(seconds, _SECONDS)


def size(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    return _counted(count, _BYTES)


def _local(text: str) -> datetime | None:
    """Return a time in the time zone of this machine; None where the calendar has no such time."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        return None


def _counted(number: float, units: tuple[tuple[int, str], ...]) -> str:
    larger = takewhile(lambda unit: number < FEW * unit[0] and unit[0] > 1, units)
    each, name = units[len(list(larger))]
    return f"{number / each:.0f} {name}"
