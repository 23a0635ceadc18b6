"""What a user is called on WhatsApp, looked up in the callbacks that are kept.

Nothing is written for it. A change knows when its callback arrived, to the millisecond, and the
journal is in the order of arrivals but for what was taken at the same time: so the callback is
found by halving.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    and_,
    case,
    column,
    func,
    literal,
    or_,
    select,
    values,
)

from service.store.schema import journal

NEAR_MS = 100
"""Callbacks that arrived so shortly one after the other may stand in either order."""
MAX_ROWS = 20
"""Callbacks of the same millisecond that are looked into."""
MAX_BYTES = 262_144
MAX_DEPTH = 12


class Told(NamedTuple):
    """A callback that is kept: its id, when it arrived (Unix ms), and what the journal calls it.

    `value` is its body, parsed; None where it can't be.
    """

    journal_id: int
    at: int
    owner: str
    value: Any


def callbacks_at(
    connection: Connection, accounts: Collection[str], times: Collection[int]
) -> list[Told]:
    """Return the callbacks under these names in the journal that arrived just then (Unix ms)."""
    if not times:
        return []
    bounds = {at + side for at in times for side in (-NEAR_MS, NEAR_MS)}
    first = _first_since(connection, bounds)
    rows = journal.c
    # Whatever arrived within the tolerance may stand before or after.
    near = [
        and_(rows.id.between(first[at - NEAR_MS], first[at + NEAR_MS]), rows.received_at == at)
        for at in sorted(set(times))
    ]
    # Not by account: SQLite would go through the index of all that an account has.
    query = (
        select(rows.id, rows.account, rows.received_at, rows.body)
        .where(or_(*near), func.length(rows.body) <= MAX_BYTES)
        .limit(MAX_ROWS * len(near))
    )
    found = [row for row in connection.execute(query) if row.account in accounts]
    return [
        Told(row.id, row.received_at, row.account, _parsed(row.body))
        for row in sorted(found, key=lambda row: row.id)
    ]


def _first_since(connection: Connection, times: Collection[int]) -> dict[int, int]:
    """Return, for each time (Unix ms), about the first id that arrived then or later.

    It is halving, for all the times in one statement: each step looks at the row in the middle of
    what is left, `came`, and goes on with the half in which the first one is.
    """
    bounds = select(func.min(journal.c.id), func.max(journal.c.id))
    least, most = connection.execute(bounds).one()
    begin, end = least or 1, (most or 0) + 1
    wanted = values(column("at", BigInteger)).data([(at,) for at in times]).cte("wanted")

    def row_at(id_: ColumnElement[int]) -> ColumnElement[int]:
        query = select(journal.c.received_at).where(journal.c.id >= id_)
        return query.order_by(journal.c.id).limit(1).scalar_subquery()

    low, high = (literal(bound, BigInteger) for bound in (begin, end))
    looked = select(
        wanted.c.at,
        low.label("low"),
        high.label("high"),
        row_at((low + high) // 2).label("came"),
    ).cte("looked", recursive=True)
    of = looked.c
    middle = (of.low + of.high) // 2
    is_before = of.came < of.at
    next_low = case((is_before, middle + 1), else_=of.low)
    next_high = case((is_before, of.high), else_=middle)
    step = select(of.at, next_low, next_high, row_at((next_low + next_high) // 2))
    looked = looked.union_all(step.where(of.low < of.high))
    found = select(looked.c.at, looked.c.low).where(looked.c.low >= looked.c.high)
    return {row.at: row.low for row in connection.execute(found)}


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def names_in(value: Any) -> dict[str, str]:
    """Return what those in a part of a callback are called, by wa_id and by user id."""
    return dict(_below(value, MAX_DEPTH))


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
