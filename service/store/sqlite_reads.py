"""The gate's statements on SQLite, written down to the driver, on a connection of their own.

The keys of a statement come as one JSON list, sorted: the tables are entered key by key in the
order of their trees, and a thousand keys cost one parameter to bind. What is found goes back as one
JSON list too: the driver takes the GIL for every row, and so holds up, and is held up by, the event
loop and a second reader.
"""

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import orjson

from service.model.gate import LastWord, Recipient
from service.store.rows import RECIPIENT_COLUMNS, recipient_of
from service.store.tables import CLOSED


def _listed(columns: Iterable[str], tables: str) -> str:
    """Write a query for what is known of the keys `?2` at account `?1`, as one JSON list."""
    return (
        f"SELECT json_group_array(json_array({','.join(columns)})) "  # noqa: S608  names of ours only
        f"FROM json_each(?2) AS asked {tables}"
    )


_WORD = ("c.wa_id", "c.status", "c.checked_at")
# What is being checked for the first time has no result yet.
_RECIPIENTS = _listed(
    ("asked.value", "c.status", "c.checked_at", *RECIPIENT_COLUMNS),
    "LEFT JOIN aliases a ON a.account = ?1 AND a.alias = asked.value "
    "LEFT JOIN users u ON u.id = a.user_id "
    "LEFT JOIN blocks b ON b.user_id = u.id "
    "LEFT JOIN unverified v ON v.account = ?1 AND v.user_id = u.id "
    "LEFT JOIN contacts c ON c.account = ?1 AND c.wa_id = coalesce(u.wa_id, asked.value) "
    "AND c.status <> 'processing'",
)
# The wa_id is that of a user who is not in the index; who has a user id is.
_USUAL = (
    "SELECT json_group_array(asked.value) FROM json_each(?2) AS asked "  # noqa: S608  text of ours
    "CROSS JOIN aliases a ON a.account = ?1 AND a.alias = asked.value "
    "WHERE NOT EXISTS (SELECT 1 FROM users INDEXED BY ix_users_closed "
    f"WHERE id = a.user_id AND ({CLOSED})) "
    "AND NOT EXISTS (SELECT 1 FROM blocks WHERE user_id = a.user_id) "
    "AND NOT EXISTS (SELECT 1 FROM unverified WHERE account = ?1 AND user_id = a.user_id) "
    "AND coalesce((SELECT status = 'valid' AND checked_at > ?3 FROM contacts "
    "WHERE account = ?1 AND wa_id = asked.value AND status <> 'processing' "
    "ORDER BY checked_at DESC, status DESC LIMIT 1), 1)"
)
_TOLD = (
    "SELECT json_group_object(c.input, "
    "CASE WHEN c.status = 'valid' AND c.checked_at > ?3 THEN c.wa_id END) "
    "FROM json_each(?2) AS asked "
    "CROSS JOIN contacts c ON c.account = ?1 AND c.input = asked.value"
)
_CHECKED = _listed(
    ("c.input", *_WORD), "CROSS JOIN contacts c ON c.account = ?1 AND c.input = asked.value"
)
_ALIKE = _listed(
    ("c.canonical", *_WORD),
    "CROSS JOIN contacts c ON c.account = ?1 AND c.canonical = asked.value "
    "AND c.status <> 'processing'",
)


class SQLiteReads:
    """See `service.store.database.Reads`."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def told(
        self, account: str, inputs: Iterable[str], fresh_since: int
    ) -> Mapping[str, str | None]:
        """Give the wa_ids of numbers whose last word is valid and fresh, None for the others."""
        told: dict[str, str | None] = self._found(_TOLD, account, inputs, fresh_since)
        return told

    def usual(self, account: str, wa_ids: Iterable[str], fresh_since: int) -> Collection[str]:
        """Give those of the wa_ids whose users are as usual."""
        return set(self._found(_USUAL, account, wa_ids, fresh_since))

    def recipients(
        self, account: str, names: Iterable[str], *, in_full: bool
    ) -> tuple[dict[str, Recipient], dict[str, LastWord]]:
        """Give users by what they are called, and the newest word on each wa_id."""
        users: dict[str, Recipient] = {}
        newest: dict[str, LastWord] = {}
        for row in self._rows(_RECIPIENTS, account, names, in_full):
            name, status, checked_at, id_, wa_id, wrote_at, heard_of, more = row
            if id_ is not None:
                users[name] = recipient_of(id_, wa_id, wrote_at, heard_of, more)
            if status is not None:
                called = wa_id or name
                _keep_newest(newest, called, LastWord(called, status, checked_at))
        return users, newest

    def checked(self, account: str, inputs: Iterable[str]) -> dict[str, LastWord]:
        """Give the last word on numbers, by the literal text that was asked about."""
        return self._words(_CHECKED, account, inputs)

    def alike(self, account: str, numbers: Iterable[str]) -> dict[str, LastWord]:
        """Give the last word on numbers, by their canonical form."""
        return self._words(_ALIKE, account, numbers)

    def _words(self, sql: str, account: str, keys: Iterable[str]) -> dict[str, LastWord]:
        newest: dict[str, LastWord] = {}
        for key, *word in self._rows(sql, account, keys):
            _keep_newest(newest, key, LastWord._make(word))
        return newest

    def _rows(self, sql: str, account: str, keys: Iterable[str], *more: bool) -> list[list[Any]]:
        rows: list[list[Any]] = self._found(sql, account, keys, *more)
        return rows

    def _found(self, sql: str, account: str, keys: Iterable[str], *more: int) -> Any:
        asked = orjson.dumps(sorted(keys)).decode()
        [found] = self._raw.execute(sql, (account, asked, *more)).fetchone()
        return orjson.loads(found)


def _keep_newest(newest: dict[str, LastWord], key: str, word: LastWord) -> None:
    before = newest.get(key)
    if before is None or before.checked_at <= word.checked_at:
        newest[key] = word
