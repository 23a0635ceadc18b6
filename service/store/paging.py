"""Pages of lists that are filtered: made of several ordered streams, one for each part of an index.

An index of (account, state, …) holds the rows of one account and state in order. A list of several
of them takes the next row from whichever stream has it, so it reads little more than it shows, and
two indexes do for every filter.
"""

import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, func, select

R = TypeVar("R")

Read = Callable[[Any, int], Sequence[R]]
"""Reads so many rows of a stream that follow a place, in the order of their places."""


def first_of(
    streams: Sequence[Read[R]], after: Any, limit: int, *, place: Callable[[R], Any]
) -> list[R]:
    """Return the first rows of all streams together, after a place, in the order of their place."""
    size = limit // max(1, len(streams)) + 1
    rows = heapq.merge(*(_rows(read, after, size, place) for read in streams), key=place)
    return list(islice(rows, limit))


def _rows(read: Read[R], after: Any, size: int, place: Callable[[R], Any]) -> Iterator[R]:
    while True:
        rows = read(after, size)
        yield from rows
        if len(rows) < size:
            return
        after = place(rows[-1])
        size *= 2  # most of a page often comes from one stream


def distinct(connection: Connection, column: ColumnElement[Any], *where: Any) -> list[Any]:
    """Return the values of a column that an index begins with, each found by a look at the index.

    What comes before the column in the index has to be fixed by `where`.
    """
    values = []
    value = connection.execute(select(func.min(column)).where(*where)).scalar()
    while value is not None:
        values.append(value)
        after = (*where, column > value)
        value = connection.execute(select(func.min(column)).where(*after)).scalar()
    return values


def ids_of(
    connection: Connection,
    columns: tuple[ColumnElement[Any], ColumnElement[Any], ColumnElement[Any]],
    wanted: tuple[str | None, str | None],
    after: int,
    limit: int,
    within: Collection[str] | None = None,
) -> list[int]:
    """Return the first ids after one, of rows of an account, of a kind, or of both.

    The columns are account, kind and id, and there is an index of them in this order. `within` are
    the accounts that may be among them; None for all, and for rows of no account.
    """
    account, kind, id_ = columns

    def reader(of: str | None, what: str) -> Read[int]:
        mine: Select[Any] = select(id_).where(account == of, kind == what).order_by(id_)
        return lambda after, size: [
            *connection.execute(mine.where(id_ > after).limit(size)).scalars()
        ]

    accounts = [None, *distinct(connection, account)] if wanted[0] is None else [wanted[0]]
    if within is not None:
        accounts = [of for of in accounts if of in within]
    streams = [
        reader(of, what)
        for of in accounts
        for what in (
            distinct(connection, kind, account == of) if wanted[1] is None else [wanted[1]]
        )
    ]
    return first_of(streams, after, limit, place=lambda found: found)
