"""What a request asks for: its JSON body, its query parameters, its page of a list."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, Any, TypeVar, get_origin

from aiohttp import web
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)

from service.api.context import BODIES, RESERVATION, app_context, sees
from service.api.problems import ProblemError, field_problem, from_validation
from service.model.users import storable

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_BODY_BYTES = 1_048_576
MAX_BODY_SECONDS = 30.0
MAX_ID = 2**63 - 1
MAX_WAIT_SECONDS = 60
SCOPE_BYTES = 6
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII
)

FreeText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00]*$"),
    Field(examples=["called back"]),
]
"""What a person writes for other people."""
RecipientText = Annotated[
    str, StringConstraints(min_length=1, max_length=256), Field(examples=["+1 631-556-7001"])
]
"""A phone number as the business holds it, or an alias of a user."""


def _written(value: Any) -> Any:
    """Return a time in a body if it is written as in RFC 3339: a bare number could be anything."""
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        return value
    raise ValueError("must be a time as in RFC 3339, with an offset")


BodyTime = Annotated[
    AwareDatetime, BeforeValidator(_written), Field(examples=["2026-12-24T00:00:00Z"])
]

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


async def read_body(request: web.Request, model: type[M]) -> M:
    """Return the JSON body as a model; raise a 400 where it is no JSON, a 422 where it is wrong.

    Raises RefusedError and FullError as well, which are answered 413, 408, 400 and 503.
    """
    try:
        return await _read_body(request, model)
    except ValidationError as error:
        raise from_validation(error) from None


async def _read_body(request: web.Request, model: type[M]) -> M:
    raw = await request.app[BODIES].read(request, request[RESERVATION])
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise ProblemError(400, "the body is no JSON") from None
    return model.model_validate(value)


async def faults_of_body(request: web.Request, model: type[BaseModel]) -> list[ValidationError]:
    """Return what is wrong with the JSON body, beside what else is; raise a 400 for no JSON."""
    try:
        await _read_body(request, model)
    except ValidationError as error:
        return [error]
    return []


def need_account(request: web.Request) -> str:
    """Return the account that the path names; raise a 404 where there is none for the caller."""
    account = request.match_info["account"]
    if account not in app_context(request).settings.accounts or not sees(request, account):
        raise ProblemError(404, "there is no such account", kind="no_such_account")
    return account


def need_client(request: web.Request) -> str:
    """Return the account that the path names; raise a 404 where there is none with a client."""
    account = need_account(request)
    if account not in app_context(request).clients:
        detail = "the account is one of the Cloud API, and has no client to ask"
        raise ProblemError(404, detail, kind="no_client")
    return account


# The query


def _moment(text: Any) -> int:
    """Return an RFC 3339 time as Unix milliseconds; one without an offset is UTC."""
    try:
        # An unescaped plus sign of a time zone arrives as a space.
        at = datetime.fromisoformat(text.replace(" ", "+"))
        aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return int(aware.timestamp() * 1000)
    except (AttributeError, ValueError, OverflowError):
        raise ValueError("must be a time as in RFC 3339") from None


def _whole(text: Any) -> Any:
    """Return the digits of a whole number as one: no other spelling is taken."""
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= len("1000"):
        return int(text)
    raise ValueError(f"must be a number from 1 to {MAX_LIMIT}")


def _parts(texts: list[str]) -> list[str]:
    """Return the names of a parameter that may be repeated, or hold commas."""
    return [part for text in texts for part in text.split(",") if part]


QueryTime = Annotated[
    int, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})
]
# The bounds stand before the validator: behind it the description would not know them as bounds.
Limit = Annotated[
    int,
    Field(ge=1, le=MAX_LIMIT, description="How many items at most.", examples=[100]),
    BeforeValidator(_whole),
]
Names = BeforeValidator(_parts)


def _searchable(text: str) -> str:
    """Return what a database can be asked for: what none can hold matches nothing."""
    return text if storable(text) else "\N{REPLACEMENT CHARACTER}"


FilterText = Annotated[str, AfterValidator(_searchable)]
"""What the rows of a list have to have."""


class Query(BaseModel):
    """The query of a route that takes no parameter; those of the others are made from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WaitQuery(Query):
    """How long to wait for the outcome."""

    wait: Annotated[
        float,
        Field(
            ge=0,
            le=MAX_WAIT_SECONDS,
            allow_inf_nan=False,
            description="For how many seconds to wait for the outcome.",
            examples=[0.5],
        ),
    ] = 0


