"""Queries of the charts' points: reading on in the logs, adding up, and what a chart shows."""

import json
from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    and_,
    case,
    delete,
    func,
    literal_column,
    select,
)

from service.model.points import MINUTE_MS, SPANS, Point, Series, Span
from service.store.database import SYNTHETIC
from service.store.logs import first_since, newest_settled, settled
from service.store.schema import audit, changes, installation, journal, points, users
from service.store.upserting import add_to_all, upsert

POSITION_KEY = "points"
"""Key of the table `installation`."""
BEGIN_MS = 86_400_000
"""How much of the logs is added up where nobody ever did."""


class Position(NamedTuple):
    """Up to which rows of the logs everything is in the points."""

    journal: int
    audit: int


class Found(NamedTuple):
    """What some more rows of the logs tell by the minute, from one position to another."""

    begin: Position
    end: Position
    minutes: Sequence[Point]


def position_of(connection: Connection) -> Position | None:
    """Return how far the logs are in the points; None where nobody has begun."""
    query = select(installation.c.value).where(installation.c.key == POSITION_KEY)
    found = connection.execute(query).scalar()
    return None if found is None else Position(*json.loads(found))


def begin_points(connection: Connection, now: int) -> None:
    """Let the points begin with what the logs hold of the last day, where nobody has begun."""
    if position_of(connection) is None:
        since = now - BEGIN_MS
        first = Position(
            first_since(connection, journal, journal.c.received_at, since) - 1,
            first_since(connection, audit, audit.c.at, since) - 1,
        )
        _keep(connection, first)


def next_minutes(connection: Connection, limit: int) -> Found | None:
    """Read on in both logs, so many rows of each at most; None where there is nothing new."""
    begin = position_of(connection)
    if begin is None:
        return None
    end = Position(
        _last_of(connection, journal, begin.journal, limit),
        _last_of(connection, audit, begin.audit, limit),
    )
    if begin == end:
        return None
    return Found(
        begin,
        end,
        [
            *_callbacks(connection, begin.journal, end.journal),
            *_decided(connection, begin.audit, end.audit),
        ],
    )


def _last_of(connection: Connection, log: Table, after: int, limit: int) -> int:
    """Return the id of the last of the next rows of a log, so many of them at most."""
    id_ = log.c.id
    query = select(id_).where(id_ > after, settled(connection, id_)).order_by(id_)
    last = connection.execute(query.offset(limit - 1).limit(1)).scalar()
    return max(after, newest_settled(connection, id_) if last is None else last)


def _minute(at: Column[int]) -> ColumnElement[int]:
    # PostgreSQL knows it again behind GROUP BY only if it is the same to the letter.
    return at - at % literal_column(str(MINUTE_MS))


def _callbacks(connection: Connection, after: int, until: int) -> list[Point]:
    name, at = journal.c.account, _minute(journal.c.received_at)
    query = (
        select(at, name, func.count())
        .where(journal.c.id > after, journal.c.id <= until, journal.c.state != SYNTHETIC)
        .group_by(at, name)
    )
    return [
        Point(MINUTE_MS, at, Series.CALLBACKS, name, count)
        for at, name, count in connection.execute(query)
    ]


_COUNTED = {"changed": Series.CHANGES, "acknowledged": Series.ACKNOWLEDGED}
"""The events of the audit trail that are counted."""


def _decided(connection: Connection, after: int, until: int) -> list[Point]:
    """Return what the audit trail tells: changes, acknowledgements, and how long those took.

    That is from when a change was known until it was acknowledged. It is not known of a user who
    turned out to be another one meanwhile.
    """
    name, at, event = audit.c.account, _minute(audit.c.at), audit.c.event
    latest = and_(users.c.id == audit.c.user_id, users.c.acknowledged_at == audit.c.at)
    earlier = and_(changes.c.user_id == audit.c.user_id, changes.c.acknowledged_at == audit.c.at)
    known_at = func.coalesce(users.c.received_at, changes.c.received_at)
    took = case((audit.c.at > known_at, audit.c.at - known_at), (known_at.is_not(None), 0))
    measured = [func.count(took), func.coalesce(func.sum(took), 0), func.max(took)]
    query = (
        select(at, name, event, func.count(), *measured)
        .outerjoin(users, and_(event == "acknowledged", latest))
        .outerjoin(changes, and_(event == "acknowledged", earlier, users.c.id.is_(None)))
        .where(audit.c.id > after, audit.c.id <= until, event.in_(_COUNTED))
        .group_by(at, name, event)
    )
    found: list[Point] = []
    for minute, account, what, count, times, total, longest in connection.execute(query):
        found.append(Point(MINUTE_MS, minute, _COUNTED[what], account, count))
        if times:
            blocked = (times, int(total), longest)
            found.append(Point(MINUTE_MS, minute, Series.BLOCKED, account, *blocked))
    return found


_KEY = ("step", "at", "series", "name")


def add_points(
    connection: Connection, found: Found | None, rows: Sequence[Point], now: int
) -> bool:
    """Add to the points, and delete those that no chart shows any more; return whether it did so.

    It does nothing where another one has added meanwhile what was found.
    """
    if found is not None:
        if position_of(connection) != found.begin:
            return False
        _keep(connection, found.end)
    add_to_all(
        connection,
        points,
        [row._asdict() for row in rows],
        _KEY,
        added=("times", "total"),
        greatest=("longest",),
    )
    for span in SPANS.values():
        old = points.c.step == span.step, points.c.at < span.first(now)
        connection.execute(delete(points).where(*old))
    return True


def _keep(connection: Connection, position: Position) -> None:
    noted = {"value": json.dumps(position)}
    upsert(connection, installation, {"key": POSITION_KEY, **noted}, ["key"], noted)


def points_of(
    connection: Connection,
    span: Span,
    since: int,
    names: Collection[str] | None,
    relays: Collection[str],
) -> list[Point]:
    """Return the points of a span since a time (Unix ms), of some accounts and relays together.

    `names` are accounts and apps as the journal names them; None for all.
    """
    is_lag = points.c.series == Series.LAG.value
    wanted = case(
        (is_lag, points.c.name.in_(relays)),
        else_=points.c.name.in_(names) if names is not None else ~is_lag,
    )
    query = (
        select(
            points.c.at,
            points.c.series,
            func.sum(points.c.times),
            func.sum(points.c.total),
            func.max(points.c.longest),
        )
        .where(points.c.step == span.step, points.c.at >= since, wanted)
        .group_by(points.c.at, points.c.series)
    )
    return [
        Point(span.step, at, series, "", int(times), int(total), longest)
        for at, series, times, total, longest in connection.execute(query)
    ]
