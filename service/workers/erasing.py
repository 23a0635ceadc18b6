"""Erases a user: the user's own row at once, then whatever the logs say of that person.

The logs are searched beside everything else, by ranges of ids; what is found is written in small
transactions, with a pause after each. Nobody has to lead for that. What was cut short is done again
by the leader, once a minute; where two do it at once, neither undoes what the other has done.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import orjson
import structlog
from sqlalchemy import Connection

from service.dialects import erasing as dialect
from service.dialects.erasing import Names
from service.dialects.shares import Share
from service.ledger.erasing import EraseLinks, EraseUser
from service.ledger.ledger import Ledger
from service.model.users import By
from service.store import erasing as store
from service.store.database import Database, UnavailableError
from service.store.erasing import FOUND, Found, Left, Search
from service.store.logs import begun_below, is_settled
from service.store.trail import erase_entries

PAUSE_SECONDS = 0.005
SHARE = 0.25
"""The part of the time that the writer is kept busy with it, at most."""
SETTLING_SECONDS = 0.2
SETTLED_WITHIN_SECONDS = 30.0
"""For so long an erasure waits for transactions that have begun before it."""
EVERY_SECONDS = 60.0
CLEAN_WALKS = 2
"""Walks that find no link any more, one after the other, before there is none."""
ENTRIES = 200
"""Entries of the audit trail that one transaction erases."""

COUNTED = ("callbacks", "events", "links", "messages", "audit", "answers", "deliveries")

T = TypeVar("T")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Whom:
    """Whom to erase: by an alias, of an account; `share` says what the logs have of that account.

    `closed`: the gate is closed for more than what is known of the user itself.
    """

    alias: str
    share: Share
    closed: bool

    @property
    def account(self) -> str:
        """The account's name."""
        return self.share.account


@dataclass(slots=True)
class Erased:
    """What was erased, in rows, and the backups beside the database that have it still.

    `linked` are other numbers of the same person, of whom nothing was erased.
    """

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    backups: Sequence[str] = ()
    linked: Sequence[str] = ()


class Begun(NamedTuple):
    """An erasure that has begun: of which user, and other numbers of the same person."""

    user_id: int
    linked: Sequence[str]


class UnfinishedError(Exception):
    """An erasure has begun and can't be finished now; the leader does it later."""


