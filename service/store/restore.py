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
    not_,
    null,
    select,
    true,
    update,
)

from service.model.event_log import LoggedEvent
from service.model.policy import Policies, Policy
from service.model.telling import tell_state
from service.model.users import AuditEntry, Context, Kind, State
from service.store.database import StoreError
from service.store.events import append_events, begin_epoch
from service.store.logs import go_beyond, would_repeat
from service.store.mapping import USER_COLUMNS, user_of
from service.store.schema import accounts, installation, outbox, unverified, users
from service.store.trail import append_entries
from service.store.upgrades import CREATED_KEY

RESTORING_KEY = "restoring"
"""Key of the table `installation` while a restored database is marked in several transactions."""

CHUNK = 500
UNSCHEDULED = 4_000
"""Users that are made pending at once."""

RESTORED = "restored from a backup; what came in since is unknown"
NOBODY_TO_ASK = "the Cloud API can't be asked, and refuses messages with an outdated hash"
VERIFIED = "the client was asked about every user since the restore"


def begin_marking(connection: Connection) -> None:
    """Let no service work on a database until it is marked as a whole.

    Where it came from another PostgreSQL cluster, no id of a log is given again from now on.
    """
    go_beyond(connection)
    if not is_half_marked(connection):
        connection.execute(insert(installation).values(key=RESTORING_KEY, value=""))


def end_marking(connection: Connection, now: int) -> None:
    """Mark a database, which services may use from then on."""
    mark(connection, now)
    connection.execute(delete(installation).where(installation.c.key == RESTORING_KEY))


def is_half_marked(connection: Connection) -> bool:
    """Return whether the marking of a restored database was begun, and not ended."""
    query = select(exists().where(installation.c.key == RESTORING_KEY))
    return bool(connection.execute(query).scalar_one())


def refuse_unmarked(connection: Connection) -> None:
    """Raise StoreError where a database was plainly restored, and is not marked."""
    if is_half_marked(connection):
        raise StoreError(f"database.url: {HALF_MARKED}")
    if would_repeat(connection):
        raise StoreError(f"database.url: {UNMARKED}")


HALF_MARKED = "'ackgate db restored' was cut short: run it again"
UNMARKED = "the database was restored or moved here, which 'ackgate db restored' has to be told"


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
    # The client can be asked about a wa_id alone. Who has none by now was erased, or merged.
    everybody = select(users.c.account, users.c.id).where(users.c.wa_id != "")
    everybody = everybody.order_by(users.c.account, users.c.id)
    connection.execute(insert(unverified).from_select(["account", "user_id"], everybody))
    _close_erased(connection)
    while unschedule(connection, now):
        pass
    puts = outbox.c.kind == Kind.ACKNOWLEDGE.value
    connection.execute(update(outbox).where(puts).values(begun=true()))
    for name in connection.execute(known.order_by(accounts.c.name)).scalars().all():
        _record(connection, name, AuditEntry(now, "restored", reason=RESTORED))


def _close_erased(connection: Connection) -> None:
    """Close the gate to who was erased, until an identity is known: nobody can be asked."""
    if "erased_at" in {column["name"] for column in inspect(connection).get_columns("users")}:
        erased = users.c.erased_at.is_not(None), users.c.state.is_(None)
        connection.execute(update(users).where(*erased).values(after_hold=True))


def forgo_asking(connection: Connection, account: str, now: int) -> None:
    """Make an account of the Cloud API verified: there is nobody to ask about its users.

    A message that is sent along with an outdated hash is refused there.
    """
    since = accounts.c.unverified_since
    restored = (accounts.c.name == account, since.is_not(None))
    if connection.execute(update(accounts).where(*restored).values(unverified_since=None)).rowcount:
        connection.execute(delete(unverified).where(unverified.c.account == account))
        _record(connection, account, AuditEntry(now, "verified", reason=NOBODY_TO_ASK))


def unschedule(connection: Connection, now: int) -> int:
    """Make some users whom policy had scheduled pending, as of a restore; return how many.

    `mark` does so with all. On PostgreSQL one transaction has places in a log for some thousands;
    so there each call is in one of its own, until none is left, before `mark` is in its own.
    """
    query = select(users.c.id, users.c.account, users.c.hash)
    query = query.where(users.c.state == State.SCHEDULED.value).order_by(users.c.id)
    found = connection.execute(query.limit(UNSCHEDULED)).all()
    ids = [row.id for row in found]
    for start in range(0, len(ids), CHUNK):
        _make_pending(connection, ids[start : start + CHUNK], now)
    entry = {"at": now, "event": "pending", "reason": RESTORED}
    entries = [{"account": row.account, "user_id": row.id, "hash": row.hash} for row in found]
    append_entries(connection, [entry | of for of in entries])
    if inspect(connection).has_table("events"):  # a backup may be older
        _tell_pending(connection, ids, now)
    return len(found)


def _make_pending(connection: Connection, user_ids: Sequence[int], now: int) -> None:
    puts = outbox.c.kind == Kind.ACKNOWLEDGE.value
    connection.execute(delete(outbox).where(outbox.c.user_id.in_(user_ids), puts))
    pending = {"state": State.PENDING.value, "due_at": None, "has_work": False, "updated_at": now}
    connection.execute(update(users).where(users.c.id.in_(user_ids)).values(pending))


def _tell_pending(connection: Connection, user_ids: Sequence[int], now: int) -> None:
    """Append to the event log that these users' identities are pending by now."""
    told: list[LoggedEvent] = []
    context = Context(now, Policies((), Policy("restore")), now, told=told)
    there = {column["name"] for column in inspect(connection).get_columns("users")}
    columns = [users.c[name] if name in there else null() for name in USER_COLUMNS]
    for start in range(0, len(user_ids), CHUNK):
        chosen = users.c.id.in_(user_ids[start : start + CHUNK])
        for row in connection.execute(select(*columns).where(chosen).order_by(users.c.id)):
            tell_state(user_of(row), context)
    append_events(connection, told)


def _record(connection: Connection, account: str, entry: AuditEntry) -> None:
    row = {"account": account, "at": entry.at, "event": entry.event, "reason": entry.reason}
    append_entries(connection, [row])


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
