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

from service.ledger.ledger import FullError
from service.store.database import FaultError, UnavailableError
from service.webhooks.body import RefusedError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = "5"
_NAME = re.compile(r"[a-z_]{1,32}|\d{1,4}")
_DETAILS = {
    403: "the handshake is refused",
    404: "there is nothing here",
    405: "the path is known, but not with this method",
    413: "the body is too large",
}
"""The details of problems that were raised as a status alone, by aiohttp or the endpoints."""
log = structlog.get_logger(__name__)


class ProblemError(Exception):
    """A request that is answered by a problem; `extra` are further members of it."""

    def __init__(self, status: int, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.extra = extra


def field_problem(*fields: tuple[str, str]) -> ProblemError:
    """Return a 422 that names the fields at fault, each with what is wrong."""
    named = ", ".join(name for name, _ in fields)
    errors = [{"field": name, "message": message} for name, message in fields]
    return ProblemError(422, f"not valid: {named}", errors=errors)


def from_validation(error: ValidationError) -> ProblemError:
    """Return a 422 for what pydantic found, without the values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return field_problem(*((_field(e["loc"]), e["type"].replace("_", " ")) for e in found))


def _field(path: tuple[str | int, ...]) -> str:
    """Return the name of a field; a part that the caller made up only if it looks like a name."""
    parts = [str(part) for part in path]
    return ".".join(part if _NAME.fullmatch(part) else "…" for part in parts) or "body"


def document(status: int, detail: str, **extra: Any) -> dict[str, Any]:
    """Return a problem, to be the answer or to stand in one."""
    title = HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail} | extra


def answer(status: int, detail: str, **extra: Any) -> web.Response:
    """Return a problem as a response."""
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": RETRY_AFTER_SECONDS}}
    if "retry_after" in extra:
        headers[status] = {"Retry-After": str(extra["retry_after"])}
    return web.Response(
        text=json.dumps(document(status, detail, **extra)),
        status=status,
        content_type=MEDIA_TYPE,
        headers=headers.get(status),
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with a problem whatever a handler raises."""
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001  whatever it is, it is answered
        return problem_of(error)


def problem_of(error: Exception) -> web.Response:
    """Return the problem for an exception; an unexpected one is logged."""
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
        case RefusedError() | FullError():
            return _refused_body(error)
        case UnavailableError():
            return _unavailable(error)
    log.error("a request failed", exc_info=error)
    return answer(500, "the service failed; the log tells more")


def _unavailable(error: UnavailableError) -> web.Response:
    """Return the problem for a database that can't be used, with what a person has to see to."""
    if isinstance(error, FaultError):
        return answer(503, str(error), code=error.code)
    return answer(503, "the database can't be used right now")


def _refused_body(error: RefusedError | FullError) -> web.Response:
    """Return the problem for a body that is not read."""
    if isinstance(error, FullError):
        return answer(503, "too many bytes of requests are being received", retry_after=1)
    response = answer(error.status, error.detail)
    if error.close:
        response.force_close()
    return response
