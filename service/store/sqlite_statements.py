"""The hot statements on SQLite, written down to the driver: the one place where that is so."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby, islice
from typing import Any

from sqlalchemy import Connection

from service.model.contacts import Contact
from service.model.users import AuditEntry, Kind, User
from service.store.database import APP_MARK, SYNTHETIC, Alias, JournalRow
from service.store.rows import (
    AUDIT_COLUMNS,
    CHANGE_COLUMNS,
    CONTACT_COLUMNS,
    FRESH_COLUMNS,
    LATER_COLUMNS,
    OUTBOX_COLUMNS,
    SHORT_AUDIT,
    USER_COLUMNS,
    WRITER,
    audit_row,
    change_of,
    change_row,
    contact_of,
    contact_row,
    user_of,
    user_row,
    work_of,
    work_row,
)

CHUNK = 512
MAX_HISTORY = 1000
"""Entries of one user's history that the rules look at: the newest."""
MAX_HISTORY_OF_ALL = 20_000
"""Entries that are loaded for all users of a batch."""


def _marks(count: int) -> str:
    return ",".join("?" * count)


def _insert(table: str, columns: Sequence[str], fixed: Mapping[str, int | None] = {}) -> str:
    """Write an INSERT; columns that are `fixed` at a number come after those that are bound."""
    numbers = {name: value for name, value in fixed.items() if value is not None}
    values = ",".join([_marks(len(columns)), *map(str, numbers.values())])
    return f"INSERT INTO {table} ({','.join([*columns, *numbers])}) VALUES ({values})"  # noqa: S608  names of ours only


class _Lean:
    """INSERTs of rows that mostly end as usual: what is as usual is not bound, but left out.

    `usual` are the values that the last columns mostly have; `cuts` say after how many columns a
    row may end.
    """

    def __init__(
        self, table: str, columns: Sequence[str], usual: Sequence[int | None], *cuts: int
    ) -> None:
        start = len(columns) - len(usual)
        fixed = dict(zip(columns[start:], usual, strict=True))
        self._ends = [(cut, tuple(usual)[cut - start :]) for cut in cuts]
        self._statements = {
            cut: _insert(table, columns[:cut], {name: fixed[name] for name in columns[cut:]})
            for cut in (*cuts, len(columns))
        }
        self._all = len(columns)

    def cut(self, row: tuple[Any, ...]) -> int:
        """Tell how many columns are enough for a row."""
        for cut, usual in self._ends:
            if row[cut:] == usual:
                return cut
        return self._all

    def statement(self, cut: int) -> str:
        """Give the INSERT of so many columns."""
        return self._statements[cut]


