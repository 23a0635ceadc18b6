"""The table of pages, from which the router and the navigation are made."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import web

from service.api.problems import ProblemError
from service.console import (
    accounts,
    audit,
    charts,
    contacts,
    decisions,
    identities,
    live,
    recipients,
    relays,
    signin,
    static,
)
from service.console.live import LIVE, Live
from service.console.pages import NAVIGATION, NavItem, see_other
from service.console.signin import HOME, PAGES, SECRET, SIGN_IN, Resource, open_to_all, signed_in
from service.settings import Role
from service.webhooks.handler import expect


class Route(NamedTuple):
    """A page, or what a form of one does; without a role it is there for everybody.

    `title` is what the navigation calls it, in the order of this table.
    """

    method: str
    path: str
    role: Role | None
    resource: Resource
    title: str | None = None


_ACCOUNT = "/console/accounts/{account}"
_IDENTITY = f"{_ACCOUNT}/identities/{{user}}"
_RECIPIENTS = f"{_ACCOUNT}/recipients"
_RELAY = f"{relays.PATH}/{{relay}}"
_CONTACTS = f"{contacts.PATH}/{{account}}"

CONSOLE: tuple[Route, ...] = (
    Route("GET", HOME, "reader", identities.waiting, "Waiting"),
    Route("POST", "/console/decide", "operator", decisions.decide_selected),
    Route("GET", _IDENTITY, "reader", identities.show),
    Route("POST", f"{_IDENTITY}/decide", "operator", identities.decide_one),
    Route("GET", "/console/recipients", "reader", recipients.show, "Numbers"),
    Route("POST", f"{_RECIPIENTS}/block", "operator", recipients.block),
    Route("POST", f"{_RECIPIENTS}/unblock", "operator", recipients.unblock),
    Route("GET", SIGN_IN, None, signin.show),
    Route("POST", SIGN_IN, None, signin.sign_in),
    Route("POST", "/console/sign-out", "reader", signin.sign_out),
    Route("GET", accounts.PATH, "reader", accounts.show, "Accounts"),
    Route("POST", "/console/issues/dismiss", "operator", accounts.dismiss),
    Route("GET", relays.PATH, "reader", relays.show_all, "Relays"),
    Route("GET", _RELAY, "reader", relays.show),
    Route("POST", f"{_RELAY}/pause", "operator", relays.pause),
    Route("POST", f"{_RELAY}/resume", "operator", relays.resume),
    Route("POST", f"{_RELAY}/retry", "operator", relays.retry_dead),
    Route("POST", f"{_RELAY}/deliveries/{{id}}/retry", "operator", relays.retry),
    Route("GET", contacts.PATH, "reader", contacts.begin, "Contacts"),
    Route("GET", _CONTACTS, "reader", contacts.show),
    Route("POST", f"{_CONTACTS}/check", "operator", contacts.check),
    Route("GET", charts.PATH, "reader", charts.show, "Activity"),
    Route("GET", audit.PATH, "reader", audit.show, "Audit"),
    Route("GET", "/console/stream", "reader", live.stream),
    Route("GET", "/console/static/{version}/{name}", None, static.file),
)


async def _to_home(_: web.Request) -> web.Response:
    return see_other(HOME)


async def _nothing(request: web.Request) -> web.StreamResponse:
    """Raise a 405 where other methods of the path are known, else a 404."""
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        if resource.canonical != ANYTHING:
            allowed |= (await resource.resolve(request))[1]
    if allowed:
        raise web.HTTPMethodNotAllowed(request.method, allowed)
    raise ProblemError(404, "there is no such page")


def paths_of_pages(routes: Sequence[Route]) -> re.Pattern[str]:
    """Return what the paths of pages look like that people who are signed in open."""
    pages = (r.path for r in routes if r.method == "GET" and r.role and r.resource != live.stream)
    parts = (re.split(r"\{\w+\}", path) for path in pages)
    return re.compile("|".join("[^/]+".join(map(re.escape, part)) for part in parts))


ANYTHING = "/console/{tail}"


def add_console(app: web.Application, secret: bytes, woken: Live) -> None:
    """Add the pages to an application that has the API; `woken` hears of each commit."""
    app[SECRET] = secret
    app[LIVE] = woken
    app[PAGES] = paths_of_pages(CONSOLE)
    app[NAVIGATION] = tuple(NavItem(r.title, r.path) for r in CONSOLE if r.title is not None)
    app.router.add_get("/console", open_to_all(_to_home))
    for route in CONSOLE:
        handler = (
            open_to_all(route.resource)
            if route.role is None
            else signed_in(route.role, route.resource)
        )
        for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            app.router.add_route(method, route.path, handler, expect_handler=expect)
    nothing = open_to_all(_nothing)
    app.router.add_route("*", "/console/{tail:.*}", nothing, expect_handler=expect)
