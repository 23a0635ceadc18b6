"""Queries that need not be the fastest, in SQLAlchemy Core, the same for every database.

Each takes the connection of a transaction or of a reader, and is called on its thread.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    exists,
    func,
    or_,
    select,
    text,
    tuple_,
    union_all,
    update,
)

from service.model.contacts import Contact
from service.model.policy import MAX_DELAY_SECONDS
from service.model.timeline import Change
from service.model.users import LEASE_MS, AuditEntry, Kind, State, User
from service.store.mapping import (
    CHANGE_COLUMNS,
    CONTACT_COLUMNS,
    USER_COLUMNS,
    change_of,
    contact_of,
    load,
    user_of,
)
from service.store.tables import (
    accounts,
    aliases,
    audit,
    changes,
    contacts,
    installation,
    journal,
    outbox,
    users,
)

CHUNK = 500
Place = tuple[int, int]
"""Where a page of a list begins: after this time (Unix ms) and this id."""

_USER = [users.c[name] for name in USER_COLUMNS]
_CONTACT = [contacts.c[name] for name in CONTACT_COLUMNS]


def find_user(connection: Connection, account: str, alias: str) -> User | None:
    """Give a user by what it is called, without history and work."""
    return find_users(connection, account, [alias]).get(alias)


def find_users(connection: Connection, account: str, names: Sequence[str]) -> dict[str, User]:
    """Give users by what they are called, without history and work."""
    found = {}
    for start in range(0, len(names), CHUNK):
        query = (
            select(aliases.c.alias, *_USER)
            .join(users, users.c.id == aliases.c.user_id)
            .where(aliases.c.account == account)
            .where(aliases.c.alias.in_(names[start : start + CHUNK]))
        )
        for row in connection.execute(query):
            found[row[0]] = user_of(row[1:])
    return found


def history_of(connection: Connection, user_id: int, limit: int = 1000) -> list[Change]:
    """Give the newest entries of a user's history, the newest first."""
    query = (
        select(changes.c.id, *(changes.c[name] for name in CHANGE_COLUMNS))
        .where(changes.c.user_id == user_id)
        .order_by(changes.c.first_at.desc(), changes.c.id.desc())
        .limit(limit)
    )
    return [change_of(row) for row in connection.execute(query)]


def audit_of(connection: Connection, user_id: int, limit: int = 1000) -> list[AuditEntry]:
    """Give the newest entries of a user's audit trail, in their order.

    What happened to those who turned out to be this user is part of it.
    """
    merged = select(users.c.id).where(users.c.merged_into == user_id)
    whose = [user_id, *connection.execute(merged).scalars()]
    query = select(audit).where(audit.c.user_id.in_(whose)).order_by(audit.c.id.desc()).limit(limit)
    return [audit_entry_of(row) for row in reversed(connection.execute(query).all())]


def audit_entry_of(row: Row[Any]) -> AuditEntry:
    """Build an audit entry."""
    return AuditEntry(
        row.at,
        row.event,
        row.hash,
        load(row.decided_by),
        row.reason,
        row.note,
        load(row.evidence),
    )


@dataclass(frozen=True, slots=True)
class IdentityFilter:
    """Which identities a list shows. `updated_since` is Unix milliseconds, and sorts by it."""

    account: str | None = None
    states: Sequence[State] = ()
    updated_since: int | None = None


def list_identities(
    connection: Connection, wanted: IdentityFilter, after: Place | None, limit: int
) -> list[User]:
    """Give a page of identities, oldest change first, without history and work."""
    if wanted.updated_since is not None:
        query = _page(wanted, (), users.c.updated_at, after, limit)
        query = query.where(users.c.updated_at >= wanted.updated_since)
        if wanted.states:
            # Within an expression, else SQLite takes the index of states and sorts all they have.
            names = [str(state) for state in wanted.states]
            query = query.where(func.coalesce(users.c.state, "").in_(names))
        return [user_of(row) for row in connection.execute(query)]
    # Each state's identities come in order from the index: a page of all is made of one of each.
    states = dict.fromkeys(wanted.states or State)
    pages = [_page(wanted, [state], users.c.changed_at, after, limit) for state in states]
    together = union_all(*(select(page.subquery()) for page in pages)).subquery()
    query = select(together).order_by(together.c.changed_at, together.c.id).limit(limit)
    return [user_of(row) for row in connection.execute(query)]


