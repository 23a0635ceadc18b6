"""Errors in the shape of the APIs that are sent through: Graph's, and the On-Premises client's.

Whoever sends through Ackgate reads errors as that API gives them. `code` is the one that the API
itself gives with a status, where it says the same; else it is the status, which neither uses. No
error that leaves the outcome open has a code that a sender takes for "try again". The type, or the
title, says that Ackgate refused.
"""

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import NamedTuple

from service.api import schemas

GRAPH = "/graph/"
_ONPREM = re.compile(r"/compat/[^/]*/v1/(?!contacts\b)")
TYPE = "AckgateException"
NO_SUCH_OBJECT = 33
_GRAPH_CODES = {400: 100, 401: 190, 403: 10, 404: 100, 413: 100, 422: 100}
_ONPREM_CODES = {400: 1009, 401: 1005, 403: 1005, 404: 1006, 413: 1025, 422: 1009}


class Refusal(NamedTuple):
    """What an error says: the status, the detail, and the gate's reasons."""

    status: int
    detail: str
    reasons: Sequence[schemas.Reason] = ()


Shape = Callable[[Refusal, str], schemas.GraphFailure | schemas.OnPremisesFailure]
"""Writes a refusal, with the id of the request."""


def shape_of(path: str) -> Shape | None:
    """Return the shape of the errors below a path; None where they are problems (RFC 9457)."""
    if path.startswith(GRAPH):
        return graph_error
    return onprem_error if _ONPREM.match(path) else None


def status_of(status: int) -> int:
    """Return the status that the APIs give: neither knows a 422."""
    return HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status


def graph_error(refusal: Refusal, request_id: str) -> schemas.GraphFailure:
    """Return a refusal as Graph's error."""
    status, detail, reasons = refusal
    data: schemas.GraphErrorData = {"messaging_product": "whatsapp", "details": detail}
    if reasons:
        data["reasons"] = list(reasons)
    code = _GRAPH_CODES.get(status, status)
    error: schemas.GraphError = {
        "message": f"(#{code}) Ackgate: {detail}",
        "type": TYPE,
        "code": code,
        "error_data": data,
        "fbtrace_id": request_id,
    }
    if status == HTTPStatus.NOT_FOUND:
        error["error_subcode"] = NO_SUCH_OBJECT
    return {"error": error}


def onprem_error(refusal: Refusal, request_id: str) -> schemas.OnPremisesFailure:  # noqa: ARG001  has no place there
    """Return a refusal as the client's errors: one for each reason of the gate."""
    status, detail, reasons = refusal
    code = _ONPREM_CODES.get(status, status)
    title = f"Ackgate: {HTTPStatus(status_of(status)).phrase}"
    if not reasons:
        return {"errors": [{"code": code, "title": title, "details": detail}]}
    return {
        "errors": [
            {
                "code": code,
                "title": f"Ackgate: the gate is closed: {reason['code']}",
                "details": reason.get("detail") or reason["clears_when"],
                "reason": reason,
            }
            for reason in reasons
        ]
    }
