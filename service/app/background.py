"""What every replica does in the background, whether it leads or not."""

import asyncio

import structlog

from service.api.context import AppContext
from service.app.exchange import Exchange
from service.model.gate import Reason
from service.workers.contacts import MessageCounts
from service.workers.monitoring import Heartbeat

log = structlog.get_logger(__name__)


class BackgroundTasks:
    """The loops of one replica."""

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self._loops: list[asyncio.Task[None]] = []
        self._heartbeat = Heartbeat(context.ledger, context.database, self._note_downtime)
        self.counts = MessageCounts(context.settings.accounts, context.messages, context.ledger)
        self.exchange = Exchange(context, self._note_downtime)

    async def look_back(self) -> None:
        """Find out whether the service was down for a while, before anybody asks."""
        await self._heartbeat.begin()

    def _note_downtime(self, reason: Reason | None) -> None:
        """Close the gate for a downtime, unless it is for longer already because of another one."""
        known = self._context.catching_up
        if reason is None or (known is not None and (known.until or 0) >= (reason.until or 0)):
            return
        self._context.catching_up = reason
        if reason.until is not None and reason.since is not None:
            seconds = (reason.until - reason.since) // 1000
            log.info("catching up after a downtime", at_most=f"{seconds} s")

    def start(self) -> None:
        """Begin to work."""
        hub, exchange = self._context.hub, self.exchange
        for loop in (self._heartbeat.run, self.counts.run, hub.run, exchange.run):
            self._loops.append(asyncio.create_task(loop()))

    async def stop(self) -> None:
        """Do no more."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def close(self) -> None:
        """Write what was counted since, and that the service was alive until now."""
        await self.counts.finish()
        await self._heartbeat.beat()
