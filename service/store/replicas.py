"""What replicas tell each other, and what a person asks of the leader through any of them."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select, update

from service.store.erasing import rows_erased
from service.store.events import IssueKey
from service.store.relays import RelayRow, ReplayRow, relay_rows
from service.store.schema import (
    deliveries,
    dismissals,
    leadership,
    relay_replays,
    replicas,
    unverified,
)

MAX_WANTED = 1_000
"""So many of those whom the gate was asked about are taken at once."""


class Told(NamedTuple):
    """What the replicas have told: their reports, by their ids; who leads, and a sign of it.

    The sign changes whenever the leader says that it still leads. `seen_at` is when (Unix ms, by
    the database's clock) each replica said last that it is present.
    """

    reports: Mapping[str, str]
    leader: str
    sign: tuple[int, int]
    seen_at: Mapping[str, int]


def save_report(connection: Connection, id_: str, report: str) -> None:
    """Tell the other replicas something, in the place of what was told before."""
    connection.execute(update(replicas).where(replicas.c.id == id_).values(report=report))


def told(connection: Connection) -> Told:
    """Return what the replicas have told."""
    rows = connection.execute(select(replicas)).all()
    lead = connection.execute(select(leadership)).one()
    reports = {row.id: row.report for row in rows}
    seen_at = {row.id: row.seen_at for row in rows}
    return Told(reports, lead.holder, (lead.term, lead.until), seen_at)


def dismissed(connection: Connection) -> dict[IssueKey, int]:
    """Return when (Unix ms) issues were dismissed; the account is as the journal calls it."""
    rows = connection.execute(select(dismissals))
    return {(row.account, row.code, row.subject): row.at for row in rows}


class Asked(NamedTuple):
    """What a person asks of the leader, and whom the gate is asked about after a restore.

    `retries` are ids of deliveries, by relay; `replays` all of them; `wanted` users by account, who
    was asked about last first. `rows_erased` is when rows of the logs were erased last.
    """

    relays: Sequence[RelayRow]
    retries: Mapping[str, Sequence[int]]
    replays: Sequence[ReplayRow]
    wanted: Mapping[str, Sequence[int]]
    rows_erased: str | None = None


def asked(connection: Connection) -> Asked:
    """Return what is asked of the leader, and not done yet."""
    return Asked(
        relay_rows(connection),
        _retries(connection),
        _replays(connection),
        _wanted(connection),
        rows_erased(connection),
    )


def _retries(connection: Connection) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    query = select(deliveries.c.relay, deliveries.c.id).where(deliveries.c.retry_asked)
    for relay, id_ in connection.execute(query):
        found[relay].append(id_)
    return found


def _replays(connection: Connection) -> list[ReplayRow]:
    query = select(relay_replays).order_by(relay_replays.c.id)
    return [ReplayRow(*row) for row in connection.execute(query)]


def _wanted(connection: Connection) -> dict[str, list[int]]:
    at = unverified.c.wanted_at
    query = select(unverified.c.account, unverified.c.user_id).where(at.is_not(None))
    found: dict[str, list[int]] = defaultdict(list)
    for account, user_id in connection.execute(query.order_by(at.desc()).limit(MAX_WANTED)):
        found[account].append(user_id)
    return found


def want(connection: Connection, account: str, user_ids: Collection[int], now: int) -> None:
    """Note that the gate was asked about users whom the client is still to be asked about.

    It waits for nobody: whom another transaction has locked the client has answered about just now,
    or another replica notes.
    """
    mine = unverified.c.account == account
    free = select(unverified.c.user_id).where(mine, unverified.c.user_id.in_(user_ids))
    free = free.order_by(unverified.c.user_id).with_for_update(skip_locked=True)
    found = connection.execute(free).scalars().all()
    noted = update(unverified).where(mine, unverified.c.user_id.in_(found))
    connection.execute(noted.values(wanted_at=now))
