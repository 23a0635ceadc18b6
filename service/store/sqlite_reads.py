"""The gate's statements on SQLite, on a connection of their own."""

import sqlite3
from collections.abc import Collection, Iterator

from service.model.recipients import LatestCheck, Recipient
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
_CHECKS = f"SELECT {', '.join(LatestCheck._fields)} FROM contacts WHERE "  # noqa: S608  names of ours only


class SQLiteReads:
    """See `service.store.database.Reads`."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def users(self, account: str, aliases: Collection[str]) -> dict[str, Recipient]:
        """Return the users by what they are called."""
        wanted, found = list(aliases), {}
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            rows = self._raw.execute(_USERS.format(_marks(chunk)), (account, *chunk))
            found.update({row[0]: recipient_of(row) for row in rows})
        return found

    def checks(
        self,
        account: str,
        inputs: Collection[str] = (),
        forms: Collection[str] = (),
        wa_ids: Collection[str] = (),
    ) -> Iterator[LatestCheck]:
        """Return what the client last said of numbers, by input, by canonical form or by wa_id.

        One of many may come more than once.
        """
        keys = {"input": list(inputs), "canonical": list(forms), "wa_id": list(wa_ids)}
        for start in range(0, max(map(len, keys.values())), CHUNK):
            chunks = {key: some[start : start + CHUNK] for key, some in keys.items()}
            asked = {key: chunk for key, chunk in chunks.items() if chunk}
            # Each alternative names the account, so that each is looked for by an index of its own.
            where = " OR ".join(
                f"account = ? AND {key} IN ({_marks(chunk)})" for key, chunk in asked.items()
            )
            bound = [value for chunk in asked.values() for value in (account, *chunk)]
            yield from map(LatestCheck._make, self._raw.execute(_CHECKS + where, bound))


def _marks(values: Collection[str]) -> str:
    return ",".join("?" * len(values))
