"""The statements that every batch and the gate need on SQLite, written for aiosqlite."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import aiosqlite
from sqlalchemy import Connection
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.ext.asyncio import AsyncConnection

from service.model.contacts import Contact
from service.model.recipients import LatestCheck, Recipient
from service.model.timeline import Change
from service.model.users import AuditEntry, Kind, User
from service.store.database import APP_MARK, SYNTHETIC, Alias, ChangeSet, JournalRow
from service.store.mapping import (
    AUDIT_COLUMNS,
    CHANGE_COLUMNS,
    CONTACT_COLUMNS,
    OUTBOX_COLUMNS,
    RECIPIENT_COLUMNS,
    USER_COLUMNS,
    audit_row,
    change_of,
    change_row,
    contact_of,
    contact_row,
    recipient_of,
    user_of,
    user_row,
    work_of,
    work_row,
)

T = TypeVar("T")

Row = tuple[Any, ...]

CHUNK = 500
"""Keys of one list in a statement."""

MAX_HISTORY = 1000
"""Entries of one user's history that the rules look at: the newest."""

MAX_HISTORY_OF_ALL = 20_000
"""Entries that are loaded for all users of a batch."""


def _marks(values: Collection[Any]) -> str:
    return ",".join("?" * len(values))


def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({','.join(columns)}) VALUES ({_marks(columns)})"  # noqa: S608  names of ours only


