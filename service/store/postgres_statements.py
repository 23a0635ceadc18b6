"""The statements that every batch and the gate need on PostgreSQL, written for asyncpg.

Round trips are what a transaction costs, so whole tables go as arrays, and what a batch writes goes
in one statement. https://magicstack.github.io/asyncpg/current/api/index.html
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import asyncpg
from sqlalchemy import BigInteger, Boolean, Connection, Integer, LargeBinary, Table, Text
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.ext.asyncio import AsyncConnection

from service.model.contacts import Contact
from service.model.event_log import LoggedEvent
from service.model.recipients import LatestCheck, Recipient
from service.model.users import AuditEntry, Kind, User, mark_of
from service.store import schema
from service.store.database import APP_MARK, SYNTHETIC, Alias, ChangeSet, ConflictError, JournalRow
from service.store.erased import ErasedNames
from service.store.loaded import LoadedUsers, Row
from service.store.logs import PLACES_OF_BATCHES
from service.store.mapping import (
    AUDIT_COLUMNS,
    CHANGE_COLUMNS,
    CONTACT_COLUMNS,
    EVENT_COLUMNS,
    OUTBOX_COLUMNS,
    RECIPIENT_COLUMNS,
    USER_COLUMNS,
    audit_row,
    called,
    contact_of,
    contact_row,
    event_row,
    recipient_of,
)
from service.store.postgres_errors import LOCKED, LOST_ALIAS, OVERTAKEN

T = TypeVar("T")

_TYPES = {
    BigInteger: "bigint",
    Integer: "integer",
    Text: "text",
    Boolean: "boolean",
    LargeBinary: "bytea",
}


def _insert(table: Table, columns: Sequence[str], more: str = "") -> str:
    """Write an INSERT of many rows, from one array for each column: `{0}`, `{1}` and so on."""
    types = (_TYPES[type(table.c[column].type)] for column in columns)
    arrays = ", ".join(f"{{{number}}}::{name}[]" for number, name in enumerate(types))
    return (
        f"INSERT INTO {table.name} ({', '.join(columns)}) "  # noqa: S608  names of ours only
        f"SELECT * FROM unnest({arrays}) AS t({', '.join(columns)}){more}"
    )


def _upsert(
    table: Table, columns: Sequence[str], key: Sequence[str], changes: str | None = None
) -> str:
    """Write an INSERT that updates the rows that are there, in the order of their keys.

    So two transactions never wait for each other.
    """
    every = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in key)
    keys = ", ".join(key)
    more = f" ORDER BY {keys} ON CONFLICT ({keys}) DO UPDATE SET {changes or every}"
    return _insert(table, columns, more)


_USERS = ", ".join(f"u.{column}" for column in USER_COLUMNS)
_CHANGES = ", ".join(("id", *CHANGE_COLUMNS))

LOCK_USERS = f"""
SELECT u.xmin::text::bigint, {_USERS} FROM users u WHERE u.id = ANY(ARRAY(
    SELECT a.user_id FROM unnest($1::text[], $2::text[]) AS w(account, alias)
    JOIN aliases a ON a.account = w.account AND a.alias = w.alias
    UNION SELECT unnest($3::bigint[])
)) ORDER BY u.id FOR NO KEY UPDATE
"""  # noqa: S608  names of ours only
"""In the order of their ids, so that two transactions never wait for each other.

