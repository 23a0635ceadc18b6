"""What a user is called on WhatsApp, looked up in the callbacks that are kept.

Nothing is written for it. A change knows when its callback arrived, to the millisecond, and the
journal is in the order of arrivals but for what was taken at the same time: so the callback is
found by halving.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, func, select

from service.store.schema import journal

NEAR_MS = 250
"""Callbacks that arrived so shortly one after the other may stand in either order."""
MAX_ROWS = 20
"""Callbacks of the same millisecond that are looked into."""
MAX_BYTES = 262_144
MAX_DEPTH = 12


class Told(NamedTuple):
    """A callback that is kept: its id in the journal, and when it arrived (Unix ms)."""

    journal_id: int
    at: int
    names: Mapping[str, str]
    """What those in it are called, by wa_id and by user id."""


def callbacks_at(
    connection: Connection, accounts: Collection[str], times: Collection[int]
) -> list[Told]:
    """Return the callbacks under these names in the journal that arrived just then (Unix ms)."""
    found = []
    first, last = _span(connection)
    for at in sorted(set(times)):
        # Whatever arrived within the tolerance may stand before or after.
        begin = _first_since(connection, at - NEAR_MS, first, last)
        end = _first_since(connection, at + NEAR_MS, begin, last)
        rows = journal.c
        query = (
            select(rows.id, rows.received_at, rows.body)
            .where(rows.id >= begin, rows.id <= end, rows.received_at == at)
            .where(rows.account.in_(accounts), func.length(rows.body) <= MAX_BYTES)
            .order_by(rows.id)
            .limit(MAX_ROWS)
        )
        for id_, came, body in connection.execute(query):
            found += [Told(id_, came, dict(_names_in(body)))]
    return found


def _span(connection: Connection) -> tuple[int, int]:
    """Return the first id of the journal, and one beyond its last."""
    bounds = select(func.min(journal.c.id), func.max(journal.c.id))
    first, last = connection.execute(bounds).one()
    return first or 1, (last or 0) + 1


def _first_since(connection: Connection, at: int, low: int, high: int) -> int:
    """Return the first id between two of a callback that arrived at a time or later."""
    rows = journal.c
    while low < high:
        middle = (low + high) // 2
        query = select(rows.id, rows.received_at).where(rows.id >= middle)
        row = connection.execute(query.order_by(rows.id).limit(1)).one_or_none()
        if row is None or row.received_at >= at:
            high = middle
        else:
            low = row.id + 1
    return low


def _names_in(body: bytes) -> Iterator[tuple[str, str]]:
    """Yield each name in a callback with whom it is of; nothing where it is not to be read."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return
    yield from _below(value, MAX_DEPTH)


def _below(value: Any, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        profile = value.get("profile")
        name = profile.get("name") if isinstance(profile, dict) else None
        if isinstance(name, str) and name.strip():
            for key in ("wa_id", "user_id"):
                if isinstance(value.get(key), str):
                    yield value[key], name
    if depth:
        below: Sequence[Any] = ()
        if isinstance(value, dict):
            below = [*value.values()]
        elif isinstance(value, list):
            below = value
        for inner in below:
            yield from _below(inner, depth - 1)