def _page(
    wanted: IdentityFilter,
    states: Sequence[State],
    order: ColumnElement[Any],
    after: Place | None,
    limit: int,
) -> Select[Any]:
    query = select(*_USER).where(users.c.state.is_not(None))
    if states:
        query = query.where(users.c.state.in_([str(state) for state in states]))
    if wanted.account is not None:
        query = query.where(users.c.account == wanted.account)
    if after is not None:
        query = query.where(tuple_(order, users.c.id) > after)
    return query.order_by(order, users.c.id).limit(limit)


def count_states(connection: Connection) -> dict[State, int]:
    """Count the identities in each state."""
    query = select(users.c.state, func.count()).where(users.c.state.is_not(None))
    rows = connection.execute(query.group_by(users.c.state))
    counted: dict[str, int] = {row[0]: row[1] for row in rows}
    return {state: counted.get(state.value, 0) for state in State}


def oldest_pending(connection: Connection) -> int | None:
    """Tell since when (Unix ms) the longest pending identity has been."""
    query = select(func.min(users.c.changed_at)).where(users.c.state == State.PENDING.value)
    return connection.execute(query).scalar()


def find_contacts(
    connection: Connection, account: str, inputs: Sequence[str]
) -> dict[str, Contact]:
    """Give contacts by their literal input."""
    found = {}
    for start in range(0, len(inputs), CHUNK):
        query = (
            select(*_CONTACT)
            .where(contacts.c.account == account)
            .where(contacts.c.input.in_(inputs[start : start + CHUNK]))
        )
        for row in connection.execute(query):
            contact = contact_of(row)
            found[contact.input] = contact
    return found


def newest_contacts(
    connection: Connection, account: str, wa_ids: Sequence[str]
) -> dict[str, Contact]:
    """Give for each wa_id the newest result of any number that led to it."""
    found = {}
    order = (contacts.c.checked_at.desc(), contacts.c.id.desc())
    place = func.row_number().over(partition_by=contacts.c.wa_id, order_by=order)
    for start in range(0, len(wa_ids), CHUNK):
        ranked = (
            select(*_CONTACT, place.label("place"))
            .where(contacts.c.account == account)
            .where(contacts.c.wa_id.in_(wa_ids[start : start + CHUNK]))
            .subquery()
        )
        query = select(*(ranked.c[name] for name in CONTACT_COLUMNS)).where(ranked.c.place == 1)
        for row in connection.execute(query):
            contact = contact_of(row)
            found[contact.wa_id or ""] = contact
    return found


@dataclass(frozen=True, slots=True)
class ContactFilter:
    """Which contacts a list shows: of an account, and with one of these inputs or wa_ids."""

    account: str
    inputs: Sequence[str] = ()
    wa_ids: Sequence[str] = ()


def list_contacts(
    connection: Connection, wanted: ContactFilter, after: int, limit: int
) -> list[tuple[int, Contact]]:
    """Give a page of contacts with their row ids."""
    query = (
        select(contacts.c.id, *_CONTACT)
        .where(contacts.c.account == wanted.account, contacts.c.id > after)
        .order_by(contacts.c.id)
        .limit(limit)
    )
    if wanted.inputs or wanted.wa_ids:
        query = query.where(
            or_(contacts.c.input.in_(wanted.inputs), contacts.c.wa_id.in_(wanted.wa_ids))
        )
    return [(row[0], contact_of(row[1:])) for row in connection.execute(query)]


def list_journal(
    connection: Connection, state: str | None, account: str | None, after: int, limit: int
) -> list[Row[Any]]:
    """Give a page of the journal, oldest first, without the bodies."""
    columns = [
        journal.c[name]
        for name in ("id", "account", "received_at", "state", "reason", "replayed_at")
    ]
    query = select(*columns).where(journal.c.id > after).order_by(journal.c.id).limit(limit)
    if state is not None:
        query = query.where(_state_is(state))
    if account is not None:
        query = query.where(journal.c.account == account)
    return list(connection.execute(query))


def _state_is(state: str) -> Any:
    """Compare with a literal where an index holds just those rows."""
    return text("state = 'quarantined'") if state == "quarantined" else journal.c.state == state


def journal_entry(connection: Connection, entry_id: int) -> Row[Any] | None:
    """Give one callback of the journal, body and all."""
    return connection.execute(select(journal).where(journal.c.id == entry_id)).one_or_none()


