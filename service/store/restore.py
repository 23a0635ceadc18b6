"""After a restore: whom the WhatsApp client is still to be asked about.

What changed since the backup is unknown, so every user that it knows is unverified until the client
has answered; and so is the account, as long as one of them is.
"""

from collections.abc import Sequence

from sqlalchemy import (
    Connection,
    delete,
    exists,
    func,
    insert,
    inspect,
    literal,
    not_,
    select,
    true,
    update,
)

from service.model.event_log import LoggedEvent
from service.model.policy import Policies, Policy
from service.model.telling import tell_state
from service.model.users import AuditEntry, Context, Kind, State
from service.store.events import append_events, begin_epoch
from service.store.logs import append, next_ids
from service.store.mapping import USER_COLUMNS, user_of
from service.store.schema import accounts, audit, installation, outbox, unverified, users
from service.store.upgrades import CREATED_KEY

CHUNK = 500
RESTORED = "restored from a backup; what came in since is unknown"
NOBODY_TO_ASK = "the Cloud API can't be asked, and refuses messages with an outdated hash"
VERIFIED = "the client was asked about every user since the restore"


def mark(connection: Connection, now: int) -> None:
    """Make every user and every account unverified, as of a restore at `now` (Unix ms).

    A decision may have been carried out since the backup, so a GET comes before each PUT; and a
    person may have held what policy had only scheduled, so a person decides about that again.
    The database has another epoch from now on: readers may have seen events that it never had.
    """
    begin_epoch(connection)
    known = select(accounts.c.name)
    unknown = select(users.c.account).distinct().where(users.c.account.not_in(known))
    connection.execute(insert(accounts).from_select(["name"], unknown))
    connection.execute(update(accounts).values(unverified_since=now))
    connection.execute(delete(unverified))
    connection.execute(delete(installation).where(installation.c.key == CREATED_KEY))
    everybody = select(users.c.account, users.c.id).order_by(users.c.account, users.c.id)
    connection.execute(insert(unverified).from_select(["account", "user_id"], everybody))
    has_events = inspect(connection).has_table("events")  # a backup may be older
    were_scheduled = _scheduled(connection) if has_events else []
    _unschedule(connection, now)
    _tell_pending(connection, were_scheduled, now)
    puts = outbox.c.kind == Kind.ACKNOWLEDGE.value
    connection.execute(update(outbox).where(puts).values(begun=true()))
    for name in connection.execute(known.order_by(accounts.c.name)).scalars().all():
        _record(connection, name, AuditEntry(now, "restored", reason=RESTORED))


def forgo_asking(connection: Connection, account: str, now: int) -> None:
    """Make an account of the Cloud API verified: there is nobody to ask about its users.

    A message that is sent along with an outdated hash is refused there.
    """
    since = accounts.c.unverified_since
    restored = (accounts.c.name == account, since.is_not(None))
    if connection.execute(update(accounts).where(*restored).values(unverified_since=None)).rowcount:
        connection.execute(delete(unverified).where(unverified.c.account == account))
        _record(connection, account, AuditEntry(now, "verified", reason=NOBODY_TO_ASK))


def _scheduled(connection: Connection) -> list[int]:
    query = select(users.c.id).where(users.c.state == State.SCHEDULED.value).order_by(users.c.id)
    return list(connection.execute(query).scalars())


def _tell_pending(connection: Connection, user_ids: Sequence[int], now: int) -> None:
    """Append to the event log that these users' identities are pending by now."""
    told: list[LoggedEvent] = []
    context = Context(now, Policies((), Policy("restore")), now, told=told)
    columns = [users.c[name] for name in USER_COLUMNS]
    for start in range(0, len(user_ids), CHUNK):
        chosen = users.c.id.in_(user_ids[start : start + CHUNK])
        for row in connection.execute(select(*columns).where(chosen).order_by(users.c.id)):
            tell_state(user_of(row), context)
    append_events(connection, told)


def _unschedule(connection: Connection, now: int) -> None:
    scheduled = users.c.state == State.SCHEDULED.value
    count = connection.execute(select(func.count()).where(scheduled)).scalar_one()
    first = next_ids(connection, audit.c.id, count).start
    entries = select(
        first - 1 + func.row_number().over(order_by=users.c.id),
        users.c.account,
        users.c.id,
        literal(now),
        literal("pending"),
        users.c.hash,
        literal(RESTORED),
    ).where(scheduled)
    columns = ["id", "account", "user_id", "at", "event", "hash", "reason"]
    connection.execute(insert(audit).from_select(columns, entries))
    theirs = outbox.c.user_id.in_(select(users.c.id).where(scheduled))
    puts = outbox.c.kind == Kind.ACKNOWLEDGE.value
    connection.execute(delete(outbox).where(theirs, puts))
    pending = {"state": State.PENDING.value, "due_at": None, "has_work": False, "updated_at": now}
    connection.execute(update(users).where(scheduled).values(pending))


def _record(connection: Connection, account: str, entry: AuditEntry) -> None:
    row = {"account": account, "at": entry.at, "event": entry.event, "reason": entry.reason}
    append(connection, audit, [row])


def unverified_accounts(connection: Connection) -> dict[str, int]:
    """Return the accounts that are unverified, each with the time of the restore (Unix ms)."""
    since = accounts.c.unverified_since
    query = select(accounts.c.name, since).where(since.is_not(None))
    return {row[0]: row[1] for row in connection.execute(query)}


def count_unverified(connection: Connection) -> dict[str, int]:
    """Count the users of each account whom the client is still to be asked about."""
    query = select(unverified.c.account, func.count()).group_by(unverified.c.account)
    return {row[0]: row[1] for row in connection.execute(query)}


def next_unverified(connection: Connection, account: str, after: int, limit: int) -> list[int]:
    """Return users still to be asked about, in the order of their ids."""
    query = (
        select(unverified.c.user_id)
        .where(unverified.c.account == account, unverified.c.user_id > after)
        .order_by(unverified.c.user_id)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def unverified_user(connection: Connection, account: str, user_id: int) -> tuple[str, int] | None:
    """Return wa_id and version of a user who is still to be asked about."""
    query = (
        select(users.c.wa_id, users.c.version)
        .join(unverified, unverified.c.user_id == users.c.id)
        .where(unverified.c.account == account, unverified.c.user_id == user_id)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else (row[0], row[1])


def find_unverified(
    connection: Connection, account: str, user_ids: Sequence[int]
) -> frozenset[int]:
    """Return those of some users who are still to be asked about."""
    found: set[int] = set()
    for start in range(0, len(user_ids), CHUNK):
        query = (
            select(unverified.c.user_id)
            .where(unverified.c.account == account)
            .where(unverified.c.user_id.in_(user_ids[start : start + CHUNK]))
        )
        found.update(connection.execute(query).scalars())
    return frozenset(found)


def verify_user(connection: Connection, account: str, user_id: int) -> None:
    """Note that the client has answered about a user."""
    mine = (unverified.c.account == account, unverified.c.user_id == user_id)
    connection.execute(delete(unverified).where(*mine))


def verify_account(connection: Connection, account: str, now: int) -> bool:
    """Make an account verified again, if nobody is left to be asked about; return whether it is."""
    left = exists().where(unverified.c.account == account)
    changed = connection.execute(
        update(accounts)
        .where(accounts.c.name == account, accounts.c.unverified_since.is_not(None), not_(left))
        .values(unverified_since=None)
    )
    if changed.rowcount == 0:
        return not connection.execute(select(left)).scalar()
    _record(connection, account, AuditEntry(now, "verified", reason=VERIFIED))
    return True