def _upsert(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    changed = ",".join(f"{c} = excluded.{c}" for c in columns if c not in key)
    return f"{_insert(table, columns)} ON CONFLICT ({','.join(key)}) DO UPDATE SET {changed}"


@lru_cache(maxsize=256)
def _update(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    changed = ",".join(f"{name} = ?" for name in columns)
    return f"UPDATE {table} SET {changed} WHERE {' AND '.join(f'{name} = ?' for name in key)}"  # noqa: S608  names of ours only


_USERS = ",".join(f"u.{column}" for column in USER_COLUMNS)
_CHANGES = ",".join(CHANGE_COLUMNS)

INSERT_USER = _insert("users", USER_COLUMNS)
_NEW_USERS = _Lean("users", USER_COLUMNS, tuple(LATER_COLUMNS.values()), len(FRESH_COLUMNS), WRITER)
INSERT_FRESH_USER = _NEW_USERS.statement(len(FRESH_COLUMNS))
INSERT_ALIAS = "INSERT INTO aliases (account, alias, user_id) VALUES (?, ?, ?)"
UPSERT_ALIAS = f"{INSERT_ALIAS} ON CONFLICT DO UPDATE SET user_id = excluded.user_id"
INSERT_RECIPIENT = (
    "INSERT OR IGNORE INTO message_recipients (account, message_id, alias, at) VALUES (?, ?, ?, ?)"
)
MERGE = (
    "UPDATE changes SET user_id = ? WHERE user_id = ?",
    "UPDATE aliases SET user_id = ? WHERE user_id = ?",
    "UPDATE users SET merged_into = ? WHERE merged_into = ?",
)
"""The history, the names, and those who turned out to be the one who is no more."""
INSERT_CHANGE = _insert("changes", CHANGE_COLUMNS)
UPDATE_CHANGE = _update("changes", CHANGE_COLUMNS, ("id",))
DELETE_CHANGE = "DELETE FROM changes WHERE id = ?"
INSERT_AUDIT = _insert("audit", AUDIT_COLUMNS)
_AUDIT = _Lean("audit", AUDIT_COLUMNS, (None,) * 3, SHORT_AUDIT, SHORT_AUDIT + 1)
INSERT_SHORT_AUDIT = _AUDIT.statement(SHORT_AUDIT)
INSERT_WORK = _insert("outbox", OUTBOX_COLUMNS)
DELETE_WORK = "DELETE FROM outbox WHERE user_id = ? AND kind = ?"
UPSERT_CONTACT = _upsert("contacts", CONTACT_COLUMNS, ("account", "input"))
_JOURNAL = _Lean("journal", JournalRow._fields, (None,), len(JournalRow._fields) - 1)
INSERT_PLAIN_JOURNAL = _JOURNAL.statement(len(JournalRow._fields) - 1)
_ACKNOWLEDGE, _ASK = str(Kind.ACKNOWLEDGE), str(Kind.ASK)
NOTE_CALLBACK = (
    "INSERT INTO accounts (name, first_callback_at, last_callback_at) VALUES (?, ?, ?) "
    "ON CONFLICT (name) DO UPDATE SET "
    "first_callback_at = coalesce(first_callback_at, excluded.first_callback_at), "
    "last_callback_at = excluded.last_callback_at"
)
DUE = (
    "SELECT user_id FROM outbox WHERE account = ? AND kind = ? AND due_at <= ? "
    "AND (lease_until IS NULL OR lease_until <= ?) ORDER BY due_at LIMIT ?"
)


class SQLiteTransaction:
    """The hot statements within one transaction; see `service.store.database.Transaction`."""

    def __init__(
        self,
        raw: sqlite3.Connection,
        connect: Callable[[], Connection],
        take_user_id: Callable[[], int],
    ) -> None:
        self._raw = raw
        self._connect = connect
        self._connection: Connection | None = None
        self._users: dict[int, tuple[Any, ...]] = {}
        self._works: dict[tuple[int, str], tuple[Any, ...]] = {}
        self.new_user_id = take_user_id

    @property
    def connection(self) -> Connection:
        """The same transaction, for queries that need not be fast."""
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def begin(self) -> None:
        """Begin, as the one writer."""
        self._raw.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Commit, for SQLAlchemy too where it was spoken through."""
        if self._connection is not None:
            self._connection.commit()
            self._connection.close()
        if self._raw.in_transaction:
            self._raw.execute("COMMIT")

    def roll_back(self) -> None:
        """Undo everything."""
        if self._connection is not None:
            self._connection.close()
        if self._raw.in_transaction:
            self._raw.execute("ROLLBACK")

    def load_users(self, aliases: Iterable[Alias], ids: Iterable[int]) -> dict[Alias, User]:
        """Load users, each under every alias asked for and what it is called now."""
        by_id: dict[int, User] = {}
        found: dict[Alias, User] = {}
        for account, names in _by_account(aliases).items():
            for alias, user in self._by_aliases(account, names):
                found[account, alias] = by_id.setdefault(user.id, user)
        for chunk in _chunks(set(ids) - by_id.keys()):
            sql = f"SELECT {_USERS} FROM users u WHERE id IN ({_marks(len(chunk))})"  # noqa: S608  names of ours only
            for row in self._raw.execute(sql, chunk):
                by_id[row[0]] = self._keep_user(row)
        for user in by_id.values():
            found[user.account, user.alias] = user
        self._load_history(by_id)
        self._load_work(by_id)
        return found

    def _by_aliases(self, account: str, names: set[str]) -> Iterator[tuple[str, User]]:
        for chunk in _chunks(names):
            sql = (
                f"SELECT a.alias,{_USERS} FROM aliases a JOIN users u ON u.id = a.user_id "  # noqa: S608  names of ours only
                f"WHERE a.account = ? AND a.alias IN ({_marks(len(chunk))})"
            )
            for row in self._raw.execute(sql, (account, *chunk)):
                yield row[0], self._keep_user(row[1:])

    def _keep_user(self, row: tuple[Any, ...]) -> User:
        self._users[row[0]] = row
        return user_of(row)

    def _load_history(self, users: dict[int, User]) -> None:
        some = [user for user in users.values() if user.history_count]
        limit = max(64, min(MAX_HISTORY, MAX_HISTORY_OF_ALL // max(1, len(some))))
        short = [user.id for user in some if user.history_count <= limit]
        for chunk in _chunks(short):
            sql = (
                f"SELECT id,{_CHANGES} FROM changes WHERE user_id IN ({_marks(len(chunk))}) "  # noqa: S608  names of ours only
                "ORDER BY user_id, first_at, id"
            )
            for row in self._raw.execute(sql, chunk):
                users[row[1]].history.append(change_of(row))
        for user in some:
            if user.history_count > limit:
                sql = (
                    f"SELECT id,{_CHANGES} FROM changes WHERE user_id = ? "  # noqa: S608  names of ours only
                    "ORDER BY first_at DESC, id DESC LIMIT ?"
                )
                rows = self._raw.execute(sql, (user.id, limit)).fetchall()
                user.history.extend(change_of(row) for row in reversed(rows))

    def _load_work(self, users: dict[int, User]) -> None:
        for chunk in _chunks(u.id for u in users.values() if u.had_work or u.had_ask):
            sql = (
                f"SELECT {','.join(OUTBOX_COLUMNS)} FROM outbox "  # noqa: S608  names of ours only
                f"WHERE user_id IN ({_marks(len(chunk))})"
            )
            for row in self._raw.execute(sql, chunk):
                self._works[row[1], row[2]] = row
                work = work_of(row)
                if work.kind is Kind.ASK:
                    users[row[1]].identity.ask = work
                else:
                    users[row[1]].identity.work = work

    def load_contacts(self, inputs: Iterable[Alias]) -> dict[Alias, Contact]:
        """Load contacts by account and literal input."""
        found: dict[Alias, Contact] = {}
        for account, names in _by_account(inputs).items():
            for chunk in _chunks(names):
                sql = (
                    f"SELECT {','.join(CONTACT_COLUMNS)} FROM contacts "  # noqa: S608  names of ours only
                    f"WHERE account = ? AND input IN ({_marks(len(chunk))})"
                )
                for row in self._raw.execute(sql, (account, *chunk)):
                    contact = contact_of(row)
                    found[account, contact.input] = contact
        return found

    def save_users(self, users: Iterable[User]) -> None:
        """Write what the rules changed, and nothing for those they left alone."""
        dirty = [user for user in users if _dirty(user)]
        if not dirty:
            return
        with_history = [user for user in dirty if user.history or user.restored]
        self._save_history(with_history)
        new = [user for user in dirty if user.is_new]
        known = [user for user in dirty if not user.is_new]
        if new:
            self._add(_NEW_USERS, sorted(map(user_row, new), key=_NEW_USERS.cut))
            self._many(
                INSERT_ALIAS, [(u.account, u.wa_id, u.id) for u in new if u.wa_id and not u.user_id]
            )
        self._update(
            "users", USER_COLUMNS, ("id",), [(self._users[u.id], user_row(u)) for u in known]
        )
        self._insert_history(with_history)
        self._add_audit([audit_row(u.account, u.id, e) for u in dirty for e in u.audit])
        self._save_work(dirty)

    def save_aliases(self, owned: Mapping[Alias, int]) -> None:
        """Let aliases lead to these users from now on: all those of users with a user id."""
        rows = [(account, alias, user_id) for (account, alias), user_id in owned.items()]
        self._many(UPSERT_ALIAS, rows)

    def merge_users(self, merged: Sequence[tuple[int, int]]) -> None:
        """Move the history and the names of users, given first, to those that they are."""
        rows = [(user_id, gone) for gone, user_id in merged]
        for statement in MERGE:
            self._many(statement, rows)

    def recipients_of(self, message_ids: Iterable[Alias]) -> dict[Alias, str]:
        """Tell by account and message id for whom messages were, as far as it was noted."""
        found: dict[Alias, str] = {}
        for account, ids in _by_account(message_ids).items():
            for chunk in _chunks(ids):
                sql = (
                    "SELECT message_id, alias FROM message_recipients "  # noqa: S608  names of ours only
                    f"WHERE account = ? AND message_id IN ({_marks(len(chunk))})"
                )
                for message_id, alias in self._raw.execute(sql, (account, *chunk)):
                    found[account, message_id] = alias
        return found

    def save_recipients(self, recipients: Mapping[Alias, str], now: int) -> None:
        """Note by account and message id for whom messages were."""
        rows = [(account, id_, alias, now) for (account, id_), alias in recipients.items()]
        self._many(INSERT_RECIPIENT, rows)

    def _save_history(self, dirty: list[User]) -> None:
        gone = [(c.id,) for u in dirty for c in u.restored if c.id is not None]
        changed = [
            (*change_row(u.id, c), c.id)
            for u in dirty
            for c in u.history
            if c.touched and c.id is not None
        ]
        self._many(DELETE_CHANGE, gone)
        self._many(UPDATE_CHANGE, changed)
        for user in dirty:
            user.history_count += sum(c.id is None for c in user.history)
            user.history_count -= sum(c.id is not None for c in user.restored)

    def _insert_history(self, dirty: list[User]) -> None:
        added = [change_row(u.id, c) for u in dirty for c in u.history if c.id is None]
        self._many(INSERT_CHANGE, added)

    def _save_work(self, dirty: list[User]) -> None:
        gone = [(u.id, _ACKNOWLEDGE) for u in dirty if u.had_work and u.identity.work is None]
        gone += [(u.id, _ASK) for u in dirty if u.had_ask and u.identity.ask is None]
        self._many(DELETE_WORK, gone)
        added, changed = [], []
        for row in [
            work_row(u, w)
            for u in dirty
            for w in (u.identity.work, u.identity.ask)
            if w is not None
        ]:
            stored = self._works.get((row[1], row[2]))
            if stored is None:
                added.append(row)
            else:
                changed.append((stored, row))
        self._many(INSERT_WORK, added)
        self._update("outbox", OUTBOX_COLUMNS, ("user_id", "kind"), changed)

    def _update(
        self,
        table: str,
        columns: Sequence[str],
        key: Sequence[str],
        rows: Iterable[tuple[tuple[Any, ...], tuple[Any, ...]]],
    ) -> None:
        """Write of each row, given as it is stored and as it is now, the columns that differ.

        An index that none of them is part of is left alone, and so are its pages.
        """
        alike: dict[tuple[int, ...], list[tuple[Any, ...]]] = {}
        places = [columns.index(name) for name in key]
        for stored, row in rows:
            if row != stored:
                changed = tuple([i for i, value in enumerate(row) if value != stored[i]])
                values = [row[i] for i in (*changed, *places)]
                alike.setdefault(changed, []).append(tuple(values))
        for changed, some in alike.items():
            names = tuple([columns[i] for i in changed])
            self._raw.executemany(_update(table, names, tuple(key)), some)

    def save_contacts(self, contacts: Iterable[Contact]) -> None:
        """Write contacts, new or known."""
        self._many(UPSERT_CONTACT, [contact_row(contact) for contact in contacts])

    def add_journal(self, rows: Sequence[JournalRow]) -> None:
        """Append callbacks, and note when each account had its last."""
        self._add(_JOURNAL, rows)
        spans: dict[str, list[int]] = {}
        for row in rows:
            if row.state != SYNTHETIC and not row.account.startswith(APP_MARK):
                spans.setdefault(row.account, []).append(row.received_at)
        self._many(NOTE_CALLBACK, [(name, min(at), max(at)) for name, at in spans.items()])

    def note_callbacks(self, heard: Mapping[str, int]) -> None:
        """Note when accounts were spoken of in a callback of several."""
        self._many(NOTE_CALLBACK, [(name, at, at) for name, at in heard.items()])

    def add_audit(self, account: str | None, entries: Sequence[AuditEntry]) -> None:
        """Append audit entries that are of no user."""
        self._add_audit([audit_row(account, None, entry) for entry in entries])

    def _add_audit(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self._add(_AUDIT, rows)

    def due(self, account: str, kind: Kind, now: int, limit: int) -> list[int]:
        """Give the users whose work is due and in nobody's hands, the longest due first."""
        rows = self._raw.execute(DUE, (account, kind, now, now, limit))
        return [row[0] for row in rows]

    def _add(self, lean: _Lean, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows in their order, those that follow each other and are alike by one statement."""
        for cut, some in groupby(rows, lean.cut):
            self._raw.executemany(lean.statement(cut), [row[:cut] for row in some])

    def _many(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._raw.executemany(sql, rows)


def _dirty(user: User) -> bool:
    latest = user.identity.latest
    return (
        user.changed
        or user.renewed
        or user.is_new
        or (latest is not None and latest.touched)
        or any(change.touched for change in user.history)
    )


def _by_account(aliases: Iterable[Alias]) -> dict[str, set[str]]:
    names: dict[str, set[str]] = {}
    for account, alias in aliases:
        names.setdefault(account, set()).add(alias)
    return names


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk + chunk[-1:] * (_rounded(len(chunk)) - len(chunk))


def _rounded(count: int) -> int:
    """Round up to a power of two: few statements to prepare, the last item asked for again."""
    return 1 << (count - 1).bit_length()
