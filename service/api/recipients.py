"""The gate: may I write to this user now, and if not, why not? And blocks that a person puts."""

from datetime import datetime
from typing import Annotated

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from service.api.access import CALLER
from service.api.context import rfc3339, services
from service.api.gate import GATE
from service.api.identities import MAX_WAIT_SECONDS, Words
from service.api.problems import ProblemError, field_problem
from service.api.queries import need_account, number, read_body
from service.api.whom import asked_user, user_to_block, user_to_change
from service.ledger.blocks import BlockUser, UnblockUser
from service.model.timeline import LATEST_MS
from service.model.users import by_key

MAX_RECIPIENTS = 1000
Recipient = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_JSON = {"Content-Type": "application/json"}


class LookupBody(BaseModel):
    """Users by their aliases, or phone numbers as the business holds them."""

    model_config = ConfigDict(extra="forbid")
    recipients: Annotated[list[Recipient], Field(max_length=MAX_RECIPIENTS)]


class BlockBody(BaseModel):
    """Why nobody is to write to the user, and until when; without a time until it is ended."""

    model_config = ConfigDict(extra="forbid")
    reason: Words
    until: AwareDatetime | None = None


async def show(request: web.Request) -> web.Response:
    """Give the gate's answer about one user; with `wait`, as soon as it turns sendable."""
    asked = asked_user(request)
    wait = number(request, "wait", at_most=MAX_WAIT_SECONDS, default=0)
    account, gate = need_account(request), request.config_dict[GATE]
    answer = await (gate.wait(account, asked, wait) if wait else gate.one(account, asked))
    return web.Response(body=answer, headers=_JSON)


async def lookup(request: web.Request) -> web.Response:
    """Give the gate's answers about up to 1,000 recipients, in the order of the request."""
    body = await read_body(request, LookupBody)
    account = need_account(request)
    answer = await request.config_dict[GATE].many(account, body.recipients)
    return web.Response(body=answer, headers=_JSON)


async def block(request: web.Request) -> web.Response:
    """Block a user, also one never heard of."""
    body = await read_body(request, BlockBody)
    text, until = asked_user(request), _milliseconds(body.until)
    ledger = services(request).ledger
    if until is not None and not ledger.clock() < until <= LATEST_MS:
        raise field_problem(("until", "a time in the future"))
    account = need_account(request)
    user = await user_to_block(request, account, text)
    note = None if until is None else f"until {rfc3339(until)}"
    by = by_key(request[CALLER])
    await ledger.submit(BlockUser(account, user, body.reason, by, until, note))
    return await _answer(request, account, user)


async def unblock(request: web.Request) -> web.Response:
    """End a person's block of a user."""
    text, account = asked_user(request), need_account(request)
    user = await user_to_change(request, account, text)
    entry = None if user is None else UnblockUser(account, user, by_key(request[CALLER]))
    if entry is None or not await services(request).ledger.submit(entry):
        raise ProblemError(404, "the user is not blocked")
    return await _answer(request, account, entry.alias)


async def _answer(request: web.Request, account: str, user: str) -> web.Response:
    return web.Response(body=await request.config_dict[GATE].one(account, user), headers=_JSON)


def _milliseconds(at: datetime | None) -> int | None:
    """Give Unix milliseconds; a time before the calendar's first second of UTC is long ago."""
    try:
        return None if at is None else int(at.timestamp() * 1000)
    except (OverflowError, ValueError):
        return 0
