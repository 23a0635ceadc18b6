"""The composition root: builds the parts, and starts and stops them in the order of flow."""

import asyncio
import gc
import json
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import MISSING, asdict, fields
from functools import partial
from typing import Any

import structlog
from aiohttp import web

from service.api.access import counted, loopback_only
from service.api.gate import GATE, Gate
from service.api.problems import problem_of, problems
from service.api.queries import MAX_BODY_BYTES
from service.api.room import Room
from service.api.routes import add_routes
from service.api.services import SERVICES, Changes, Services
from service.ingress import descriptors
from service.ingress.bodies import Intake
from service.ingress.door import Door, address_of, entrances, expect
from service.ingress.kept import Kept, stays_open
from service.ingress.readers import in_journal
from service.ingress.sites import BoundedSite, SiteError, take_address
from service.ledger.leases import Task
from service.ledger.ledger import Ledger
from service.ledger.messages import Messages
from service.ledger.moves import MoveEntry
from service.model.gate import Reason
from service.model.identity_check import IdentityCheck
from service.model.policy import Policies
from service.model.users import AuditEntry, Kind
from service.observability.logs import configure
from service.observability.metrics import Metrics
from service.settings import ServerSettings, Settings
from service.store.database import Database, Transaction
from service.store.queries import account_rows, note_policies
from service.store.sqlite import SQLiteDatabase
from service.store.unverified import unverified_accounts
from service.whatsapp.client import Client
from service.whatsapp.graph import Graph
from service.workers.acknowledger import acknowledge
from service.workers.checker import Checker
from service.workers.cloud_inspector import AppSubject, NumberSubject
from service.workers.health import watch
from service.workers.heartbeat import Heartbeat
from service.workers.inspector import ClientSubject, Inspector, Subject, expected_of
from service.workers.leasing import Outcome, Worker
from service.workers.rechecks import Rechecks, Upkeep
from service.workers.reconciler import ask, sweep
from service.workers.retention import Retention
from service.workers.verifier import Verifier

log = structlog.get_logger(__name__)

StartError = SiteError

COLLECT_AFTER = 20_000
"""Objects that may be made, less those let go, before the collector looks at the youngest."""

LEASED_LOCALLY = 16
"""Pieces of work of an account without a client that come due together, by fours."""


async def serve(settings: Settings, *, migrate: bool = True) -> None:
    """Run the service until SIGTERM or SIGINT.

    Raises StartError or StoreError, one line, where it can't start; nothing is half-started then.
    """
    configure(settings.log.level, settings.log.format)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings, migrate=migrate) as service:
        _spare_the_collector()
        await stop.wait()
        await service.wind_down()


