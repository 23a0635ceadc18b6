"""Pages of lists that are filtered, each in statements that read little more than it shows.

An index of (account, kind, …) holds the rows of each account and kind in order: a *part* of it. A
list of several parts takes the next row from whichever has it, so two indexes do for every filter.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Select,
    Text,
    bindparam,
    column,
    func,
    select,
    true,
    tuple_,
    union_all,
    values,
)

from service.store.logs import settled, settled_below

R = TypeVar("R", bound=tuple[Any, ...])

FIRST = -(1 << 62)
"""A time before every other."""

MAX_ID = 2**63 - 1


class Part(NamedTuple):
    """The rows of an account and a kind; None for those of no account."""

    account: str | None
    kind: str


def distinct(
    connection: Connection, of: Column[Any], *within: tuple[Column[Any], Any]
) -> list[Any]:
    """Return the values of a column that an index begins with, each found by a look at the index.

    What comes before the column in the index has to be fixed by `within`.
    """
    fixed = [one == value for one, value in within]
    # PostgreSQL sees that an index has this order only where the fixed columns are part of it.
    order = [*(one for one, _ in within), of]

    def least(*where: ColumnElement[bool]) -> Any:
        return select(of).where(*fixed, *where).order_by(*order).limit(1).scalar_subquery()

    found = select(least(of.is_not(None)).label("value")).cte("found", recursive=True)
    following = least(of > found.c.value)
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
    below: ColumnElement[int] | int | None = None,
    *,
    backwards: bool = False,
) -> list[int]:
    """Return the ids of the first rows after a place, of these accounts and kinds, in order.

    Going `backwards` they are the last ones before it, from there on.

    `index` are the columns of an index: account, kind, and those of a place, of which the last is
    the id; the first of a place is `below` a value, where that is given. None among the accounts
    stands for rows of no account.
    """
    if not accounts or not kinds:
        return []
    if connection.dialect.name == "sqlite":
        query = _queued(index, accounts, kinds, after, below, backwards=backwards).limit(limit)
        return [*connection.execute(query).scalars()]
    parts = [Part(*part) for part in product(accounts, kinds)]
    return _merged(connection, index, parts, after, limit, below, backwards=backwards)


def _queued(
    index: tuple[Column[Any], ...],
    accounts: Collection[str | None],
    kinds: Collection[str],
    after: Sequence[int],
    below: ColumnElement[int] | int | None,
    *,
    backwards: bool,
) -> Select[tuple[int]]:
    """Return a query of the ids in order, as SQLite gives them.

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
            .where(looked.c[kind.name] == of.c.kind)
            .where(*_between(at, after, below, backwards=backwards))
            .order_by(*_ordered(at, backwards=backwards))
            .limit(1)
            .scalar_subquery()
        )
        columns = (of.c.account, of.c.kind, *(row.c[one.name] for one in place))
        return select(*columns).join_from(of, row, row.c.id == first)

    one = _rows("account", accounts)
    other = _rows("kind", kinds)
    parts = select(one.c.account, other.c.kind).join_from(one, other, true()).cte("part")
    page = following(parts, after).cte("page", recursive=True)
    rest = following(page, [page.c[one.name] for one in place])
    way = " DESC" if backwards else ""
    order = ", ".join(f"{3 + number}{way}" for number in range(len(place)))
    page = page.union_all(rest.suffix_with(f"ORDER BY {order}"))
    return select(page.c.id)


def _rows(name: str, texts: Collection[str | None]) -> CTE:
    """Return texts as the rows of a table with one column."""
    return values(column(name, Text)).data([(text,) for text in texts]).cte(f"{name}s")


def _between(
    at: Sequence[ColumnElement[Any]],
    after: Sequence[Any],
    below: ColumnElement[int] | int | None,
    *,
    backwards: bool,
) -> list[ColumnElement[bool]]:
    """Return the conditions that a place is after another, and its first column below a value."""
    place, start = tuple_(*at), tuple_(*after)
    is_after = place < start if backwards else place > start
    return [is_after, *([] if below is None else [at[0] < below])]


def _ordered(
    columns: Sequence[ColumnElement[Any]], *, backwards: bool
) -> Sequence[ColumnElement[Any]]:
    return [column.desc() for column in columns] if backwards else columns


