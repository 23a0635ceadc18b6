"""Errors as `application/problem+json` (RFC 9457), in one place.

No title or detail holds what the caller or a client sent.
"""

import json
import re
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from service.store.database import UnavailableError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = "5"
_NAME = re.compile(r"[a-z_]{1,32}|\d{1,4}")
_DETAILS = {
    403: "the handshake is refused",
    404: "there is nothing here",
    405: "the path is known, but not with this method",
    413: "the body is too large",
}
"""What there is to say where aiohttp, or the door, raised no more than a status."""
log = structlog.get_logger(__name__)


class ProblemError(Exception):
    """An answer other than success. `extra` are further members of the problem."""

    def __init__(self, status: int, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.extra = extra


def field_problem(*fields: tuple[str, str]) -> ProblemError:
    """Make a 422 that names the fields at fault, each with what is wrong."""
    named = ", ".join(name for name, _ in fields)
    errors = [{"field": name, "message": message} for name, message in fields]
    return ProblemError(422, f"not valid: {named}", errors=errors)


def from_validation(error: ValidationError) -> ProblemError:
    """Make a 422 from what pydantic found, without the values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return field_problem(*((_field(e["loc"]), e["type"].replace("_", " ")) for e in found))


def _field(path: tuple[str | int, ...]) -> str:
    """Name a field; one that the caller made up is named only if it looks like a name."""
    parts = [str(part) for part in path]
    return ".".join(part if _NAME.fullmatch(part) else "…" for part in parts) or "body"


def answer(status: int, detail: str, **extra: Any) -> web.Response:
    """Write a problem."""
    title = HTTPStatus(status).phrase
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": RETRY_AFTER_SECONDS}}
    if "retry_after" in extra:
        headers[status] = {"Retry-After": str(extra["retry_after"])}
    return web.Response(
        text=json.dumps(problem | extra),
        status=status,
        content_type=MEDIA_TYPE,
        headers=headers.get(status),
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever goes wrong into a problem."""
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001  whatever it is, it is answered
        return problem_of(error)


def problem_of(error: Exception) -> web.Response:
    """Answer what went wrong; what nobody foresaw is logged."""
    match error:
        case ProblemError():
            return answer(error.status, error.detail, **error.extra)
        case ValidationError():
            invalid = from_validation(error)
            return answer(invalid.status, invalid.detail, **invalid.extra)
        case web.HTTPException():
            detail = _DETAILS.get(error.status, "the request can't be answered")
            response = answer(error.status, detail)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response
        case UnavailableError():
            return answer(503, "the database can't be used right now")
    log.error("a request failed", exc_info=error)
    return answer(500, "the service failed; the log tells more")
