"""The accounts: how each does, what is wrong with it, and what to do about that."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aiohttp import web

from service.api import accounts, issues
from service.console.asking import answer_of
from service.console.forms import read_form, text_of
from service.console.pages import page_or_part, see_other
from service.console.titles import place_of, title_of
from service.model.account_checks import PAST

PATH = "/console/accounts"
DONE = {"dismissed": "Dismissed. It comes back if it happens again."}


class Condition(NamedTuple):
    """How an account does: `level` is good, warn or bad."""

    level: str
    words: str


async def show(request: web.Request) -> web.Response:
    """Show the accounts, with all issues before them."""
    found = (await answer_of(request, issues.list_))["items"]
    known = (await answer_of(request, accounts.list_))["items"]
    return page_or_part(
        request,
        "accounts.html",
        "_accounts.html",
        accounts=[{**one, "condition": condition(one, found)} for one in known],
        issues=[*map(_issue, _by_weight(found))],
        done=DONE.get(request.query.get("done", "")),
    )


def condition(account: dict[str, Any], found: Iterable[dict[str, Any]]) -> Condition:
    """Return how an account does, as its answer and the issues tell."""
    health, login = account["health"], account["login"]
    if health is not None and not health["reachable"]:
        return Condition("bad", "Does not answer")
    if login is not None and login["state"] == "refused":
        return Condition("bad", "Login refused")
    warnings = [
        one
        for one in found
        if one["account"] == account["account"] and one["severity"] == "warning"
    ]
    if warnings:
        return Condition("warn", f"{len(warnings)} to look at")
    if account["unverified"] is not None:
        return Condition("warn", "Being checked after a restore")
    if account["last_callback_at"] is None:
        return Condition("warn", "No callback yet")
    return Condition("good", "Works")


def _by_weight(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the issues, those that are no alarm last."""
    return sorted(found, key=lambda one: one["severity"] != "warning")


def _issue(found: dict[str, Any]) -> dict[str, Any]:
    return {
        **found,
        "title": title_of(found["code"]),
        "place": place_of(found["code"], found["subject"]),
        "can_go": found["code"] in PAST,
    }


async def dismiss(request: web.Request) -> web.Response:
    """Dismiss an issue whose cause is past."""
    form = await read_form(request)
    which = issues.DismissalQuery(
        account=text_of(form, "account"), subject=text_of(form, "subject")
    )
    await issues.dismiss_those(request, text_of(form, "code"), which)
    return see_other(f"{PATH}?done=dismissed")
