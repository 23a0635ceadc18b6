"""What the dialects have in common: JSON within limits, usable fields, and what was found.

Callbacks are read liberally in form and strictly in what is usable. Fields are read by hand, for
this is the way of every callback: pydantic models of the same elements took nearly twice as long.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from service.model.events import Event, Fault, HashUnreadable, Reading
from service.model.timeline import LATEST_MS, SECOND_MS, Moment, Precision
from service.model.users import usable_alias, usable_hash

MAX_DEPTH = 100
OFF_LOOP_BYTES = 65_536
"""Bodies above this are read off the event loop.

What a body of 4 MiB is parsed into can take a dozen times as much.
"""
MAX_TIME_DIGITS = 15
"""Fifteen digits of milliseconds reach the year 33,658."""
MAX_TEXT_CHARACTERS = 1024
MAX_ID_CHARACTERS = 256
SYNTHETIC = "ackgate-doctor"
"""The one key of a callback of our own, which no client sends and which has no effect."""
MAX_FAULTS = 10
"""Faults that are named; the others are counted."""


# Bodies.


class UnreadableError(Exception):
    """A body that is no JSON object; the text says why, without its content."""


def read_object(content_type: str, content_encoding: str, body: bytes) -> dict[str, Any]:
    """Read a body as a JSON object, nested at most `MAX_DEPTH` deep.

    Raise UnreadableError, with the reason to keep in the journal, if it is none.
    """
    if content_encoding not in {"", "identity"}:
        raise UnreadableError("the body is compressed")
    if not _is_json(content_type):
        raise UnreadableError("the media type is not application/json")
    value = parse(body)
    if not isinstance(value, dict):
        raise UnreadableError("the body is no JSON object")
    # A body is never deeper than it has opening brackets.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise UnreadableError(f"the body is nested deeper than {MAX_DEPTH}")
    return value


def _is_json(content_type: str) -> bool:
    """Return whether a media type is that of JSON; a missing one is taken for JSON."""
    essence = content_type.partition(";")[0].strip().lower()
    return essence in {"", "application/json"} or (
        essence.startswith("application/") and essence.endswith("+json")
    )


def parse(body: bytes) -> Any:
    """Read JSON of any kind; raise UnreadableError if it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_liberally(body)


def read_exactly(body: bytes, number: Callable[[str], Any]) -> Any:
    """Read JSON of any kind, with each number made of its text; raise UnreadableError."""
    return _parse_liberally(body, number)


def _parse_liberally(body: bytes, number: Callable[[str], Any] | None = None) -> Any:
    """Read what the fast parser refuses: a lone surrogate must not cost its neighbours."""
    try:
        text = (body.removeprefix(BOM_UTF8)).decode()
    except UnicodeDecodeError:
        raise UnreadableError("the body is no valid UTF-8") from None
    try:
        read = number or _integer
        return json.loads(text, parse_int=read, parse_float=number, parse_constant=number)
    except RecursionError:
        raise UnreadableError(f"the body is nested deeper than {MAX_DEPTH}") from None
    except ValueError:
        raise UnreadableError("the body is no JSON") from None


def _integer(digits: str) -> int | float:
    """Read an integer as the fast parser does: what 64 bits can't hold is a float.

    Else a body would mean something else because of a neighbour that the fast parser refuses; and
    what is too long for Python's integers would cost more than its element.
    """
    value = int(digits) if len(digits) <= 20 else 2**64  # noqa: PLR2004  what 64 bits can hold
    return value if -(2**63) <= value < 2**64 else float(digits)


def _deeper_than(value: Any, depth: int) -> bool:
    """Walk level by level, without recursion."""
    level = [value]
    for _ in range(depth):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


# Fields.


class FieldError(Exception):
    """A value that can't be used: `path` says where, the text the reason, and neither holds it.

    `events` is what its element says all the same.
    """

    def __init__(self, path: str, reason: str, events: Sequence[Event] = ()) -> None:
        super().__init__(reason)
        self.path = path
        self.events = events

    def beside(self, *events: Event) -> "FieldError":
        """Return the same fault of an element that also says this."""
        return FieldError(self.path, str(self), events)


def alias(holder: Mapping[str, Any], key: str, path: str) -> str:
    """Return what names a user; a number counts as its digits."""
    value = holder.get(key)
    if value is None:
        raise FieldError(path, "missing")
    return as_alias(value, path)


