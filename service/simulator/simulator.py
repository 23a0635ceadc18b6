"""The simulator: a client and the Cloud API on a real socket, in this process or as its own."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Self

from aiohttp import web

from service.simulator import certificate
from service.simulator.cloud import control as cloud_control
from service.simulator.cloud import routes as cloud_routes
from service.simulator.cloud.answers import CLOUD
from service.simulator.cloud.cloud import Cloud
from service.simulator.onprem import control as onprem_control
from service.simulator.onprem import routes as onprem_routes
from service.simulator.onprem.client import Client
from service.simulator.options import Options

MAX_BODY_BYTES = 16 * 1024 * 1024
SHUTDOWN_SECONDS = 1.0


class Simulator(Client):
    """A WhatsApp Business API client that listens as its options say.

    `async with Simulator(options) as sim` starts and stops it; so do `start` and `stop`, between
    which it keeps its port and everything that it knows, so that a test can take it away and bring
    it back.
    """

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options or Options())
        self.cloud = Cloud(self.options.cloud)
        """The Cloud API, which has users, faults, counts and settings of its own."""
        self._port = self.options.port
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The port that it listens on, once it has started."""
        return self._port

    @property
    def base_url(self) -> str:
        """Where callers find it, such as `https://127.0.0.1:9090`."""
        host = f"[{self.options.host}]" if ":" in self.options.host else self.options.host
        return f"{'https' if self.options.tls else 'http'}://{host}:{self._port}"

    @property
    def graph_url(self) -> str:
        """Where callers find the Cloud API: its base URL with a version."""
        return f"{self.base_url}/v25.0"

    @property
    def ca_file(self) -> Path:
        """The file that verifies its certificate."""
        return certificate.Files(self.options.var).ca

    async def start(self) -> None:
        """Listen, and deliver what is pending.

        Raise OSError when the port is taken, and MissingExtraError when TLS needs a certificate and
        the extra that makes one isn't installed.
        """
        tls = None
        if self.options.tls:
            tls = certificate.server_context(certificate.ensure(self.options.var))
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app[CLOUD] = self.cloud
        cloud_routes.add_routes(app)
        control = onprem_control.application(self)
        control.add_subapp("/cloud", cloud_control.application(self.cloud))
        app.add_subapp("/v1", onprem_routes.application(self))
        app.add_subapp("/control", control)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        for api in (self, self.cloud):
            api.closing.clear()
        await runner.setup()
        try:
            await web.TCPSite(runner, self.options.host, self._port, ssl_context=tls).start()
        except OSError:
            await runner.cleanup()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner
        for api in (self, self.cloud):
            api.delivery.resume()

    async def stop(self) -> None:
        """Stop listening, end what hangs, stop delivering; what it knows stays.

        Callbacks that are pending stay while `callback_persist` is on, as on the client's disk.
        """
        runner, self._runner = self._runner, None
        for api in (self, self.cloud):
            api.closing.set()
        if runner is not None:
            await runner.cleanup()
        await self.delivery.pause()
        self.lose_unkept()
        self.cloud.webhooks.flush()
        await self.cloud.delivery.pause()


async def serve(options: Options, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, and say where; raise as `Simulator.start` does."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with Simulator(options) as sim:
        say(f"The simulator listens on {sim.base_url}")
        if options.tls:
            say(f"  its CA file is {sim.ca_file}")
        say(f"  callbacks go to {sim.webhook_url or 'nowhere yet: give --webhook'}")
        notified = "on" if sim.settings.show_security_notifications else "off"
        say(f"  show_security_notifications is {notified}")
        say(f"The Cloud API is at {sim.graph_url}")
        cloud_url = sim.cloud.webhook_url or "nowhere yet: give --cloud-webhook"
        say(f"  webhooks go to {cloud_url}")
        await ended.wait()
