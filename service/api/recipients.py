"""The gate: may I write to this user now, and if not, why not?"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Connection

from service.api import shapes
from service.api.problems import field_problem
from service.api.queries import need_account, read_body
from service.api.services import services
from service.model.contacts import Contact
from service.model.gate import Verdict, judge
from service.model.names import usable_alias
from service.store.queries import find_contacts, find_users

MAX_RECIPIENTS = 1000
Recipient = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class LookupBody(BaseModel):
    """Users by their aliases, or phone numbers as they were checked."""

    model_config = ConfigDict(extra="forbid")
    recipients: Annotated[list[Recipient], Field(max_length=MAX_RECIPIENTS)]


async def show(request: web.Request) -> web.Response:
    """Give the gate's answer about one user."""
    asked = request.match_info["user"]
    if not usable_alias(asked):
        raise field_problem(("user", "a wa_id or another alias of a user"))
    account = need_account(request)
    [answer] = await _answers(request, account, [asked])
    return web.json_response(answer)


async def lookup(request: web.Request) -> web.Response:
    """Give the gate's answers about up to 1,000 users, in the order of the request."""
    body = await read_body(request, LookupBody)
    account = need_account(request)
    answers = await _answers(request, account, body.recipients)
    items = [
        {"input": asked} | answer for asked, answer in zip(body.recipients, answers, strict=True)
    ]
    return web.json_response({"items": items})


async def _answers(
    request: web.Request, account: str, asked: Sequence[str]
) -> list[dict[str, Any]]:
    parts = services(request)
    now = parts.ledger.clock()
    client = parts.clients.get(account)
    since = client.reachability.unreachable_since if client else None
    verdicts = await parts.database.read(
        partial(_judge_all, account=account, asked=asked, now=now, unreachable_since=since)
    )
    return [
        _error() if verdict is None else shapes.verdict(account, verdict, now)
        for verdict in verdicts
    ]


def _error() -> dict[str, Any]:
    detail = "neither a usable alias nor a phone number that was checked"
    return {"error": {"type": "about:blank", "title": "Unprocessable Entity", "detail": detail}}


def _judge_all(
    connection: Connection,
    account: str,
    asked: Sequence[str],
    now: int,
    unreachable_since: int | None,
) -> list[Verdict | None]:
    """Judge each recipient; None for one that can be neither an alias nor a checked number."""
    inputs = _by_input(find_contacts(connection, account, inputs=_storable(asked)))
    names = {one: _name(one, inputs) for one in asked}
    aliases = sorted({name for name in names.values() if name is not None})
    users = find_users(connection, account, aliases)
    wa_ids = sorted({users[a].wa_id if a in users else a for a in aliases})
    checked: dict[str, list[Contact]] = {}
    for contact in find_contacts(connection, account, wa_ids=wa_ids):
        checked.setdefault(contact.wa_id or "", []).append(contact)
    verdicts: list[Verdict | None] = []
    for one in asked:
        name, own = names[one], inputs.get(one)
        if name is None and own is None:
            verdicts.append(None)
            continue
        user = users.get(name) if name is not None else None
        wa_id = user.wa_id if user is not None else name
        contacts = [own] if own is not None else checked.get(wa_id or "", [])
        verdicts.append(judge(wa_id, user, contacts, now, unreachable_since))
    return verdicts


def _storable(asked: Sequence[str]) -> list[str]:
    """Leave out what no database can hold."""
    return [one for one in asked if one.isprintable()]


def _by_input(contacts: list[Contact]) -> dict[str, Contact]:
    return {contact.input: contact for contact in contacts}


def _name(asked: str, inputs: dict[str, Contact]) -> str | None:
    """Give the wa_id that the client told for a number, else the alias itself."""
    contact = inputs.get(asked)
    if contact is not None and contact.wa_id is not None:
        return contact.wa_id
    return asked if usable_alias(asked) else None
