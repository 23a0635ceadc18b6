"""What of a kept callback is about one user: to be taken out, or to be shown to that person.

A user is named by a number that is one of the names, and by a text that holds one as a word, a
phone number in any spelling with its country code. What is about the user are the innermost
elements of arrays that hold a name outside of arrays of their own: a message, a status, a contact.
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from service.dialects.common import UnreadableError, read_exactly
from service.dialects.shares import OfOthers, set_apart
from service.model.numbers import own_digits

MAX_SPELLED = 64
"""Characters of a text that may be a phone number in another spelling."""
DIGITS_OF_64_BITS = 19
ERASED = b""
"""What is left of a body that is about nobody else."""


DIGITS = 7
"""A name of fewer digits than this is looked for as it is written, and in no other spelling."""
GAP = r"[\s().+/\u00a0\u2010-\u2015\u200b-\u200f\u202a-\u202e\u2060-]{0,4}"
"""What may stand between two digits of a phone number, marks of a text's direction included."""


class Names:
    """What a user is called; short or not, only whole words count."""

    def __init__(self, names: Collection[str]) -> None:
        self.all = frozenset(name for name in names if name)
        words = sorted(self.all, key=len, reverse=True)
        numbers = (word for word in words if word.isascii() and word.isdigit())
        spelled = [f"(?:00{GAP})?{GAP.join(one)}" for one in numbers if len(one) >= DIGITS]
        some = "|".join([*map(re.escape, words), *spelled])
        self._word = re.compile(rf"(?<![A-Za-z0-9])(?:{some})(?![A-Za-z0-9])")

    def are_in(self, value: Any) -> bool:
        """Return whether a text or number names the user."""
        if isinstance(value, Number):
            return str(value) in self.all
        if isinstance(value, bool) or not isinstance(value, str | int):
            return False
        text = str(value)
        if self._word.search(text) is not None:
            return True
        return len(text) <= MAX_SPELLED and own_digits(text) in self.all

    def are_within(self, value: Any) -> bool:
        """Return whether any key, text or number within a value names the user."""
        if isinstance(value, dict):
            return any(self.are_in(key) or self.are_within(one) for key, one in value.items())
        if isinstance(value, list):
            return any(self.are_within(one) for one in value)
        return self.are_in(value)

    def are_in_bytes(self, body: bytes) -> bool:
        """Return whether a body that is no JSON names the user."""
        return self._word.search(body.decode(errors="replace")) is not None


def erase(body: bytes, encoding: str, names: Names, others: Collection[str] = ()) -> bytes | None:
    """Return a body without what is about the user; None where it names nobody of these names.

    `others` are the phone numbers of other accounts, by their ids: what is of those stays. `ERASED`
    where nothing about anybody else is left, or where it can't be told.
    """
    try:
        value = _parsed(body, encoding)
        set_apart(value, others)
        if not names.are_within(value):
            return None
        left = _without(value, names)
        if left is _GONE or not _says_something(left):
            return ERASED
        return _written(left).encode()
    except (UnreadableError, RecursionError):
        return ERASED if names.are_in_bytes(body) else None


def about(
    body: bytes, encoding: str, names: Names, others: Collection[str] = ()
) -> list[Any] | None:
    """Return what of a body is about the user, all of it where it has no elements.

    None where nothing is. A body that is no JSON is a text of its own; where it may be of others,
    nothing of it is returned.
    """
    try:
        value = _parsed(body, encoding)
        set_apart(value, others)
        if not names.are_within(value):
            return None
        if _names_outside_arrays(value, names):
            return [_shown(value)]
        return [_shown(one) for one in _elements(value, names)]
    except (UnreadableError, RecursionError):
        if not names.are_in_bytes(body):
            return None
        return [] if others else [body.decode(errors="replace")]


class Number(str):
    """A number, as it is written: so it is written again, whatever its size or precision."""

    __slots__ = ()


def _parsed(body: bytes, encoding: str) -> Any:
    if encoding not in {"", "identity"}:
        raise UnreadableError("the body is compressed")
    return read_exactly(body, Number)


_GONE = object()


def _written(value: Any) -> str:
    """Return JSON with each number as it was."""
    match value:
        case OfOthers():
            return _written(value.value)
        case Number():
            return str(value)
        case dict():
            pairs = (f"{_written(key)}:{_written(one)}" for key, one in value.items())
            return "{" + ",".join(pairs) + "}"
        case list():
            return "[" + ",".join(map(_written, value)) + "]"
    lone = isinstance(value, str) and any("\ud800" <= one <= "\udfff" for one in value)
    return json.dumps(value, ensure_ascii=lone)


def _shown(value: Any) -> Any:
    """Return a value with its numbers, and without what is of others."""
    if isinstance(value, dict):
        mine = ((key, one) for key, one in value.items() if not isinstance(one, OfOthers))
        return {key: _shown(one) for key, one in mine}
    if isinstance(value, list):
        return [_shown(one) for one in value if not isinstance(one, OfOthers)]
    return json.loads(value, parse_int=_number) if isinstance(value, Number) else value


def _number(digits: str) -> int | str:
    """Return an integer; a text where 64 bits can't hold it."""
    return int(digits) if len(digits) < DIGITS_OF_64_BITS else digits


def _has_others(value: Any) -> bool:
    """Return whether a part of a value is of others."""
    if isinstance(value, dict):
        return any(map(_has_others, value.values()))
    if isinstance(value, list):
        return any(map(_has_others, value))
    return isinstance(value, OfOthers)


def _names_outside_arrays(value: Any, names: Names) -> bool:
    """Return whether a name is in a value, outside of any array within."""
    if isinstance(value, dict):
        found = value.items()
        return any(names.are_in(key) or _names_outside_arrays(one, names) for key, one in found)
    return not isinstance(value, list) and names.are_in(value)


def _without(value: Any, names: Names) -> Any:
    """Return a value without the elements that are about the user; `_GONE` where it is itself.

    One that is about the user loses only what names the user where a part of it is of others.
    """
    if _names_outside_arrays(value, names) and not _has_others(value):
        return _GONE
    if isinstance(value, dict):
        pairs = ((key, _without(one, names)) for key, one in value.items())
        return {key: one for key, one in pairs if one is not _GONE and not names.are_in(key)}
    if isinstance(value, list):
        kept = (_without(one, names) for one in value)
        return [one for one in kept if one is not _GONE]
    return value


def _elements(value: Any, names: Names) -> Iterator[Any]:
    """Yield the elements that are about the user."""
    if isinstance(value, dict):
        for one in value.values():
            yield from _elements(one, names)
    elif isinstance(value, list):
        for one in value:
            if _names_outside_arrays(one, names):
                yield one
            else:
                yield from _elements(one, names)


def _says_something(value: Any) -> bool:
    """Return whether an array is left with an element that has not lost all of its own."""
    if isinstance(value, list):
        return any(_says_something(one) for one in value)
    if isinstance(value, dict):
        arrays = [one for one in value.values() if _has_array(one)]
        return any(_says_something(one) for one in arrays) if arrays else True
    return True


def _has_array(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_array(one) for one in value.values())
    return isinstance(value, list | OfOthers)
