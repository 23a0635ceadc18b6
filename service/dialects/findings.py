"""What has been read of a body so far: events, faults, and what was let pass."""

from collections.abc import Callable
from typing import Any

from service.dialects.fields import FieldError
from service.model.events import Event, Fault, HashUnreadable, Reading

SYNTHETIC = "ackgate-doctor"
"""The one key of a callback of our own, which no client sends and which has no effect."""
MAX_FAULTS = 10
"""Faults that are named; the others are counted."""

Reader = Callable[[dict[str, Any]], list[Event] | None]
"""Reads one element: no events lets it pass; None is one that is told together with others."""


class Findings:
    """What has been read of a body so far, for one account."""

    __slots__ = ("delivered", "events", "faults", "more_faults", "others", "sent")

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.faults: list[Fault] = []
        self.others = self.more_faults = 0
        self.sent: list[str] = []
        self.delivered: list[str] = []

    def add_fault(self, where: str, why: str) -> None:
        """Name a fault, or count it where many are named."""
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(where, why))
        else:
            self.more_faults += 1

    def reading(self) -> Reading:
        """Give all of it, unchangeable.

        What can't be read comes last: a hash beside it that can be must not be the first one that
        is ever seen of the user, for then it would be trusted.
        """
        events = self.events
        if self.faults:
            events = sorted(events, key=lambda event: isinstance(event, HashUnreadable))
        return Reading(
            tuple(events),
            tuple(self.faults),
            self.others,
            self.more_faults,
            tuple(self.sent),
            tuple(self.delivered),
        )


def read_elements(
    key: str, elements: Any, reader: Reader, found: Findings, within: object = ""
) -> None:
    """Read every element for itself: one that can't be read is a fault, its neighbours count.

    `within` is what comes before the key in the path that a fault names, written out only then.
    """
    if not isinstance(elements, list):
        found.add_fault(f"{within}{key}", "not an array")
        return
    for index, element in enumerate(elements):
        try:
            events = reader(element) if isinstance(element, dict) else _no_object()
        except FieldError as error:
            path = f"{within}{key}[{index}]"
            found.add_fault(f"{path}.{error.path}" if error.path else path, str(error))
            found.events += error.events
            continue
        if events:
            found.events += events
        elif events is not None:
            found.others += 1


def _no_object() -> list[Event]:
    raise FieldError("", "not an object")