def _spare_the_collector() -> None:
    """Let the garbage collector look at what is new alone, and less often.

    What the start built stays for good; looking through it again and again cost a tenth of the
    accept rate and most of the slowest hundredth.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 50)


@asynccontextmanager
async def running(settings: Settings, *, migrate: bool = True) -> AsyncIterator["Service"]:
    """Start the service, and stop it in the end: for `serve`, and for tests in the same loop."""
    service = Service(settings)
    try:
        await service.start(migrate=migrate)
        yield service
    finally:
        await service.stop()


class Service:
    """One running service."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._workers: list[Worker] = []
        self._loops: list[asyncio.Task[None]] = []
        self._sites: list[BoundedSite] = []
        self._runners: list[web.AppRunner] = []
        self._ends_at: float | None = None
        self._heartbeat: Heartbeat | None = None
        self.parts: Services | None = None
        self.upkeep: Upkeep

    async def start(self, *, migrate: bool) -> None:
        """Take the addresses and the database, then open the door, then begin to work."""
        settings = self._settings
        server = settings.server
        tls = _tls(server)
        descriptors.raise_limit(settings)
        outside = self._take_address("server", server.host, server.port)
        inside = None
        if server.internal is not None:
            host, port = server.internal.host, server.internal.port
            inside = self._take_address("server.internal", host, port)
        database = SQLiteDatabase(settings.database.path)
        await database.open(migrate=migrate)
        self._stack.push_async_callback(database.close)
        policies = {name: settings.policies(name) for name in settings.accounts}
        await database.write(partial(_note_start, policies=policies))
        parts = self._build(database, policies)
        for name in settings.cloud_accounts:
            while await parts.ledger.submit(MoveEntry(name)):
                pass
        await self._add_verifiers(parts)
        await self._begin_heartbeat(parts)
        app = _application(parts)
        door = self._door(parts)
        gate = Gate(parts)
        _add_door(app, door)
        if inside is None:
            _add_api(app, gate)
        await self._listen(app, outside, tls, door, gate if inside is None else None)
        if inside is not None:
            internal = _application(parts)
            _add_api(internal, gate)
            await self._listen(internal, inside, None, None, gate)
        self._start_workers(parts)
        await self._say_started(database)
        parts.ready = True

    def _take_address(self, key: str, host: str, port: int) -> socket.socket:
        taken = take_address(key, host, port)
        self._stack.callback(taken.close)
        return taken

    def _build(self, database: Database, policies: dict[str, Policies]) -> Services:
        settings = self._settings
        metrics = Metrics()
        ledger = Ledger(database, policies, metrics, max_waiting=settings.server.max_queue)
        self._stack.push_async_callback(ledger.close)
        clients = {}
        for name, account in settings.onprem_accounts.items():
            clients[name] = Client(name, account, metrics)
            self._stack.push_async_callback(clients[name].close)
        room = Room(ledger, database, settings.database.path, settings.server.max_body_bytes)
        messages = Messages()
        checkers = {
            name: Checker(
                client,
                settings.onprem_accounts[name].contacts,
                ledger=ledger,
                metrics=metrics,
                messages=messages,
            )
            for name, client in clients.items()
        }
        parts = Services(
            settings, database, ledger, clients, metrics, Changes(), room, messages, checkers
        )
        ledger.listeners.append(parts.changes.hear)
        self._add_graphs(parts)
        every = settings.inspector.every_seconds
        parts.inspectors |= {
            name: Inspector(subject, ledger, every_seconds=every)
            for name, subject in _subjects(parts)
        }
        self.parts = parts
        return parts

    def _add_graphs(self, parts: Services) -> None:
        """For each account of the Cloud API: the way there, and what callbacks tell of it."""
        for name, account in self._settings.cloud_accounts.items():
            graph = parts.graphs[name] = Graph(name, account, parts.metrics)
            parts.identity_checks[name] = IdentityCheck()
            self._stack.push_async_callback(graph.close)

    async def _add_verifiers(self, parts: Services) -> None:
        """Before anybody asks the gate: know which accounts are unverified since a restore."""
        known = await parts.database.read(unverified_accounts)
        parts.verifiers |= {
            name: Verifier(
                name,
                known[name],
                client=client,
                ledger=parts.ledger,
                database=parts.database,
                per_second=self._settings.reconciler.verify_per_second,
            )
            for name, client in parts.clients.items()
            if name in known
        }

    async def _begin_heartbeat(self, parts: Services) -> None:
        def tell(reason: Reason | None) -> None:
            parts.catching_up = reason
            if reason is not None and reason.until is not None and reason.since is not None:
                seconds = (reason.until - reason.since) // 1000
                log.info("catching up after a downtime", at_most=f"{seconds} s")

        self._heartbeat = Heartbeat(parts.ledger, parts.database, tell)
        await self._heartbeat.begin()
        self._stack.push_async_callback(self._heartbeat.beat)

    def _door(self, parts: Services) -> Door:
        server = self._settings.server
        intake = Intake(
            parts.metrics,
            max_body=server.max_body_bytes,
            max_in_flight=server.max_in_flight_bytes,
            timeout_seconds=server.body_timeout_seconds,
        )
        return Door(
            entrances(self._settings),
            parts.ledger,
            intake,
            parts.metrics,
            parts.messages,
            parts.identity_checks,
        )

    async def _listen(
        self,
        app: web.Application,
        taken: socket.socket,
        tls: ssl.SSLContext | None,
        door: Door | None,
        gate: Gate | None,
    ) -> None:
        parts = app[SERVICES]
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        self._runners.append(runner)
        server = runner.server
        if server is not None and not parts.settings.open_to_loopback_only:
            server.request_handler = _plainly(door, gate, server.request_handler)
        site = BoundedSite(
            runner, parts.metrics, max_connections=descriptors.connections(self._settings)
        )
        site.serve(taken, tls)
        self._sites.append(site)

    def _start_workers(self, parts: Services) -> None:
        reconciler = self._settings.reconciler
        for name, client in parts.clients.items():
            for kind, perform in ((Kind.ACKNOWLEDGE, acknowledge), (Kind.ASK, ask)):
                worker = Worker(
                    name,
                    kind,
                    ledger=parts.ledger,
                    database=parts.database,
                    metrics=parts.metrics,
                    perform=partial(perform, client),
                    paused_for=client.paused_for,
                    max_in_flight=client.max_in_flight,
                )
                worker.start()
                self._workers.append(worker)
            sweeping = sweep(
                name,
                parts.ledger,
                after_seconds=reconciler.sweep_after_seconds,
                per_second=reconciler.sweep_per_second,
            )
            self._loops += [asyncio.create_task(sweeping), asyncio.create_task(watch(client))]
        for name in self._settings.cloud_accounts:
            self._work_locally(parts, name)
        self._start_checks(parts)
        self._loops += [asyncio.create_task(i.run()) for i in parts.inspectors.values() if i.wanted]
        self._loops += [asyncio.create_task(_verify(parts, name)) for name in parts.verifiers]
        if self._heartbeat is not None:
            self._loops.append(asyncio.create_task(self._heartbeat.run()))
        retention = Retention(self._settings.retention, parts.ledger, parts.database, parts.metrics)
        if retention.wanted:
            self._loops.append(asyncio.create_task(retention.run()))

    def _work_locally(self, parts: Services, account: str) -> None:
        """Let what policy scheduled come due: nobody is called, for acknowledging is our own."""
        worker = Worker(
            account,
            Kind.ACKNOWLEDGE,
            ledger=parts.ledger,
            database=parts.database,
            metrics=parts.metrics,
            perform=_never,
            paused_for=lambda: 0.0,
            max_in_flight=LEASED_LOCALLY,
        )
        worker.start()
        self._workers.append(worker)

    def _start_checks(self, parts: Services) -> None:
        ledger, database = parts.ledger, parts.database
        for checker in parts.checkers.values():
            self._stack.push_async_callback(checker.close)
            again = Rechecks(checker, ledger=ledger, database=database, metrics=parts.metrics)
            self._loops.append(asyncio.create_task(again.run()))
        countries = {name: one.phone_number for name, one in self._settings.accounts.items()}
        self.upkeep = Upkeep(countries, parts.messages, ledger=ledger, database=database)
        self._loops.append(asyncio.create_task(self.upkeep.run()))
        self._stack.push_async_callback(self.upkeep.finish)

    async def _say_started(self, database: Database) -> None:
        settings = self._settings
        if settings.open_to_loopback_only:
            log.warning(
                "no API key, or an account without webhook token: "
                "only requests from this machine, with nothing forwarded, are answered"
            )
        if (shortage := descriptors.shortage(settings)) is not None:
            log.warning(shortage)
        known = await database.read(account_rows)
        doors = {in_journal(app) for app in settings.apps}
        for name in sorted(known.keys() - settings.accounts.keys() - doors):
            log.warning("account not configured any more: its work pauses", account=name)
        for site in self._sites:
            log.info("listening", address=site.address)

    async def wind_down(self) -> None:
        """Say not ready; after `drain_seconds` take no new connections and finish the rest."""
        server = self._settings.server
        self._ends_at = time.monotonic() + server.drain_seconds + server.shutdown_seconds
        if self.parts is not None:
            self.parts.ready = False
        log.info("stopping", drain_seconds=server.drain_seconds)
        await asyncio.sleep(server.drain_seconds)

    async def stop(self) -> None:
        """Close the door, finish what was accepted, and let go of everything."""
        for site in self._sites:
            site.close()
        if self.parts is not None:
            self.parts.ready = False
            self.parts.changes.close()
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for worker in self._workers:
            await worker.stop()
        await asyncio.gather(
            *(worker.finish(self._seconds_left()) for worker in self._workers),
            *(self._close(runner) for runner in self._runners),
        )
        await self._stack.aclose()
        if self._ends_at is not None:
            log.info("stopped")

    async def _close(self, runner: web.AppRunner) -> None:
        """Let the requests that were accepted be answered; cut what takes too long."""
        seconds = self._seconds_left()
        # aiohttp waits this long for the handlers, and as long again once they are cancelled.
        runner._shutdown_timeout = seconds / 2  # noqa: SLF001  known only now
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds or None):
                await runner.cleanup()

    def _seconds_left(self) -> float:
        """Tell how long may still be waited; a tenth is kept for what comes after."""
        if self._ends_at is None:
            return 0.0
        return max(0.0, 0.9 * (self._ends_at - time.monotonic()))


