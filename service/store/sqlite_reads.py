"""The gate's statements on SQLite, on a connection of their own."""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from service.model.gate import LatestCheck, Recipient
from service.store.rows import RECIPIENT_COLUMNS, recipient_of

CHUNK = 500
"""Keys of one statement."""

_USERS = (
    f"SELECT {', '.join(RECIPIENT_COLUMNS)}, a.alias FROM aliases a "  # noqa: S608  names of ours only
    "JOIN users u ON u.id = a.user_id "
    "LEFT JOIN blocks b ON b.user_id = u.id "
    "LEFT JOIN unverified v ON v.account = a.account AND v.user_id = u.id "
    "WHERE a.account = ? AND a.alias IN"
)
_CHECKS = (
    "SELECT wa_id, status, checked_at, answered_at, {key} FROM contacts "
    "WHERE account = ? AND {key} IN"
)


class SQLiteReads:
    """See `service.store.database.Reads`."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def users(self, account: str, aliases: Iterable[str]) -> dict[str, Recipient]:
        """Return the users by what they are called."""
        return {row[-1]: recipient_of(row[:-1]) for row in self._rows(_USERS, account, aliases)}

    def checks(self, account: str, inputs: Iterable[str]) -> dict[str, list[LatestCheck]]:
        """Return what the client last said of numbers, by the literal text that was asked about."""
        return self._checks("input", account, inputs)

    def alike(self, account: str, forms: Iterable[str]) -> dict[str, list[LatestCheck]]:
        """Return what the client last said of numbers, by their canonical form."""
        return self._checks("canonical", account, forms)

    def newest(self, account: str, wa_ids: Iterable[str]) -> dict[str, list[LatestCheck]]:
        """Return what the client last said of numbers, by the wa_id that it told."""
        return self._checks("wa_id", account, wa_ids)

    def _checks(
        self, column: str, account: str, keys: Iterable[str]
    ) -> dict[str, list[LatestCheck]]:
        found: dict[str, list[LatestCheck]] = {}
        for row in self._rows(_CHECKS.format(key=column), account, keys):
            found.setdefault(row[-1], []).append(LatestCheck(*row[:-1]))
        return found

    def _rows(self, sql: str, account: str, keys: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        wanted = list(keys)
        for start in range(0, len(wanted), CHUNK):
            some = wanted[start : start + CHUNK]
            marks = ",".join("?" * len(some))
            yield from self._raw.execute(f"{sql} ({marks})", (account, *some))
