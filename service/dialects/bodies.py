"""From raw bytes to a JSON object, with the limits that keep a hostile body from doing harm."""

import json
import re
from codecs import BOM_UTF8
from functools import lru_cache
from typing import Any

import orjson

MAX_DEPTH = 100
ALWAYS_READ_BYTES = 262_144
"""A body up to this size is read whatever it holds."""
LARGE_BYTES = 4_194_304
MAX_GROWTH = 13
"""So many times its own size a body may take once it is parsed, and a small one as much as one of
`LARGE_BYTES`. The densest of real callbacks, results of checks without a word too much, take ten;
one of tiny objects and arrays takes fifty, which would be 200 MB.
"""

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
"""One that never ends reaches to the end: else each quote in it would be begun with anew."""
_STRINGS = re.compile(_STRING, re.DOTALL)
_PIECES = re.compile(rb'(?:[^"]*+' + _STRING + rb'){1,1000}+|[^"]++', re.DOTALL)
"""What strings are taken out of at once: what lies between all of them takes memory of its own."""


class UnreadableError(Exception):
    """A body that is no JSON object; the text says why, without its content."""


def read_object(content_type: str, content_encoding: str, body: bytes) -> dict[str, Any]:
    """Read a body as a JSON object, nested at most `MAX_DEPTH` deep.

    Raises UnreadableError, with the reason to keep in the journal.
    """
    if content_encoding not in {"", "identity"}:
        raise UnreadableError("the body is compressed")
    if not _is_json(content_type):
        raise UnreadableError("the media type is not application/json")
    if len(body) > ALWAYS_READ_BYTES and parsed_size(body) > _most(body):
        raise UnreadableError("the body holds too many values")
    value = parse(body)
    if not isinstance(value, dict):
        raise UnreadableError("the body is no JSON object")
    # A body is never deeper than it has opening brackets.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise UnreadableError(f"the body is nested deeper than {MAX_DEPTH}")
    return value


def parsed_size(body: bytes) -> int:
    """Estimate what a body is parsed into (bytes), going by the values that it can hold.

    What stands in texts is told apart only where it matters: whoever writes brackets and commas to
    the business must not keep a callback from being read.
    """
    size = _estimate(body)
    if size <= _most(body):
        return size
    return sum(_estimate(_STRINGS.sub(b"", m.group())) for m in _PIECES.finditer(body))


def _estimate(body: bytes) -> int:
    values = body.count(b"[") + body.count(b",") + body.count(b":")
    return 192 * body.count(b"{") + 80 * values


def _most(body: bytes) -> int:
    return MAX_GROWTH * max(len(body), LARGE_BYTES)


@lru_cache(maxsize=16)
def _is_json(content_type: str) -> bool:
    """Tell JSON media types from others; a missing one is believed to be JSON."""
    essence = content_type.partition(";")[0].strip().lower()
    return essence in {"", "application/json"} or (
        essence.startswith("application/") and essence.endswith("+json")
    )


def parse(body: bytes) -> Any:
    """Read JSON of any kind; raises UnreadableError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_liberally(body)


def _parse_liberally(body: bytes) -> Any:
    """Read what the fast parser refuses: a lone surrogate must not cost its neighbours."""
    try:
        text = (body.removeprefix(BOM_UTF8)).decode()
    except UnicodeDecodeError:
        raise UnreadableError("the body is no valid UTF-8") from None
    try:
        return json.loads(text, parse_int=_integer)
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
