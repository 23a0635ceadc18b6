"""Pages of lists that are filtered, each in a statement that reads little more than it shows.

An index of (account, kind, …) holds the rows of each account and kind in order: a *part* of it. A
list of several parts takes the next row from whichever has it, so two indexes do for every filter.
"""

from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    CTE,
    Column,
    Connection,
    Select,
    Text,
    column,
    func,
    select,
    true,
    tuple_,
    values,
)

R = TypeVar("R", bound=tuple[Any, ...])

FIRST = -(1 << 62)
"""A time before every other."""


def distinct(connection: Connection, of: Column[Any], *where: Any) -> list[Any]:
    """Return the values of a column that an index begins with, each found by a look at the index.

    What comes before the column in the index has to be fixed by `where`.
    """
    found = select(func.min(of).label("value")).where(*where).cte("found", recursive=True)
    following = select(func.min(of)).where(*where, of > found.c.value).scalar_subquery()
    found = found.union_all(select(following).where(found.c.value.is_not(None)))
    query = select(found.c.value).where(found.c.value.is_not(None))
    return [*connection.execute(query).scalars()]


def first_ids(
    connection: Connection,
    index: tuple[Column[Any], ...],
    accounts: Collection[str | None],
    kinds: Collection[str],
    after: Sequence[int],
    limit: int,
) -> list[int]:
    """Return the ids of the first rows after a place, of these accounts and kinds, in order.

    `index` are the columns of an index: account, kind, and those of a place, of which the last is
    the id. None among the accounts stands for rows of no account.

    SQLite takes from what a recursive query has found the row that its ORDER BY puts first, and
    looks for what follows that one. So it looks for the first row of each part, and then for one
    more row for each that it returns.
    """
    account, kind, *place = index
    table = account.table

    def following(of: CTE, after: Sequence[Any]) -> Select[Any]:
        looked, row = table.alias(), table.alias()
        at = [looked.c[one.name] for one in place]
        first = (
            select(looked.c.id)
            .where(looked.c[account.name].is_not_distinct_from(of.c.account))
            .where(looked.c[kind.name] == of.c.kind, tuple_(*at) > tuple_(*after))
            .order_by(*at)
            .limit(1)
            .scalar_subquery()
        )
        columns = (of.c.account, of.c.kind, *(row.c[one.name] for one in place))
        return select(*columns).join_from(of, row, row.c.id == first)

    if not accounts or not kinds:
        return []
    one = _rows("account", accounts)
    other = _rows("kind", kinds)
    parts = select(one.c.account, other.c.kind).join_from(one, other, true()).cte("part")
    page = following(parts, after).cte("page", recursive=True)
    rest = following(page, [page.c[one.name] for one in place])
    order = ", ".join(str(3 + number) for number in range(len(place)))
    page = page.union_all(rest.suffix_with(f"ORDER BY {order}"))
    return [*connection.execute(select(page.c.id).limit(limit)).scalars()]


def _rows(name: str, texts: Collection[str | None]) -> CTE:
    """Return texts as the rows of a table with one column."""
    return values(column(name, Text)).data([(text,) for text in texts]).cte(f"{name}s")


def in_order_of_ids(
    connection: Connection,
    query: Select[R],
    index: tuple[Column[Any], Column[Any], Column[int]],
    wanted: tuple[str | None, str | None],
    after: int,
    limit: int,
    within: Collection[str] | None,
) -> Select[R]:
    """Return a query with the first rows after an id, of an account, of a kind, or of both alone.

    The columns are account, kind and id, and there is an index of them in this order. `within` are
    the accounts that may be among them; None for all, and for rows of no account.
    """
    account, kind, id_ = index
    query = query.order_by(id_).limit(limit)
    if wanted == (None, None) and within is None:
        return query.where(id_ > after)
    accounts = [None, *distinct(connection, account)] if wanted[0] is None else [wanted[0]]
    if within is not None:
        accounts = [of for of in accounts if of in within]
    if wanted[1] is not None:
        kinds = {wanted[1]}
    else:
        kinds = {what for of in accounts for what in distinct(connection, kind, account == of)}
    return query.where(id_.in_(first_ids(connection, index, accounts, kinds, (after,), limit)))
