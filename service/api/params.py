"""What a request asks for: its JSON body, its query parameters, its page of a list."""

import base64
import binascii
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, StringConstraints, ValidationError

from service.api.context import BODIES, RESERVATION, app_context
from service.api.problems import ProblemError, field_problem, from_validation

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_BODY_BYTES = 1_048_576
MAX_BODY_SECONDS = 30.0
MAX_ID = 2**63 - 1
MAX_WAIT_SECONDS = 60

FreeText = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]
"""What a person writes for other people."""
RecipientText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""A phone number as the business holds it, or an alias of a user."""

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


async def read_body(request: web.Request, model: type[M]) -> M:
    """Return the JSON body as a model; raise a 400 where it is no JSON, a 422 where it is wrong.

    Raises RefusedError and FullError as well, which are answered 413, 408, 400 and 503.
    """
    raw = await request.app[BODIES].read(request, request[RESERVATION])
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise ProblemError(400, "the body is no JSON") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise from_validation(error) from None


def need_account(request: web.Request) -> str:
    """Return the account that the path names; raise a 404 where there is none."""
    account = request.match_info["account"]
    if account not in app_context(request).settings.accounts:
        raise ProblemError(404, "there is no such account")
    return account


def need_client(request: web.Request) -> str:
    """Return the account that the path names; raise a 404 where there is none with a client."""
    account = need_account(request)
    if account not in app_context(request).clients:
        raise ProblemError(404, "the account is one of the Cloud API, and has no client to ask")
    return account


def number(request: web.Request, name: str, *, at_most: float, default: float) -> float:
    """Return a number of seconds from the query."""
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
    """Return an RFC 3339 time from the query as Unix milliseconds."""
    text = request.query.get(name)
    if text is None:
        return None
    try:
        # An unescaped plus sign of a time zone arrives as a space.
        at = datetime.fromisoformat(text.replace(" ", "+"))
        aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return int(aware.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise field_problem((name, "a time as in RFC 3339")) from None


def choices(request: web.Request, name: str, allowed: frozenset[str]) -> list[str]:
    """Return a list of names from the query: the parameter may be repeated, or hold commas."""
    given = [part for text in request.query.getall(name, []) for part in text.split(",") if part]
    if any(part not in allowed for part in given):
        raise field_problem((name, f"one or more of {', '.join(sorted(allowed))}"))
    return given


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list: at most `limit` items, those that follow the place `after`."""

    limit: int
    after: tuple[int, ...] | None

    @property
    def after_id(self) -> int:
        """The place, in a list that is ordered by one id."""
        return self.after[0] if self.after else 0

    def answer(
        self,
        rows: Sequence[T],
        serialize: Callable[[T], dict[str, Any]],
        place: Callable[[T], tuple[int, ...]],
    ) -> web.Response:
        """Answer with this page of the rows; one row beyond `limit` shows that there are more."""
        items = rows[: self.limit]
        cursor = cursor_of(*place(items[-1])) if len(rows) > self.limit else None
        return listed([serialize(row) for row in items], cursor)


def page(request: web.Request, parts: int) -> Page:
    """Return the page that `limit` and `cursor` name; a cursor has this many numbers."""
    text = request.query.get("limit", str(DEFAULT_LIMIT))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= len("1000") else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise field_problem(("limit", f"a number from 1 to {MAX_LIMIT}"))
    cursor = request.query.get("cursor")
    return Page(limit, None if cursor is None else _read_cursor(cursor, parts))


def cursor_of(*numbers: int) -> str:
    """Return a cursor, in unreserved URL characters."""
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


def listed(items: list[Any], next_cursor: str | None = None) -> web.Response:
    """Answer with a list, or with a page of one."""
    return web.json_response({"items": items, "next_cursor": next_cursor})
