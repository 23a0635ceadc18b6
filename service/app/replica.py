"""One of the replicas on a database: it leads where it may, and hears of what the others commit.

A lease lasts five seconds; it is renewed, or tried for, every second. With a second for the work to
begin, and five at most in which a transaction of the former leader may still be open, another
replica has taken over within ten seconds, whatever became of the leader.
"""

import asyncio
import math
import time

import structlog

from service.api.context import AppContext
from service.app.leading import LeaderTasks
from service.store.database import UnavailableError

LEAD_SECONDS = 1.0
"""How often the lease is renewed, or tried for."""
FOLLOW_SECONDS = 0.1
"""How often this replica looks whether it leads: it stops as soon as its lease may have ended."""
LOOK_SECONDS = 1.0
"""How often it looks at what others have committed, whether they told or not."""
REST_SECONDS = 0.02
"""Between two looks."""
REFRAIN_SECONDS = 5.0
"""For so long the lead is left to others after what the leader does could not begin here."""

log = structlog.get_logger(__name__)


class Replica:
    """Keeps what the leader does running while this replica leads, and at no other time."""

    def __init__(self, context: AppContext, leader: LeaderTasks) -> None:
        self._context = context
        self._database = context.database
        self._leader = leader
        self._leading: asyncio.Task[None] | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._takes_from = -math.inf

    async def join(self) -> None:
        """Lead, if nobody else does, before anything is asked of this replica."""
        leads = await self._database.lead()
        if self._database.is_shared:
            self._leading = asyncio.create_task(self._lead())
        if leads:
            await self._leader.prepare()

    def start(self) -> None:
        """Begin what the leader does, where this one leads; from now on see to that."""
        if self._context.leading is not None:
            self._leader.start()
        if self._database.is_shared:
            self._loops = [asyncio.create_task(loop) for loop in (self._follow(), self._listen())]

    async def stop(self) -> None:
        """Begin nothing more. A lease is kept, for what is under way is still to be finished."""
        self._takes_from = math.inf
        await _cancel(*self._loops)

    async def close(self) -> None:
        """Let another replica lead."""
        if self._leading is not None:
            await _cancel(self._leading)
        await self._database.resign()

    async def _lead(self) -> None:
        """Keep the lead, or try to take it, again and again."""
        while True:
            await asyncio.sleep(LEAD_SECONDS)
            try:
                await self._database.lead(may_take=time.monotonic() >= self._takes_from)
            except UnavailableError as error:
                log.debug("the lease was not renewed", error=str(error))
            except Exception:
                log.exception("renewing the lease failed")

    async def _follow(self) -> None:
        """Begin what the leader does once this replica leads, and end it once it may not."""
        while True:
            if self._database.leads and self._context.leading is None:
                await self._begin()
            elif not self._database.leads and self._context.leading is not None:
                log.warning("this replica does not lead any more")
                await self._end()
            await asyncio.sleep(FOLLOW_SECONDS)

    async def _begin(self) -> None:
        """Begin what the leader does. Where that fails, another replica may be able to."""
        try:
            await self._leader.prepare()
            if self._database.leads:
                self._leader.start()
                log.info("this replica leads")
                return
        except UnavailableError as error:
            log.warning("this replica can't lead", error=str(error))
        except Exception:
            log.exception("leading failed")
        self._takes_from = time.monotonic() + REFRAIN_SECONDS
        await self._end()
        await self._database.resign()

    async def _end(self) -> None:
        """End what the leader does, and cut short what is under way."""
        try:
            await self._leader.stop()
            await self._leader.finish(0)
        except Exception:
            log.exception("what the leader does did not end")

    async def _listen(self) -> None:
        """Pass on what others have committed, as if it had been committed here."""
        while True:
            await self._database.hear(LOOK_SECONDS)
            try:
                changes = await self._database.look(self._context.changes.watched)
                for listener in self._context.ledger.listeners:
                    listener(changes)
            except UnavailableError:
                pass
            except Exception:
                log.exception("looking at what others have committed failed")
            await asyncio.sleep(REST_SECONDS)


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