def as_alias(value: Any, path: str) -> str:
    """Return the value as what can name a user; a number counts as its digits."""
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str) or not usable_alias(value):
        raise FieldError(path, "no usable name of a user")
    return value


def optional_alias(holder: Mapping[str, Any], key: str, path: str) -> str | None:
    """Return what names a user, where there is something."""
    return None if holder.get(key) is None else alias(holder, key, path)


def identity_hash(holder: Mapping[str, Any], key: str, path: str) -> str:
    """Return an identity hash: opaque, never decoded."""
    value = holder.get(key)
    if value is None:
        raise FieldError(path, "missing")
    if not isinstance(value, str) or not value:
        raise FieldError(path, "no text")
    if not usable_hash(value):
        raise FieldError(path, "too long" if value.isprintable() else "not printable")
    return value


def json_object(holder: Mapping[str, Any], key: str, path: str) -> dict[str, Any]:
    """Return an object."""
    value = holder.get(key)
    if not isinstance(value, dict):
        raise FieldError(path, "missing" if value is None else "no object")
    return value


def second(value: Any) -> Moment | None:
    """Read Unix seconds, which stand for a whole second; None where unreadable."""
    at = _time(value, SECOND_MS)
    return None if at is None else Moment(at, Precision.SECOND)


def millisecond(value: Any) -> Moment | None:
    """Read Unix milliseconds; None where unreadable."""
    at = _time(value, 1)
    return None if at is None else Moment(at)


def _time(value: Any, factor: int) -> int | None:
    if isinstance(value, str):
        if len(value) > MAX_TIME_DIGITS or not (value.isascii() and value.isdigit()):
            return None
        value = int(value)
    if type(value) is not int or not 0 < value * factor <= LATEST_MS:
        return None
    return value * factor


def boolean(value: Any) -> bool | None:
    """Read a boolean, or its name: Meta's table says String, its JSON shows a boolean."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def printable(value: Any) -> str | None:
    """Return a printable text of bounded length; None for anything else."""
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS or not value.isprintable():
        return None
    return value


def message_id(holder: Mapping[str, Any]) -> str | None:
    """Return the id of the message that an element is about, where it is fit to be kept."""
    value = printable(holder.get("id"))
    return None if value is None or len(value) > MAX_ID_CHARACTERS else value


def has_code(holder: Mapping[str, Any], code: int) -> bool:
    """Return whether the code is among the errors of a status, as a number or as text."""
    errors = holder.get("errors")
    if not isinstance(errors, list):
        return False
    return any(isinstance(e, dict) and e.get("code") in (code, str(code)) for e in errors)


# What was found.

Reader = Callable[[dict[str, Any]], list[Event] | None]
"""Reads one element. No events: it is ignored, and counted. None: what it says is part of what
others say."""


class Findings:
    """What has been read of a body so far, for one account."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.faults: list[Fault] = []
        self.others = self.more_faults = 0
        self.sent: list[str] = []
        self.delivered: list[str] = []

    def add_fault(self, where: str, reason: str) -> None:
        """Name a fault, or count it where many are named."""
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(where, reason))
        else:
            self.more_faults += 1

    def count_message(self, status: Any, recipient: Any) -> None:
        """Note to whom a message was sent or delivered: no event, for it changes nothing by itself.

        Whether a recipient can be a user is looked at when it is written, not in every status.
        """
        if isinstance(recipient, str) and len(recipient) <= MAX_ID_CHARACTERS:
            if status == "sent":
                self.sent.append(recipient)
            elif status == "delivered":
                self.delivered.append(recipient)

    def read_elements(self, key: str, elements: Any, reader: Reader, within: object = "") -> None:
        """Read each element for itself: one that can't be read is a fault, its neighbours count.

        `within` is what comes before the key in the path that a fault names, written out only then.
        """
        if not isinstance(elements, list):
            self.add_fault(f"{within}{key}", "not an array")
            return
        for index, element in enumerate(elements):
            if not isinstance(element, dict):
                self.add_fault(f"{within}{key}[{index}]", "not an object")
                continue
            try:
                events = reader(element)
            except FieldError as error:
                path = f"{within}{key}[{index}]"
                self.add_fault(f"{path}.{error.path}" if error.path else path, str(error))
                events = list(error.events) or None
            if events:
                self.events += events
            elif events is not None:
                self.others += 1

    def reading(self) -> Reading:
        """Return all of it, unchangeable.

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
