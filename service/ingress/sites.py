"""Listening, with a bound on the connections that are open at once."""

import asyncio
import errno
import socket
import ssl
from collections import deque
from contextlib import suppress
from typing import Any

import structlog
from aiohttp import web

from service.ingress.bodies import LINGER_SECONDS
from service.observability.metrics import Metrics

BACKLOG = 1024
ACCEPTS_AT_ONCE = 64
"""Connections taken before whoever is connected already has a turn."""
KEEP_ALIVE_SECONDS = 75.0
SILENCE_SECONDS = 10.0
"""How long a new connection may take for its TLS handshake, and for the head of a request."""
MAX_HEAD_BYTES = 16_384
"""What may have come of a request's head without its end; aiohttp bounds each line alone."""
MAX_REFUSED = 256
"""Connections turned away that may take their time to read why."""
REST_SECONDS = 0.5
"""How long no connection is taken once there is no descriptor left."""

_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)
_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)

log = structlog.get_logger(__name__)


class SiteError(Exception):
    """The service can't listen; the text is one line for the operator."""


class _Refusing(asyncio.Protocol):
    """Answers a connection too many, and closes it: where TLS comes first."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes: asking for those would leave it open.
        transport.write(_REFUSAL)  # type: ignore[attr-defined] # a stream's transport can
        transport.close()


class _Speaker(web.RequestHandler):
    """Speaks HTTP on one connection, and never repeats what it can't read.

    aiohttp's own error page shows the line at fault, which may hold anything.
    """

    __slots__ = ("_coming", "_head_bytes", "_heads")

    def __init__(
        self,
        coming: set[asyncio.Protocol],
        *speaking: Any,
        **how: Any,
    ) -> None:
        super().__init__(*speaking, **how)
        self._coming = coming
        self._heads = self._head_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, and hang up later on who has sent no request by then."""
        self._coming.discard(self)
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(SILENCE_SECONDS, self._hang_up_if_silent)

    def _hang_up_if_silent(self) -> None:
        if self._request_count == 0:
            self.force_close()

    def data_received(self, data: bytes) -> None:
        """Let aiohttp read what came; hang up where it is a head without end.

        What follows a head at once is its body, even before anybody has begun to answer it.
        """
        super().data_received(data)
        if self._request_count != self._heads:
            self._heads, self._head_bytes = self._request_count, 0
        elif self._current_request is None and not self._messages:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and self._waiter is not None:
                self._refuse_head()
        else:
            self._head_bytes = 0

    def _refuse_head(self) -> None:
        if self.transport is not None:
            self.transport.write(_HEAD_TOO_LARGE)
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
    """One address that an application is served on.

    It accepts by itself: a server of asyncio's counts a connection only after its TLS handshake,
    and can turn none away before.
    """

    def __init__(
        self,
        runner: web.AppRunner,
        metrics: Metrics,
        *,
        max_connections: int,
    ) -> None:
        self._runner = runner
        self._metrics = metrics
        self._max_connections = max_connections
        self._listener: socket.socket | None = None
        self._tls: ssl.SSLContext | None = None
        self._coming: set[asyncio.Protocol] = set()
        self._refusing: set[asyncio.Protocol] = set()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._refused: deque[socket.socket] = deque()
        self.address = ""

    def serve(self, taken: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Open the door on an address that was taken before."""
        host, self.port = taken.getsockname()[:2]
        self._tls = tls
        self._listener = taken
        taken.setblocking(False)
        self._listen()
        self._metrics.connections.labels(str(self.port)).set_function(self._open)
        self.address = f"{'http' if tls is None else 'https'}://{host}:{self.port}"

    def _listen(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Take the connections that wait, a few at a time."""
        listener = self._listener
        for _ in range(ACCEPTS_AT_ONCE):
            if listener is None:
                return
            try:
                taken, _address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                self._rest(listener, error)
                return
            taken.setblocking(False)
            self._receive(taken)

    def _rest(self, listener: socket.socket, error: OSError) -> None:
        """Take none for a while: what waits would be reported again and again."""
        log.error("no connection can be taken", error=error.strerror)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(REST_SECONDS, self._listen)

    def _receive(self, taken: socket.socket) -> None:
        server = self._runner.server
        if server is not None and self._open() < self._max_connections:
            self._begin(taken, self._speaker(server), self._coming)
            return
        self._metrics.connections_refused.inc()
        if self._tls is None:
            self._refuse(taken)
        elif len(self._refusing) < MAX_REFUSED:
            self._begin(taken, _Refusing(), self._refusing)
        else:
            taken.close()

    def _begin(
        self, taken: socket.socket, protocol: asyncio.Protocol, among: set[asyncio.Protocol]
    ) -> None:
        """Let a protocol have the connection; until then it is counted among its like."""
        among.add(protocol)
        task = asyncio.create_task(self._shake_hands(taken, protocol))
        self._handshakes.add(task)

        def done(_: object) -> None:
            self._handshakes.discard(task)
            among.discard(protocol)

        task.add_done_callback(done)

    async def _shake_hands(self, taken: socket.socket, protocol: asyncio.Protocol) -> None:
        patience = None if self._tls is None else SILENCE_SECONDS
        with suppress(OSError):
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol, taken, ssl=self._tls, ssl_handshake_timeout=patience
            )

    def _refuse(self, taken: socket.socket) -> None:
        """Answer a connection too many.

        It is closed once the next ones came: closing it with its request unread would take the
        answer away from a sender that is still writing.
        """
        try:
            taken.send(_REFUSAL)
            taken.shutdown(socket.SHUT_WR)
        except OSError:
            taken.close()
            return
        self._refused.append(taken)
        if len(self._refused) > MAX_REFUSED:
            self._refused.popleft().close()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._forget, taken)

    def _forget(self, taken: socket.socket) -> None:
        taken.close()
        if self._refused and self._refused[0] is taken:
            self._refused.popleft()

    def _speaker(self, server: web.Server) -> _Speaker:
        return _Speaker(
            self._coming,
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,
            auto_decompress=False,
            lingering_time=LINGER_SECONDS,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
        )

    def _open(self) -> float:
        """Count the connections, those in their handshake too."""
        server = self._runner.server
        return len(self._coming) + (0 if server is None else len(server.connections))

    def close(self) -> None:
        """Take no new connections."""
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        while self._refused:
            self._refused.popleft().close()
        for task in self._handshakes:
            task.cancel()
