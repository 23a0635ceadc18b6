"""Events as they are sent: their JSON, server-sent events, and the ids to go on from.

Follows the section "Server-sent events" of the HTML standard: a blank line ends an event; one that
has an `id` and no `data` is not dispatched, and moves the reader's last event id all the same.
"""

import re
from typing import Any, NamedTuple

import orjson

from service.model.shapes import time_of
from service.store.events import Span, written_id

RETRY_MS = 2000
"""After so long a reader whose stream ended comes again."""
NOW, FIRST = "now", "first"
"""In the place of an id: only what happens from now on, or all that is kept."""
GAP, RESET = "gap", "reset"
"""The types of what is told first where something was missed."""

_ID = re.compile(r"(?P<epoch>[A-Za-z0-9]{1,32})-(?P<number>[0-9]{1,18})")


class Position(NamedTuple):
    """Where in the log a reader goes on, and what is to be told first: `gap` or `reset`."""

    number: int
    missed: str | None = None


def is_id(text: str) -> bool:
    """Return whether a text is an id as they are given here, or a word in the place of one."""
    return text in {NOW, FIRST} or _ID.fullmatch(text) is not None


def position_after(last_id: str, span: Span) -> Position:
    """Return where a reader goes on who has seen the event with an id, or names one of the words.

    Where that is not known, or not kept any more, it is at the first event that is.
    """
    if last_id == NOW:
        return Position(span.newest)
    if last_id == FIRST:
        return Position(span.deleted)
    found = _ID.fullmatch(last_id)
    if found is None:
        return Position(span.deleted, GAP)
    if found["epoch"] != span.epoch:
        return Position(span.deleted, RESET)
    number = int(found["number"])
    if span.deleted <= number <= span.newest:
        return Position(number)
    return Position(span.deleted, GAP)


def missed_json(epoch: str, position: Position, now: int) -> dict[str, Any]:
    """Return what tells a reader that events were missed, in the shape of an event."""
    return {
        "id": written_id(epoch, position.number),
        "type": position.missed,
        "at": time_of(now),
        "account": None,
        "user": None,
        "data": None,
    }


def sent(event: dict[str, Any]) -> bytes:
    """Write an event as a server-sent event."""
    data = orjson.dumps(event)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event["id"].encode(), event["type"].encode(), data)


def moved_to(epoch: str, number: int) -> bytes:
    """Write what moves a reader's last event id, and is no event to it."""
    return b"id: %b\n\n" % written_id(epoch, number).encode()


def opening(epoch: str, number: int) -> bytes:
    """Write what a stream begins with: when to come again, and from where."""
    return b"retry: %d\n%b" % (RETRY_MS, moved_to(epoch, number))
