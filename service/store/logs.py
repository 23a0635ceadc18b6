"""What readers follow by position: the journal, the event log and the audit trail.

A position is the id of the last row that a reader has seen, so no row may appear before one that
was shown. On SQLite none does: one transaction writes at a time, and ids are 1, 2, 3 and so on.

On PostgreSQL transactions commit in any order. There an id is the id of the transaction that wrote
the row, shifted, and the row's place in it; so rows of transactions that are still open have higher
ids than all whose transactions have ended before them. Readers are shown only ids below those of
the oldest open transaction: these are *settled*. Ids are far apart there: nothing can be counted by
subtracting them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Table,
    Text,
    cast,
    func,
    insert,
    literal_column,
    select,
    text,
    true,
    update,
)

from service.store.schema import audit, events, installation, journal

SHIFT = 14
PLACES = 1 << SHIFT
"""Rows that one transaction may append to a log on PostgreSQL."""

PLACES_OF_BATCHES = PLACES // 2
"""Those that its hot statements may; the others are for queries through a connection."""

OFFSET_KEY = "log_offset"
"""Key of the table `installation`: what is added to every id on PostgreSQL.

A database that was moved to another cluster, whose transactions have lower ids, has one.
"""


def is_in_order(connection: Connection) -> bool:
    """Return whether rows appear in the order of their ids, so that all are settled at once."""
    return connection.dialect.name == "sqlite"


def offset_of(connection: Connection) -> int:
    """Return what is added to every id."""
    query = select(installation.c.value).where(installation.c.key == OFFSET_KEY)
    return int(connection.execute(query).scalar() or 0)


def settled(connection: Connection, id_: ColumnElement[int]) -> ColumnElement[bool]:
    """Return the condition that no row can appear any more before the one with this id."""
    bound = settled_below(connection)
    return true() if bound is None else id_ < bound


def settled_below(connection: Connection) -> ColumnElement[int] | None:
    """Return the id below which rows are settled; None where they are at once.

    It is for a query's own snapshot, so it has to be part of that query or of one before it.
    """
    if is_in_order(connection):
        return None
    oldest = func.pg_snapshot_xmin(func.pg_current_snapshot())
    # A subquery, which is computed once, is the end of a range in an index.
    return select(_first_id(oldest)).scalar_subquery()


def _first_id(transaction: ColumnElement[Any]) -> ColumnElement[int]:
    """Return the first id that rows of a transaction may have."""
    number = cast(cast(transaction, Text), BigInteger)  # there is no shorter way from an xid8
    offset = select(cast(installation.c.value, BigInteger)).where(installation.c.key == OFFSET_KEY)
    shifted = number.bitwise_lshift(literal_column(str(SHIFT)))
    return shifted + func.coalesce(offset.scalar_subquery(), literal_column("0"))


def begun_below(connection: Connection) -> int | None:
    """Return the id below which lies all that transactions append that have begun by now.

    None where everything is there already that will have such an id.
    """
    if is_in_order(connection):
        return None
    next_one = func.pg_snapshot_xmax(func.pg_current_snapshot())
    return int(connection.execute(select(_first_id(next_one))).scalar_one())


def is_settled(connection: Connection, id_: int | None) -> bool:
    """Return whether no row can appear any more below an id that `begun_below` returned."""
    bound = settled_below(connection)
    if bound is None or id_ is None:
        return True
    return int(connection.execute(select(bound)).scalar_one()) >= id_


def newest_settled(connection: Connection, id_: ColumnElement[int]) -> int:
    """Return the id of the newest row of a log that is settled; 0 where there is none."""
    query = select(func.max(id_)).where(settled(connection, id_))
    return connection.execute(query).scalar() or 0


def first_since(connection: Connection, log: Table, dated: ColumnElement[int], at: int) -> int:
    """Return the first id of a row that is dated at a time (Unix ms) or later, by halving."""
    low = connection.execute(select(func.min(log.c.id))).scalar() or 1
    high = newest_settled(connection, log.c.id) + 1
    while low < high:
        middle = (low + high) // 2
        query = select(log.c.id, dated).where(log.c.id >= middle)
        row = connection.execute(query.order_by(log.c.id).limit(1)).one_or_none()
        if row is None or row[1] >= at:
            high = middle
        else:
            low = row.id + 1
    return low


def count_rows(
    connection: Connection, id_: ColumnElement[int], after: int, until: int | None = None
) -> int:
    """Return how many rows of a log there are after an id, up to another or up to the newest.

    On SQLite it is what the ids say. A transaction that failed leaves a gap in them, and what old
    rows retention has deleted counts as well, but nothing has to be read for it.
    """
    if is_in_order(connection):
        last = newest_settled(connection, id_) if until is None else until
        return max(0, last - after)
    query = select(func.count()).where(id_ > after, settled(connection, id_))
    if until is not None:
        query = query.where(id_ <= until)
    return connection.execute(query).scalar_one()


def next_ids(connection: Connection, id_: ColumnElement[int], count: int) -> range:
    """Return ids for so many rows to be appended to a log in this transaction.

    A service counts the ids of what its batches append by itself: on SQLite these are for logs that
    it doesn't count, or for when none runs. Raises OverflowError where a transaction may not append
    so many.
    """
    if is_in_order(connection):
        newest = connection.execute(select(func.max(id_))).scalar() or 0
        return range(newest + 1, newest + 1 + count)
    own = connection.execute(select(_first_id(func.pg_current_xact_id()))).scalar_one()
    first, end = own + PLACES_OF_BATCHES, own + PLACES
    query = select(func.max(id_)).where(id_ >= first, id_ < end)
    last = connection.execute(query).scalar()
    begin = first if last is None else last + 1
    if begin + count > end:
        raise OverflowError(f"one transaction appends {end - first:,} rows to a log at most")
    return range(begin, begin + count)


def would_repeat(connection: Connection) -> bool:
    """Return whether a log has ids that may be given again, or higher ones.

    So it is where a database was moved to another cluster, whose transactions have lower ids.
    """
    if is_in_order(connection):
        return False
    newest = _newest_of_all(connection)  # first: its transaction has ended before the next begins
    next_one = func.pg_snapshot_xmax(func.pg_current_snapshot())
    return newest >= int(connection.execute(select(_first_id(next_one))).scalar_one())


def go_beyond(connection: Connection) -> None:
    """Let the ids that are given from this transaction on be higher than all that a log has."""
    if is_in_order(connection):
        return
    newest = _newest_of_all(connection)
    first = connection.execute(select(_first_id(func.pg_current_xact_id()))).scalar_one()
    if newest >= first:
        more = ((newest - first) // PLACES + 1) * PLACES
        offset = {"value": str(offset_of(connection) + more)}
        ours = installation.c.key == OFFSET_KEY
        connection.execute(update(installation).where(ours).values(offset))


def _newest_of_all(connection: Connection) -> int:
    newest = [connection.execute(select(func.max(log.c.id))).scalar() for log in LOGS]
    return max(one or 0 for one in newest)


LOGS = (journal, audit, events)


def append(connection: Connection, log: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to a log. Raises as `next_ids` does."""
    if rows:
        ids = next_ids(connection, log.c.id, len(rows))
        numbered = [{**row, "id": id_} for id_, row in zip(ids, rows, strict=True)]
        connection.execute(insert(log), numbered)


def dated_before(connection: Connection) -> int | None:
    """Return the time (Unix ms) before which no row is dated that only appears from now on.

    A query in a later snapshot sees all that is dated before. None where none is ever dated before
    what is there already.
    """
    if is_in_order(connection):
        return None
    return int(connection.execute(_OLDEST_WRITER).scalar_one())


_OLDEST_WRITER = text(
    # The time of the statement is from before it looks: who begins to write later dates rows later.
    "SELECT floor(extract(epoch FROM least(statement_timestamp(), min(xact_start))) * 1000)::bigint"
    " FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND datname = current_database()"
)
"""Transactions date what they write by when they began to, so never before they began."""
