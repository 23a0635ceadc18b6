"""What the leader does and nobody beside it: workers over the outbox, relays, and regular loops."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from service.api.context import AppContext, Leading
from service.ledger.leases import Lease
from service.model.users import Kind
from service.store.alerts import forget_destinations
from service.store.events import epoch_of
from service.store.relays import Source
from service.store.restore import unverified_accounts
from service.webhooks.incoming import in_journal, share_of
from service.whatsapp.onprem import Client
from service.workers.alerts import Alerter
from service.workers.contacts import Rechecks, Upkeep
from service.workers.identities import acknowledge, ask, sweep
from service.workers.monitoring import (
    AppSubject,
    ClientSubject,
    Inspector,
    KeysSubject,
    NumberSubject,
    PendingSubject,
    Subject,
    watch_health,
)
from service.workers.noticing import Noticer
from service.workers.points import Recorder
from service.workers.relay_checks import RelaySubject
from service.workers.relay_log import Log
from service.workers.relay_sources import events, journal
from service.workers.relays import Relay
from service.workers.restore import Verifier
from service.workers.retention import Retention
from service.workers.sealing import Sealer
from service.workers.worker import Outcome, Worker

LEASED_LOCALLY = 64
"""Pieces of work of an account without a client that one transaction leases and settles."""


class LeaderTasks:
    """All that one process does for all: prepared, started, stopped and finished in this order.

    That may happen again and again, as the lead is gained and lost: each time all parts are new.
    """

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self._loops: list[asyncio.Task[None]] = []
        self._logs: list[Log] = []
        self.workers: list[Worker] = []
        self.upkeep = Upkeep(
            countries_of(context), ledger=context.ledger, database=context.database
        )

    async def prepare(self) -> None:
        """Build the parts by what the database knows, and let `context.leading` be them.

        Raises UnavailableError; then there is nothing to be finished.
        """
        context = self._context
        leading = Leading(Alerter(context.ledger, context.database, context.metrics))
        try:
            known = [channel.id for channel in context.channels]
            await context.database.write(partial(forget_destinations, kept=known), led=True)
            await self._add_verifiers(leading)
            await self._add_relays(leading)
        except BaseException:
            await self._let_go(leading)
            raise
        off = {n for n, of in context.settings.cloud_accounts.items() if not of.check_settings}
        for name, subject in subjects(context, leading):
            every = subject.every_seconds or context.settings.inspector.every_seconds
            every = 0.0 if name in off else every
            leading.inspectors[name] = Inspector(subject, context.ledger, every_seconds=every)
        # The configuration may have been read again meanwhile; from here on there is no await.
        leading.alerter.use(context.channels)
        for name, relay in leading.relays.items():
            relay.use(context.settings.relays[name])
        self._take_over()
        context.leading = leading

    def _take_over(self) -> None:
        """Go by what the former leader found of the clients, until they are asked.

        What this replica noted itself may be of long ago, or nothing at all.
        """
        context = self._context
        for name, report in context.elsewhere.leading.accounts.items():
            side = context.clients.get(name) or context.graphs.get(name)
            if side is not None and (health := report.health) is not None:
                side.reachability.take_over(
                    report.unreachable_since,
                    health.get("last_error"),
                    health.get("gateway_status", "unknown"),
                )

    async def _add_verifiers(self, leading: Leading) -> None:
        context = self._context
        known = await context.database.read(unverified_accounts)
        for name, client in context.clients.items():
            if name in known:
                leading.verifiers[name] = Verifier(
                    name,
                    known[name],
                    client=client,
                    ledger=context.ledger,
                    database=context.database,
                    per_second=context.settings.reconciler.verify_per_second,
                )

    async def _add_relays(self, leading: Leading) -> None:
        """Build the relays, each where it had come to."""
        context = self._context
        configured = context.settings.relays
        epoch = await context.database.read(epoch_of)
        logs: dict[Source, Log] = {}
        for source in {relay.source for relay in configured.values()}:
            if source == "callbacks":
                logs[source] = journal(context.database, lambda: context.settings, epoch)
            else:
                logs[source] = events(context.database, epoch)
        self._logs = [*logs.values()]
        for log in self._logs:
            await log.open(context.ledger)
        for name, settings in configured.items():
            relay = leading.relays[name] = Relay(
                name,
                settings,
                logs[settings.source],
                ledger=context.ledger,
                database=context.database,
                metrics=context.metrics,
            )
            await relay.restore()

    def start(self) -> None:
        """Begin to work."""
        context, leading = self._context, self._need_leading()
        for name, client in context.clients.items():
            self._start_client(name, client)
        for name in context.settings.cloud_accounts:
            # What policy scheduled comes due: it is settled as it is leased, and nobody is called.
            self._add_worker(name, Kind.ACKNOWLEDGE, perform=_never, max_in_flight=LEASED_LOCALLY)
        for inspector in leading.inspectors.values():
            if inspector.wanted:
                self._run(inspector.run())
        for name in leading.verifiers:
            self._run(_verify(context, leading, name))
        for relay in leading.relays.values():
            relay.start()
        self._run(self.upkeep.run())
        issues = partial(context.issues, leading)
        noticer = Noticer(issues, leading.is_settled, context.ledger, context.database)
        self._run(noticer.run())
        recorder = Recorder(leading.relays.values(), context.database)
        self._run(recorder.run())
        leading.alerter.start()
        self._run(Sealer(context.database).run())
        self._run(context.eraser.run(lambda name: share_of(context.settings, name)))
        retention = Retention(
            context.settings.retention,
            context.ledger,
            context.database,
            context.metrics,
            leading.relays.values(),
        )
        if retention.wanted:
            self._run(retention.run())

    def _need_leading(self) -> Leading:
        if self._context.leading is None:
            raise RuntimeError("it is not prepared")
        return self._context.leading

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
        loops, self._loops = self._loops, []
        for task in loops:
            task.cancel()
        relays: list[Relay] = []
        if (leading := self._context.leading) is not None:
            relays = [*leading.relays.values()]
            leading.alerter.stop()
        # All at once: none goes on while another one is waited for.
        await asyncio.gather(
            *(worker.stop() for worker in self.workers),
            *(relay.stop() for relay in relays),
            asyncio.gather(*loops, return_exceptions=True),
        )

    async def finish(self, seconds: float) -> None:
        """Let the work under way end; cut what takes longer. Nothing is left of the parts then."""
        leading = self._context.leading
        if leading is None:
            return
        workers, self.workers = self.workers, []
        await asyncio.gather(
            *(worker.finish(seconds) for worker in workers),
            *(relay.finish(seconds) for relay in leading.relays.values()),
            leading.alerter.finish(seconds),
        )
        self._context.leading = None
        await self._let_go(leading)

    async def _let_go(self, leading: Leading) -> None:
        logs, self._logs = self._logs, []
        for log in logs:
            log.close(self._context.ledger)
        for relay in leading.relays.values():
            await relay.close()


def countries_of(context: AppContext) -> dict[str, str | None]:
    """Return for each account the number whose country holds for those that name none."""
    return {name: one.phone_number for name, one in context.settings.accounts.items()}


def subjects(context: AppContext, leading: Leading) -> Iterator[tuple[str, Subject]]:
    """Return what is to be looked after: settings of accounts, callbacks of apps, keys, and so on.

    It is made of the configuration in force.
    """
    settings = context.settings
    # No account and no app has such a name.
    yield "api.keys", KeysSubject(settings.api.keys, context.ledger)
    for name, client in context.clients.items():
        yield name, ClientSubject(client, context.expected[name])
    for name, graph in context.graphs.items():
        declared = settings.accounts[name].webhook_url is not None
        yield (
            name,
            NumberSubject(
                graph,
                settings.registered_url(name),
                context.noticed,
                declared=declared,
            ),
        )
    for app in settings.apps:
        known_as = in_journal(app)
        names = [known_as, *settings.accounts_of(app).values()]
        yield known_as, AppSubject(known_as, names, context.database, context.noticed)
    for name, relay in leading.relays.items():
        yield f"relay:{name}", RelaySubject(relay, settings)
    for name in settings.accounts:
        minutes = settings.alerts.pending_minutes
        yield f"pending:{name}", PendingSubject(name, minutes, context.database)


async def _never(lease: Lease) -> Outcome:
    """Stand for the call of an account without a client, whose work is settled with its lease."""
    raise TypeError(f"work of the kind {lease.kind} is for accounts with a client")


async def _verify(context: AppContext, leading: Leading, account: str) -> None:
    await leading.verifiers[account].run()
    del leading.verifiers[account]
    context.unverified.pop(account, None)
