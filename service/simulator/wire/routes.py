"""The table of the client's routes, and what surrounds each call.

From the outside in: the call is recorded and gets its `X-Request-ID`; a fault strikes, if one is
switched on; an error becomes its envelope; the bearer token and the role are checked; the route
answers, unless it needs the Coreapps while they restart.
"""

import json
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web

from service.simulator.answers import WireError, not_ready
from service.simulator.calls import Call
from service.simulator.striking import Strike
from service.simulator.wire import contacts, identity, login, messages, operation
from service.simulator.wire.keys import CALL, answered, client_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

IDENTITY = "/v1/contacts/{wa_id}/identity"
ROUTES: dict[tuple[str, str], tuple[str, Handler]] = {
    ("POST", "/v1/users/login"): ("login", login.login),
    ("GET", IDENTITY): ("identity_get", identity.get_identity),
    ("PUT", IDENTITY): ("identity_put", identity.put_identity),
    ("POST", "/v1/messages"): ("messages", messages.send_message),
    ("POST", "/v1/contacts"): ("contacts", contacts.check_contacts),
    ("GET", "/v1/health"): ("health", operation.get_health),
    ("GET", "/v1/settings/application"): ("settings", operation.get_settings),
    ("PATCH", "/v1/settings/application"): ("settings", operation.patch_settings),
    ("DELETE", "/v1/settings/application"): ("settings", operation.delete_settings),
    ("GET", "/v1/certificates/webhooks/ca"): ("certificates", operation.get_webhook_ca),
    ("POST", "/v1/certificates/webhooks/ca"): ("certificates", operation.post_webhook_ca),
    ("DELETE", "/v1/certificates/webhooks/ca"): ("certificates", operation.delete_webhook_ca),
}
"""By method and path: the operation, as faults and counts name it, and its handler."""

OF_ADMINS = frozenset({"settings", "certificates"})
"""The operations that Meta's pages ask the admin account for."""
OF_COREAPPS = frozenset({"identity_get", "identity_put", "messages", "contacts"})
"""The operations that wait for the Coreapps."""


def add_routes(app: web.Application) -> None:
    """Give the application that is mounted under `/v1` the client's routes."""
    for (method, path), (_, handler) in ROUTES.items():
        app.router.add_route(method, path.removeprefix("/v1"), handler)
    app.middlewares.extend([recorded, struck, enveloped, authenticated, available])


def operation_of(request: web.Request) -> str:
    """Name the operation of a call; `unknown` for a path or method of none."""
    resource = request.match_info.route.resource
    path = "" if resource is None else resource.canonical
    return ROUTES.get((request.method, path), ("unknown", None))[0]


@web.middleware
async def recorded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Record a call, and answer with its request id."""
    calls = client_of(request).calls
    call = request[CALL] = await _call(request)
    calls.begin(call)
    try:
        response = await handler(request)
    finally:
        calls.end(call)
    response.headers["X-Request-ID"] = call.request_id
    return response


async def _call(request: web.Request) -> Call:
    client = client_of(request)
    body = _lenient(await request.read())
    wa_id = request.match_info.get("wa_id") or body.get("to")
    hash_ = body.get("hash")
    return Call(
        operation=operation_of(request),
        method=request.method,
        path=request.path,
        request_id=request.headers.get("X-Request-ID") or client.request_id(),
        at=client.now(),
        wa_id=wa_id if isinstance(wa_id, str) else None,
        hash=hash_ if isinstance(hash_, str) else None,
    )


def _lenient(raw: bytes) -> dict[str, object]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


@web.middleware
async def struck(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let the fault strike that is switched on for this call, if any."""
    client, call = client_of(request), request[CALL]
    fault = client.faults.take(call.operation, call.wa_id)
    strike = Strike(request, call, fault, client.pause)
    return await strike.answer(lambda: handler(request), partial(_false_answer, request))


def _false_answer(request: web.Request, status: int) -> web.Response:
    return _failure(request, WireError(status)) if status >= 400 else answered(request, {}, status)  # noqa: PLR2004 - HTTP's errors begin there


@web.middleware
async def enveloped(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn an error into the client's envelope."""
    try:
        return await handler(request)
    except WireError as error:
        return _failure(request, error)
    except web.HTTPError as error:
        return _failure(request, WireError(error.status))


def _failure(request: web.Request, error: WireError) -> web.Response:
    return answered(request, error.payload(), error.status)


@web.middleware
async def authenticated(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Ask for a bearer token on every call but the login, and for an admin's on some."""
    operation = operation_of(request)
    if operation != "login":
        login.check_bearer(request)
    if operation in OF_ADMINS and not client_of(request).options.admin:
        raise WireError(403)
    return await handler(request)


@web.middleware
async def available(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what needs the Coreapps while they restart."""
    if operation_of(request) in OF_COREAPPS and client_of(request).is_restarting:
        raise not_ready()
    return await handler(request)
