"""What a request asks for: its JSON, its fields, its page."""

import base64
import binascii
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from service.api.context import services
from service.api.problems import ProblemError, field_problem, from_validation

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_BODY_BYTES = 1_048_576
MAX_ID = 2**63 - 1

M = TypeVar("M", bound=BaseModel)


async def read_body(request: web.Request, model: type[M]) -> M:
    """Read a JSON body as a model: 400 where it is no JSON, 422 where a field is not valid."""
    raw = await request.read()
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise ProblemError(400, "the body is no JSON") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise from_validation(error) from None


def need_account(request: web.Request) -> str:
    """Give the account that the path names: 404 where there is none."""
    account = request.match_info["account"]
    if account not in services(request).settings.accounts:
        raise ProblemError(404, "there is no such account")
    return account


def need_client(request: web.Request) -> str:
    """Give the account that the path names: 404 where there is none, or none with a client."""
    account = need_account(request)
    if account not in services(request).clients:
        raise ProblemError(404, "the account is one of the Cloud API, and has no client to ask")
    return account


def number(request: web.Request, name: str, *, at_most: float, default: float) -> float:
    """Read a number of seconds from the query."""
    text = request.query.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= at_most:
        raise field_problem((name, f"a number from 0 to {at_most:g}"))
    return value


def moment(request: web.Request, name: str) -> int | None:
    """Read an RFC 3339 time from the query as Unix milliseconds."""
    text = request.query.get(name)
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))
        aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return int(aware.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise field_problem((name, "a time as in RFC 3339")) from None


def choices(request: web.Request, name: str, allowed: frozenset[str]) -> list[str]:
    """Read a list of names from the query: repeated, or with commas in between."""
    given = [part for text in request.query.getall(name, []) for part in text.split(",") if part]
    if any(part not in allowed for part in given):
        raise field_problem((name, f"one or more of {', '.join(sorted(allowed))}"))
    return given


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list: how many, and after which place."""

    limit: int
    after: tuple[int, ...] | None


def page(request: web.Request, parts: int) -> Page:
    """Read `limit` and `cursor`; a cursor has this many numbers."""
    text = request.query.get("limit", str(DEFAULT_LIMIT))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= len("1000") else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise field_problem(("limit", f"a number from 1 to {MAX_LIMIT}"))
    cursor = request.query.get("cursor")
    return Page(limit, None if cursor is None else _read_cursor(cursor, parts))


def cursor_of(*numbers: int) -> str:
    """Write a cursor, in unreserved URL characters."""
    text = ".".join(map(str, numbers)).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _read_cursor(cursor: str, parts: int) -> tuple[int, ...]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, b"-_", validate=True).decode("ascii")
        numbers = tuple(int(part) for part in text.split(".") if len(part) <= len(str(MAX_ID)))
    except (binascii.Error, ValueError):
        numbers = ()
    if len(numbers) != parts or any(abs(n) > MAX_ID for n in numbers):
        raise field_problem(("cursor", "what an earlier page gave as next_cursor"))
    return numbers


def listed(items: list[Any], next_cursor: str | None) -> web.Response:
    """Answer with a page of a list."""
    return web.json_response({"items": items, "next_cursor": next_cursor})
