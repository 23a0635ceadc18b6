"""Erases a user: the user's own row at once, then whatever the logs say of that person.

The logs are searched beside everything else, by ranges of ids; what is found is written in small
transactions, with a pause after each. Nobody has to lead for that.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection

from service.dialects import erasing as dialect
from service.dialects.erasing import Names
from service.ledger.erasing import EraseLinks, EraseUser
from service.ledger.ledger import Ledger
from service.model.users import By
from service.store import erasing as store
from service.store.database import Database
from service.store.erasing import Found, Search
from service.store.logs import begun_below, is_settled
from service.store.trail import erase_entries

PAUSE_SECONDS = 0.005
SHARE = 0.25
"""The part of the time that the writer is kept busy with it, at most."""
SETTLING_SECONDS = 0.2
ENTRIES = 200
"""Entries of the audit trail that one transaction erases."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Whom:
    """Whom to erase: by an alias, of an account; `owners` are what the logs call that account.

    `closed`: the gate is closed for more than what is known of the user itself.
    """

    account: str
    alias: str
    owners: Sequence[str]
    closed: bool


@dataclass(slots=True)
class Erased:
    """What was erased, in rows, and the backups beside the database that have it still.

    `linked` are other numbers of the same person, of whom nothing was erased.
    """

    counts: dict[str, int] = field(default_factory=dict)
    backups: Sequence[str] = ()
    linked: Sequence[str] = ()


class Eraser:
    """Erases users of one database."""

    def __init__(self, ledger: Ledger, database: Database) -> None:
        self._ledger = ledger
        self._database = database

    async def erase(self, whom: Whom, by: By, request_id: str | None) -> Erased:
        """Erase a user, and return once nothing is left; raise UnavailableError.

        Where it was cut short it is done again, by any of the names: the others are noted.
        """
        command = EraseUser(whom.account, whom.alias, by, whom.closed, request_id)
        user_id = await self._ledger.submit(command)
        found = await self.finish(whom, user_id)
        return replace(found, linked=command.linked)

    async def finish(self, whom: Whom, user_id: int) -> Erased:
        """Search the logs for a user whose own row is erased already."""
        noted = await self._database.read(partial(store.names_left, user_id=user_id))
        search = Search(noted, whom.owners)
        # Callbacks that were being written while the user was erased may name the user.
        await self._settle()
        names, counts = Names(noted), {}
        counts["callbacks"] = await self._walk(
            store.look_at_callbacks, search, 0, partial(self._erase_bodies, names)
        )
        counts["events"] = await self._walk(store.look_at_events, search, 0, self._erase_events)
        own = Search(noted, [whom.account])
        renamed = partial(self._erase_links, frozenset(noted))
        counts["links"] = await self._walk(store.look_at_links, own, 0, renamed)
        forget = partial(self._erase_recipients, whom.account)
        counts["messages"] = await self._walk(store.look_at_recipients, own, "", forget)
        counts["audit"] = await self._erase_audit(user_id)
        counts["answers"] = await self._write(partial(store.delete_answers, search=own))
        counts["deliveries"] = await self._write(partial(store.rename_in_deliveries, search=own))
        await self._write(partial(store.delete_contacts, account=whom.account, names=noted))
        await self._database.write_dated(store.note_rows_erased)
        backups = await self._database.scrub()
        await self._write(partial(store.end, user_id=user_id))
        await self._database.scrub()
        return Erased(counts, backups)

    async def _settle(self) -> None:
        """Wait until all transactions have ended that have begun by now."""
        until = await self._database.read(begun_below)
        settled = await self._database.read(partial(is_settled, id_=until))
        while not settled:
            await asyncio.sleep(SETTLING_SECONDS)
            settled = await self._database.read(partial(is_settled, id_=until))

    async def _walk(
        self,
        look: Callable[[Connection, Search, Any], Found],
        search: Search,
        after: Any,
        erase: Callable[[Sequence[Any]], Any],
    ) -> int:
        """Erase what looks find; return in how many rows that was."""
        count, more = 0, True
        while more:
            found = await self._database.read(
                lambda connection, after=after: look(connection, search, after)  # type: ignore[misc] # mypy infers no lambda with a default
            )
            if found.rows:
                count += await erase(found.rows)
            after, more = found.last, found.more
            await asyncio.sleep(PAUSE_SECONDS)
        return count

    async def _erase_bodies(self, names: Names, rows: Sequence[Any]) -> int:
        left = await asyncio.to_thread(_left_of, names, rows)
        return await self._write(partial(store.replace_bodies, bodies=left)) if left else 0

    async def _erase_events(self, rows: Sequence[Any]) -> int:
        return await self._write(partial(store.delete_events, ids=[row.id for row in rows]))

    async def _erase_links(self, names: frozenset[str], rows: Sequence[Any]) -> int:
        await self._ledger.submit(EraseLinks([row.id for row in rows], names))
        return len(rows)

    async def _erase_recipients(self, account: str, rows: Sequence[Any]) -> int:
        ids = [row.id for row in rows]
        forget = partial(store.forget_recipients_of, account=account, ids=ids)
        return await self._write(forget)

    async def _erase_audit(self, user_id: int) -> int:
        asked_at = await self._database.read(partial(store.asked_at, user_id=user_id))
        entries = partial(erase_entries, user_id=user_id, until=asked_at, limit=ENTRIES)
        count = gone = await self._write(entries)
        while gone == ENTRIES:
            gone = await self._write(entries)
            count += gone
        return count

    async def _write(self, work: Callable[[Connection], T]) -> T:
        """Run a small piece of work on the writer, then leave it to the others for longer."""
        started = time.perf_counter()
        result = await self._database.write(work)
        took = time.perf_counter() - started
        await asyncio.sleep(max(PAUSE_SECONDS, took * (1 / SHARE - 1)))
        return result


def _left_of(names: Names, rows: Sequence[Any]) -> list[tuple[int, bytes]]:
    """Return what is left of callbacks, of those that name the user."""
    erased = ((row.id, dialect.erase(bytes(row.body), row.content_encoding, names)) for row in rows)
    return [(id_, body) for id_, body in erased if body is not None]
