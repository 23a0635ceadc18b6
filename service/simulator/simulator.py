"""The simulator: a client and the Cloud API on a real socket, and the acts on them."""

from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from service.simulator import certificate
from service.simulator.acts import Acts
from service.simulator.cloud.cloud import CLOUD, Cloud
from service.simulator.cloud.control import add_cloud_control
from service.simulator.cloud.routes import add_cloud_routes
from service.simulator.control import add_control
from service.simulator.options import Options
from service.simulator.wire.keys import ACTS
from service.simulator.wire.routes import add_routes

MAX_BODY_BYTES = 16 * 1024 * 1024
SHUTDOWN_SECONDS = 1.0


class Simulator(Acts):
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

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
        self.client.closing.clear()
        runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS
        )
        await runner.setup()
        try:
            await self._listen(runner)
        except (OSError, certificate.MissingExtraError):
            await runner.cleanup()
            raise
        self._runner = runner
        self.client.delivery.resume()
        self.cloud.start()

    async def _listen(self, runner: web.AppRunner) -> None:
        tls = None
        if self.options.tls:
            tls = certificate.server_context(certificate.ensure(self.options.var))
        site = web.TCPSite(runner, self.options.host, self._port, ssl_context=tls)
        await site.start()
        self._port = runner.addresses[0][1]

    def _application(self) -> web.Application:
        wire, control, cloud = web.Application(), web.Application(), web.Application()
        wire[ACTS] = control[ACTS] = self
        add_routes(wire)
        add_control(control)
        add_cloud_control(cloud)
        control.add_subapp("/cloud", cloud)
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app[CLOUD] = cloud[CLOUD] = self.cloud
        add_cloud_routes(app)
        app.add_subapp("/v1", wire)
        app.add_subapp("/control", control)
        return app

    async def stop(self) -> None:
        """Close the door, end what hangs, stop delivering; what it knows stays.

        Callbacks that are pending stay while `callback_persist` is on, as on the client's disk.
        """
        runner, self._runner = self._runner, None
        self.client.closing.set()
        self.cloud.closing.set()
        if runner is not None:
            await runner.cleanup()
        await self.client.delivery.pause()
        self.client.delivery.restarted(is_kept=self.settings.callback_persist)
        await self.cloud.stop()