def _subjects(parts: Services) -> Iterator[tuple[str, Subject]]:
    """Give what is to be looked after: each account's settings, and each app's callbacks."""
    settings = parts.settings
    for name, client in parts.clients.items():
        yield name, ClientSubject(client, expected_of(settings, name))
    public = settings.server.public_url
    for name, graph in parts.graphs.items():
        door = settings.door(name, public) if public else None
        yield name, NumberSubject(graph, door, parts.identity_checks[name])
    for app in settings.apps:
        names = [in_journal(app), *settings.accounts_of(app).values()]
        yield in_journal(app), AppSubject(app, names, parts.database)


async def _never(task: Task) -> Outcome:
    """Stand for the call of an account that has no client: what comes due is settled with it."""
    raise TypeError(f"work of the kind {task.kind} is for accounts with a client")


async def _verify(parts: Services, account: str) -> None:
    await parts.verifiers[account].run()
    del parts.verifiers[account]


def _application(parts: Services) -> web.Application:
    middlewares = [counted, problems]
    if parts.settings.open_to_loopback_only:
        middlewares.append(loopback_only)
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    app[SERVICES] = parts
    return app


Handler = Callable[[Any], Awaitable[Any]]


def _plainly(door: Door | None, gate: Gate | None, otherwise: Handler) -> Handler:
    """Hand callbacks and questions to the gate straight on: the router costs a quarter of them."""
    kept = Kept()

    async def handle(request: web.Request) -> Any:
        if not stays_open(request):
            return await otherwise(request)
        if door is not None and (named := address_of(request)) is not None:
            try:
                refused = await door.take(request, *named)
            except Exception as error:  # noqa: BLE001  whatever it is, it is answered as elsewhere
                return problem_of(error)
            return kept if refused is None else refused
        if gate is not None and (asked := gate.plainly_asked(request)) is not None:
            return await gate.take(request, *asked)
        return await otherwise(request)

    return handle