The first column is the lower half of the number of the transaction that wrote the row.
"""
HALF = 1 << 32
NEXT_TRANSACTION = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"

ALIASES = """
SELECT a.account, a.alias, a.user_id FROM unnest($1::text[], $2::text[]) AS w(account, alias)
JOIN aliases a ON a.account = w.account AND a.alias = w.alias
"""

CHANGES_OF = (
    f"SELECT {_CHANGES} FROM changes WHERE user_id = ANY($1::bigint[]) "  # noqa: S608  names of ours only
    "ORDER BY user_id, first_at, id"
)
NEWEST_CHANGES = (
    f"SELECT {_CHANGES} FROM changes WHERE user_id = $1 "  # noqa: S608  names of ours only
    "ORDER BY first_at DESC, id DESC LIMIT $2"
)
WORK_OF = f"SELECT {', '.join(OUTBOX_COLUMNS)} FROM outbox WHERE user_id = ANY($1::bigint[])"  # noqa: S608  names of ours only
LOCK_CONTACTS = (
    f"SELECT c.xmin::text::bigint, {', '.join(f'c.{column}' for column in CONTACT_COLUMNS)} "  # noqa: S608  names of ours only
    "FROM unnest($1::text[], $2::text[]) AS w(account, input) "
    "JOIN contacts c ON c.account = w.account AND c.input = w.input "
    "ORDER BY c.account, c.input FOR NO KEY UPDATE OF c"
)
LOCK_NAMES = """
SELECT pg_advisory_xact_lock(key) FROM (
    SELECT DISTINCT hashtextextended(name, 0) AS key FROM unnest($1::text[]) AS t(name)
    ORDER BY key OFFSET 0
) AS keys
"""
"""In one order, so that two transactions never wait for each other."""
RECIPIENTS_OF = """
SELECT m.account, m.message_id, m.alias FROM unnest($1::text[], $2::text[]) AS w(account, id)
JOIN message_recipients m ON m.account = w.account AND m.message_id = w.id
"""
DUE = """
SELECT o.user_id FROM outbox o JOIN users u ON u.id = o.user_id
WHERE o.account = $1 AND o.kind = $2 AND o.due_at <= $3
AND (o.lease_until IS NULL OR o.lease_until <= $3)
ORDER BY o.due_at LIMIT $4 FOR NO KEY UPDATE OF u SKIP LOCKED
"""

VALUE_OF = "SELECT value FROM installation WHERE key = $1"
ERASED = "SELECT account, digest, user_id FROM erased_aliases WHERE digest = ANY($1::bytea[])"

UPSERT_USERS = _upsert(schema.users, USER_COLUMNS, ("id",))
MOVE_ALIASES = """
UPDATE aliases a SET user_id = t.user_id
FROM unnest({0}::text[], {1}::text[], {2}::bigint[]) AS t(account, alias, user_id)
WHERE a.account = t.account AND a.alias = t.alias AND a.user_id = ANY({3}::bigint[]) RETURNING 1
"""
"""Only from users that are locked here: else another transaction gave it away meanwhile."""
INSERT_ALIASES = _insert(
    schema.aliases,
    ("account", "alias", "user_id"),
    " ORDER BY account, alias ON CONFLICT DO NOTHING RETURNING 1",
)
INSERT_CHANGES = _insert(schema.changes, CHANGE_COLUMNS)
UPSERT_CHANGES = _upsert(schema.changes, ("id", *CHANGE_COLUMNS), ("id",))
INSERT_AUDIT = _insert(schema.audit, ("id", *AUDIT_COLUMNS))
UPSERT_WORK = _upsert(schema.outbox, OUTBOX_COLUMNS, ("user_id", "kind"))
INSERT_CONTACTS = _insert(schema.contacts, CONTACT_COLUMNS, " ORDER BY account, input")
UPSERT_CONTACTS = _upsert(schema.contacts, CONTACT_COLUMNS, ("account", "input"))
INSERT_JOURNAL = _insert(schema.journal, JournalRow._fields)
INSERT_EVENTS = _insert(schema.events, EVENT_COLUMNS)
INSERT_RECIPIENTS = _insert(
    schema.message_recipients,
    ("account", "message_id", "alias", "at"),
    " ORDER BY account, message_id ON CONFLICT DO NOTHING",
)
NOTE_CALLBACKS = _upsert(
    schema.accounts,
    ("name", "first_callback_at", "last_callback_at"),
    ("name",),
    (
        "first_callback_at = coalesce(accounts.first_callback_at, excluded.first_callback_at), "
        "last_callback_at = greatest(accounts.last_callback_at, excluded.last_callback_at)"
    ),
)
DELETE_CHANGES = "DELETE FROM changes WHERE id = ANY({0}::bigint[])"
DELETE_WORK = (
    "DELETE FROM outbox WHERE (user_id, kind) IN (SELECT * FROM unnest({0}::bigint[], {1}::text[]))"
)

LOCK_MERGED = "SELECT id FROM users WHERE merged_into = ANY($1::bigint[]) FOR NO KEY UPDATE NOWAIT"

MERGE = (
    "UPDATE changes SET user_id = $1 WHERE user_id = $2",
    "UPDATE aliases SET user_id = $1 WHERE user_id = $2",
    "UPDATE users SET merged_into = $1 WHERE merged_into = $2",
    "UPDATE erased_aliases SET user_id = $1 WHERE user_id = $2",
)
"""The history, the aliases, and those who turned out to be the one who is no more."""

COUNT_HISTORY = (
    "UPDATE users SET history_count = (SELECT count(*) FROM changes WHERE user_id = users.id) "
    "WHERE id = $1"
)


class LogIds:
    """Gives the ids of one log within a transaction; see `service.store.logs`."""

    def __init__(self, first: int) -> None:
        self._next = first
        self._end = first + PLACES_OF_BATCHES

    def take(self) -> int:
        """Return the next."""
        if self._next == self._end:
            raise OverflowError("one transaction appends too much to a log")
        self._next += 1
        return self._next - 1


class PostgresTransaction:
    """The statements within one transaction; see `service.store.database.Transaction`.

    What is written is gathered, and sent together before the next query or the commit. `noted` are
    the accounts for which the time of their last callback is written: `may_note` says of which.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        driver: "asyncpg.Connection[asyncpg.Record]",
        now: int,
        number: int,
        first_id: int,
        take_user_id: Callable[[], int],
        may_note: Callable[[str], bool],
        erased: ErasedNames,
    ) -> None:
        self.now = now
        self._number = number
        self.new_user_id = take_user_id
        self._journal_ids, self._event_ids, self._audit_ids = (LogIds(first_id) for _ in range(3))
        self._connection = connection
        self._driver = driver
        self._may_note = may_note
        self._erased = erased
        self._loaded = LoadedUsers()
        self._has_waited = False
        self._locked: set[int] = set()
        self._known_contacts: set[Alias] = set()
        self._parts: dict[str, list[Row]] = {}
        self._aliases: dict[Alias, int] = {}
        self._called_back: dict[str, tuple[int, int]] = {}
        self.noted: set[str] = set()

    def new_journal_id(self) -> int:
        """Return an id for the next callback."""
        return self._journal_ids.take()

    async def run(self, query: Callable[[Connection], T]) -> T:
        """Run queries within the transaction."""
        await self.flush()
        return await self._connection.run_sync(query)

    async def load_users(self, aliases: Iterable[Alias], ids: Iterable[int]) -> dict[Alias, User]:
        """Lock and load users, each under every alias asked for and what it is called now.

        Users are waited for once in a transaction, at its beginning, all together: whoever is
        locked later must be free, or the transaction runs again.
        """
        wanted, ids = [*aliases], [*ids]
        accounts, names = [a for a, _ in wanted], [n for _, n in wanted]
        if self._has_waited:
            rows = await self._lock_free(f"{LOCK_USERS} NOWAIT", accounts, names, ids)
        else:
            self._has_waited = True
            rows = await self._driver.fetch(LOCK_USERS, accounts, names, ids)
        await self._refuse_overtaken(rows)
        users: dict[int, User] = {}
        new: dict[int, User] = {}
        for _, *row in rows:
            user = self._loaded.get(row[0])
            if user is None:
                user = new[row[0]] = self._loaded.add(tuple(row))
            users[user.id] = user
        self._locked.update(users)
        found: dict[Alias, User] = {}
        if wanted:
            # Asked anew: to whom they led before the wait is out of date.
            for account, alias, user_id in await self._driver.fetch(ALIASES, accounts, names):
                owner = self._loaded.get(user_id)
                if owner is None:
                    raise ConflictError(LOST_ALIAS)
                found[account, alias] = users[user_id] = owner
        await self._load_history(new)
        await self._load_work(new)
        for user in users.values():
            found[user.account, user.alias or mark_of(user.id)] = user
        return found

    async def load_erased(self, aliases: Iterable[Alias]) -> dict[Alias, User]:
        """Lock and load who was called so, and was erased."""
        names = {*aliases}
        if not names or not await self._erased.any(self._value_of):
            return {}
        digests = {self._erased.digest(alias): alias for _, alias in names}
        rows = await self._driver.fetch(ERASED, [*digests])
        found = {(account, digests[digest]): user_id for account, digest, user_id in rows}
        ids = {key: found[key] for key in found.keys() & names}
        if ids:
            await self.load_users((), ids.values())
        return {key: user for key, id_ in ids.items() if (user := self._loaded.get(id_))}

    async def _value_of(self, key: str) -> str | None:
        value: str | None = await self._driver.fetchval(VALUE_OF, key)
        return value

    async def _refuse_overtaken(self, rows: "Sequence[asyncpg.Record]") -> None:
        """Raise ConflictError where a transaction that began later has written one of these rows.

        What that one appended to the logs would stand behind what this one appends, and tell of an
        earlier state. Of a row that was written long ago the lower half of the number may lie
        anywhere: hence the second look.
        """
        ahead = {(row[0] - self._number) % HALF for row in rows} - {0}
        if ahead and min(ahead) < HALF // 2:
            begun = await self._driver.fetchval(NEXT_TRANSACTION) - self._number
            if min(ahead) < begun:
                raise ConflictError(OVERTAKEN)

    async def _lock_free(self, sql: str, *bound: Any) -> "list[asyncpg.Record]":
        """Lock rows that nobody else has locked; where somebody has, the transaction runs again."""
        try:
            return await self._driver.fetch(sql, *bound)
        except asyncpg.LockNotAvailableError:
            raise ConflictError(LOCKED) from None

    def load_users_through(
        self, connection: Connection, aliases: Iterable[Alias], ids: Iterable[int]
    ) -> dict[Alias, User]:
        """Load users from within what `run` runs."""
        adapted = cast(AdaptedConnection, connection.connection.dbapi_connection)
        return adapted.run_async(lambda _: self.load_users(aliases, ids))

    async def _load_history(self, ids: Collection[int]) -> None:
        """Load the newest entries of each history, the oldest of them first."""
        short, long, limit = self._loaded.histories(ids)
        if short:
            for row in await self._driver.fetch(CHANGES_OF, short):
                self._loaded.add_change(tuple(row))
        for id_ in long:
            for row in reversed(await self._driver.fetch(NEWEST_CHANGES, id_, limit)):
                self._loaded.add_change(tuple(row))

    async def _load_work(self, ids: Collection[int]) -> None:
        if some := [*filter(self._loaded.has_work, ids)]:
            for row in await self._driver.fetch(WORK_OF, some):
                self._loaded.add_work(tuple(row))

    async def load_contacts(self, inputs: Iterable[Alias]) -> dict[Alias, Contact]:
        """Lock and load contacts by account and literal input."""
        wanted = [*inputs]
        self._has_waited = True
        rows = await self._driver.fetch(
            LOCK_CONTACTS, [account for account, _ in wanted], [input_ for _, input_ in wanted]
        )
        await self._refuse_overtaken(rows)
        contacts = [contact_of(tuple(row)) for _, *row in rows]
        found = {(contact.account, contact.input): contact for contact in contacts}
        self._known_contacts.update(found)
        return found

    async def lock(self, names: Iterable[str]) -> None:
        """Lock names, all of them in one order; see `service.store.database.Transaction`."""
        self._has_waited = True
        await self._driver.execute(LOCK_NAMES, [*names])

    async def recipients_of(self, message_ids: Iterable[Alias]) -> dict[Alias, str]:
        """Return by account and message id to whom messages were sent, as far as is known."""
        wanted = [*message_ids]
        rows = await self._driver.fetch(
            RECIPIENTS_OF, [account for account, _ in wanted], [id_ for _, id_ in wanted]
        )
        return {(account, id_): alias for account, id_, alias in rows}

    async def due(self, account: str, kind: Kind, limit: int) -> list[int]:
        """Lock and return the users whose work is due and leased to nobody, the longest due first.

        Users whom another transaction has locked are passed over.
        """
        self._has_waited = True
        rows = await self._driver.fetch(DUE, account, kind.value, self.now, limit)
        found = [row[0] for row in rows]
        self._locked.update(found)
        return found

    async def save_users(self, users: Iterable[User]) -> ChangeSet:
        """Write what differs from what was loaded; return whom and what that concerns."""
        differences = self._loaded.differences(users)
        self._locked.update(row[0] for row in differences.users)
        self._add(UPSERT_USERS, differences.users)
        for account, alias, user_id in differences.aliases:
            self._aliases[account, alias] = user_id
        self._add(DELETE_CHANGES, differences.deleted_changes)
        self._add(INSERT_CHANGES, [row[1:] for row in differences.changes if row[0] is None])
        self._add(UPSERT_CHANGES, [row for row in differences.changes if row[0] is not None])
        self._add_audit(differences.audit)
        self._add(DELETE_WORK, differences.deleted_work)
        self._add(UPSERT_WORK, differences.work)
        return differences.news

    async def save_aliases(self, owned: Mapping[Alias, int]) -> None:
        """Let aliases lead to these users from now on: all those of users with a user id."""
        self._aliases.update(owned)

    async def merge_users(self, merged: Sequence[tuple[int, int]]) -> None:
        """Move the history and the aliases of users, given first, to those that they are."""
        if not merged:
            return
        await self.flush()
        await self._lock_free(LOCK_MERGED, [gone for gone, _ in merged])
        for statement in MERGE:
            await self._driver.executemany(statement, [(into, gone) for gone, into in merged])
        await self._driver.executemany(COUNT_HISTORY, [(id_,) for pair in merged for id_ in pair])

    async def save_recipients(self, recipients: Mapping[Alias, str]) -> None:
        """Note by account and message id to whom messages were sent."""
        rows = [(account, id_, alias, self.now) for (account, id_), alias in recipients.items()]
        self._add(INSERT_RECIPIENTS, rows)

    async def save_contacts(self, contacts: Iterable[Contact]) -> None:
        """Write contacts: those that were loaded, and new ones.

        One that another transaction has made meanwhile is not new: then this one runs again.
        """
        for contact in contacts:
            is_known = (contact.account, contact.input) in self._known_contacts
            self._add(UPSERT_CONTACTS if is_known else INSERT_CONTACTS, [contact_row(contact)])

    async def add_journal(self, rows: Sequence[JournalRow]) -> None:
        """Append callbacks, and note when each account had its last."""
        given = [r if r.id is not None else r._replace(id=self.new_journal_id()) for r in rows]
        self._add(INSERT_JOURNAL, given)
        for row in rows:
            if row.state != SYNTHETIC and not row.account.startswith(APP_MARK):
                self._note_callback(row.account, row.received_at)

    async def note_callbacks(self, accounts: Mapping[str, int]) -> None:
        """Note when accounts were named in a callback of several."""
        for account, at in accounts.items():
            self._note_callback(account, at)

    def _note_callback(self, account: str, at: int) -> None:
        first, last = self._called_back.get(account, (at, at))
        self._called_back[account] = min(first, at), max(last, at)

    async def add_audit(self, entries: Sequence[tuple[str | None, AuditEntry]]) -> None:
        """Append audit entries that concern no user."""
        self._add_audit([audit_row(account, None, entry) for account, entry in entries])

    def _add_audit(self, rows: Iterable[Row]) -> None:
        self._add(INSERT_AUDIT, [(self._audit_ids.take(), *row) for row in rows])

    async def add_events(self, events: Sequence[LoggedEvent]) -> int:
        """Append events to the event log; return the id of the last."""
        rows = [event_row(self._event_ids.take(), event) for event in events]
        self._add(INSERT_EVENTS, rows)
        return int(rows[-1][0]) if rows else 0

    def _add(self, sql: str, rows: Sequence[Row]) -> None:
        if rows:
            self._parts.setdefault(sql, []).extend(rows)

    async def flush(self) -> None:
        """Send what was gathered, all of it in one statement."""
        if not self._parts and not self._aliases:
            return
        arrays: list[list[Any]] = []
        parts: dict[str, str] = {}
        if self._aliases:
            columns = _columns([(*alias, user_id) for alias, user_id in self._aliases.items()])
            parts["moved"] = _numbered(MOVE_ALIASES, arrays, [*columns, [*self._locked]])
            parts["added"] = _numbered(INSERT_ALIASES, arrays, columns)
        # In one order, so that two transactions never wait for each other.
        for number, (sql, rows) in enumerate(sorted(self._parts.items())):
            parts[f"part{number}"] = _numbered(sql, arrays, _columns(rows))
        stored = "(SELECT count(*) FROM moved) + (SELECT count(*) FROM added)"
        counted = stored if self._aliases else "0"
        named = ", ".join(f"{name} AS ({sql})" for name, sql in parts.items())
        found = await self._driver.fetchval(f"WITH {named} SELECT {counted}", *arrays)
        is_lost = found != len(self._aliases)
        self._parts, self._aliases = {}, {}
        if is_lost:
            raise ConflictError(LOST_ALIAS)

    async def finish(self) -> None:
        """Send what is left, before the commit.

        The time of an account's last callback comes last of all: everybody waits for its row.
        """
        noted = {n: at for n, at in self._called_back.items() if self._may_note(n)}
        self.noted |= noted.keys()
        await self.flush()
        self._add(NOTE_CALLBACKS, [(name, *at) for name, at in noted.items()])
        await self.flush()


