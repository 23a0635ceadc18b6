"""The contacts: which numbers are on WhatsApp, what checks may still cost, and checking one."""

from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from aiohttp import web

from service.api import contacts
from service.api.context import app_context, sees
from service.api.params import need_client
from service.api.problems import field_problem
from service.console.asking import answer_of, path_with, query_from
from service.console.forms import read_form, text_of
from service.console.pages import page, page_or_part, see_other
from service.model.numbers import canonical
from service.store.contacts import usage

PATH = "/console/contacts"
SHOWN = 50
STATUSES = {
    "valid": ("good", "On WhatsApp"),
    "invalid": ("bad", "Not on WhatsApp"),
    "processing": ("warn", "Being checked"),
    "failed": ("warn", "No answer"),
}


async def begin(request: web.Request) -> web.Response:
    """Go to the first account whose contacts can be checked; say so where there is none."""
    accounts = _accounts(request)
    if not accounts:
        return page(request, "contacts_none.html")
    return see_other(_path(accounts[0]))


def _accounts(request: web.Request) -> list[str]:
    return [name for name in app_context(request).checkers if sees(request, name)]


def _path(account: str) -> str:
    return f"{PATH}/{quote(account, safe='')}"


async def show(request: web.Request) -> web.Response:
    """Show the contacts of an account, or those of one number in any spelling."""
    account = need_client(request)
    context = app_context(request)
    number = request.query.get("number", "").strip()
    spelled: dict[str, Any] = {}
    if number:
        digits = canonical(number, context.settings.accounts[account].phone_number)
        spelled = {"input": [number], "wa_id": [digits or number]}
    query = query_from(request, contacts.ContactsQuery, limit=str(SHOWN), **spelled)
    listed = await answer_of(request, contacts.list_, query)
    checker, now = context.checkers[account], context.ledger.clock()
    first = checker.budget.first_day(now)
    spent = await context.database.read(partial(usage, account=account, first_day=first))
    cursor = listed["next_cursor"]
    return page_or_part(
        request,
        "contacts.html",
        "_contacts.html",
        account=account,
        accounts={name: _path(name) for name in _accounts(request)},
        contacts=listed["items"],
        statuses=STATUSES,
        number=number,
        budget=checker.budget,
        usage=spent + checker.unwritten,
        needs_opt_in=checker.settings.require_opt_in,
        place=_path(account),
        here=path_with(_path(account), number=number),
        is_later=query.cursor is not None,
        next=cursor and path_with(_path(account), number=number, cursor=cursor),
    )


async def check(request: web.Request) -> web.Response:
    """Have one number checked by the client, and show what it says."""
    account = need_client(request)
    form = await read_form(request)
    number = text_of(form, "number").strip()
    if not number:
        raise field_problem(("number", "is missing"))
    contact: dict[str, Any] = {"input": number}
    at, how = text_of(form, "opt_in_at"), text_of(form, "opt_in_how").strip()
    if at or how:
        contact["opt_in"] = {"at": _day(at), "how": how}
    body = contacts.CheckBody.model_validate({"contacts": [contact], "blocking": "wait"})
    await contacts.check_numbers(request, body, None)
    return see_other(path_with(_path(account), number=number))


def _day(text: str) -> str:
    """Return a day of a form as a time, that of its beginning in UTC."""
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise field_problem(("opt_in_at", "must be a day")) from None
    return day.strftime("%Y-%m-%dT%H:%M:%SZ")
