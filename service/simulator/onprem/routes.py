"""The table of the client's routes, and what surrounds each call.

From the outside in: the call is recorded, gets its `X-Request-ID`, and is answered by a fault, if
one applies; an error becomes its envelope; the bearer token and the role are checked; the handler
answers, unless it needs the Coreapps while they restart.
"""

import json
from contextlib import suppress
from functools import partial
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from service.simulator.api import Call
from service.simulator.onprem import handlers
from service.simulator.onprem.answers import CALL, CLIENT, WireError, answer
from service.simulator.onprem.client import Client

IDENTITY = "/v1/contacts/{wa_id}/identity"
SETTINGS = "/v1/settings/application"
WEBHOOK_CA = "/v1/certificates/webhooks/ca"
ROUTES: dict[tuple[str, str], tuple[str, Handler]] = {
    ("POST", "/v1/users/login"): ("login", handlers.login),
    ("GET", IDENTITY): ("identity_get", handlers.get_identity),
    ("PUT", IDENTITY): ("identity_put", handlers.put_identity),
    ("POST", "/v1/messages"): ("messages", handlers.send_message),
    ("POST", "/v1/media"): ("media", handlers.upload_media),
    ("POST", "/v1/contacts"): ("contacts", handlers.check_contacts),
    ("GET", "/v1/health"): ("health", handlers.get_health),
    ("GET", SETTINGS): ("settings", handlers.get_settings),
    ("PATCH", SETTINGS): ("settings", handlers.patch_settings),
    ("DELETE", SETTINGS): ("settings", handlers.delete_settings),
    ("GET", WEBHOOK_CA): ("certificates", handlers.get_webhook_ca),
    ("POST", WEBHOOK_CA): ("certificates", handlers.post_webhook_ca),
    ("DELETE", WEBHOOK_CA): ("certificates", handlers.delete_webhook_ca),
}
"""By method and path: the operation, as faults and counts name it, and its handler."""

ADMIN_OPERATIONS = frozenset({"settings", "certificates"})
"""The operations that Meta's pages ask the admin account for."""
COREAPP_OPERATIONS = frozenset({"identity_get", "identity_put", "messages", "media", "contacts"})
"""The operations that wait for the Coreapps."""


def application(client: Client) -> web.Application:
    """Return the application that is mounted under `/v1`."""
    app = web.Application(middlewares=[recorded, enveloped, authorized])
    app[CLIENT] = client
    for (method, path), (_, handler) in ROUTES.items():
        app.router.add_route(method, path.removeprefix("/v1"), handler)
    return app


@web.middleware
async def recorded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Record a call, let a fault apply to it, and answer with its request id."""
    client = request.app[CLIENT]
    resource = request.match_info.route.resource
    path = "" if resource is None else resource.canonical
    operation = ROUTES.get((request.method, path), ("unknown", None))[0]
    body = None
    if operation != "media":
        with suppress(ValueError, RecursionError):
            body = json.loads(await request.read())
    if not isinstance(body, dict):
        body = {}
    wa_id, hash_ = request.match_info.get("wa_id") or body.get("to"), body.get("hash")
    call = request[CALL] = Call(
        operation=operation,
        method=request.method,
        path=request.path,
        request_id=request.headers.get("X-Request-ID") or client.new_request_id(),
        at=client.now(),
        wa_id=wa_id if isinstance(wa_id, str) else None,
        hash=hash_ if isinstance(hash_, str) else None,
    )

    def failed(status: int) -> web.Response:
        payload = WireError(status).payload() if status >= HTTPStatus.BAD_REQUEST else {}
        return answer(request, payload, status)

    response = await client.answer(request, call, partial(handler, request), failed)
    response.headers["X-Request-ID"] = call.request_id
    return response


@web.middleware
async def enveloped(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn an error into the client's envelope."""
    try:
        return await handler(request)
    except WireError as error:
        return answer(request, error.payload(), error.status)
    except web.HTTPError as error:
        return answer(request, WireError(error.status).payload(), error.status)


@web.middleware
async def authorized(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Require a bearer token but for the login, an admin's for some, and the Coreapps for some."""
    client, operation = request.app[CLIENT], request[CALL].operation
    if operation != "login":
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not client.logins.is_valid(token):
            raise WireError(401)
    if operation in ADMIN_OPERATIONS and not client.options.admin:
        raise WireError(403)
    if operation in COREAPP_OPERATIONS and client.is_restarting:
        raise WireError(503, 1011, "Service not ready")
    return await handler(request)
