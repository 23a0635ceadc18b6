"""The envelope of every answer: payload keys at the top, `meta`, and on failure `errors`."""

import json
from typing import Any

from aiohttp import web

from service.simulator.api import Call
from service.simulator.onprem.client import Client

CLIENT = web.AppKey("client", Client)
CALL = web.RequestKey("call", Call)

ERRORS = {
    401: (1005, "Access denied", "Invalid credentials."),
    403: (1005, "Access denied", "Not allowed."),
    404: (1006, "Resource not found", None),
    405: (1006, "Resource not found", "No such method here."),
    409: (1009, "Parameter value is not valid", "Incorrect identity hash provided"),
    413: (1025, "Request is not valid", "The body is too large."),
    429: (1015, "Too many requests", None),
    500: (1014, "Internal error", None),
    503: (1016, "System overloaded", None),
}
"""The error that goes with an HTTP status, by Meta's page on errors."""

GENERIC = (1000, "Generic error", None)


class WireError(Exception):
    """A call that fails: the HTTP status and the error of its envelope."""

    def __init__(
        self, status: int, code: int | None = None, title: str = "", details: str | None = None
    ) -> None:
        usual = ERRORS.get(status, GENERIC)
        self.status = status
        self.code = usual[0] if code is None else code
        self.title = title or usual[1]
        self.details = usual[2] if code is None and details is None else details
        super().__init__(f"{self.code} {self.title}")

    def payload(self) -> dict[str, Any]:
        """Return the error as the wire has it."""
        found: dict[str, Any] = {"code": self.code, "title": self.title}
        if self.details is not None:
            found["details"] = self.details
        return {"errors": [found]}


def required(name: str) -> WireError:
    """Return the error for a parameter that is missing."""
    return WireError(400, 1008, "Required parameter is missing", f"{name} is missing.")


def invalid(name: str, why: str) -> WireError:
    """Return the error for a parameter that has a wrong value."""
    return WireError(400, 1009, "Parameter value is not valid", f"{name}: {why}.")


def unreadable(why: str) -> WireError:
    """Return the error for a request that can't be read."""
    return WireError(400, 1025, "Request is not valid", why)


def answer(request: web.Request, payload: dict[str, Any], status: int = 200) -> web.Response:
    """Answer a payload in the envelope."""
    meta = {"api_status": "stable", "version": request.app[CLIENT].options.version}
    return web.json_response({**payload, "meta": meta}, status=status)


async def read_object(request: web.Request) -> dict[str, Any]:
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
