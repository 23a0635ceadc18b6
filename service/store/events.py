"""Queries of the event log: reading on from a position, its epoch, and deleting what is old.

A position is the id of the last event that a reader has seen; see `service.store.logs`. Ids have
gaps, for a transaction that was rolled back has taken some; so what a reader has missed is told by
`deleted_up_to`, and not by the smallest id that is there.
"""

import secrets
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Row, delete, func, insert, select

from service.model.account_checks import Issue
from service.model.event_log import LoggedEvent
from service.model.shapes import time_of
from service.store.database import APP_MARK
from service.store.logs import newest_settled, next_ids, settled
from service.store.mapping import EVENT_COLUMNS, dump, event_row, load
from service.store.retention import Chunk, Limits
from service.store.schema import blocks, events, installation, raised_issues

EPOCH_KEY = "epoch"
DELETED_KEY = "events_deleted"
"""Keys of the table `installation`."""


class EventRow(NamedTuple):
    """An event as it is stored: `names` and `data` are JSON."""

    id: int
    at: int
    account: str
    type: str
    names: str
    data: str


class EventFilter(NamedTuple):
    """Which events a reader wants: only of these types, and only of these accounts; None for all.

    Accounts are named as in the journal.
    """

    types: frozenset[str] | None = None
    accounts: frozenset[str] | None = None

    def takes(self, row: EventRow) -> bool:
        """Return whether an event is wanted."""
        return (self.types is None or row.type in self.types) and (
            self.accounts is None or row.account in self.accounts
        )


_COLUMNS = [events.c[name] for name in EVENT_COLUMNS]


# Reading.


def read_events(connection: Connection, after: int, limit: int) -> list[EventRow]:
    """Return the events that follow a position, in their order."""
    shown = events.c.id > after, settled(connection, events.c.id)
    query = select(*_COLUMNS).where(*shown).order_by(events.c.id).limit(limit)
    return [EventRow._make(row) for row in connection.execute(query)]


class EventPage(NamedTuple):
    """Wanted events, the position that a reader has then, and whether it is the end of the log."""

    rows: list[EventRow]
    position: int
    is_end: bool


SCANNED = 5_000
"""Events that are looked at for one page: those that are wanted may be few."""


def read_wanted(
    connection: Connection, wanted: EventFilter, after: int, limit: int, up_to: int | None = None
) -> EventPage:
    """Return the wanted ones of the events that follow a position, at most up to another."""
    bounds = [events.c.id > after, settled(connection, events.c.id)]
    if up_to is not None:
        bounds.append(events.c.id <= up_to)
    some = select(events.c.id).where(*bounds).order_by(events.c.id).limit(SCANNED).subquery()
    count, last = connection.execute(select(func.count(), func.max(some.c.id))).one()
    if not count:
        return EventPage([], after, is_end=True)
    query = select(*_COLUMNS).where(events.c.id > after, events.c.id <= last)
    if wanted.types is not None:
        query = query.where(events.c.type.in_(wanted.types))
    if wanted.accounts is not None:
        query = query.where(events.c.account.in_(wanted.accounts))
    found = connection.execute(query.order_by(events.c.id).limit(limit))
    rows = [EventRow._make(row) for row in found]
    if len(rows) == limit:
        return EventPage(rows, rows[-1].id, is_end=False)
    return EventPage(rows, last, is_end=count < SCANNED)


class Span(NamedTuple):
    """What there is of the event log: its epoch, its newest id, and up to which it was deleted."""

    epoch: str
    newest: int
    deleted: int


def span_of(connection: Connection) -> Span:
    """Return what there is of the event log; the newest id is 0 where it has never had an event."""
    newest = newest_settled(connection, events.c.id)
    return Span(epoch_of(connection), newest, deleted_up_to(connection))


NOTHING_TOLD = "null"
"""The data of an event of which nothing is left: it was about an erased user."""


def epoch_of(connection: Connection) -> str:
    """Return the epoch of the database, to which the ids of its events belong."""
    query = select(installation.c.value).where(installation.c.key == EPOCH_KEY)
    return str(connection.execute(query).scalar_one())


def begin_epoch(connection: Connection) -> None:
    """Give the database another epoch: its ids may not be those any more that readers know."""
    _note(connection, EPOCH_KEY, secrets.token_hex(4))


