"""The gate's statements on SQLite, written for aiosqlite."""

from collections.abc import Collection

import aiosqlite

from service.model.recipients import LatestCheck, Recipient
from service.store.mapping import RECIPIENT_COLUMNS, recipient_of

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
    """See `service.store.gate.Reads`."""

    def __init__(self, driver: aiosqlite.Connection) -> None:
        self._driver = driver

    async def users(self, account: str, aliases: Collection[str]) -> dict[str, Recipient]:
        """Return the users by what they are called."""
        wanted, found = list(aliases), {}
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            rows = await self._driver.execute_fetchall(
                _USERS.format(_marks(chunk)), (account, *chunk)
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


def _marks(values: Collection[str]) -> str:
    return ",".join("?" * len(values))
