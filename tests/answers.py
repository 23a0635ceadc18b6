"""What the API answers, held against the types from which its description is made."""

import re
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from service.api.openapi import JSON, Answer
from service.api.routes import API, COMPAT, OPEN, PREFIX, SENDING
from service.api.schemas import Problem

_ROUTES = [
    (route.method, re.compile(re.sub(r"{\w+}", "[^/]+", prefix + route.path)), route)
    for prefix, routes in ((PREFIX, API), ("", COMPAT), ("", SENDING), ("", OPEN))
    for route in routes
]


@cache
def _adapter(type_: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_)


def check(method: str, path: str, status: int, media: str, raw: bytes) -> None:
    """Fail where an answer is not as it is described: a member too many, or one of another type."""
    if media == "application/problem+json":
        _adapter(Problem).validate_json(raw, strict=True, extra="forbid")
        return
    bare = path.partition("?")[0]
    found = next((r for m, pattern, r in _ROUTES if m == method and pattern.fullmatch(bare)), None)
    if found is None:
        return
    if found.errors is not None and status >= 400:
        assert status in found.errors.meanings, f"{method} {path} is not described to fail so"
        _adapter(found.errors.type).validate_json(raw, strict=True, extra="forbid")
        return
    answer: Answer = found.answer
    assert status in answer.statuses, f"{method} {path} is not described to answer {status}"
    if answer.media == JSON:
        _adapter(answer.type).validate_json(raw, strict=True, extra="forbid")