class Eraser:
    """Erases users of one database."""

    def __init__(self, ledger: Ledger, database: Database) -> None:
        self._ledger = ledger
        self._database = database
        self._finishing: list[int] = []

    async def erase(self, whom: Whom, by: By, request_id: str | None) -> Erased:
        """Erase a user, and return once nothing is left; raise as `begin` and `finish` do."""
        begun = await self.begin(whom, by, request_id)
        return await self.finish(begun.user_id, whom.share, begun.linked)

    async def begin(self, whom: Whom, by: By, request_id: str | None) -> Begun:
        """Erase the user's own row, and note what is left to be done; raise UnavailableError.

        What is begun is finished by the leader, if by nobody else. It may also be begun again, by
        any of the names: the others are noted.
        """
        command = EraseUser(whom.account, whom.alias, by, whom.closed, request_id)
        return Begun(await self._ledger.submit(command), command.linked)

    async def run(self, share_of: Callable[[str], Share]) -> None:
        """Finish what was cut short, again and again; for the leader."""
        while True:
            try:
                await self.resume(share_of)
            except UnavailableError:
                log.warning("finishing erasures has to wait: the database is not available")
            except Exception:
                log.exception("finishing erasures failed")
            await asyncio.sleep(EVERY_SECONDS)

    async def resume(self, share_of: Callable[[str], Share]) -> None:
        """Finish what was cut short, one after the other. Raises UnavailableError.

        Another replica may be doing the same. What holds one up would hold up all; what fails does
        not stop the others.
        """
        for one in await self._database.read(store.unfinished):
            if one.user_id in self._finishing:
                continue
            try:
                await self.finish(one.user_id, share_of(one.account))
            except UnfinishedError:
                why = "an erasure is not finished: a transaction of before it is still open"
                log.warning(why, account=one.account)
                return
            except UnavailableError:
                raise
            except Exception:
                log.exception("finishing an erasure failed", account=one.account)
            else:
                log.info("finished an erasure that was cut short", account=one.account)

    async def finish(self, user_id: int, share: Share, linked: Sequence[str] = ()) -> Erased:
        """Search the logs for a user whose own row is erased already.

        Raises UnfinishedError, or UnavailableError.
        """
        self._finishing.append(user_id)
        try:
            return replace(await self._finish(user_id, share), linked=linked)
        finally:
            self._finishing.remove(user_id)

    async def _finish(self, user_id: int, share: Share) -> Erased:
        found = Erased()
        noted = await self._database.read(partial(store.noted, user_id=user_id))
        if noted is None:  # somebody else has finished it
            found.backups = await self._database.scrub()
            return found
        names, asked_at = noted
        known = Names(names)
        counts = found.counts
        logs, own = Search(names, share.owners), Search(names, [share.account])
        # First the links: events tell them.
        counts["links"] = await self._erase_links(own, user_id)
        # What was being written until now may name the user: callbacks, and events by those links.
        await self._settle()
        bodies = partial(self._erase_bodies, known, share)
        counts["callbacks"] = await self._walk(store.look_at_callbacks, logs, 0, bodies)
        told = partial(self._erase_events, known)
        counts["events"] = await self._walk(store.look_at_events, own, 0, told)
        forget = partial(self._erase_recipients, share.account)
        counts["messages"] = await self._walk(store.look_at_recipients, own, "", forget)
        counts["audit"] = await self._erase_audit(user_id, asked_at)
        answers = partial(store.delete_answers, search=own, asked_at=asked_at)
        counts["answers"] = await self._write(answers)
        counts["deliveries"] = await self._write(partial(store.rename_in_deliveries, search=own))
        await self._write(partial(store.delete_contacts, account=share.account, names=names))
        await self._database.write_dated(store.note_rows_erased)
        found.backups = await self._database.scrub()
        await self._write(partial(store.end, user_id=user_id, asked_at=asked_at))
        await self._database.scrub()
        return found

    async def _settle(self) -> None:
        """Wait until all transactions have ended that have begun by now; raise UnfinishedError."""
        until = await self._database.read(begun_below)
        last = time.monotonic() + SETTLED_WITHIN_SECONDS
        while not await self._database.read(partial(is_settled, id_=until)):
            if time.monotonic() >= last:
                raise UnfinishedError
            await asyncio.sleep(SETTLING_SECONDS)

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

    async def _erase_bodies(self, names: Names, share: Share, rows: Sequence[Any]) -> int:
        """Write what is left of callbacks; look again at those that another one wrote meanwhile.

        Searching bodies takes half the time at most: callbacks are read meanwhile.
        """
        count = 0
        while rows:
            started = time.perf_counter()
            left = await asyncio.to_thread(_left_of, names, share, rows)
            await asyncio.sleep(time.perf_counter() - started)
            changed: list[int] = []
            for some in (left[start : start + FOUND] for start in range(0, len(left), FOUND)):
                others = await self._write(partial(store.replace_bodies, bodies=some))
                count += len(some) - len(others)
                changed += others
            rows = await self._database.read(partial(store.callbacks_by_id, ids=changed))
        return count

    async def _erase_events(self, names: Names, rows: Sequence[Any]) -> int:
        ids = [
            row.id
            for row in rows
            if any(names.are_within(orjson.loads(text)) for text in (row.names, row.data))
        ]
        return await self._write(partial(store.delete_events, ids=ids)) if ids else 0

    async def _erase_links(self, search: Search, erased_id: int) -> int:
        """Rename the user in the links of others, until two walks in a row find none.

        Links are copied meanwhile, also to users whom a walk has passed; and where two users turn
        out to be one the link goes with them, so that a walk may miss it, though not the next one.
        """
        rename = partial(self._rename, frozenset(search.names), erased_id)
        # A link's JSON begins with the name. A longer one is somebody else's, and is not renamed.
        whole = Search([f'["{name}"' for name in search.names], search.owners)
        count = clean = 0
        while clean < CLEAN_WALKS:
            renamed = await self._walk(store.look_at_links, whole, 0, rename)
            count += renamed
            clean = 0 if renamed else clean + 1
        return count

    async def _rename(self, names: frozenset[str], erased_id: int, rows: Sequence[Any]) -> int:
        await self._ledger.submit(EraseLinks([row.id for row in rows], names, erased_id))
        return len(rows)

    async def _erase_recipients(self, account: str, rows: Sequence[Any]) -> int:
        ids = [row.id for row in rows]
        forget = partial(store.forget_recipients_of, account=account, ids=ids)
        return await self._write(forget)

    async def _erase_audit(self, user_id: int, asked_at: int) -> int:
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


def _left_of(names: Names, share: Share, rows: Sequence[Any]) -> list[Left]:
    """Return what is left of callbacks, of those that name the user."""
    found = []
    for row in rows:
        read = bytes(row.body)
        left = dialect.erase(read, row.content_encoding, names, share.others_in(row.account))
        if left is not None:
            found.append(Left(row.id, read, left))
    return found
