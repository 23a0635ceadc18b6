"""Queries of the outbox: which calls to a client are due, and when."""

from dataclasses import dataclass

from sqlalchemy import (
    Connection,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    text,
    update,
)

from service.model.policy import MAX_DELAY_SECONDS
from service.model.users import LEASE_MS, Kind, State
from service.store.schema import UNSETTLED, outbox, users


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be done for an account; the oldest by when it was due (Unix ms)."""

    waiting: int
    overdue: int
    oldest_due: int | None


def backlogs(connection: Connection, now: int) -> dict[tuple[str, Kind], Backlog]:
    """Count the outbox by account and kind."""
    overdue = func.sum(case((outbox.c.due_at <= now, 1), else_=0))
    query = select(
        outbox.c.account, outbox.c.kind, func.count(), overdue, func.min(outbox.c.due_at)
    ).group_by(outbox.c.account, outbox.c.kind)
    return {
        (account, Kind(kind)): Backlog(count, int(late), oldest)
        for account, kind, count, late, oldest in connection.execute(query)
    }


def next_due(connection: Connection, account: str, kind: Kind) -> int | None:
    """Return when the next work of a kind will be due, or the lease on it end (Unix ms)."""
    mine = and_(outbox.c.account == account, outbox.c.kind == kind.value)
    due, lease = outbox.c.due_at, outbox.c.lease_until
    free = select(due).where(mine, lease.is_(None)).order_by(due).limit(1)
    leased = select(lease).where(mine, lease.is_not(None)).order_by(lease).limit(1)
    times = [connection.execute(query).scalar() for query in (free, leased)]
    return min((at for at in times if at is not None), default=None)


def bring_near(connection: Connection, account: str, kind: Kind, now: int) -> None:
    """Let nothing be due, and no lease end, later than it could be if the clock (ms) is right.

    A clock that was set back would else leave them waiting until it has come as far again. What
    policy scheduled may lie as far ahead as it does.
    """
    mine = and_(outbox.c.account == account, outbox.c.kind == kind.value)
    latest_try = now + round(MAX_DELAY_SECONDS * 1000)
    latest_end = now + LEASE_MS
    retried = and_(mine, outbox.c.attempts > 0, outbox.c.due_at > latest_try)
    connection.execute(update(outbox).where(retried).values(due_at=now))
    decided = exists().where(
        users.c.id == outbox.c.user_id, users.c.state == State.ACKNOWLEDGING.value
    )
    at_once = or_(outbox.c.kind == Kind.ASK.value, decided)
    untried = and_(mine, outbox.c.attempts == 0, outbox.c.due_at > now, at_once)
    connection.execute(update(outbox).where(untried).values(due_at=now))
    leased = and_(mine, outbox.c.lease_until > latest_end)
    connection.execute(update(outbox).where(leased).values(lease_until=latest_end))


def left_to_client(connection: Connection, account: str, after: int, limit: int) -> list[int]:
    """Return users for whom a call is still to be made, a GET or a PUT that is decided.

    They are in the order of their ids, those after `after`.
    """
    left = or_(outbox.c.kind == Kind.ASK.value, users.c.state == State.ACKNOWLEDGING.value)
    query = (
        select(users.c.id)
        .distinct()
        .join(outbox, outbox.c.user_id == users.c.id)
        .where(outbox.c.account == account, left, users.c.id > after)
        .order_by(users.c.id)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def stale_unsettled(connection: Connection, account: str, before: int, limit: int) -> list[int]:
    """Return users whose identity is unsettled and was not asked about since (Unix ms).

    First those who were never asked about: where null stands in an order is each database's own.
    """
    mine = users.c.account == account, text(UNSETTLED)  # a literal, for its index
    asked_at = users.c.checked_at
    never = select(users.c.id).where(*mine, asked_at.is_(None)).limit(limit)
    found = [*connection.execute(never).scalars()]
    if len(found) < limit:
        old = select(users.c.id).where(*mine, asked_at < before).order_by(asked_at)
        found += connection.execute(old.limit(limit - len(found))).scalars()
    return found
