"""What is answered while there is no room on the disk to open the database."""

import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import cast

import structlog
from aiohttp import web

from service.api.headers import secure
from service.api.problems import answer
from service.observability.metrics import Metrics
from service.webhooks.handler import expect
from service.webhooks.listener import listen
from service.webhooks.request_ids import identified

WHY = "there is no room on the disk for the database"

log = structlog.get_logger(__name__)


@asynccontextmanager
async def answering(
    addresses: Iterable[tuple[socket.socket, ssl.SSLContext | None]],
) -> AsyncIterator[None]:
    """Say on these addresses that the service lives and is not ready; they stay taken after."""
    app = web.Application(middlewares=[identified])
    app.on_response_prepare.append(secure)
    app.router.add_route("*", "/{path:.*}", _answer, expect_handler=expect)
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    server = cast(web.Server, runner.server)  # there, now that it is set up
    metrics = Metrics()
    listeners = [await listen(server, taken.dup(), tls, metrics) for taken, tls in addresses]
    try:
        for listener in listeners:
            log.info("listening", address=listener.url)
        yield
    finally:
        for listener in listeners:
            listener.server.close()
        await runner.cleanup()


async def _answer(request: web.Request) -> web.Response:
    if request.path == "/health/live":
        return web.json_response({"status": "pass"})
    if request.path in {"/health/ready", "/health/status"}:
        check = {"status": "fail", "detail": WHY}
        status = 503 if request.path == "/health/ready" else 200
        return web.json_response({"status": "fail", "checks": {"database": check}}, status=status)
    return answer(request, 503, WHY)
