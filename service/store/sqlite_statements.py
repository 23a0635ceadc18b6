"""The statements that every batch and the gate need on SQLite, written for aiosqlite."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import aiosqlite
from sqlalchemy import Connection
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.ext.asyncio import AsyncConnection

from service.model.contacts import Contact
from service.model.event_log import LoggedEvent
from service.model.recipients import LatestCheck, Recipient
from service.model.users import AuditEntry, Kind, User, mark_of
from service.store.database import APP_MARK, SYNTHETIC, Alias, ChangeSet, JournalRow
from service.store.erased import ErasedNames
from service.store.loaded import LoadedUsers, Row
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

T = TypeVar("T")

CHUNK = 500
"""Keys of one list in a statement."""


def _marks(values: Collection[Any]) -> str:
    return ",".join("?" * len(values))


def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({','.join(columns)}) VALUES ({_marks(columns)})"  # noqa: S608  names of ours only


def _upsert(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    changed = ",".join(f"{c} = excluded.{c}" for c in columns if c not in key)
    return f"{_insert(table, columns)} ON CONFLICT ({','.join(key)}) DO UPDATE SET {changed}"


_USERS = ",".join(f"u.{column}" for column in USER_COLUMNS)

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

INSERT_EVENT = _insert("events", EVENT_COLUMNS)

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
    "UPDATE erased_aliases SET user_id = ? WHERE user_id = ?",
)
"""The history, the aliases, and those who turned out to be the one who is no more."""

COUNT_HISTORY = (
    "UPDATE users SET history_count = (SELECT count(*) FROM changes WHERE user_id = users.id) "
    "WHERE id = ?"
)

VALUE_OF = "SELECT value FROM installation WHERE key = ?"

DUE = (
    "SELECT user_id FROM outbox WHERE account = ? AND kind = ? AND due_at <= ? "
    "AND (lease_until IS NULL OR lease_until <= ?) ORDER BY due_at LIMIT ?"
)


class SQLiteTransaction:
    """The statements within one transaction; see `service.store.database.Transaction`."""

    def __init__(
        self,
        connection: AsyncConnection,
        driver: aiosqlite.Connection,
        now: int,
        take_user_id: Callable[[], int],
        take_journal_id: Callable[[], int],
        take_event_id: Callable[[], int],
        erased: ErasedNames,
    ) -> None:
        self.now = now
        self.new_user_id = take_user_id
        self.new_journal_id = take_journal_id
        self._take_event_id = take_event_id
        self._connection = connection
        self._driver = driver
        self._erased = erased
        self._loaded = LoadedUsers()

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
                    found[account, alias] = self._user_of(tuple(columns), new)
        by_id = {user.id: user for user in found.values()}
        for chunk in _chunks(set(ids) - by_id.keys()):
            sql = f"SELECT {_USERS} FROM users u WHERE u.id IN ({_marks(chunk)})"  # noqa: S608  names of ours only
            for row in await self._fetch(sql, chunk):
                by_id[row[0]] = self._user_of(row, new)
        await self._load_history(new)
        await self._load_work(new)
        for user in by_id.values():
            found[user.account, user.alias or mark_of(user.id)] = user
        return found

    async def load_erased(self, aliases: Iterable[Alias]) -> dict[Alias, User]:
        """Load who was called so, and was erased."""
        names = [*aliases]
        if not names or not await self._erased.any(self._value_of):
            return {}
        ids: dict[Alias, int] = {}
        for chunk in _chunks(names):
            digests = {self._erased.digest(alias): (account, alias) for account, alias in chunk}
            sql = (
                "SELECT account, digest, user_id FROM erased_aliases "  # noqa: S608  names of ours only
                f"WHERE digest IN ({_marks(digests)})"
            )
            for account, digest, user_id in await self._fetch(sql, [*digests]):
                _, alias = digests[digest]
                ids[account, alias] = user_id
        ids = {key: ids[key] for key in ids.keys() & {*names}}
        await self.load_users((), ids.values())
        return {key: user for key, id_ in ids.items() if (user := self._loaded.get(id_))}

    async def _value_of(self, key: str) -> str | None:
        rows = await self._fetch(VALUE_OF, (key,))
        return rows[0][0] if rows else None

    def load_users_through(
        self, connection: Connection, aliases: Iterable[Alias], ids: Iterable[int]
    ) -> dict[Alias, User]:
        """Load users from within what `run` runs."""
        adapted = cast(AdaptedConnection, connection.connection.dbapi_connection)
        return adapted.run_async(lambda _: self.load_users(aliases, ids))

    def _user_of(self, row: Row, new: dict[int, User]) -> User:
        """Return the user of a row; one that was not loaded before is added to the new ones."""
        user = self._loaded.get(row[0])
        if user is None:
            user = new[row[0]] = self._loaded.add(row)
        return user

    async def _load_history(self, ids: Collection[int]) -> None:
        """Load the newest entries of each history, the oldest of them first."""
        short, long, limit = self._loaded.histories(ids)
        for chunk in _chunks(short):
            sql = (
                f"SELECT {_CHANGES} FROM changes WHERE user_id IN ({_marks(chunk)}) "  # noqa: S608  names of ours only
                "ORDER BY user_id, first_at, id"
            )
            for row in await self._fetch(sql, chunk):
                self._loaded.add_change(row)
        for id_ in long:
            sql = (
                f"SELECT {_CHANGES} FROM changes WHERE user_id = ? "  # noqa: S608  names of ours only
                "ORDER BY first_at DESC, id DESC LIMIT ?"
            )
            for row in reversed(await self._fetch(sql, (id_, limit))):
                self._loaded.add_change(row)

    async def _load_work(self, ids: Collection[int]) -> None:
        for chunk in _chunks(filter(self._loaded.has_work, ids)):
            sql = (
                f"SELECT {','.join(OUTBOX_COLUMNS)} FROM outbox "  # noqa: S608  names of ours only
                f"WHERE user_id IN ({_marks(chunk)})"
            )
            for row in await self._fetch(sql, chunk):
                self._loaded.add_work(row)

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

    async def lock(self, names: Iterable[str]) -> None:
        """Do nothing: there is no other transaction that writes."""

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
        differences = self._loaded.differences(users)
        await self._many(UPSERT_USER, differences.users)
        await self._many(INSERT_ALIAS, differences.aliases)
        await self._many(DELETE_CHANGE, differences.deleted_changes)
        await self._many(UPSERT_CHANGE, differences.changes)
        await self._many(INSERT_AUDIT, differences.audit)
        await self._many(DELETE_WORK, differences.deleted_work)
        await self._many(UPSERT_WORK, differences.work)
        return differences.news

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
        """Write contacts: those that were loaded, and new ones."""
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

    async def add_events(self, events: Sequence[LoggedEvent]) -> int:
        """Append events to the event log; return the id of the last."""
        rows = [event_row(self._take_event_id(), event) for event in events]
        await self._many(INSERT_EVENT, rows)
        return int(rows[-1][0]) if rows else 0


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

_ERASED = (
    f"SELECT e.digest, {', '.join(RECIPIENT_COLUMNS)} FROM erased_aliases e "  # noqa: S608  names of ours only
    "JOIN users u ON u.id = e.user_id "
    "LEFT JOIN blocks b ON b.user_id = u.id "
    "LEFT JOIN unverified v ON v.account = e.account AND v.user_id = u.id "
    "WHERE e.account = ? AND e.digest IN ({})"
)

_CHECKS = f"SELECT {', '.join(LatestCheck._fields)} FROM contacts WHERE "  # noqa: S608  names of ours only


class SQLiteReads:
    """See `service.store.gate.Reads`."""

    def __init__(self, driver: aiosqlite.Connection, erased: ErasedNames) -> None:
        self._driver = driver
        self._erased = erased

    async def users(self, account: str, aliases: Collection[str]) -> dict[str, Recipient]:
        """Return the users by what they are called."""
        wanted, found = list(aliases), {}
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            rows = await self._driver.execute_fetchall(
                _RECIPIENTS.format(_marks(chunk)), (account, *chunk)
            )
            found.update({row[0]: recipient_of(row) for row in rows})
        if len(found) < len(wanted):
            unknown = [alias for alias in wanted if alias not in found]
            found |= await self._who_was_erased(account, unknown)
        return found

    async def _who_was_erased(self, account: str, names: Sequence[str]) -> dict[str, Recipient]:
        """Return who was called so before being erased, each under the name that was asked for."""
        found: dict[str, Recipient] = {}
        if not await self._erased.any(self._value_of):
            return found
        for chunk in _chunks(names):
            digests = {self._erased.digest(alias): alias for alias in chunk}
            sql = _ERASED.format(_marks(digests))
            for row in await self._driver.execute_fetchall(sql, (account, *digests)):
                alias = digests[row[0]]
                found[alias] = called(recipient_of(row), alias)
        return found

    async def _value_of(self, key: str) -> str | None:
        rows = [*await self._driver.execute_fetchall(VALUE_OF, (key,))]
        return rows[0][0] if rows else None

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