def _add_api(app: web.Application, gate: Gate) -> None:
    app[GATE] = gate
    add_routes(app)


def _add_door(app: web.Application, door: Door) -> None:
    app.router.add_post("/webhooks/{account}/{token}", door.post, expect_handler=expect)
    app.router.add_post("/webhooks/{account}", door.post, expect_handler=expect)
    app.router.add_get(
        "/webhooks/{account}", door.shake_hands, allow_head=False, expect_handler=expect
    )


def _tls(server: ServerSettings) -> ssl.SSLContext | None:
    if server.tls_cert_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server.tls_cert_file, server.tls_key_file)
    return context


def _note_start(transaction: Transaction, policies: dict[str, Policies]) -> None:
    """Write down in the audit trail which policies changed since the last start."""
    now = time.time_ns() // 1_000_000
    written = [(name, _written(policy)) for name, policy in policies.items()]
    for name in note_policies(transaction.connection, written):
        transaction.add_audit(name, [AuditEntry(now, "policy_changed", reason="configuration")])


def _written(policies: Policies) -> str:
    """Write them as earlier releases did, where what came later is as it was without it."""
    later = {one.name: one.default for one in fields(policies) if one.default is not MISSING}
    written = asdict(policies)
    kept = {k: v for k, v in written.items() if k not in later or v != later[k]}
    return json.dumps(kept, sort_keys=True, default=sorted)
