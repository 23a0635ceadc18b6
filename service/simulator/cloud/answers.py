"""Graph's answers: the payload alone, or one error (Meta's pages on error handling)."""

import json
import secrets
from http import HTTPStatus
from typing import Any

from aiohttp import web

from service.simulator.cloud import bodies
from service.simulator.cloud.cloud import Cloud

CLOUD = web.AppKey("cloud", Cloud)

INVALID = 100
TOKEN = 190
THROTTLED = 4
UNKNOWN = 1
UNAVAILABLE = 2
NO_SUCH_OBJECT = 33


class GraphError(Exception):
    """A call that fails: the HTTP status and the error."""

    def __init__(
        self,
        status: int,
        code: int,
        message: str,
        *,
        kind: str = "OAuthException",
        subcode: int | None = None,
        details: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.kind = kind
        self.subcode = subcode
        self.details = details

    def answer(self) -> web.Response:
        """Return the error as the wire has it."""
        found: dict[str, Any] = {"message": str(self), "type": self.kind, "code": self.code}
        if self.subcode is not None:
            found["error_subcode"] = self.subcode
        if self.details is not None:
            found["error_data"] = {"messaging_product": "whatsapp", "details": self.details}
        found["fbtrace_id"] = "A" + secrets.token_urlsafe(16)
        return web.json_response({"error": found}, status=self.status)


def invalid(details: str) -> GraphError:
    """Return the error for a parameter that is missing or wrong."""
    return GraphError(400, INVALID, "(#100) Invalid parameter", details=details)


def mismatch() -> GraphError:
    """Return the error for a message with another hash than the user's, where it comes at once."""
    code, title = bodies.MISMATCH_CODE, bodies.TITLES[bodies.MISMATCH_CODE]
    return GraphError(400, code, f"(#{code}) {title}", details="The identity key has changed.")


def no_object(request: web.Request) -> GraphError:
    """Return the error for an id that nothing has, or nothing that the call can be made on."""
    path_id = request.match_info["id"]
    return GraphError(
        400,
        INVALID,
        f"Unsupported {request.method.lower()} request. Object with ID '{path_id}' does not exist, "
        "cannot be loaded due to missing permissions, or does not support this operation.",
        kind="GraphMethodException",
        subcode=NO_SUCH_OBJECT,
    )


def of_status(status: int) -> GraphError:
    """Return an error that goes with an HTTP status."""
    if status == HTTPStatus.UNAUTHORIZED:
        return GraphError(status, TOKEN, "Invalid OAuth access token - Cannot parse access token")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return GraphError(status, THROTTLED, "(#4) Application request limit reached")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return GraphError(status, UNAVAILABLE, "Service temporarily unavailable")
    return GraphError(status, UNKNOWN, "An unknown error occurred")


async def read_object(request: web.Request) -> dict[str, Any]:
    """Read a JSON object; an empty body is an empty one."""
    raw = await request.read()
    try:
        body = json.loads(raw) if raw else {}
    except (ValueError, RecursionError):
        raise invalid("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise invalid("The body is not a JSON object.")
    return body
