"""Errors as `application/problem+json` (RFC 9457), in one place.

No title or detail holds what the caller or a client sent.
"""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from service.api import wire
from service.api.kinds import USUAL, type_of
from service.api.schemas import ItemProblem
from service.ledger.ledger import FullError
from service.store.database import FaultError, UnavailableError
from service.webhooks.body import RefusedError
from service.webhooks.request_ids import REQUEST_ID

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
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "holds a character that is not allowed",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "int_type": "must be a whole number",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "bool_type": "must be true or false",
    "float_type": "must be a number, given once",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "datetime_from_date_parsing": "must be a time as in RFC 3339",
    "datetime_parsing": "must be a time as in RFC 3339",
    "datetime_object_invalid": "must be a time as in RFC 3339",
    "timezone_aware": "must be a time with an offset",
    "value_error": "{error}",
}
"""What is wrong with a field, by the type of pydantic's error; never with its value.

A `value_error` is raised by a validator of ours, whose words never hold the value either.
"""
_REFUSALS = {400: "broken_off", 401: "wrong_signature"}
log = structlog.get_logger(__name__)


class ProblemError(Exception):
    """A request that is answered by a problem.

    `kind` is one of `KINDS`, by default the usual one of the status; `extra` are further members of
    the problem.
    """

    def __init__(self, status: int, detail: str, *, kind: str | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.extra = extra


def field_problem(*fields: tuple[str, str]) -> ProblemError:
    """Return a 422 that names the fields at fault, each with what is wrong."""
    named = ", ".join(name for name, _ in fields)
    errors = [{"field": name, "message": message} for name, message in fields]
    return ProblemError(422, f"not valid: {named}", errors=errors)


def from_validation(*errors: ValidationError, query: ValidationError | None = None) -> ProblemError:
    """Return a 422 for all that pydantic found, without the values.

    Of what is wrong in a query the parameter is named alone.
    """
    wrong = [(one["loc"][:1], one) for one in _found(query)]
    wrong += [(one["loc"], one) for error in errors for one in _found(error)]
    faults = [(_field(place), _words(one["type"], one.get("ctx", {}))) for place, one in wrong]
    return field_problem(*dict.fromkeys(faults))


def _found(error: ValidationError | None) -> list[Any]:
    return [] if error is None else error.errors(include_url=False, include_input=False)


def _words(type_: str, context: Mapping[str, Any]) -> str:
    return _WORDS.get(type_, "is not valid").format(**context)


def _field(path: tuple[str | int, ...]) -> str:
    """Return the name of a field; a part that the caller made up only if it looks like a name."""
    parts = [str(part) for part in path]
    return ".".join(part if _NAME.fullmatch(part) else "…" for part in parts) or "body"


def document(status: int, detail: str, *, kind: str | None = None, **extra: Any) -> ItemProblem:
    """Return a problem, to be the answer or to stand in one."""
    problem: ItemProblem = {
        "type": type_of(kind or USUAL.get(status, "internal")),
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return cast(ItemProblem, {**problem, **extra})


def answer(
    request: web.Request, status: int, detail: str, *, kind: str | None = None, **extra: Any
) -> web.Response:
    """Return a problem as a response."""
    headers = {"Cache-Control": "no-store"}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status == HTTPStatus.SERVICE_UNAVAILABLE or "retry_after" in extra:
        headers["Retry-After"] = str(extra.get("retry_after", RETRY_AFTER_SECONDS))
    shape = wire.shape_of(request.path)
    if shape is not None:
        return _in_shape(shape, request, status, detail, headers, extra)
    problem = document(status, detail, kind=kind, request_id=request[REQUEST_ID], **extra)
    return web.Response(
        text=json.dumps(problem), status=status, content_type=MEDIA_TYPE, headers=headers
    )


def _in_shape(
    shape: wire.Shape,
    request: web.Request,
    status: int,
    detail: str,
    headers: Mapping[str, str],
    extra: Mapping[str, Any],
) -> web.Response:
    """Return a problem as the API that is sent through says it, with the fields at fault."""
    if errors := extra.get("errors"):
        detail = "; ".join(f"{error['field']} {error['message']}" for error in errors)
    refusal = wire.Refusal(status, detail, extra.get("reasons", ()))
    text = json.dumps(shape(refusal, request[REQUEST_ID]))
    shown = wire.status_of(status)
    return web.Response(text=text, status=shown, content_type="application/json", headers=headers)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with a problem whatever a handler raises."""
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001  whatever it is, it is answered
        return problem_of(request, error)


def problem_of(request: web.Request, error: Exception) -> web.Response:
    """Return the problem for an exception; an unexpected one is logged."""
    match error:
        case ProblemError():
            return answer(request, error.status, error.detail, kind=error.kind, **error.extra)
        case ValidationError():
            return problem_of(request, from_validation(error))
        case web.HTTPException():
            return _of_status(request, error)
        case RefusedError() | FullError():
            return _of_refusal(request, error)
        case UnavailableError():
            return _unavailable(request, error)
    log.error("a request failed", exc_info=error)
    return answer(request, 500, "the service failed; the log tells more")


def _unavailable(request: web.Request, error: UnavailableError) -> web.Response:
    """Return the problem for a database that can't be used, with what a person has to see to."""
    if isinstance(error, FaultError):
        return answer(request, 503, str(error), code=error.code)
    return answer(request, 503, "the database can't be used right now")


def _of_refusal(request: web.Request, error: RefusedError | FullError) -> web.Response:
    """Return the problem for a body that was not taken, or a callback."""
    if isinstance(error, FullError):
        detail = "too many bytes of requests are being received"
        return answer(request, 503, detail, retry_after=1)
    response = answer(request, error.status, error.detail, kind=_REFUSALS.get(error.status))
    response.headers.update(error.headers or {})
    if error.close:
        response.force_close()
    return response


def _of_status(request: web.Request, error: web.HTTPException) -> web.Response:
    """Return the problem for what was raised as a status alone."""
    detail = _DETAILS.get(error.status, "the request can't be answered")
    kind = "verification_refused" if error.status == HTTPStatus.FORBIDDEN else None
    response = answer(request, error.status, detail, kind=kind)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
