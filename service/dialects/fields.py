"""The values that the WhatsApp APIs send: liberal in form, strict in what is usable.

Written by hand, for this is the hot path: pydantic models of the same elements took nearly twice as
long (see `docs/architecture.md`). A value that can't be used raises FieldError.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from service.model.events import Event
from service.model.moments import LATEST_MS, SECOND_MS, Moment, Precision
from service.model.names import usable_alias, usable_hash

MAX_TIME_DIGITS = 15
"""Fifteen digits of milliseconds reach the year 33,658."""
MAX_HINT_CHARACTERS = 1024
MAX_ID_CHARACTERS = 256


class FieldError(Exception):
    """A value that can't be used: `path` says where, the text why, and neither holds it.

    `events` is what its element says all the same.
    """

    def __init__(self, path: str, why: str, events: Sequence[Event] = ()) -> None:
        super().__init__(why)
        self.path = path
        self.events = events

    def beside(self, *events: Event) -> "FieldError":
        """Give the same fault of an element that also says this."""
        return FieldError(self.path, str(self), events)


def alias(holder: Mapping[str, Any], key: str, path: str) -> str:
    """Give what names a user; a number counts as its digits."""
    value = holder.get(key)
    if value is None:
        raise FieldError(path, "missing")
    return usable(value, path)


def usable(value: Any, path: str) -> str:
    """Give the value as what can name a user; a number counts as its digits."""
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str) or not usable_alias(value):
        raise FieldError(path, "no usable name of a user")
    return value


def optional_alias(holder: Mapping[str, Any], key: str, path: str) -> str | None:
    """Give what names a user, where there is something."""
    return None if holder.get(key) is None else alias(holder, key, path)


def identity_hash(holder: Mapping[str, Any], key: str, path: str) -> str:
    """Give an identity hash: opaque, never decoded."""
    value = holder.get(key)
    if value is None:
        raise FieldError(path, "missing")
    if not isinstance(value, str) or not value:
        raise FieldError(path, "no text")
    if not usable_hash(value):
        raise FieldError(path, "too long" if value.isprintable() else "not printable")
    return value


def table(holder: Mapping[str, Any], key: str, path: str) -> dict[str, Any]:
    """Give an object."""
    value = holder.get(key)
    if not isinstance(value, dict):
        raise FieldError(path, "missing" if value is None else "no object")
    return value


def second(value: Any) -> Moment | None:
    """Read Unix seconds, which stand for a whole second; None where unreadable."""
    if type(value) is str and len(value) <= MAX_TIME_DIGITS:
        return _second_in(value)
    return _second(value)


def _second(value: Any) -> Moment | None:
    at = _time(value, SECOND_MS)
    return None if at is None else Moment(at, Precision.SECOND)


@lru_cache(maxsize=1024)
def _second_in(text: str) -> Moment | None:
    """Read a text once: what comes at a time was mostly sent within the same few seconds."""
    return _second(text)


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


def truth(value: Any) -> bool | None:
    """Read a boolean, or its name: Meta's table says String, its JSON shows a boolean."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def hint(value: Any) -> str | None:
    """Give a text that helps where it is one."""
    if not isinstance(value, str) or len(value) > MAX_HINT_CHARACTERS or not value.isprintable():
        return None
    return value


def message_id(holder: Mapping[str, Any]) -> str | None:
    """Give the id of the message that an element speaks of, where it is fit to be kept."""
    value = hint(holder.get("id"))
    return None if value is None or len(value) > MAX_ID_CHARACTERS else value


def has_code(holder: Mapping[str, Any], code: int) -> bool:
    """Tell whether the code is among the errors of a status, as a number or as text."""
    errors = holder.get("errors")
    if not isinstance(errors, list):
        return False
    return any(isinstance(e, dict) and e.get("code") in (code, str(code)) for e in errors)