def _columns(rows: Sequence[Row]) -> list[list[Any]]:
    return [[*column] for column in zip(*rows, strict=True)]


def _numbered(sql: str, arrays: list[list[Any]], more: Sequence[list[Any]]) -> str:
    """Return a statement with its arrays numbered on from those that there are, and add them."""
    first = len(arrays) + 1
    arrays += more
    return sql.format(*(f"${first + number}" for number in range(len(more))))


_RECIPIENTS = f"""
SELECT a.alias, {", ".join(RECIPIENT_COLUMNS)} FROM aliases a
JOIN users u ON u.id = a.user_id
LEFT JOIN blocks b ON b.user_id = u.id
LEFT JOIN unverified v ON v.account = a.account AND v.user_id = u.id
WHERE a.account = $1 AND a.alias = ANY($2::text[])
"""  # noqa: S608  names of ours only

_ERASED = f"""
SELECT e.digest, {", ".join(RECIPIENT_COLUMNS)} FROM erased_aliases e
JOIN users u ON u.id = e.user_id
LEFT JOIN blocks b ON b.user_id = u.id
LEFT JOIN unverified v ON v.account = e.account AND v.user_id = u.id
WHERE e.account = $1 AND e.digest = ANY($2::bytea[])
"""  # noqa: S608  names of ours only

