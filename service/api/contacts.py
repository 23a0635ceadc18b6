"""Contacts: what the client last said of a number, and new checks of numbers."""

import asyncio
import json
from functools import partial
from hashlib import sha256
from typing import Annotated, Any, Literal, NoReturn

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from service.api import serializers
from service.api.auth import CALLER
from service.api.context import AppContext, app_context
from service.api.params import (
    BodyTime,
    FreeText,
    PageQuery,
    RecipientText,
    listed,
    need_account,
    need_client,
    page,
    query_of,
    read_body,
)
from service.api.problems import ProblemError, field_problem
from service.ledger.contacts import AnotherRequest, Key, NoOptIn, OverBudget, Plan
from service.model.contacts import Number, OptIn
from service.model.numbers import canonical
from service.model.users import storable
from service.store.contacts import ContactFilter, Repeat, find_contacts, list_contacts
from service.whatsapp.http import BusyError, CallError
from service.workers.contacts import Checker

MAX_CONTACTS = 1000
MAX_ON_LOOP = 50
"""Up to so many numbers are parsed on the event loop; more would hold it up for too long."""
MAX_KEY_CHARACTERS = 255
AHEAD_MS = 300_000
"""How far an opt-in may lie ahead: clocks differ."""


class OptInBody(BaseModel):
    """When and how the customer agreed to be written to."""

    model_config = ConfigDict(extra="forbid")
    at: BodyTime
    how: FreeText


class ContactBody(BaseModel):
    """One number, with an opt-in of its own."""

    model_config = ConfigDict(extra="forbid")
    input: RecipientText
    opt_in: OptInBody | None = None


def _as_contact(value: Any) -> Any:
    """Return a plain text as a number without an opt-in of its own."""
    return {"input": value} if isinstance(value, str) else value


Given = Annotated[
    ContactBody, BeforeValidator(_as_contact, json_schema_input_type=RecipientText | ContactBody)
]


class CheckBody(BaseModel):
    """Numbers in any dialable format; `opt_in` holds for those that bring none of their own."""

    model_config = ConfigDict(extra="forbid")
    contacts: Annotated[list[Given], Field(min_length=1, max_length=MAX_CONTACTS)]
    blocking: Annotated[
        Literal["wait", "no_wait"],
        Field(description="Whether to wait for all results; `no_wait` if it isn't there."),
    ] = "no_wait"
    force_check: Annotated[
        StrictBool, Field(description="Whether to check again what is known; else it is not.")
    ] = False
    opt_in: OptInBody | None = None


class ContactsQuery(PageQuery):
    """Which contacts to list."""

    input: Annotated[
        list[str],
        Field(
            default_factory=list,
            description="Only these numbers, exactly as they were checked.",
            examples=[["+1 631 555 1001"]],
        ),
    ]
    wa_id: Annotated[
        list[str],
        Field(default_factory=list, description="Only these users.", examples=[["16315551001"]]),
    ]


async def list_(request: web.Request) -> web.Response:
    """Return the contacts with this `input` or this `wa_id`, else all of the account."""
    asked = page(request, 1)
    account = need_account(request)
    query = query_of(request, ContactsQuery)
    inputs, wa_ids = (
        [text for text in texts if storable(text)] for texts in (query.input, query.wa_id)
    )
    if not inputs and not wa_ids and (query.input or query.wa_id):
        return listed([])
    rows = await app_context(request).database.read(
        partial(
            list_contacts,
            wanted=ContactFilter(account, inputs, wa_ids),
            after=asked.after_id,
            limit=asked.limit + 1,
        )
    )
    return asked.answer(rows, lambda row: serializers.contact(row[1]), lambda row: (row[0],))


async def check(request: web.Request) -> web.Response:
    """Have numbers checked by the client; return the contacts in the order of the request."""
    body = await read_body(request, CheckBody)
    return await check_numbers(request, body, _key(request, body))


