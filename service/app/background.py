"""All that runs in the background of a service: workers over the outbox, and regular loops."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from service.api.context import AppContext
from service.ledger.leases import Lease
from service.model.gate import Reason
from service.model.users import Kind
from service.whatsapp.onprem import Client
from service.workers.contacts import Rechecks, Upkeep
from service.workers.identities import acknowledge, ask, sweep
from service.workers.monitoring import Heartbeat, watch_health
from service.workers.noticing import Noticer
from service.workers.retention import Retention
from service.workers.worker import Outcome, Worker

LEASED_LOCALLY = 64
"""Pieces of work of an account without a client that one transaction leases and settles."""

log = structlog.get_logger(__name__)


class BackgroundTasks:
    """The workers and loops of one service."""

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self._loops: list[asyncio.Task[None]] = []
        self._heartbeat = Heartbeat(context.ledger, context.database, self._note_downtime)
        countries = {name: one.phone_number for name, one in context.settings.accounts.items()}
        self.upkeep = Upkeep(
            countries, context.messages, ledger=context.ledger, database=context.database
        )
        self.workers: list[Worker] = []

    async def look_back(self) -> None:
        """Find out whether the service was down for a while, before anybody asks."""
        await self._heartbeat.begin()

    def _note_downtime(self, reason: Reason | None) -> None:
        self._context.catching_up = reason
        if reason is not None and reason.until is not None and reason.since is not None:
            seconds = (reason.until - reason.since) // 1000
            log.info("catching up after a downtime", at_most=f"{seconds} s")

    def start(self) -> None:
        """Begin to work."""
        context = self._context
        for name, client in context.clients.items():
            self._start_client(name, client)
        for name in context.settings.cloud_accounts:
            # What policy scheduled comes due: it is settled as it is leased, and nobody is called.
            self._add_worker(name, Kind.ACKNOWLEDGE, perform=_never, max_in_flight=LEASED_LOCALLY)
        for inspector in context.inspectors.values():
            if inspector.wanted:
                self._run(inspector.run())
        for name in context.verifiers:
            self._run(_verify(context, name))
        for relay in context.relays.values():
            relay.start()
        self._run(self.upkeep.run())
        self._run(self._heartbeat.run())
        noticer = Noticer(context.issues, context.is_settled, context.ledger, context.database)
        self._run(noticer.run())
        self._run(context.hub.run())
        context.alerter.start()
        retention = Retention(
            context.settings.retention,
            context.ledger,
            context.database,
            context.metrics,
            context.relays.values(),
        )
        if retention.wanted:
            self._run(retention.run())

    def _start_client(self, name: str, client: Client) -> None:
        """Start all that has to do with one WhatsApp client."""
        context = self._context
        performs: dict[Kind, Callable[[Lease], Awaitable[Outcome]]] = {
            Kind.ACKNOWLEDGE: partial(acknowledge, client, context.ledger),
            Kind.ASK: partial(ask, client),
        }
        for kind, perform in performs.items():
            self._add_worker(
                name,
                kind,
                perform=perform,
                paused_for=client.paused_for,
                max_in_flight=client.max_in_flight,
            )
        reconciler = context.settings.reconciler
        sweeping = sweep(
            name,
            context.ledger,
            after_seconds=reconciler.sweep_after_seconds,
            per_second=reconciler.sweep_per_second,
        )
        checks = Rechecks(
            context.checkers[name],
            ledger=context.ledger,
            database=context.database,
            metrics=context.metrics,
        )
        for coroutine in (sweeping, watch_health(client), checks.run()):
            self._run(coroutine)

    def _add_worker(
        self,
        name: str,
        kind: Kind,
        *,
        perform: Callable[[Lease], Awaitable[Outcome]],
        paused_for: Callable[[], float] = lambda: 0.0,
        max_in_flight: int,
    ) -> None:
        worker = Worker(
            name,
            kind,
            ledger=self._context.ledger,
            database=self._context.database,
            metrics=self._context.metrics,
            perform=perform,
            paused_for=paused_for,
            max_in_flight=max_in_flight,
        )
        worker.start()
        self.workers.append(worker)

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._loops.append(asyncio.create_task(coroutine))

    async def stop(self) -> None:
        """Take no more work."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for worker in self.workers:
            await worker.stop()
        for relay in self._context.relays.values():
            await relay.stop()
        self._context.alerter.stop()

    async def finish(self, seconds: float) -> None:
        """Let the work under way end; cut what takes longer."""
        await asyncio.gather(
            *(worker.finish(seconds) for worker in self.workers),
            *(relay.finish(seconds) for relay in self._context.relays.values()),
            self._context.alerter.finish(seconds),
        )

    async def close(self) -> None:
        """Write what was counted since, and that the service was alive until now."""
        await self.upkeep.finish()
        await self._heartbeat.beat()


async def _never(lease: Lease) -> Outcome:
    """Stand for the call of an account without a client, whose work is settled with its lease."""
    raise TypeError(f"work of the kind {lease.kind} is for accounts with a client")


async def _verify(context: AppContext, account: str) -> None:
    await context.verifiers[account].run()
    del context.verifiers[account]
