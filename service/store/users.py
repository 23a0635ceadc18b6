"""Queries of users: identities, history, audit trail, and the blocks that a person put on them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    delete,
    func,
    insert,
    select,
    update,
)

from service.model.decisions import Block
from service.model.timeline import Change
from service.model.users import AuditEntry, State, User, storable
from service.store.mapping import (
    CHANGE_COLUMNS,
    USER_COLUMNS,
    change_of,
    dump,
    load,
    user_of,
)
from service.store.paging import FIRST, distinct, first_ids, in_order_of_ids
from service.store.schema import aliases, audit, blocks, changes, users

CHUNK = 500

Place = tuple[int, int]
"""Where a page of a list begins: after this time (Unix ms) and this id."""

_USER = [users.c[name] for name in USER_COLUMNS]


def find_user(connection: Connection, account: str, alias: str) -> User | None:
    """Return a user by what it is called, without history and work."""
    return find_users(connection, account, [alias]).get(alias)


def find_users(connection: Connection, account: str, names: Sequence[str]) -> dict[str, User]:
    """Return users by what they are called, without history and work."""
    found = {}
    names = [name for name in names if storable(name)]
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
    """Return the newest entries of a user's history, the newest first."""
    query = (
        select(changes.c.id, *(changes.c[name] for name in CHANGE_COLUMNS))
        .where(changes.c.user_id == user_id)
        .order_by(changes.c.first_at.desc(), changes.c.id.desc())
        .limit(limit)
    )
    return [change_of(row) for row in connection.execute(query)]


def audit_of(connection: Connection, user_id: int, limit: int = 1000) -> list[AuditEntry]:
    """Return the newest entries of a user's audit trail, in their order.

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
        row.request_id,
    )


@dataclass(frozen=True, slots=True)
class IdentityFilter:
    """Which identities a list shows. Times are Unix milliseconds; `updated_since` sorts by them.

    `updated_before` is for it what `service.store.logs.dated_before` was before: a reader goes on
    after the last that it has seen, so none may be shown that others could still come before.
    """

    account: str | None = None
    states: Sequence[State] = ()
    updated_since: int | None = None
    within: Collection[str] | None = None
    """The accounts that the caller may see; None for all."""
    updated_before: int | None = None


def list_identities(
    connection: Connection, wanted: IdentityFilter, after: Place | None, limit: int
) -> list[User]:
    """Return a page of identities, oldest change first, without history and work."""
    since = wanted.updated_since
    order = users.c.changed_at if since is None else users.c.updated_at
    if after is None:
        after = (FIRST if since is None else since, 0)
    accounts = _accounts(connection, wanted.within)
    if wanted.account is not None:
        accounts = [name for name in accounts if name == wanted.account]
    index = (users.c.account, users.c.state, order, users.c.id)
    states = dict.fromkeys(wanted.states or State)
    ids = first_ids(connection, index, accounts, states, after, limit, wanted.updated_before)
    query = select(*_USER).where(users.c.id.in_(ids)).order_by(order, users.c.id)
    return [user_of(row) for row in connection.execute(query)]


def _accounts(connection: Connection, within: Collection[str] | None) -> list[str]:
    """Return the accounts that have users, of some or of all."""
    names = distinct(connection, users.c.account)
    return names if within is None else [name for name in names if name in within]


def count_states(connection: Connection, within: Collection[str] | None = None) -> dict[State, int]:
    """Count the identities in each state, of some accounts or of all."""
    query = select(users.c.state, func.count()).where(users.c.state.is_not(None))
    if within is not None:
        query = query.where(users.c.account.in_(within))
    rows = connection.execute(query.group_by(users.c.state))
    counted: dict[str, int] = {row[0]: row[1] for row in rows}
    return {state: counted.get(state.value, 0) for state in State}


def count_states_up_to(
    connection: Connection, accounts: Collection[str], states: Collection[State], limit: int
) -> dict[State, int]:
    """Count the identities of these accounts in each state, each of the two up to a limit.

    So it costs no more where there are a hundred times as many.
    """
    counted = dict.fromkeys(states, 0)
    for account in accounts:
        for state in states:
            mine = users.c.account == account, users.c.state == state
            found = select(users.c.id).where(*mine).limit(limit).subquery()
            count = connection.execute(select(func.count()).select_from(found)).scalar_one()
            counted[state] = min(limit, counted[state] + count)
    return counted


def oldest_pending(connection: Connection, within: Collection[str] | None = None) -> int | None:
    """Return since when (Unix ms) the longest pending identity of these accounts has been."""
    index = (users.c.account, users.c.state, users.c.changed_at, users.c.id)
    accounts = _accounts(connection, within)
    ids = first_ids(connection, index, accounts, [State.PENDING], (FIRST, 0), 1)
    return connection.execute(select(users.c.changed_at).where(users.c.id.in_(ids))).scalar()


def count_pending_since(connection: Connection, account: str, before: int, limit: int) -> int:
    """Count the pending identities of an account that arrived before a time (Unix ms).

    It counts up to a limit. A change is known to nobody before it has arrived, however old it is.
    """
    mine = users.c.account == account, users.c.state == State.PENDING
    # Without the first of these times all that are pending would be looked at: it has an index.
    old = users.c.changed_at < before, users.c.received_at < before
    found = select(users.c.id).where(*mine, *old).limit(limit).subquery()
    return connection.execute(select(func.count()).select_from(found)).scalar_one()


def list_audit(
    connection: Connection,
    account: str | None,
    event: str | None,
    after: int,
    limit: int,
    within: Collection[str] | None = None,
    *,
    newest_first: bool = False,
) -> list[Row[Any]]:
    """Return a page of the whole audit trail, oldest first; `within` are names of accounts, apps.

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
    )
    index = (audit.c.account, audit.c.event, audit.c.id)
    query = in_order_of_ids(
        connection, query, index, (account, event), after, limit, within, backwards=newest_first
    )
    return list(connection.execute(query))


def delete_history(connection: Connection, user_ids: Sequence[int]) -> None:
    """Delete the whole history of users."""
    connection.execute(delete(changes).where(changes.c.user_id.in_(user_ids)))
    mine = users.c.id.in_(user_ids)
    connection.execute(update(users).where(mine).values(history_count=0))


def find_block(connection: Connection, user_id: int) -> Block | None:
    """Return the block of a user, in force or not."""
    row = connection.execute(select(blocks).where(blocks.c.user_id == user_id)).one_or_none()
    return None if row is None else Block(row.reason, row.since, load(row.decided_by), row.until)


def put_block(connection: Connection, user_id: int, block: Block | None) -> None:
    """Keep the block of a user in the place of one before it, or none any more."""
    connection.execute(delete(blocks).where(blocks.c.user_id == user_id))
    if block is None:
        return
    row = {
        "user_id": user_id,
        "reason": block.reason,
        "since": block.since,
        "until": block.until,
        "decided_by": dump(block.by),
    }
    connection.execute(insert(blocks).values(row))