def _upsert(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    changed = ",".join(f"{c} = excluded.{c}" for c in columns if c not in key)
    return f"{_insert(table, columns)} ON CONFLICT ({','.join(key)}) DO UPDATE SET {changed}"


_USERS = ",".join(f"u.{column}" for column in USER_COLUMNS)

_HISTORY_COUNT = USER_COLUMNS.index("history_count")

_HAS_WORK = USER_COLUMNS.index("has_work"), USER_COLUMNS.index("has_ask")

_CHANGES = ",".join(("id", *CHANGE_COLUMNS))

UPSERT_USER = _upsert("users", USER_COLUMNS, ("id",))

INSERT_ALIAS = _insert("aliases", ("account", "alias", "user_id"))

UPSERT_ALIAS = _upsert("aliases", ("account", "alias", "user_id"), ("account", "alias"))

UPSERT_CHANGE = _upsert("changes", ("id", *CHANGE_COLUMNS), ("id",))
DELETE_CHANGE = "DELETE FROM changes WHERE id = ?"

INSERT_AUDIT = _insert("audit", AUDIT_COLUMNS)

UPSERT_WORK = _upsert("outbox", OUTBOX_COLUMNS, ("user_id", "kind"))
DELETE_WORK = "DELETE FROM outbox WHERE user_id = ? AND kind = ?"

UPSERT_CONTACT = _upsert("contacts", CONTACT_COLUMNS, ("account", "input"))

INSERT_JOURNAL = _insert("journal", JournalRow._fields)

INSERT_RECIPIENT = (
    "INSERT INTO message_recipients (account, message_id, alias, at) VALUES (?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)

NOTE_CALLBACK = (
    "INSERT INTO accounts (name, first_callback_at, last_callback_at) VALUES (?, ?, ?) "
    "ON CONFLICT (name) DO UPDATE SET "
    "first_callback_at = coalesce(first_callback_at, excluded.first_callback_at), "
    "last_callback_at = excluded.last_callback_at"
)

MERGE = (
    "UPDATE changes SET user_id = ? WHERE user_id = ?",
    "UPDATE aliases SET user_id = ? WHERE user_id = ?",
    "UPDATE users SET merged_into = ? WHERE merged_into = ?",
)
"""The history, the aliases, and those who turned out to be the one who is no more."""

COUNT_HISTORY = (
    "UPDATE users SET history_count = (SELECT count(*) FROM changes WHERE user_id = users.id) "
    "WHERE id = ?"
)

DUE = (
    "SELECT user_id FROM outbox WHERE account = ? AND kind = ? AND due_at <= ? "
    "AND (lease_until IS NULL OR lease_until <= ?) ORDER BY due_at LIMIT ?"
)


class SQLiteTransaction:
    """The statements within one transaction; see `service.store.database.Transaction`.

    It remembers each row as it was loaded. What differs in the end is what the rules changed, and
    is written; the rules need not say so.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        driver: aiosqlite.Connection,
        now: int,
        take_user_id: Callable[[], int],
    ) -> None:
        self.now = now
        self.new_user_id = take_user_id
        self._connection = connection
        self._driver = driver
        self._loaded: dict[int, User] = {}
        self._user_rows: dict[int, Row] = {}
        self._work_rows: dict[tuple[int, Kind], Row] = {}
        # By the object that was made of the row: an entry of a history has no other name.
        self._change_rows: dict[int, tuple[Change, Row]] = {}

    async def run(self, query: Callable[[Connection], T]) -> T:
        """Run queries within the transaction."""
        return await self._connection.run_sync(query)

    async def _fetch(self, sql: str, bound: Sequence[Any]) -> list[Any]:
        return [*await self._driver.execute_fetchall(sql, bound)]

    async def _many(self, sql: str, rows: Sequence[Row]) -> None:
        if rows:
            await self._driver.executemany(sql, rows)

    async def load_users(self, aliases: Iterable[Alias], ids: Iterable[int]) -> dict[Alias, User]:
        """Load users, each under every alias asked for and what it is called now."""
        found: dict[Alias, User] = {}
        new: dict[int, User] = {}
        for account, names in _by_account(aliases).items():
            for chunk in _chunks(names):
                sql = (
                    f"SELECT {_USERS},a.alias FROM aliases a JOIN users u ON u.id = a.user_id "  # noqa: S608  names of ours only
                    f"WHERE a.account = ? AND a.alias IN ({_marks(chunk)})"
                )
                for *columns, alias in await self._fetch(sql, (account, *chunk)):
                    found[account, alias] = self._keep_user(tuple(columns), new)
        by_id = {user.id: user for user in found.values()}
        for chunk in _chunks(set(ids) - by_id.keys()):
            sql = f"SELECT {_USERS} FROM users u WHERE u.id IN ({_marks(chunk)})"  # noqa: S608  names of ours only
            for row in await self._fetch(sql, chunk):
                by_id[row[0]] = self._keep_user(row, new)
        await self._load_history(new)
        await self._load_work(new)
        for user in by_id.values():
            found[user.account, user.alias] = user
        return found

    def load_users_through(
        self, connection: Connection, aliases: Iterable[Alias]
    ) -> dict[Alias, User]:
        """Load users from within what `run` runs."""
        adapted = cast(AdaptedConnection, connection.connection.dbapi_connection)
        return adapted.run_async(lambda _: self.load_users(aliases, ()))

    def _keep_user(self, row: Row, new: dict[int, User]) -> User:
        """Return the user of a row: the same object each time that the same user is asked for."""
        known = self._loaded.get(row[0])
        if known is not None:
            return known
        user = user_of(row)
        self._user_rows[user.id] = row
        self._loaded[user.id] = new[user.id] = user
        return user

    async def _load_history(self, users: Mapping[int, User]) -> None:
        """Load the newest entries of each history, the oldest of them first."""
        counts = {id_: self._user_rows[id_][_HISTORY_COUNT] for id_ in users}
        some = [id_ for id_, count in counts.items() if count]
        limit = max(64, min(MAX_HISTORY, MAX_HISTORY_OF_ALL // max(1, len(some))))
        for chunk in _chunks([id_ for id_ in some if counts[id_] <= limit]):
            sql = (
                f"SELECT {_CHANGES} FROM changes WHERE user_id IN ({_marks(chunk)}) "  # noqa: S608  names of ours only
                "ORDER BY user_id, first_at, id"
            )
            for row in await self._fetch(sql, chunk):
                self._keep_change(users[row[1]], row)
        for id_ in [id_ for id_ in some if counts[id_] > limit]:
            sql = (
                f"SELECT {_CHANGES} FROM changes WHERE user_id = ? "  # noqa: S608  names of ours only
                "ORDER BY first_at DESC, id DESC LIMIT ?"
            )
            for row in reversed(await self._fetch(sql, (id_, limit))):
                self._keep_change(users[id_], row)

    def _keep_change(self, user: User, row: Row) -> None:
        change = change_of(row)
        self._change_rows[id(change)] = change, row
        user.history.append(change)

    async def _load_work(self, users: Mapping[int, User]) -> None:
        for chunk in _chunks(
            [id_ for id_ in users if any(map(self._user_rows[id_].__getitem__, _HAS_WORK))]
        ):
            sql = (
                f"SELECT {','.join(OUTBOX_COLUMNS)} FROM outbox "  # noqa: S608  names of ours only
                f"WHERE user_id IN ({_marks(chunk)})"
            )
            for row in await self._fetch(sql, chunk):
                work = work_of(row)
                user = users[row[1]]
                self._work_rows[user.id, work.kind] = row
                if work.kind is Kind.ASK:
                    user.identity.ask = work
                else:
                    user.identity.work = work

    async def load_contacts(self, inputs: Iterable[Alias]) -> dict[Alias, Contact]:
        """Load contacts by account and literal input."""
        found: dict[Alias, Contact] = {}
        for account, names in _by_account(inputs).items():
            for chunk in _chunks(names):
                sql = (
                    f"SELECT {','.join(CONTACT_COLUMNS)} FROM contacts "  # noqa: S608  names of ours only
                    f"WHERE account = ? AND input IN ({_marks(chunk)})"
                )
                for row in await self._fetch(sql, (account, *chunk)):
                    contact = contact_of(row)
                    found[account, contact.input] = contact
        return found

    async def recipients_of(self, message_ids: Iterable[Alias]) -> dict[Alias, str]:
        """Return by account and message id to whom messages were sent, as far as is known."""
        found: dict[Alias, str] = {}
        for account, ids in _by_account(message_ids).items():
            for chunk in _chunks(ids):
                sql = (
                    "SELECT message_id, alias FROM message_recipients "  # noqa: S608  names of ours only
                    f"WHERE account = ? AND message_id IN ({_marks(chunk)})"
                )
                for message_id, alias in await self._fetch(sql, (account, *chunk)):
                    found[account, message_id] = alias
        return found

    async def due(self, account: str, kind: Kind, limit: int) -> list[int]:
        """Return the users whose work is due and leased to nobody, the longest due first."""
        rows = await self._fetch(DUE, (account, kind, self.now, self.now, limit))
        return [row[0] for row in rows]

    async def save_users(self, users: Iterable[User]) -> ChangeSet:
        """Write what differs from what was loaded; return whom and what that concerns."""
        changes = ChangeSet()
        users = list(users)
        history, gone, counts = self._history_of(users, changes)
        rows = []
        for user in users:
            row = user_row(user, counts[user.id])
            if row != self._user_rows.get(user.id):
                rows.append(row)
                changes.users.add(user.id)
        work, done = self._work_of(users, changes)
        new = [user for user in users if user.id not in self._user_rows]
        audit = [audit_row(user.account, user.id, e) for user in users for e in user.audit]
        changes.users.update(user.id for user in users if user.audit)
        await self._many(UPSERT_USER, rows)
        # Those of users with a user id are written by `save_aliases`, for they may change hands.
        aliases = [(u.account, u.wa_id, u.id) for u in new if u.wa_id and not u.user_id]
        await self._many(INSERT_ALIAS, aliases)
        await self._many(DELETE_CHANGE, gone)
        await self._many(UPSERT_CHANGE, history)
        await self._many(INSERT_AUDIT, audit)
        await self._many(DELETE_WORK, done)
        await self._many(UPSERT_WORK, work)
        return changes

    def _history_of(
        self, users: Sequence[User], changes: ChangeSet
    ) -> tuple[list[Row], list[Row], dict[int, int]]:
        """Return the entries to write, those to delete, and how many each user has then."""
        counts = {
            user.id: self._user_rows[user.id][_HISTORY_COUNT] if user.id in self._user_rows else 0
            for user in users
        }
        written, kept = [], set()
        for user in users:
            for change in user.history:
                kept.add(id(change))
                _, stored = self._change_rows.get(id(change), (None, None))
                row = (stored[0] if stored else None, *change_row(user.id, change))
                if row != stored:
                    written.append(row)
                    changes.users.add(user.id)
                if stored is None:
                    counts[user.id] += 1
        gone = [row for key, (_, row) in self._change_rows.items() if key not in kept]
        for row in gone:
            counts[row[1]] -= 1
            changes.users.add(row[1])
        return written, [(row[0],) for row in gone], counts

    def _work_of(self, users: Sequence[User], changes: ChangeSet) -> tuple[list[Row], list[Row]]:
        """Return the rows of the outbox to write, and the keys of those to delete."""
        written, kept = [], set()
        for user in users:
            for work in (user.identity.work, user.identity.ask):
                if work is None:
                    continue
                kept.add((user.id, work.kind))
                row, stored = work_row(user, work), self._work_rows.get((user.id, work.kind))
                if row == stored:
                    continue
                written.append(row)
                if stored is None or row[:-1] != stored[:-1]:  # a renewed lease is no news
                    changes.users.add(user.id)
                if work.holder is None:
                    changes.work.add((user.account, work.kind))
        done = [(id_, str(kind)) for id_, kind in self._work_rows if (id_, kind) not in kept]
        changes.users.update(id_ for id_, _ in done)
        return written, done

    async def save_aliases(self, owned: Mapping[Alias, int]) -> None:
        """Let aliases lead to these users from now on: all those of users with a user id."""
        rows = [(account, alias, user_id) for (account, alias), user_id in owned.items()]
        await self._many(UPSERT_ALIAS, rows)

    async def merge_users(self, merged: Sequence[tuple[int, int]]) -> None:
        """Move the history and the aliases of users, given first, to those that they are."""
        rows = [(user_id, gone) for gone, user_id in merged]
        for statement in MERGE:
            await self._many(statement, rows)
        await self._many(COUNT_HISTORY, [(id_,) for pair in merged for id_ in pair])

    async def save_recipients(self, recipients: Mapping[Alias, str]) -> None:
        """Note by account and message id to whom messages were sent."""
        rows = [(account, id_, alias, self.now) for (account, id_), alias in recipients.items()]
        await self._many(INSERT_RECIPIENT, rows)

    async def save_contacts(self, contacts: Iterable[Contact]) -> None:
        """Write contacts, new or known."""
        await self._many(UPSERT_CONTACT, [contact_row(contact) for contact in contacts])

    async def add_journal(self, rows: Sequence[JournalRow]) -> None:
        """Append callbacks, and note when each account had its last."""
        await self._many(INSERT_JOURNAL, rows)
        times: dict[str, list[int]] = {}
        for row in rows:
            if row.state != SYNTHETIC and not row.account.startswith(APP_MARK):
                times.setdefault(row.account, []).append(row.received_at)
        await self._many(NOTE_CALLBACK, [(name, min(at), max(at)) for name, at in times.items()])

    async def note_callbacks(self, accounts: Mapping[str, int]) -> None:
        """Note when accounts were named in a callback of several."""
        await self._many(NOTE_CALLBACK, [(name, at, at) for name, at in accounts.items()])

    async def add_audit(self, entries: Sequence[tuple[str | None, AuditEntry]]) -> None:
        """Append audit entries that concern no user."""
        await self._many(INSERT_AUDIT, [audit_row(account, None, e) for account, e in entries])


def _by_account(aliases: Iterable[Alias]) -> dict[str, set[str]]:
    names: dict[str, set[str]] = {}
    for account, alias in aliases:
        names.setdefault(account, set()).add(alias)
    return names


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    every = list(items)
    for start in range(0, len(every), CHUNK):
        yield every[start : start + CHUNK]


_RECIPIENTS = (
    f"SELECT a.alias, {', '.join(RECIPIENT_COLUMNS)} FROM aliases a "  # noqa: S608  names of ours only
    "JOIN users u ON u.id = a.user_id "
    "LEFT JOIN blocks b ON b.user_id = u.id "
    "LEFT JOIN unverified v ON v.account = a.account AND v.user_id = u.id "
    "WHERE a.account = ? AND a.alias IN ({})"
)

_CHECKS = f"SELECT {', '.join(LatestCheck._fields)} FROM contacts WHERE "  # noqa: S608  names of ours only


class SQLiteReads:
    """See `service.store.gate.Reads`."""

    def __init__(self, driver: aiosqlite.Connection) -> None:
        self._driver = driver

    async def users(self, account: str, aliases: Collection[str]) -> dict[str, Recipient]:
        """Return the users by what they are called."""
        wanted, found = list(aliases), {}
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            rows = await self._driver.execute_fetchall(
                _RECIPIENTS.format(_marks(chunk)), (account, *chunk)
            )
            found.update({row[0]: recipient_of(row) for row in rows})
        return found

    async def checks(
        self,
        account: str,
        inputs: Collection[str] = (),
        forms: Collection[str] = (),
        wa_ids: Collection[str] = (),
    ) -> list[LatestCheck]:
        """Return what the client last said of numbers, by input, by canonical form or by wa_id.

        One of many may come more than once.
        """
        keys = {"input": list(inputs), "canonical": list(forms), "wa_id": list(wa_ids)}
        found: list[LatestCheck] = []
        for start in range(0, max(map(len, keys.values())), CHUNK):
            chunks = {key: some[start : start + CHUNK] for key, some in keys.items()}
            asked = {key: chunk for key, chunk in chunks.items() if chunk}
            # Each alternative names the account, so that each is looked for by an index of its own.
            where = " OR ".join(
                f"account = ? AND {key} IN ({_marks(chunk)})" for key, chunk in asked.items()
            )
            bound = [value for chunk in asked.values() for value in (account, *chunk)]
            rows = await self._driver.execute_fetchall(_CHECKS + where, bound)
            found += map(LatestCheck._make, rows)
        return found
