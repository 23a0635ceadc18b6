"""The web applications: the webhook endpoint and the API."""

import ssl

from aiohttp import web

from service.api.auth import counted, loopback_only
from service.api.context import APP_CONTEXT, AppContext
from service.api.gate import GATE, Gate
from service.api.params import MAX_BODY_BYTES
from service.api.problems import problems
from service.api.routes import add_routes
from service.ingress.bodies import BodyReader
from service.ingress.door import Door, entrances, expect
from service.settings import ServerSettings


def application(parts: AppContext) -> web.Application:
    """Make an application without routes."""
    middlewares = [counted, problems]
    if parts.settings.open_to_loopback_only:
        middlewares.append(loopback_only)
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    app[APP_CONTEXT] = parts
    return app


def door_of(parts: AppContext) -> Door:
    """Make the door of all accounts and apps."""
    server = parts.settings.server
    bodies = BodyReader(
        parts.metrics,
        max_body=server.max_body_bytes,
        max_in_flight=server.max_in_flight_bytes,
        timeout_seconds=server.body_timeout_seconds,
    )
    return Door(
        entrances(parts.settings),
        parts.ledger,
        bodies,
        parts.metrics,
        parts.messages,
        parts.identity_checks,
    )


def add_api(app: web.Application, gate: Gate) -> None:
    """Add the API, health and metrics."""
    app[GATE] = gate
    add_routes(app)


def add_door(app: web.Application, door: Door) -> None:
    """Add the door's routes."""
    app.router.add_post("/webhooks/{account}/{token}", door.post, expect_handler=expect)
    app.router.add_post("/webhooks/{account}", door.post, expect_handler=expect)
    app.router.add_get(
        "/webhooks/{account}", door.shake_hands, allow_head=False, expect_handler=expect
    )


def tls_of(server: ServerSettings) -> ssl.SSLContext | None:
    """Give what the server proves itself by; None behind a proxy that does."""
    if server.tls_cert_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server.tls_cert_file, server.tls_key_file)
    return context
