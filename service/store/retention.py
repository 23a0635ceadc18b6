"""Deleting what has been kept for long enough from the journal, a little at a time.

Ids grow with the time of arrival, so what is to go lies at the smallest ids: nothing else is looked
at. The newest entry always stays, else SQLite would give its id a second time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import aiosqlite
from sqlalchemy import Connection, and_, bindparam, delete, exists, func, or_, select, text
from sqlalchemy.engine import AdaptedConnection

from service.store.schema import journal, message_recipients

QUARANTINED = "quarantined"
MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What is too old: what arrived before these times (Unix ms); 0 keeps for ever.

    What is quarantined has a limit of its own. What claims to have arrived after `now` is stepped
    over: the clock was wrong then. What relays still need, from the id `held_from` on, stays until
    it arrived before `held`.
    """

    now: int
    applied: int
    quarantined: int
    held_from: int = MAX_ID
    held: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a look at a few entries found: which of them are to go, and whether to look further.

    `last` is the id of the last one looked at.
    """

    ids: tuple[int, ...]
    last: int
    more: bool


def next_chunk(connection: Connection, limits: Limits, after: int, rows: int, size: int) -> Chunk:
    """Look at the entries after an id: at so many at most, and at so many bytes of bodies."""
    return _chunk(connection, limits, after, rows, size, quarantined=False)


def next_quarantined(
    connection: Connection, limits: Limits, after: int, rows: int, size: int
) -> Chunk:
    """Look at the quarantined entries alone, which lie scattered among the others."""
    return _chunk(connection, limits, after, rows, size, quarantined=True)


def _chunk(
    connection: Connection, limits: Limits, after: int, rows: int, size: int, *, quarantined: bool
) -> Chunk:
    before = limits.quarantined if quarantined else limits.applied
    if not before:
        return Chunk((), after, more=False)
    newest = select(func.max(journal.c.id)).scalar_subquery()
    query = (
        select(journal.c.id, journal.c.received_at, journal.c.state, func.length(journal.c.body))
        .where(journal.c.id > after, journal.c.id < newest)
        .order_by(journal.c.id)
        .limit(rows)
    )
    if quarantined:
        query = query.where(text("state = 'quarantined'"))  # a literal, for its index
    ids: list[int] = []
    last, seen = after, 0
    found = connection.execute(query).all()
    for id_, received_at, state, length in found:
        is_held = id_ >= limits.held_from and received_at >= limits.held
        is_young = before <= received_at <= limits.now
        if is_young or is_held or (ids and seen + length > size):
            return Chunk(tuple(ids), last, more=received_at < before and not is_held)
        last = id_
        if received_at < before and (state == QUARANTINED) == quarantined:
            ids.append(id_)
            seen += length
    return Chunk(tuple(ids), last, more=len(found) == rows)


def delete_entries(connection: Connection, ids: Sequence[int], limits: Limits) -> int:
    """Delete these entries, as far as they are still to go; return how many went."""
    old = journal.c.received_at
    is_quarantined = journal.c.state == QUARANTINED
    gone = or_(
        and_(~is_quarantined, old < limits.applied), and_(is_quarantined, old < limits.quarantined)
    )
    held = and_(journal.c.id >= limits.held_from, old >= limits.held)
    return connection.execute(delete(journal).where(journal.c.id.in_(ids), gone, ~held)).rowcount


def forget_recipients(connection: Connection, before: int, limit: int) -> int:
    """Delete some notes of whom messages were for, those from before a time; return how many."""
    old = (
        select(message_recipients.c.account, message_recipients.c.message_id)
        .where(message_recipients.c.at < before)
        .order_by(message_recipients.c.at)
        .limit(limit)
    )
    gone = [row._asdict() for row in connection.execute(old)]
    if gone:
        ours = message_recipients.c
        connection.execute(
            delete(message_recipients).where(
                ours.account == bindparam("account"), ours.message_id == bindparam("message_id")
            ),
            gone,
        )
    return len(gone)


def has_old_recipients(connection: Connection, before: int) -> bool:
    """Return whether there are notes of whom messages were for, from before a time."""
    query = select(exists().where(message_recipients.c.at < before))
    return bool(connection.execute(query).scalar())


def oldest_entry(connection: Connection) -> int | None:
    """Return when (Unix ms) the oldest entry arrived; None where the journal is empty."""
    return connection.execute(
        select(journal.c.received_at).order_by(journal.c.id).limit(1)
    ).scalar()


def give_back(connection: Connection, pages: int, kept: int) -> int:
    """Return some free pages of a SQLite file back to the file system; return how many are left.

    Of all pages one in `kept` stays free, for what comes in next. Other databases see to this
    themselves.
    """
    if connection.dialect.name != "sqlite":
        return 0
    free, total = _pragma(connection, "freelist_count"), _pragma(connection, "page_count")
    surplus = free - total // kept
    if surplus <= 0:
        return 0
    adapted = cast(AdaptedConnection, connection.connection.dbapi_connection)
    adapted.run_async(partial(_vacuum, pages=min(pages, surplus)))
    given = free - _pragma(connection, "freelist_count")
    return surplus - given if given else 0


async def _vacuum(driver: aiosqlite.Connection, pages: int) -> None:
    for _ in range(pages):  # sqlite3 makes one step of the statement, so one page
        await driver.execute("PRAGMA incremental_vacuum(1)")


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
