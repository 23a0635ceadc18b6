"""What the routes find in the application and in a request."""

import json
from typing import Any

from aiohttp import web

from service.simulator.acts import Acts
from service.simulator.answers import answer, unreadable
from service.simulator.calls import Call
from service.simulator.client import Client

ACTS = web.AppKey("acts", Acts)
CALL = web.RequestKey("call", Call)


def client_of(request: web.Request) -> Client:
    """Return the client that a request speaks to."""
    return request.app[ACTS].client


def answered(request: web.Request, payload: dict[str, Any], status: int = 200) -> web.Response:
    """Answer a payload in the client's envelope."""
    return answer(payload, client_of(request).options.version, status)


async def json_object(request: web.Request) -> dict[str, Any]:
    """Read a JSON object, which needs its media type; WireError when there is none."""
    if request.content_type != "application/json":
        raise unreadable("Content-Type is not application/json.")
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise unreadable("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise unreadable("The body is not a JSON object.")
    return body
