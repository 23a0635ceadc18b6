"""The gate's statements on SQLite, on a connection of their own."""

import sqlite3
from collections.abc import Collection, Iterable
from typing import Any

from service.model.gate import LatestCheck, Recipient
from service.store.rows import RECIPIENT_COLUMNS, recipient_of

CHUNK = 500
"""Keys of one list in a statement."""

_USERS = (
    f"SELECT a.alias, {', '.join(RECIPIENT_COLUMNS)} FROM aliases a "  # noqa: S608  names of ours only
    "JOIN users u ON u.id = a.user_id "
    "LEFT JOIN blocks b ON b.user_id = u.id "
    "LEFT JOIN unverified v ON v.account = a.account AND v.user_id = u.id "
    "WHERE a.account = ? AND a.alias IN ({})"
)
_CHECKS = (
    f"SELECT {', '.join(LatestCheck._fields)} FROM contacts "  # noqa: S608  names of ours only
    # Each alternative names the account, so that each is looked for by an index of its own.
    "WHERE account = ? AND input IN ({}) OR account = ? AND canonical IN ({}) "
    "OR account = ? AND wa_id IN ({})"
)


class SQLiteReads:
    """See `service.store.database.Reads`."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def users(self, account: str, aliases: Collection[str]) -> dict[str, Recipient]:
        """Return the users by what they are called."""
        return {row[0]: recipient_of(row) for row in self._rows(_USERS, account, aliases)}

    def checks(
        self,
        account: str,
        inputs: Collection[str] = (),
        forms: Collection[str] = (),
        wa_ids: Collection[str] = (),
    ) -> Iterable[LatestCheck]:
        """Return what the client last said of numbers, by input, by canonical form or by wa_id.

        One of many may come more than once.
        """
        return map(LatestCheck._make, self._rows(_CHECKS, account, inputs, forms, wa_ids))

    def _rows(self, sql: str, account: str, *lists: Collection[str]) -> Iterable[tuple[Any, ...]]:
        keys = [list(some) for some in lists]
        for start in range(0, max(map(len, keys)), CHUNK):
            chunks = [some[start : start + CHUNK] for some in keys]
            marks = [",".join("?" * len(chunk)) for chunk in chunks]
            bound = [value for chunk in chunks for value in (account, *chunk)]
            yield from self._raw.execute(sql.format(*marks), bound)