def deleted_up_to(connection: Connection) -> int:
    """Return the id up to which events may be missing, because they were old; 0 for none."""
    query = select(installation.c.value).where(installation.c.key == DELETED_KEY)
    return int(connection.execute(query).scalar() or 0)


def append_events(connection: Connection, told: Sequence[LoggedEvent]) -> None:
    """Append events while no service runs, which counts the ids otherwise."""
    if not told:
        return
    ids = next_ids(connection, events.c.id, len(told))
    rows = [event_row(id_, event) for id_, event in zip(ids, told, strict=True)]
    connection.execute(insert(events), [dict(zip(EVENT_COLUMNS, row, strict=True)) for row in rows])


def written_id(epoch: str, number: int) -> str:
    """Return the id of an event, or of the position after it, in unreserved URL characters."""
    return f"{epoch}-{number}"


def event_json(epoch: str, row: EventRow) -> dict[str, Any]:
    """Return an event as the API shows it; what is JSON already stays as it is written."""
    names = orjson.loads(row.names)
    has_account = row.account and not row.account.startswith(APP_MARK)
    return {
        "id": written_id(epoch, row.id),
        "type": row.type,
        "at": time_of(row.at),
        "account": row.account if has_account else None,
        "user": names[0] if names else None,
        "data": orjson.Fragment(row.data),
    }


# What is noticed.


def ended_blocks(connection: Connection, now: int, limit: int) -> list[int]:
    """Return the ids of users whose block has ended by itself, the longest ended first."""
    query = select(blocks.c.user_id).where(blocks.c.until <= now)
    return list(connection.execute(query.order_by(blocks.c.until).limit(limit)).scalars())


IssueKey = tuple[str, str, str]
"""An account or app as the journal names it, the code, and the subject, empty where none is."""


def issues_raised(connection: Connection) -> dict[IssueKey, Issue]:
    """Return the issues that were raised and not cleared."""
    return issues_of(connection.execute(select(raised_issues)))


def issues_of(rows: Iterable[Row[Any]]) -> dict[IssueKey, Issue]:
    """Read rows of a table of issues."""
    return {(row.account, row.code, row.subject): Issue(*load(row.data)) for row in rows}


def issue_row(key: IssueKey, issue: Issue) -> dict[str, str | None]:
    """Write an issue as a row of a table of issues."""
    account, code, subject = key
    return {"account": account, "code": code, "subject": subject, "data": dump([*issue])}


def keep_raised(connection: Connection, key: IssueKey, issue: Issue) -> None:
    """Keep that an issue was raised."""
    connection.execute(insert(raised_issues).values(issue_row(key, issue)))


def forget_raised(connection: Connection, key: IssueKey) -> None:
    """Forget an issue that is cleared."""
    account, code, subject = key
    ours = raised_issues.c
    mine = (ours.account == account, ours.code == code, ours.subject == subject)
    connection.execute(delete(raised_issues).where(*mine))


# Deleting.


def next_events(connection: Connection, limits: Limits, after: int, rows: int, _size: int) -> Chunk:
    """Look at the events after an id, at so many at most: which of them are to go?

    The newest stays, else its id would be given a second time.
    """
    if not limits.applied:
        return Chunk((), after, more=False)
    newest = select(func.max(events.c.id)).scalar_subquery()
    query = (
        select(events.c.id, events.c.at)
        .where(events.c.id > after, events.c.id < newest)
        .order_by(events.c.id)
        .limit(rows)
    )
    ids: list[int] = []
    last = after
    found = connection.execute(query).all()
    for id_, at in found:
        is_held = id_ >= limits.held_from and at >= limits.held
        if is_held or limits.applied <= at <= limits.now:
            return Chunk(tuple(ids), last, more=False)
        last = id_
        if at < limits.applied:
            ids.append(id_)
    return Chunk(tuple(ids), last, more=len(found) == rows)


def delete_events(connection: Connection, ids: Collection[int], limits: Limits) -> int:
    """Delete these events, as far as they are old, and note up to which; return how many went."""
    old = (events.c.id.in_(ids), events.c.at < limits.applied)
    gone = connection.execute(delete(events).where(*old)).rowcount
    _note(connection, DELETED_KEY, str(max(ids)))
    return gone


def _note(connection: Connection, key: str, value: str) -> None:
    connection.execute(delete(installation).where(installation.c.key == key))
    connection.execute(insert(installation).values(key=key, value=value))
