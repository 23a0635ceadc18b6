"""The gate's statements on SQLite, written down to the driver, on a connection of their own."""

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from service.model.gate import LastWord, Recipient
from service.store.rows import RECIPIENT_COLUMNS, recipient_of

CHUNK = 512

_USERS = (
    f"SELECT a.alias,{','.join(RECIPIENT_COLUMNS)} FROM aliases a "  # noqa: S608  names of ours only
    "JOIN users u ON u.id = a.user_id "
    "LEFT JOIN blocks b ON b.user_id = u.id "
    "LEFT JOIN unverified v ON v.account = u.account AND v.user_id = u.id "
    "WHERE a.account = ? AND a.alias IN ({})"
)
_CHECKED = "SELECT input,wa_id,status,checked_at FROM contacts WHERE account = ? AND input IN ({})"
# What is being checked for the first time has no result yet. The last of a key is the newest.
_NEWEST = (
    "SELECT wa_id,wa_id,status,checked_at FROM contacts WHERE account = ? AND wa_id IN ({}) "
    "AND status <> 'processing' ORDER BY wa_id,checked_at"
)
_ALIKE = (
    "SELECT canonical,wa_id,status,checked_at FROM contacts WHERE account = ? "
    "AND canonical IN ({}) AND status <> 'processing' ORDER BY canonical,checked_at"
)


class SQLiteReads:
    """See `service.store.database.Reads`."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def users(self, account: str, names: Iterable[str]) -> dict[str, Recipient]:
        """Give users by what they are called."""
        return {row[0]: recipient_of(row[1:]) for row in self._rows(_USERS, account, names)}

    def checked(self, account: str, inputs: Iterable[str]) -> dict[str, LastWord]:
        """Give the last word on numbers, by the literal text that was asked about."""
        return self._checks(_CHECKED, account, inputs)

    def alike(self, account: str, numbers: Iterable[str]) -> dict[str, LastWord]:
        """Give the last word on numbers, by their canonical form."""
        return self._checks(_ALIKE, account, numbers)

    def newest(self, account: str, wa_ids: Iterable[str]) -> dict[str, LastWord]:
        """Give for each wa_id the last word on any number that led to it."""
        return self._checks(_NEWEST, account, wa_ids)

    def _checks(self, sql: str, account: str, keys: Iterable[str]) -> dict[str, LastWord]:
        return {row[0]: LastWord._make(row[1:]) for row in self._rows(sql, account, keys)}

    def _rows(self, sql: str, account: str, keys: Iterable[str]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for chunk in _chunks(keys):
            marks = ",".join("?" * len(chunk))
            rows += self._raw.execute(sql.format(marks), (account, *chunk)).fetchall()
        return rows


def _chunks(items: Iterable[str]) -> Iterator[list[str]]:
    """Cut into chunks, each filled up to a power of two: few statements to prepare."""
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        whole = 1 << (len(chunk) - 1).bit_length()
        yield chunk + chunk[-1:] * (whole - len(chunk))
