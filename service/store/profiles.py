"""What a user is called on WhatsApp, looked up in the callbacks that are kept.

Nothing is written for it. A change knows when its callback arrived, to the millisecond, and the
journal is in the order of arrivals but for what was taken at the same time: so the callback is
found by halving.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import BigInteger, Connection, column, func, select, values

from service.store.schema import journal

NEAR_MS = 250
"""Callbacks that arrived so shortly one after the other may stand in either order."""
_SIDES = (-NEAR_MS, NEAR_MS)
MAX_ROWS = 20
"""So many more callbacks than times are looked into, where several came at the same one."""
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
    """Return the callbacks under these names in the journal that arrived just then (Unix ms).

    The statements are as few for many times as for one: a page of a list asks about hundreds, once
    a second.
    """
    wanted = sorted(set(times))
    if not wanted:
        return []
    # Whatever arrived within the tolerance may stand before or after.
    bounds = iter(_first_since(connection, [at + side for at in wanted for side in _SIDES]))
    ids = _arrived_at(connection, {*wanted}, _merged(zip(bounds, bounds, strict=True)))
    rows = journal.c
    query = (
        select(rows.id, rows.received_at, rows.body)
        .where(rows.id.in_(ids[: MAX_ROWS + len(wanted)]))
        .where(rows.account.in_(accounts), func.length(rows.body) <= MAX_BYTES)
        .order_by(rows.id)
    )
    return [Told(id_, came, dict(_names_in(body))) for id_, came, body in connection.execute(query)]


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the same ids as spans that don't overlap; they are in the order of their ends."""
    found: list[tuple[int, int]] = []
    for first, last in spans:
        if found and first <= found[-1][1]:
            first = found.pop()[0]  # noqa: PLW2901 - the one before goes on
        found.append((first, last))
    return found


def _arrived_at(
    connection: Connection, times: Collection[int], spans: Sequence[tuple[int, int]]
) -> list[int]:
    """Return the ids within these spans of callbacks that arrived at one of these times."""
    names = ("first", "last")
    span = values(*(column(name, BigInteger) for name in names)).data(spans).cte("span")
    rows = journal.c
    # Times are compared here: a database would read the whole journal for them.
    query = select(rows.id, rows.received_at).select_from(
        span.join(journal, rows.id.between(span.c.first, span.c.last))
    )
    return sorted(id_ for id_, came in connection.execute(query) if came in times)


def _first_since(connection: Connection, times: Sequence[int]) -> list[int]:
    """Return for each time the first id in the journal that arrived then or later.

    All are halved together, so it takes as many statements as for one.
    """
    ids = select(func.min(journal.c.id), func.max(journal.c.id))
    first, last = connection.execute(ids).one()
    low = [first or 1] * len(times)
    high = [(last or 0) + 1] * len(times)
    while open_ := [at for at in range(len(times)) if low[at] < high[at]]:
        middles = {(low[at] + high[at]) // 2 for at in open_}
        found = _from(connection, sorted(middles))
        for at in open_:
            middle = (low[at] + high[at]) // 2
            id_, came = found.get(middle, (None, None))
            if id_ is None or came is None or came >= times[at]:
                high[at] = middle
            else:
                low[at] = id_ + 1
    return low


def _from(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Return for each id the callback that has it, or the next one: its id, and when it arrived."""
    asked = values(column("id", BigInteger)).data([(one,) for one in ids]).cte("asked")
    following = (
        select(func.min(journal.c.id))
        .where(journal.c.id >= asked.c.id)
        .correlate(asked)
        .scalar_subquery()
    )
    query = select(asked.c.id, journal.c.id, journal.c.received_at).select_from(
        asked.join(journal, journal.c.id == following)
    )
    return {one: (id_, came) for one, id_, came in connection.execute(query)}


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