def note_replay(
    connection: Connection, entry_id: int, state: str, reason: str | None, now: int
) -> None:
    """Note what a journal entry came to when it was read again, at `now` (Unix ms)."""
    values = {"state": state, "reason": reason, "replayed_at": now}
    connection.execute(update(journal).where(journal.c.id == entry_id).values(values))


def list_audit(
    connection: Connection, account: str | None, event: str | None, after: int, limit: int
) -> list[Row[Any]]:
    """Give a page of the whole audit trail, oldest first.

    Each with its user's names: `wa_id`, `known_as` (the user id). Who turned out to be another is
    named as that one.
    """
    whose = users.alias()
    query: Select[Any] = (
        select(
            audit,
            func.nullif(whose.c.wa_id, "").label("wa_id"),
            whose.c.user_id.label("known_as"),
        )
        .outerjoin(users, users.c.id == audit.c.user_id)
        .outerjoin(whose, whose.c.id == func.coalesce(users.c.merged_into, users.c.id))
        .where(audit.c.id > after)
        .order_by(audit.c.id)
        .limit(limit)
    )
    if account is not None:
        query = query.where(audit.c.account == account)
    if event is not None:
        query = query.where(audit.c.event == event)
    return list(connection.execute(query))


def account_rows(connection: Connection) -> dict[str, Row[Any]]:
    """Give what is known of each account that ever had a callback or a policy."""
    return {row.name: row for row in connection.execute(select(accounts))}


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be done for an account; the oldest by when it was due (Unix ms)."""

    waiting: int
    overdue: int
    oldest_due: int | None


def backlogs(connection: Connection, now: int) -> dict[tuple[str, Kind], Backlog]:
    """Count the outbox by account and kind."""
    overdue = func.sum((outbox.c.due_at <= now).cast(outbox.c.id.type))
    query = select(
        outbox.c.account, outbox.c.kind, func.count(), overdue, func.min(outbox.c.due_at)
    ).group_by(outbox.c.account, outbox.c.kind)
    return {
        (account, Kind(kind)): Backlog(count, int(late or 0), oldest)
        for account, kind, count, late, oldest in connection.execute(query)
    }


def next_due(connection: Connection, account: str, kind: Kind) -> int | None:
    """Tell when the next work of a kind will be due, or the lease on it end (Unix ms)."""
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
    """Give users whom a client is to be asked about, or told about what is decided already.

    In the order of their ids, those after one.
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
    """Give users whose identity is unsettled and was not asked about since (Unix ms)."""
    query = (
        select(users.c.id)
        .where(users.c.account == account, text("state IN ('pending', 'held', 'failed')"))
        .where(or_(users.c.checked_at.is_(None), users.c.checked_at < before))
        .order_by(users.c.checked_at)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def write_reserve(connection: Connection, size: int) -> None:
    """Write a row of this size, to know whether the database has room for it."""
    reserve = installation.c.key == "reserve"
    connection.execute(installation.delete().where(reserve))
    connection.execute(installation.insert().values(key="reserve", value="0" * size))


def free_reserve(connection: Connection, now: int) -> None:
    """Give the room back to the callbacks, and note when it was last tried."""
    tried = installation.c.key.in_(("reserve", "probed_at"))
    connection.execute(installation.delete().where(tried))
    connection.execute(installation.insert().values(key="probed_at", value=str(now)))


def alive_at(connection: Connection) -> int | None:
    """Tell when (Unix ms) the service last noted that it was alive."""
    query = select(installation.c.value).where(installation.c.key == "alive_at")
    found = connection.execute(query).scalar()
    return None if found is None else int(found)


def note_alive(connection: Connection, now: int) -> None:
    """Note that the service is alive."""
    mine = installation.c.key == "alive_at"
    changed = connection.execute(update(installation).where(mine).values(value=str(now)))
    if changed.rowcount == 0:
        connection.execute(installation.insert().values(key="alive_at", value=str(now)))


def note_policies(connection: Connection, policies: Iterable[tuple[str, str]], now: int) -> None:
    """Keep each account's policy as it is now, and note in the audit trail which ones changed.

    `now` is Unix milliseconds.
    """
    known = account_rows(connection)
    for name, policy in policies:
        if name not in known:
            connection.execute(accounts.insert().values(name=name, policy=policy))
            continue
        before = known[name].policy
        if before != policy:
            mine = accounts.c.name == name
            connection.execute(update(accounts).where(mine).values(policy=policy))
        if before not in (policy, None):
            connection.execute(
                audit.insert().values(
                    account=name, at=now, event="policy_changed", reason="configuration"
                )
            )
