"""One running service: started and stopped in the order of flow."""

import asyncio
import gc
import resource
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import cast

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from service.api.auth import counted, loopback_only
from service.api.context import APP_CONTEXT, BODIES, AppContext, app_context
from service.api.gate import GATE, Gate
from service.api.headers import secure
from service.api.problems import problems
from service.api.routes import add_routes
from service.app.background import BackgroundTasks
from service.app.build import api_bodies, build, webhook_handler
from service.app.leading import LeaderTasks
from service.app.reloading import reload
from service.app.replica import Replica
from service.app.waiting import answering
from service.console.live import Live
from service.console.routes import add_console
from service.observability import certificates
from service.observability.logging import configure, count_dropped_lines, flush
from service.observability.metrics import Metrics
from service.settings import ServerSettings, Settings
from service.store.accounts import account_rows, console_secret
from service.store.database import Database, NoRoomError
from service.store.opening import open_database
from service.webhooks.handler import WebhookHandler
from service.webhooks.incoming import in_journal
from service.webhooks.listener import (
    Listener,
    StartError,
    counting_unreadable,
    listen,
    take_address,
)
from service.webhooks.request_ids import identified
from service.workers.alerts import AlertsError, Channel, channels_of

log = structlog.get_logger(__name__)

COLLECT_AFTER = 20_000
"""Objects that may be made, less those let go, before the collector looks at the youngest."""


PART_FOR_ANSWERS = 0.9
"""The part of `server.shutdown_seconds` that answers and calls may take; the database is closed
in the rest."""

MAX_OPEN_FILES = 65_536

AGAIN_SECONDS = 5.0
"""After so long a start on a full disk is tried again."""

Addresses = Sequence[tuple[socket.socket, ssl.SSLContext | None]]


async def serve(settings: Settings, read: Callable[[], Settings], *, migrate: bool = True) -> None:
    """Run the service until SIGTERM or SIGINT. After a SIGHUP put in force what `read` returns.

    Raises StartError or StoreError, one line, where it can't start; nothing is half-started then.
    """
    configure(settings.log.level, settings.log.format)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    hung_up = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    try:
        async with running(settings, migrate=migrate, stop=stop) as service:
            _spare_the_collector()
            reloading = asyncio.create_task(_reload_after(hung_up, service, read))
            await stop.wait()
            reloading.cancel()
            await service.wind_down()
    finally:
        flush()  # before the line that says why it ended, if one follows


async def _reload_after(
    hung_up: asyncio.Event, service: "Service", read: Callable[[], Settings]
) -> None:
    """Read the configuration again after each SIGHUP; those that come meanwhile are one."""
    while True:
        await hung_up.wait()
        hung_up.clear()
        try:
            await service.reload(read)
        except Exception:
            log.exception("reloading the configuration failed")


def _spare_the_collector() -> None:
    """Let the garbage collector look at what is new alone, and less often.

    What the start built stays for good; looking through it again and again cost a tenth of the
    accept rate and most of the slowest hundredth.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 50)


def _raise_file_limit() -> None:
    """Let this process have as many open files as it is allowed to: every connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@asynccontextmanager
async def running(
    settings: Settings, *, migrate: bool = True, stop: asyncio.Event | None = None
) -> AsyncIterator["Service"]:
    """Start the service, and stop it in the end: for `serve`, and for tests in the same loop.

    Once `stop` is set a start that waits for room on the disk waits no longer.
    """
    service = Service(settings, stop or asyncio.Event())
    try:
        await service.start(migrate=migrate)
        yield service
    finally:
        await service.stop()


def _application(context: AppContext) -> web.Application:
    """Make an application without routes."""
    middlewares = [identified, closing, counted, problems]
    if context.settings.open_to_loopback_only:
        middlewares.append(loopback_only)
    app = web.Application(middlewares=middlewares)
    app.on_response_prepare.append(secure)
    app[APP_CONTEXT] = context
    return app


@web.middleware
async def closing(request: web.Request, handler: Handler) -> web.StreamResponse:
    """End a connection with its next answer while the service stops, and say so in the answer.

    The sender then takes another one, instead of finding this one cut.
    """
    response = await handler(request)
    if app_context(request).stopping:
        response.force_close()
    return response