class PageQuery(Query):
    """Which page of a list."""

    limit: Limit = DEFAULT_LIMIT
    cursor: Annotated[
        str | None, Field(description="The `next_cursor` of an earlier page of the same list.")
    ] = None


QUERY = web.RequestKey("query", Query)
Q = TypeVar("Q", bound=Query)


def query_of(request: web.Request, model: type[Q]) -> Q:
    """Return the query of a request, which was read before its resource was called."""
    query = request[QUERY]
    if not isinstance(query, model):
        raise TypeError(f"the route takes no {model.__name__}")
    return query


def read_query(request: web.Request, model: type[Query]) -> Query:
    """Return the query as a model; raise ValidationError for an unknown or a wrong parameter."""
    given: dict[str, Any] = {}
    for name in request.query:
        values = request.query.getall(name)
        field = model.model_fields.get(name)
        is_list = field is not None and get_origin(field.annotation) is list
        given[name] = values if is_list or len(values) > 1 else values[0]
    return model.model_validate(given)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list: at most `limit` items, those that follow the place `after`."""

    limit: int
    after: tuple[int, ...] | None
    scope: str

    @property
    def after_id(self) -> int:
        """The place, in a list that is ordered by one id."""
        return self.after[0] if self.after else 0

    def answer(
        self,
        rows: Sequence[T],
        serialize: Callable[[T], Mapping[str, Any]],
        place: Callable[[T], tuple[int, ...]],
    ) -> web.Response:
        """Answer with this page of the rows; one row beyond `limit` shows that there are more."""
        items = rows[: self.limit]
        cursor = _cursor(place(items[-1]), self.scope) if len(rows) > self.limit else None
        return listed([serialize(row) for row in items], cursor)


def page(request: web.Request, parts: int) -> Page:
    """Return the page of a list that the query names; a cursor has this many numbers."""
    query = query_of(request, PageQuery)
    scope = _scope(request, query)
    after = None if query.cursor is None else _read_cursor(query.cursor, parts, scope)
    return Page(query.limit, after, scope)


def _scope(request: web.Request, query: PageQuery) -> str:
    """Return a short digest of the list and its filters, for which alone a cursor is good."""
    filters = query.model_dump(exclude={"limit", "cursor"})
    told = [
        (name, sorted(value) if isinstance(value, list) else value)
        for name, value in filters.items()
    ]
    whole = repr((request.path, told)).encode(errors="replace")
    return blake2b(whole, digest_size=SCOPE_BYTES).hexdigest()


def _cursor(numbers: tuple[int, ...], scope: str) -> str:
    """Return a cursor, in unreserved URL characters."""
    text = ".".join([*map(str, numbers), scope]).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _read_cursor(cursor: str, parts: int, scope: str) -> tuple[int, ...]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, b"-_", validate=True).decode("ascii")
        *given, of = text.split(".")
        numbers = tuple(int(part) for part in given if len(part) <= len(str(MAX_ID)))
    except (binascii.Error, ValueError):
        numbers, of = (), scope
    if of != scope:
        raise field_problem(("cursor", "is that of another list, or of other filters"))
    if len(numbers) != parts or any(abs(n) > MAX_ID for n in numbers):
        raise field_problem(("cursor", "must be what an earlier page gave as next_cursor"))
    return numbers


def listed(items: Sequence[Mapping[str, Any]], next_cursor: str | None = None) -> web.Response:
    """Answer with a list, or with a page of one."""
    return web.json_response({"items": items, "next_cursor": next_cursor})
