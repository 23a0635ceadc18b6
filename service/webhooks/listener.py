"""Listening on an address, and what aiohttp can bound about a connection.

How many connections there are, and how slowly their heads come, is bounded by the proxy in front:
see `docs/operations.md`, "Behind a proxy".
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from service.observability.metrics import Metrics
from service.observability.tally import Tally
from service.webhooks.body import LINGER_SECONDS

BACKLOG = 1024
HANDSHAKE_SECONDS = 10.0
"""How long a TLS handshake may take."""
KEEP_ALIVE_SECONDS = 75.0
"""How long a connection may stay without a request, from its begin and after each answer.

A head that has begun and does not end is no request. Longer than proxies keep theirs open, so that
none sends a callback on a connection that is being closed.
"""
INTERNAL_ERROR = 500
MAX_HEADERS = 64
"""Lines of a head; each may have 8,190 bytes, by aiohttp's own bound."""
CONNECTIONS_LOG = logging.getLogger(f"{__name__}.connections")
"""Where aiohttp says what is wrong with a connection."""

log = structlog.get_logger(__name__)


class StartError(Exception):
    """The service can't listen; the text is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An address that is being served."""

    url: str
    server: asyncio.Server


class _Connection(web.RequestHandler):
    """Speaks HTTP on one connection, and repeats nothing of a request that it can't read.

    aiohttp's own answer shows the line at fault, which may hold a token or a number, and no
    documented parameter leaves it out. So this class, which aiohttp exports and does not document,
    has the one method overridden that makes the answer.
    """

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - what is left out
    ) -> web.StreamResponse:
        """Answer with the status alone, and close the connection.

        What could not be read is logged without its exception, by which `counting_unreadable` knows
        it: the exception's text repeats the line at fault too.
        """
        return super().handle_error(request, status, exc if status >= INTERNAL_ERROR else None)


@contextmanager
def counting_unreadable(metrics: Metrics) -> Iterator[None]:
    """Count the requests that can't be read, instead of letting aiohttp log each as an error.

    Anybody can send thousands of them a second.
    """
    tally = Tally(log, "requests that are no valid HTTP were refused")

    def is_internal_error(record: logging.LogRecord) -> bool:
        if record.exc_info is not None:
            return True
        metrics.unreadable_requests.inc()
        tally.count("unreadable")
        return False

    CONNECTIONS_LOG.addFilter(is_internal_error)
    try:
        yield
    finally:
        CONNECTIONS_LOG.removeFilter(is_internal_error)
        tally.close()


def take_address(key: str, host: str, port: int) -> socket.socket:
    """Take an address without answering anybody yet; `key` is where the configuration names it.

    Raises StartError where it can't be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        taken = socket.socket(family, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        # Only a socket that listens keeps others from taking the same port.
        taken.listen(BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"{key}.port: {host}:{port}: the port is taken") from None
        raise StartError(f"{key}.host: {host}:{port}: {error.strerror}") from None
    return taken


async def listen(
    server: web.Server, taken: socket.socket, tls: ssl.SSLContext | None, metrics: Metrics
) -> Listener:
    """Serve an application on an address that was taken before."""
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {
        "access_log": None,
        "auto_decompress": False,
        "keepalive_timeout": KEEP_ALIVE_SECONDS,
        "lingering_time": LINGER_SECONDS,
        "logger": CONNECTIONS_LOG,
        "max_headers": MAX_HEADERS,
    }
    listening = await loop.create_server(
        lambda: _Connection(server, loop=loop, **options),
        sock=taken,
        ssl=tls,
        ssl_handshake_timeout=None if tls is None else HANDSHAKE_SECONDS,
        backlog=BACKLOG,
    )
    host, port = taken.getsockname()[:2]
    metrics.connections.labels(str(port)).set_function(lambda: len(server.connections))
    return Listener(f"{'http' if tls is None else 'https'}://{host}:{port}", listening)