_CHECKS = " UNION ".join(
    f"SELECT {', '.join(LatestCheck._fields)} FROM contacts "  # noqa: S608  names of ours only
    f"WHERE account = $1 AND {key} = ANY(${number}::text[])"
    for number, key in enumerate(("input", "canonical", "wa_id"), 2)
)


class PostgresReads:
    """See `service.store.gate.Reads`."""

    def __init__(self, driver: "asyncpg.Connection[asyncpg.Record]", erased: ErasedNames) -> None:
        self._driver = driver
        self._erased = erased

    async def users(self, account: str, aliases: Collection[str]) -> dict[str, Recipient]:
        """Return the users by what they are called."""
        rows = await self._driver.fetch(_RECIPIENTS, account, [*aliases])
        found = {row[0]: recipient_of(tuple(row)) for row in rows}
        if len(found) < len(aliases):
            found |= await self._who_was_erased(account, {*aliases} - found.keys())
        return found

    async def _who_was_erased(self, account: str, names: Collection[str]) -> dict[str, Recipient]:
        """Return who was called so before being erased, each under the name that was asked for."""
        if not names or not await self._erased.any(self._value_of):
            return {}
        digests = {self._erased.digest(alias): alias for alias in names}
        rows = await self._driver.fetch(_ERASED, account, [*digests])
        return {digests[row[0]]: called(recipient_of(tuple(row)), digests[row[0]]) for row in rows}

    async def _value_of(self, key: str) -> str | None:
        value: str | None = await self._driver.fetchval(VALUE_OF, key)
        return value

    async def checks(
        self,
        account: str,
        inputs: Collection[str] = (),
        forms: Collection[str] = (),
        wa_ids: Collection[str] = (),
    ) -> list[LatestCheck]:
        """Return what the client last said of numbers, by input, by canonical form or by wa_id."""
        rows = await self._driver.fetch(_CHECKS, account, [*inputs], [*forms], [*wa_ids])
        return [LatestCheck._make(row) for row in rows]
