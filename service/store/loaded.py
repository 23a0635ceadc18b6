"""The users that a transaction loaded, beside their rows, and what the rules changed since. Pure.

The rules need not say what they changed: a user, an entry of the history or work is written where
its row differs from the one that was loaded.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from service.model.timeline import Change
from service.model.users import Kind, User
from service.store.database import ChangeSet
from service.store.mapping import (
    USER_COLUMNS,
    audit_row,
    change_of,
    change_row,
    user_of,
    user_row,
    work_of,
    work_row,
)

MAX_HISTORY = 1000
"""Entries of one user's history that the rules look at: the newest."""

MAX_HISTORY_OF_ALL = 20_000
"""Entries that are loaded for all users of a batch."""

Row = tuple[Any, ...]

_HISTORY_COUNT = USER_COLUMNS.index("history_count")
_HAS_WORK, _HAS_ASK = USER_COLUMNS.index("has_work"), USER_COLUMNS.index("has_ask")


@dataclass(slots=True)
class Differences:
    """The rows to write and to delete, table by table, and what of it is news to others.

    A row of `changes` begins with its id, None for a new one. `aliases` are those of new users
    that have no user id: an alias of one with a user id may lead to another user before.
    """

    users: list[Row] = field(default_factory=list)
    aliases: list[Row] = field(default_factory=list)
    changes: list[Row] = field(default_factory=list)
    deleted_changes: list[Row] = field(default_factory=list)
    audit: list[Row] = field(default_factory=list)
    work: list[Row] = field(default_factory=list)
    deleted_work: list[Row] = field(default_factory=list)
    news: ChangeSet = field(default_factory=ChangeSet)


class Histories(NamedTuple):
    """The users of whom all of it is loaded, those of whom the newest entries are, and how many."""

    short: list[int]
    long: list[int]
    limit: int


class LoadedUsers:
    """The users of one transaction, each the same object whenever it is asked for again."""

    def __init__(self) -> None:
        self._users: dict[int, User] = {}
        self._user_rows: dict[int, Row] = {}
        self._work_rows: dict[tuple[int, Kind], Row] = {}
        # By the object that was made of the row: an entry of a history has no other name.
        self._change_rows: dict[int, tuple[Change, Row]] = {}

    def get(self, user_id: int) -> User | None:
        """Return a user that was loaded before."""
        return self._users.get(user_id)

    def add(self, row: Row) -> User:
        """Add a user by a row in the order of USER_COLUMNS, as yet without history and work."""
        user = self._users[row[0]] = user_of(row)
        self._user_rows[user.id] = row
        return user

    def add_change(self, row: Row) -> None:
        """Add the next entry to its user's history, by its id and a row like CHANGE_COLUMNS."""
        change = change_of(row)
        self._change_rows[id(change)] = change, row
        self._users[row[1]].history.append(change)

    def add_work(self, row: Row) -> None:
        """Add work to its user by a row in the order of OUTBOX_COLUMNS."""
        work, identity = work_of(row), self._users[row[1]].identity
        self._work_rows[row[1], work.kind] = row
        if work.kind is Kind.ASK:
            identity.ask = work
        else:
            identity.work = work

    def history_count(self, user_id: int) -> int:
        """Return how many entries of a user's history are stored; none of a new one's."""
        row = self._user_rows.get(user_id)
        return 0 if row is None else int(row[_HISTORY_COUNT])

    def histories(self, ids: Iterable[int]) -> "Histories":
        """Return how to load the histories of these users, those who have one."""
        counts = {id_: count for id_ in ids if (count := self.history_count(id_))}
        limit = max(64, min(MAX_HISTORY, MAX_HISTORY_OF_ALL // max(1, len(counts))))
        short = [id_ for id_, count in counts.items() if count <= limit]
        return Histories(short, [id_ for id_ in counts if counts[id_] > limit], limit)

    def has_work(self, user_id: int) -> bool:
        """Return whether work is stored for a user."""
        row = self._user_rows[user_id]
        return bool(row[_HAS_WORK] or row[_HAS_ASK])

    def differences(self, users: Iterable[User]) -> Differences:
        """Return how all users of the transaction differ from the rows that were loaded."""
        found, users = Differences(), list(users)
        counts = self._compare_histories(users, found)
        for user in users:
            stored, row = self._user_rows.get(user.id), user_row(user, counts[user.id])
            # Also who has a new entry: by its row others know that this transaction was first.
            if row != stored or user.audit:
                found.users.append(row)
                found.news.users.add(user.id)
            if stored is None and user.wa_id and not user.user_id:
                found.aliases.append((user.account, user.wa_id, user.id))
            if user.audit:
                found.audit += [audit_row(user.account, user.id, entry) for entry in user.audit]
                found.news.users.add(user.id)
        self._compare_work(users, found)
        return found

    def _compare_histories(self, users: Sequence[User], found: Differences) -> dict[int, int]:
        """Find the entries to write and to delete; return how many each user has then."""
        counts, kept = {user.id: self.history_count(user.id) for user in users}, set()
        for user in users:
            for change in user.history:
                kept.add(id(change))
                _, stored = self._change_rows.get(id(change), (None, None))
                row = (stored[0] if stored else None, *change_row(user.id, change))
                if row != stored:
                    found.changes.append(row)
                    found.news.users.add(user.id)
                if stored is None:
                    counts[user.id] += 1
        for key, (_, row) in self._change_rows.items():
            if key not in kept:
                found.deleted_changes.append((row[0],))
                counts[row[1]] -= 1
                found.news.users.add(row[1])
        return counts

    def _compare_work(self, users: Sequence[User], found: Differences) -> None:
        kept, news = set(), found.news
        for user in users:
            for work in (user.identity.work, user.identity.ask):
                if work is None:
                    continue
                kept.add((user.id, work.kind))
                row, stored = work_row(user, work), self._work_rows.get((user.id, work.kind))
                if row == stored:
                    continue
                found.work.append(row)
                if stored is None or row[:-1] != stored[:-1]:  # a renewed lease is no news
                    news.users.add(user.id)
                if work.holder is None:
                    news.work.add((user.account, work.kind))
        for user_id, kind in self._work_rows:
            if (user_id, kind) not in kept:
                found.deleted_work.append((user_id, str(kind)))
                news.users.add(user_id)
