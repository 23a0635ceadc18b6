"""Once a second each replica tells the others what only it knows, and learns what they tell."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

import structlog
from sqlalchemy import Connection

from service.api import reports
from service.api.asked import heed
from service.api.context import AppContext
from service.api.reporting import report_of
from service.model.gate import Reason, catching_up, catching_up_from
from service.store.accounts import Downtime, downtime, note_downtime
from service.store.database import UnavailableError
from service.store.replicas import Told, save_report, told, want
from service.store.restore import unverified_accounts

EVERY_SECONDS = 1.0
AGAIN_SECONDS = 5.0
"""After so long a report is written again, whether it has changed or not."""
NOBODY_SECONDS = 15.0
"""Where the leader has not said so long that it leads, and no other one has: nobody leads."""
SILENT_MS = 15_000
"""Whoever has said so long nothing has died, or hangs: it says so every second."""

log = structlog.get_logger(__name__)


class Exchange:
    """What a replica tells and learns; where it is alone, it only looks what a person asks."""

    def __init__(self, context: AppContext, note_downtime: Callable[[Reason | None], None]) -> None:
        self._context = context
        self._note_downtime = note_downtime
        self._database = context.database
        self._written = ""
        self._written_at = 0.0
        self._sign = (0, 0)
        self._signed_at = time.monotonic()

    async def run(self) -> None:
        """Do it, again and again."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.once()
            except UnavailableError:
                pass
            except Exception:
                log.exception("telling the other replicas, or learning of them, failed")

    async def once(self) -> None:
        """Do it now. Raises UnavailableError."""
        if self._database.is_shared:
            await self._tell()
            await self._tell_wanted()
            found, down, unverified = await self._database.read(self._load)
            self._learn(found, down, unverified)
            if self._database.leads:
                await self._note_silent(found, down)
        await heed(self._context)

    async def _tell(self) -> None:
        """Write the report, where it has changed, or not been written for a while."""
        report, now = reports.written(report_of(self._context)), time.monotonic()
        if report != self._written or now >= self._written_at + AGAIN_SECONDS:
            save = partial(save_report, id_=self._database.replica, report=report)
            await self._database.write(save)
            self._written, self._written_at = report, now

    async def _tell_wanted(self) -> None:
        """Write whom the gate was asked about.

        By itself: the lease's statement writes the row of the report too, and waits for nothing.
        """
        context = self._context
        if not context.wanted:
            return
        wanted, context.wanted = context.wanted, {}
        now = context.ledger.clock()

        def write(connection: Connection) -> None:
            for account, user_ids in wanted.items():
                want(connection, account, user_ids, now)

        try:
            await self._database.write(write)
        except BaseException:
            for account, user_ids in wanted.items():
                context.want(account, user_ids)
            raise

    def _load(self, connection: Connection) -> tuple[Told, Downtime | None, dict[str, int]]:
        # Nobody becomes unverified while a service runs.
        left = unverified_accounts(connection) if self._context.unverified else {}
        return told(connection), downtime(connection), left

    def _learn(self, found: Told, down: Downtime | None, unverified: dict[str, int]) -> None:
        context, database = self._context, self._database
        others = {id_: text for id_, text in found.reports.items() if id_ != database.replica}
        read = {id_: reports.read(text) for id_, text in others.items()}
        context.elsewhere.reports = [*read.values()]
        if found.leader in read and (leading := read[found.leader].leading) is not None:
            context.elsewhere.leading = leading
        if found.sign != self._sign:
            self._sign, self._signed_at = found.sign, time.monotonic()
        context.elsewhere.is_led = time.monotonic() < self._signed_at + NOBODY_SECONDS
        for account in context.unverified.keys() - unverified.keys():
            del context.unverified[account]
        self._learn_downtime(down)
        for client in context.clients.values():
            client.share_rate(database.replicas)

    async def _note_silent(self, found: Told, down: Downtime | None) -> None:
        """Note a downtime where a replica went without a word: what was sent to it comes again.

        It is dated by that one's last word, so that every leader notes the same, and one that is
        noted is not noted again.
        """
        until = 0 if down is None else down.until
        now = found.seen_at.get(self._database.replica, 0)
        for seen_at in found.seen_at.values():
            since = seen_at + SILENT_MS
            reason = catching_up(seen_at, since) if since < now else None
            if reason is not None and reason.until is not None and reason.until > until:
                until = reason.until
                await self._database.write(partial(note_downtime, since=since, until=until))

    def _learn_downtime(self, down: Downtime | None) -> None:
        if down is None:
            return
        now, known = self._context.ledger.clock(), self._context.catching_up
        reason = catching_up_from(*down, now)
        until = 0 if known is None else known.until or 0
        if (reason.until or 0) > max(until, now):
            self._note_downtime(reason)
