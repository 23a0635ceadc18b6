"""The gate's answer about a number in any spelling, in plain words; and blocking by hand."""

from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

import orjson
from aiohttp import web
from pydantic import ValidationError

from service.api.auth import CALLER_ROLE
from service.api.gate import GATE, BlockBody, block_named, unblock_named
from service.api.problems import ProblemError, field_problem, from_validation
from service.console.browser import wants_fragment
from service.console.forms import read_form, text_of
from service.console.identities import accounts_of, path_of
from service.console.pages import fragment, page, see_other
from service.model.numbers import MAX_TEXT, own_digits
from service.model.users import usable_alias

MAX_ACCOUNTS = 50
"""Accounts that are asked about a number at once."""


class Answer(NamedTuple):
    """What one account's gate says of a number."""

    account: str
    gate: dict[str, Any]
    path: str | None

    @property
    def is_blocked(self) -> bool:
        """Whether somebody has blocked the number."""
        parts = (*self.gate["reasons"], *self.gate["warnings"])
        return any(reason["code"] == "blocked" for reason in parts)


async def show(request: web.Request) -> web.Response:
    """Show what the gate of each account says of a number."""
    number = request.query.get("number", "").strip()
    wanted = request.query.get("account", "")
    known = accounts_of(request)
    if wanted and wanted not in known:
        raise ProblemError(404, "there is no such account")
    answers: list[Answer] = []
    problem = ""
    if number:
        accounts = ([wanted] if wanted else known)[:MAX_ACCOUNTS]
        answers = [one for one in [await _ask(request, name, number) for name in accounts] if one]
        if not answers and accounts:
            problem = (
                "This can't be a phone number, and nobody is known by it. Try it with its country "
                "code, such as +1 631 555 0100."
            )
    done = request.query.get("done", "")
    values: dict[str, Any] = {
        "number": number,
        "answers": answers,
        "accounts": known,
        "account": wanted,
        "problem": problem,
        "may_decide": request[CALLER_ROLE] in {"operator", "admin"},
        "done": done if done in {"blocked", "unblocked"} else "",
        "here": request.path_qs,
    }
    if wants_fragment(request):
        return fragment(request, "_recipients.html", **values)
    return page(request, "recipients.html", **values)


def _can_be_somebody(number: str) -> bool:
    return len(number) <= MAX_TEXT and (usable_alias(number) or own_digits(number) is not None)


async def _ask(request: web.Request, account: str, number: str) -> Answer | None:
    """Return an account's answer; None where the text can be no recipient."""
    if len(number) > MAX_TEXT:
        return None
    gate = request.app[GATE]
    try:
        answer = orjson.loads(await gate.shown(account, number))
    except ProblemError as error:
        if error.status == 422:  # noqa: PLR2004 - the status says it best
            return None
        raise
    meaning = await gate.meaning(account, number)
    first = [] if meaning.first.user is None else [meaning.first.user]
    users = [user for user in (*first, *meaning.users) if user.state is not None]
    return Answer(account, answer, path_of(account, users[0].alias) if users else None)


async def block(request: web.Request) -> web.Response:
    """Block a number at an account, and show it again."""
    form = await read_form(request)
    number = _number_of(text_of(form, "number"))
    try:
        told = {"reason": text_of(form, "reason").strip(), "until": _end_of(text_of(form, "until"))}
        body = BlockBody.model_validate(told)
    except ValidationError as error:
        raise from_validation(error) from None
    account, _ = await block_named(request, number, body)
    return _back(account, number, "blocked")


async def unblock(request: web.Request) -> web.Response:
    """End the block of a number at an account, and show it again."""
    form = await read_form(request)
    number = _number_of(text_of(form, "number"))
    account, _ = await unblock_named(request, number)
    return _back(account, number, "unblocked")


def _number_of(text: str) -> str:
    number = text.strip()
    if not _can_be_somebody(number):
        raise field_problem(("number", "must be a phone number, or what a user is called"))
    return number


def _end_of(text: str) -> str | None:
    """Return the end of a block, which a browser sends in UTC; raise a 422 for any other text."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).isoformat()
    except ValueError:
        raise field_problem(("until", "must be a day and a time")) from None


def _back(account: str, number: str, done: str) -> web.Response:
    query = urlencode({"number": number, "account": account, "done": done})
    return see_other(f"/console/recipients?{query}")
