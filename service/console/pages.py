"""Pages: the templates, the headers that all of them bear, and problems as a page."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.api.context import app_context
from service.api.headers import OVER_TLS
from service.api.problems import problem_of
from service.console import words
from service.console.browser import is_secure, wants_fragment
from service.console.static import VERSION
from service.settings import Role

FOLDER = Path(__file__).parent / "templates"
HTML = "text/html"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

JUST_NOW, MINUTE, HOUR, DAY = 5, 60, 3_600, 86_400
FEW_HOURS, FEW_DAYS = 10, 3
"""Up to so many of them the smaller unit is said too."""


class Caller(NamedTuple):
    """Who looks at a page, as it shows that; `form_token` is for its forms."""

    name: str
    role: Role
    form_token: str
    can_sign_out: bool
    sign_out_url: str | None


SIGNED_IN = web.RequestKey("signed_in", Caller)


class NavItem(NamedTuple):
    """An entry of the navigation."""

    title: str
    path: str


NAVIGATION = web.AppKey("console_navigation", tuple[NavItem, ...])


def page(request: web.Request, template: str, *, status: int = 200, **values: Any) -> web.Response:
    """Return a whole page. `values` are what its template shows, beside what all of them have."""
    caller = request.get(SIGNED_IN)
    common = {
        "caller": caller,
        "static": f"/console/static/{VERSION}",
        "navigation": request.app[NAVIGATION] if caller else (),
        "path": request.path,
        "form_token": caller.form_token if caller else "",
    }
    text = _templates().get_template(template).render(**common, **_with_now(request, values))
    return _html(text, status)


def fragment(
    request: web.Request, template: str, *, status: int = 200, **values: Any
) -> web.Response:
    """Return a part of a page, for htmx: a template whose name begins with an underscore."""
    caller = request[SIGNED_IN]
    common = {"caller": caller, "form_token": caller.form_token}
    text = _templates().get_template(template).render(**common, **_with_now(request, values))
    return _html(text, status)


def page_or_part(request: web.Request, template: str, part: str, **values: Any) -> web.Response:
    """Return a whole page, or the part of it that changes where htmx asks for that."""
    if wants_fragment(request):
        return fragment(request, part, **values)
    return page(request, template, **values)


def _with_now(request: web.Request, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"now": app_context(request).ledger.clock(), **values}


def _html(text: str, status: int) -> web.Response:
    return web.Response(text=text, status=status, content_type=HTML, charset="utf-8")


def see_other(path: str) -> web.Response:
    """Send the browser to another page, which it gets."""
    return web.Response(status=303, headers={"Location": path})


def with_headers(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Add to an answer what lets a browser do what the console needs, and nothing more.

    The rest of the headers every answer has: see `service.api.headers`.
    """
    if not response.prepared:
        response.headers["Content-Security-Policy"] = POLICY
        response.headers.setdefault("Vary", "HX-Request")
        if is_secure(request):
            response.headers.update(OVER_TLS)
    return response


def problem_page(request: web.Request, error: Exception) -> web.StreamResponse:
    """Return what an exception comes to, as a page for people."""
    answer = problem_of(request, error)
    told = json.loads(answer.text or "{}")
    values = {
        "status": answer.status,
        "title": _TITLES.get(answer.status, HTTPStatus(answer.status).phrase),
        "detail": _sentence(told.get("detail", "")),
        "errors": told.get("errors", ()),
        "request_id": told.get("request_id", ""),
    }
    if wants_fragment(request) and SIGNED_IN in request:
        response = fragment(request, "_problem.html", **values)
    else:
        response = page(request, "problem.html", **values)
    for name, value in answer.headers.items():
        if name.lower() not in _OF_JSON:  # Allow, Retry-After and others hold for the page
            response.headers[name] = value
    return response


_OF_JSON = frozenset({"content-type", "content-length"})
"""Headers of a problem that say something of its body."""


_TITLES = {
    400: "This could not be read",
    403: "This is not allowed",
    404: "There is nothing here",
    405: "This page takes no such request",
    409: "Something changed meanwhile",
    422: "Something is missing or wrong",
    500: "Something went wrong",
    503: "The service can't do this right now",
}


def _sentence(text: str) -> str:
    """Return a problem's detail as a sentence."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"ago": ago, "lasting": lasting, "utc": utc, "iso": iso, "ms": ms}
    templates.filters |= {"event": words.event_of, "decider": words.decider}
    templates.globals["words"] = words
    return templates


def utc(at: int) -> str:
    """Return a time (Unix ms) as people read it, in UTC."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%-d %B %Y, %H:%M UTC")


def iso(at: int) -> str:
    """Return a time (Unix ms) as programs read it."""
    return datetime.fromtimestamp(at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ms(text: str | None) -> int | None:
    """Return a time of an answer of the API as Unix milliseconds."""
    return None if text is None else round(datetime.fromisoformat(text).timestamp() * 1000)


def ago(at: int, now: int) -> str:
    """Return how long ago a time was, or how far ahead it is."""
    seconds = (now - at) // 1000
    if abs(seconds) < JUST_NOW:
        return "just now"
    return f"{lasting(now - at)} ago" if seconds > 0 else f"in {lasting(at - now)}"


def lasting(milliseconds: int) -> str:
    """Return a length of time in its two largest units at most."""
    seconds = max(0, milliseconds // 1000)
    if seconds < MINUTE:
        return f"{seconds} s"
    if seconds < HOUR:
        return f"{seconds // MINUTE} min"
    if seconds < DAY:
        hours, minutes = divmod(seconds // MINUTE, 60)
        return f"{hours} h {minutes} min" if hours < FEW_HOURS and minutes else f"{hours} h"
    days, hours = divmod(seconds // HOUR, 24)
    unit = "day" if days == 1 else "days"
    return f"{days} {unit} {hours} h" if days < FEW_DAYS and hours else f"{days} {unit}"
