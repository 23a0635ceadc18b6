"""What of a kept callback is about one user: to be taken out, or to be shown to that person.

A user is named by a text or number that is one of the names, or holds one as a word; a phone number
in another spelling names whose digits it has. What is about the user are the innermost elements of
arrays that hold a name outside of arrays of their own: a message, a status, a contact.
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

import orjson

from service.dialects.common import UnreadableError, parse
from service.model.numbers import own_digits

MAX_SPELLED = 64
"""Characters of a text that may be a phone number in another spelling."""
ERASED = b""
"""What is left of a body that is about nobody else."""


class Names:
    """What a user is called; short or not, only whole words count."""

    def __init__(self, names: Collection[str]) -> None:
        self.all = frozenset(name for name in names if name)
        some = "|".join(map(re.escape, sorted(self.all, key=len, reverse=True)))
        self._word = re.compile(rf"(?<![A-Za-z0-9])(?:{some})(?![A-Za-z0-9])")
        self._word_in_bytes = re.compile(self._word.pattern.encode())

    def are_in(self, value: Any) -> bool:
        """Return whether a text or number names the user."""
        if isinstance(value, bool) or not isinstance(value, str | int):
            return False
        text = str(value)
        if self._word.search(text) is not None:
            return True
        return len(text) <= MAX_SPELLED and own_digits(text) in self.all

    def are_in_bytes(self, body: bytes) -> bool:
        """Return whether a body that is no JSON names the user."""
        return self._word_in_bytes.search(body) is not None


def erase(body: bytes, encoding: str, names: Names) -> bytes | None:
    """Return a body without what is about the user; None where it names nobody of these names.

    `ERASED` where nothing about anybody else is left, or where it can't be told.
    """
    try:
        value = _parsed(body, encoding)
        if not _holds(value, names):
            return None
        left = _without(value, names)
        if left is _GONE or not _says_something(left):
            return ERASED
        return _written(left)
    except (UnreadableError, RecursionError):
        return ERASED if names.are_in_bytes(body) else None


def about(body: bytes, encoding: str, names: Names) -> list[Any] | None:
    """Return what of a body is about the user, all of it where it has no elements.

    None where nothing is; a body that is no JSON is a text of its own.
    """
    try:
        value = _parsed(body, encoding)
        if not _holds(value, names):
            return None
        if _names_outside_arrays(value, names):
            return [value]
        return [*_elements(value, names)]
    except (UnreadableError, RecursionError):
        return [body.decode(errors="replace")] if names.are_in_bytes(body) else None


def _parsed(body: bytes, encoding: str) -> Any:
    if encoding not in {"", "identity"}:
        raise UnreadableError("the body is compressed")
    return parse(body)


_GONE = object()


def _written(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate
        return json.dumps(value).encode()


def _holds(value: Any, names: Names) -> bool:
    """Return whether a name is anywhere in a value."""
    if isinstance(value, dict):
        return any(names.are_in(key) or _holds(one, names) for key, one in value.items())
    if isinstance(value, list):
        return any(_holds(one, names) for one in value)
    return names.are_in(value)


def _names_outside_arrays(value: Any, names: Names) -> bool:
    """Return whether a name is in a value, outside of any array within."""
    if isinstance(value, dict):
        found = value.items()
        return any(names.are_in(key) or _names_outside_arrays(one, names) for key, one in found)
    return not isinstance(value, list) and names.are_in(value)


def _without(value: Any, names: Names) -> Any:
    """Return a value without the elements that are about the user; `_GONE` where it is itself."""
    if _names_outside_arrays(value, names):
        return _GONE
    if isinstance(value, dict):
        return {key: _without(one, names) for key, one in value.items()}
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
    return isinstance(value, list)