def _add_api(app: web.Application, secret: bytes, live: Live) -> None:
    """Add the API, health and metrics, and the console."""
    app[GATE] = Gate(app[APP_CONTEXT])
    app[BODIES] = api_bodies(app[APP_CONTEXT])
    add_routes(app)
    add_console(app, secret, live)


def _tls_of(server: ServerSettings) -> ssl.SSLContext | None:
    """Return what the service proves itself by; None behind a proxy that does."""
    if server.tls_cert_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server.tls_cert_file, server.tls_key_file)
    return context


def _note_certificate(server: ServerSettings, port: int, metrics: Metrics) -> None:
    """Show when the certificate that was loaded ends, if its form is the usual one."""
    if server.tls_cert_file is not None:
        with suppress(ValueError, IndexError):
            ends_at = certificates.ends_at(server.tls_cert_file)
            metrics.certificate_expiry.labels(str(port)).set(ends_at)


class Service:
    """One running service."""

    def __init__(self, settings: Settings, stop: asyncio.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._stack = AsyncExitStack()
        self._listeners: list[Listener] = []
        self._runners: list[web.AppRunner] = []
        self._ends_at: float | None = None
        self._tls: ssl.SSLContext | None = None
        self._handler: WebhookHandler | None = None
        self._port = 0
        self._channels: list[Channel] = []
        self._live = Live()
        self.context: AppContext | None = None
        self.background: BackgroundTasks | None = None
        self.leader: LeaderTasks | None = None
        self.replica: Replica | None = None

    async def start(self, *, migrate: bool) -> None:
        """Take the addresses and the database, then take callbacks, then begin to work."""
        settings = self._settings
        server = settings.server
        try:
            self._channels = await asyncio.to_thread(channels_of, settings.alerts)
        except AlertsError as error:
            raise StartError(str(error)) from None
        tls = self._tls = _tls_of(server)
        _raise_file_limit()
        outside = self._take_address("server", server.host, server.port)
        inside = None
        if server.internal is not None:
            host, port = server.internal.host, server.internal.port
            inside = self._take_address("server.internal", host, port)
        addresses: Addresses = (
            [(outside, tls)] if inside is None else [(outside, tls), (inside, None)]
        )
        context = await self._open_once_there_is_room(addresses, migrate=migrate)
        if context is None:
            return
        app = _application(context)
        count_dropped_lines(context.metrics.log_lines_dropped.inc)
        handler = self._handler = webhook_handler(context)
        self._stack.callback(handler.close)
        handler.add_routes(app)
        self._stack.enter_context(counting_unreadable(context.metrics))
        secret = await context.database.write(console_secret)
        context.ledger.listeners.append(self._live.notify)
        if inside is None:
            _add_api(app, secret, self._live)
            await self._listen(app, outside, tls)
        else:
            await self._listen(app, outside, tls)
            internal = _application(context)
            _add_api(internal, secret, self._live)
            await self._listen(internal, inside, None)
        self._port = outside.getsockname()[1]
        _note_certificate(server, self._port, context.metrics)
        if self.background is not None and self.replica is not None:
            self.background.start()
            self.replica.start()
        await self._say_started(context.database)
        context.ready = True

    async def _open_once_there_is_room(
        self, addresses: Addresses, *, migrate: bool
    ) -> AppContext | None:
        """Open the database; where the disk is full, say so, and try again until there is room.

        Returns None where the service is stopped meanwhile.
        """
        try:
            return await self._open(migrate=migrate)
        except NoRoomError as error:
            why = str(error)
        log.error("no room on the disk for the database: trying again", error=why)
        async with answering(addresses):
            while not await self._is_stopped_within(AGAIN_SECONDS):
                with suppress(NoRoomError):
                    return await self._open(migrate=migrate)
        return None

    async def _is_stopped_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        return self._stop.is_set()

    async def _open(self, *, migrate: bool) -> AppContext:
        """Open the database, and build the parts around it; nothing is left of what fails."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            database = await open_database(
                settings.database.full_url, migrate=migrate, create=settings.database.may_create
            )
            stack.push_async_callback(database.close)
            context = await build(settings, database, stack)
            context.channels = self._channels
            background, leader = BackgroundTasks(context), LeaderTasks(context)
            await background.look_back()
            stack.push_async_callback(background.close)
            replica = Replica(context, leader)
            stack.push_async_callback(replica.close)
            stack.push_async_callback(leader.finish, 0)
            await replica.join()
            await background.exchange.once()
            await self._stack.enter_async_context(stack.pop_all())
        self.context, self.background, self.leader = context, background, leader
        self.replica = replica
        return context

    async def reload(self, read: Callable[[], Settings]) -> bool:
        """Put in force the settings that `read` returns; return whether that could be done."""
        if self.context is None or self._handler is None:
            return False
        reloaded = await reload(self.context, self._handler, self._tls, read)
        if reloaded:
            _note_certificate(self.context.settings.server, self._port, self.context.metrics)
        return reloaded

    def _take_address(self, key: str, host: str, port: int) -> socket.socket:
        taken = take_address(key, host, port)
        self._stack.callback(taken.close)
        return taken

    async def _listen(
        self,
        app: web.Application,
        taken: socket.socket,
        tls: ssl.SSLContext | None,
    ) -> None:
        runner = web.AppRunner(
            app,
            handle_signals=False,
            # aiohttp waits this long for the handlers, and as long again once they are cancelled.
            shutdown_timeout=PART_FOR_ANSWERS * self._settings.server.shutdown_seconds / 2,
        )
        await runner.setup()
        self._runners.append(runner)
        server = cast(web.Server, runner.server)  # there, now that it is set up
        self._listeners.append(await listen(server, taken, tls, app[APP_CONTEXT].metrics))

    @property
    def urls(self) -> list[str]:
        """The addresses that are served: of the webhooks, and of all else where it is another."""
        return [listener.url for listener in self._listeners]

    async def _say_started(self, database: Database) -> None:
        settings = self._settings
        if settings.open_to_loopback_only:
            log.warning(
                "no API key: only requests from this machine, with nothing forwarded, are answered"
            )
        for line in settings.deprecated_keys():
            log.warning(line)
        known = await database.read(account_rows)
        apps = {in_journal(app) for app in settings.apps}
        for name in sorted(known.keys() - settings.accounts.keys() - apps):
            log.warning("account not configured any more: its work pauses", account=name)
        for url in self.urls:
            log.info("listening", address=url)

    async def wind_down(self) -> None:
        """Say not ready, and let `drain_seconds` pass; `stop` is next."""
        if self.context is None:
            return  # it was stopped before there was room on the disk
        server = self._settings.server
        self._ends_at = time.monotonic() + server.drain_seconds + server.shutdown_seconds
        self.context.ready = False
        self.context.stopping = True
        self.context.hub.close()
        self._live.close()
        log.info("stopping", drain_seconds=server.drain_seconds)
        await asyncio.sleep(server.drain_seconds)

    async def stop(self) -> None:
        """Take no new connections, finish what was accepted, and close everything."""
        for listener in self._listeners:
            listener.server.close()
        if self.context is not None:
            self.context.ready = False
            self.context.stopping = True
            self.context.changes.close()
            self.context.hub.close()
        self._live.close()
        if self.background is not None:
            await self.background.stop()
        finishing = [self._close(runner) for runner in self._runners]
        if self.leader is not None and self.replica is not None:
            await self.replica.stop()
            await self.leader.stop()
            finishing.append(self._hand_over(self.leader, self.replica))
        await asyncio.gather(*finishing)
        await self._stack.aclose()
        if self._ends_at is not None:
            log.info("stopped")

    async def _hand_over(self, leader: LeaderTasks, replica: Replica) -> None:
        """Finish what the leader does, and let another replica lead, whatever is still answered."""
        await leader.finish(self._seconds_left())
        await replica.close()

    async def _close(self, runner: web.AppRunner) -> None:
        """Let the requests that were accepted be answered; cut what takes too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds_left() or None):
                await runner.cleanup()

    def _seconds_left(self) -> float:
        """Return how long may still be waited for answers; 0 where nothing was wound down."""
        if self._ends_at is None:
            return 0.0
        return max(0.0, PART_FOR_ANSWERS * (self._ends_at - time.monotonic()))
