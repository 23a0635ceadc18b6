"""Graph's routes under `/vNN.N`, and what surrounds each call.

From the outside in: the call is recorded, and answered by a fault, if one applies; an error becomes
Graph's JSON; the access token is checked; the handler answers.
"""

import hmac
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from service.simulator.api import Call
from service.simulator.cloud import handlers
from service.simulator.cloud.answers import CLOUD, GraphError, of_status, read_object
from service.simulator.cloud.cloud import Cloud

Answer = Callable[[Cloud, web.Request], Awaitable[Any]]
"""Returns the payload of a call, or raises a GraphError."""

VERSION = r"/{version:v\d+\.\d+}"
OBJECT = VERSION + "/{id:[0-9]+}"
SLASH = "{slash:/?}"
ROUTES: tuple[tuple[str, str, str, Answer], ...] = (
    ("GET", OBJECT + SLASH, "number", handlers.get_number),
    ("POST", OBJECT + SLASH, "number", handlers.post_number),
    ("POST", OBJECT + "/messages" + SLASH, "messages", handlers.send_message),
    ("POST", OBJECT + "/media" + SLASH, "media", handlers.upload_media),
    ("GET", OBJECT + "/settings" + SLASH, "settings", handlers.get_settings),
    ("POST", OBJECT + "/settings" + SLASH, "settings", handlers.post_settings),
    ("GET", OBJECT + "/subscribed_apps" + SLASH, "subscribed_apps", handlers.get_subscribed),
    ("POST", OBJECT + "/subscribed_apps" + SLASH, "subscribed_apps", handlers.post_subscribed),
    ("DELETE", OBJECT + "/subscribed_apps" + SLASH, "subscribed_apps", handlers.delete_subscribed),
    ("GET", OBJECT + "/phone_numbers" + SLASH, "number", handlers.get_numbers),
    ("*", VERSION + "/{rest:.*}", "unknown", handlers.unknown_path),
)
"""Method, path (with the id of a number or an account), operation as in faults, and handler."""


def add_routes(app: web.Application) -> None:
    """Add the routes of every version, such as `/v25.0`, to an application that has a CLOUD."""
    for method, path, operation, handler in ROUTES:
        app.router.add_route(method, path, _surrounded(operation, handler))


def _surrounded(operation: str, handler: Answer) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        cloud = request.app[CLOUD]
        body: dict[str, Any] = {}
        if operation != "media":
            with suppress(GraphError):
                body = await read_object(request)
        to = body.get("to") or body.get("recipient")
        hash_ = body.get("recipient_identity_key_hash")
        call = Call(
            operation=operation,
            method=request.method,
            path=request.path,
            request_id=cloud.new_request_id(),
            at=cloud.now(),
            wa_id=to.lstrip("+") if isinstance(to, str) else None,
            hash=hash_ if isinstance(hash_, str) else None,
        )

        async def act() -> web.StreamResponse:
            try:
                _check_token(cloud, request)
                answer = web.json_response(await handler(cloud, request))
            except GraphError as error:
                call.outcome = "refused"
                if operation == "messages":
                    cloud.counts["refused"] += 1
                return error.answer()
            call.outcome = "accepted"
            return answer

        return await cloud.answer(request, call, act, _failed)

    return handle


def _check_token(cloud: Cloud, request: web.Request) -> None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    is_right = hmac.compare_digest(token.encode(), cloud.options.access_token.encode())
    if scheme != "Bearer" or not is_right:
        raise of_status(401)


def _failed(status: int) -> web.Response:
    if status >= HTTPStatus.BAD_REQUEST:
        return of_status(status).answer()
    return web.json_response({}, status=status)