def _merged(
    connection: Connection,
    index: tuple[Column[Any], ...],
    parts: Sequence[Part],
    after: Sequence[int],
    limit: int,
    below: ColumnElement[int] | int | None,
    *,
    backwards: bool,
) -> list[int]:
    """Return the ids in order, merged from some rows of each part.

    Where all rows that were read of a part are on the page, the part may have more for it, and four
    times as many are read. They are few times what is on the page already, whoever has the most.
    """
    page: list[tuple[tuple[int, ...], Part]] = []
    read_to: Mapping[Part, Sequence[int]] = dict.fromkeys(parts, after)
    many = 1 + 2 * limit // len(parts)
    while read_to:
        found = _next_of_each(connection, index, read_to, many, below, backwards=backwards)
        rows = [(place, part) for part, places in found.items() for place in places]
        page = sorted([*page, *rows], key=lambda row: row[0], reverse=backwards)[:limit]
        last = page[-1][0] if len(page) == limit else None

        def may_have_more(read: tuple[int, ...], last: tuple[int, ...] | None = last) -> bool:
            return last is None or (read > last if backwards else read < last)

        read_to = {
            part: places[-1]
            for part, places in found.items()
            if len(places) == many and may_have_more(places[-1])
        }
        many *= 4
    return [place[-1] for place, _ in page]


def _next_of_each(
    connection: Connection,
    index: tuple[Column[Any], ...],
    read_to: Mapping[Part, Sequence[int]],
    many: int,
    below: ColumnElement[int] | int | None,
    *,
    backwards: bool,
) -> dict[Part, list[tuple[int, ...]]]:
    """Return the places of the next rows of each part after one, in order, so many at most."""
    account, kind, *place = index
    names = [f"after_{one.name}" for one in place]
    arrays = [
        *(bindparam(None, [*texts], ARRAY(Text)) for texts in zip(*read_to, strict=True)),
        *(bindparam(None, [*at], ARRAY(BigInteger)) for at in zip(*read_to.values(), strict=True)),
    ]
    columns: list[ColumnElement[Any]] = [column("account", Text), column("kind", Text)]
    columns += (column(name, BigInteger) for name in names)
    part = func.unnest(*arrays).table_valued(*columns).render_derived(name="part")

    def rows(*of_account: ColumnElement[bool]) -> Select[Any]:
        # In the whole order of the index, for PostgreSQL does not take IS NULL for a constant.
        return (
            select(*index)
            .where(*of_account, kind == part.c.kind)
            .where(*_between(place, [part.c[name] for name in names], below, backwards=backwards))
            .order_by(*_ordered(index, backwards=backwards))
            .limit(many)
        )

    of_one = rows(account == part.c.account)
    if any(part.account is None for part in read_to):
        of_none = rows(part.c.account.is_(None), account.is_(None))
        each = union_all(of_one, of_none).lateral("row")
    else:
        each = of_one.lateral("row")
    found: dict[Part, list[tuple[int, ...]]] = {}
    for owner, what, *at in connection.execute(select(each).select_from(part).join(each, true())):
        found.setdefault(Part(owner, what), []).append(tuple(at))
    return found


def in_order_of_ids(
    connection: Connection,
    query: Select[R],
    index: tuple[Column[Any], Column[Any], Column[int]],
    wanted: tuple[str | None, str | None],
    after: int,
    limit: int,
    within: Collection[str] | None,
    *,
    backwards: bool = False,
) -> Select[R]:
    """Return a query with the first settled rows after an id, of an account, a kind, or both.

    Going `backwards` they are the newest ones before it, where it is not 0.

    The columns are account, kind and id, and there is an index of them in this order. `within` are
    the accounts that may be among them; None for all, and for rows of no account.
    """
    account, kind, id_ = index
    query = query.order_by(id_.desc() if backwards else id_).limit(limit)
    after = after or MAX_ID if backwards else after
    if wanted == (None, None) and within is None:
        is_after = id_ < after if backwards else id_ > after
        return query.where(is_after, settled(connection, id_))
    accounts = [None, *distinct(connection, account)] if wanted[0] is None else [wanted[0]]
    if within is not None:
        accounts = [of for of in accounts if of in within]
    if wanted[1] is not None:
        kinds = {wanted[1]}
    else:
        kinds = {what for of in accounts for what in distinct(connection, kind, (account, of))}
    below = settled_below(connection)
    ids = first_ids(connection, index, accounts, kinds, (after,), limit, below, backwards=backwards)
    return query.where(id_.in_(ids))
