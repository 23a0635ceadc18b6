"""Listening, with a bound on the connections that are open at once."""

import asyncio
import errno
import socket
import ssl

from aiohttp import web

from service.ingress.bodies import LINGER_SECONDS
from service.observability.metrics import Metrics

BACKLOG = 1024
KEEP_ALIVE_SECONDS = 75.0
SILENCE_SECONDS = 10.0
"""How long a new connection may take to send the head of its first request."""

_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)


class SiteError(Exception):
    """The service can't listen; the text is one line for the operator."""


class _Refusing(asyncio.Protocol):
    """Answers a connection too many, and closes it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.write(_REFUSAL)
            transport.close()


class _Speaker(web.RequestHandler):
    """Speaks HTTP on one connection, and never repeats what it can't read.

    aiohttp's own error page shows the line at fault, which may hold anything.
    """

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, and hang up later on who has sent no request by then."""
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(SILENCE_SECONDS, self._hang_up_if_silent)

    def _hang_up_if_silent(self) -> None:
        if self._request_count == 0:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  what is left out
    ) -> web.StreamResponse:
        """Answer with the status alone, and close the connection."""
        return super().handle_error(request, status, exc)


def take_address(key: str, host: str, port: int) -> socket.socket:
    """Take an address, and listen to nobody yet; `key` is where the configuration names it.

    Raises SiteError where it can't be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        taken = socket.socket(family, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen(BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SiteError(f"{key}.port: {host}:{port}: the port is taken") from None
        raise SiteError(f"{key}.host: {host}:{port}: {error.strerror}") from None
    return taken


class BoundedSite:
    """One address that an application is served on."""

    def __init__(self, runner: web.AppRunner, metrics: Metrics, *, max_connections: int) -> None:
        self._runner = runner
        self._metrics = metrics
        self._max_connections = max_connections
        self._server: asyncio.Server | None = None
        self.address = ""

    async def serve(self, taken: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Open the door on an address that was taken before."""
        loop = asyncio.get_running_loop()
        host, self.port = taken.getsockname()[:2]
        self._server = await loop.create_server(
            self._protocol, sock=taken, ssl=tls, backlog=BACKLOG
        )
        self._metrics.connections.labels(str(self.port)).set_function(self._open)
        self.address = f"{'http' if tls is None else 'https'}://{host}:{self.port}"

    def _protocol(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= self._max_connections:
            self._metrics.connections_refused.inc()
            return _Refusing()
        return _Speaker(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # as aiohttp itself passes it
            auto_decompress=False,
            lingering_time=LINGER_SECONDS,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
        )

    def _open(self) -> float:
        server = self._runner.server
        return 0 if server is None else len(server.connections)

    def close(self) -> None:
        """Take no new connections."""
        if self._server is not None:
            self._server.close()