async def check_numbers(request: web.Request, body: CheckBody, key: Key | None) -> web.Response:
    """Have numbers checked, as a body says; `key` is that of a request that may be repeated."""
    account = need_client(request)
    context = app_context(request)
    numbers = await _numbers(context, account, body)
    checker = context.checkers[account]
    try:
        plan = await checker.check(
            numbers, wait=body.blocking == "wait", force=body.force_check, key=key
        )
    except CallError as error:
        context.metrics.contact_refusals.labels(account, "client").inc()
        _raise_for(error)
    if isinstance(plan, Repeat):
        return _answer(plan.answer or "", repeated=True)
    _refuse(context, checker, plan)
    inputs = list(dict.fromkeys(number.input for number in numbers))
    found = await context.database.read(partial(find_contacts, account=account, inputs=inputs))
    items = [serializers.contact(found[number.input]) for number in numbers]
    answer = json.dumps({"items": items})
    if key is not None:
        await checker.keep_answer(key, answer)
    return _answer(answer)


def _answer(text: str, *, repeated: bool = False) -> web.Response:
    headers = {"Idempotency-Replayed": "true"} if repeated else None
    return web.Response(text=text, content_type="application/json", headers=headers)


def _key(request: web.Request, body: CheckBody) -> Key | None:
    text = request.headers.get("Idempotency-Key")
    if text is None:
        return None
    if not 0 < len(text) <= MAX_KEY_CHARACTERS or not (text.isascii() and text.isprintable()):
        raise field_problem(
            ("Idempotency-Key", f"must be 1 to {MAX_KEY_CHARACTERS} printable characters of ASCII")
        )
    digest = sha256(body.model_dump_json().encode(errors="surrogatepass")).hexdigest()
    return Key(request[CALLER], text, digest)


async def _numbers(context: AppContext, account: str, body: CheckBody) -> list[Number]:
    """Return the numbers of a request, each with its canonical form and its opt-in."""
    country = context.settings.accounts[account].phone_number
    latest = context.ledger.clock() + AHEAD_MS
    wrong = [
        (f"contacts.{place}.input", "can't be stored: it holds NUL or half a character")
        for place, one in enumerate(body.contacts)
        if not storable(one.input)
    ]
    if wrong:
        raise field_problem(*wrong)

    def read() -> list[Number]:
        return [
            Number(
                one.input,
                canonical(one.input, country) or "",
                _opt_in(one.opt_in or body.opt_in, latest),
            )
            for one in body.contacts
        ]

    return read() if len(body.contacts) <= MAX_ON_LOOP else await asyncio.to_thread(read)


def _opt_in(body: OptInBody | None, latest: int) -> OptIn | None:
    if body is None:
        return None
    at = int(body.at.timestamp() * 1000)
    if not 0 <= at <= latest:
        raise field_problem(("opt_in.at", "must be a time that has come"))
    return OptIn(at, body.how)


def _refuse(context: AppContext, checker: Checker, plan: Plan) -> None:
    """Raise the problem of a plan that does nothing."""
    refusals = context.metrics.contact_refusals
    match plan:
        case OverBudget():
            refusals.labels(checker.account, "budget").inc()
            explained = checker.budget.explain(plan.usage)
            raise ProblemError(
                429,
                f"the budget of contact checks does not suffice: this costs {plan.price:g}, and "
                f"{explained}",
                kind="over_budget",
                reason="budget",
            )
        case NoOptIn():
            refusals.labels(checker.account, "opt_in").inc()
            missing = "is needed, and none is known"
            raise field_problem(*((f"contacts.{at}.opt_in", missing) for at in plan.places))
        case AnotherRequest():
            raise field_problem(("Idempotency-Key", "was that of another request"))


def _raise_for(error: CallError) -> NoReturn:
    """Raise the problem of a client that did not answer; the checks stay open, for later."""
    if isinstance(error, BusyError):
        seconds = max(1, round(error.seconds + 0.5))
        raise ProblemError(429, f"the client: {error}", reason="rate", retry_after=seconds)
    status = 504 if error.timed_out else 502
    raise ProblemError(status, f"the client: {error}") from None
