"""The table of routes, from which the router and `openapi.json` are made."""

import inspect
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from service import __version__
from service.api import accounts, compat, contacts, gate, health, identities, issues, journal
from service.api.auth import Resource, guarded
from service.api.problems import MEDIA_TYPE, ProblemError
from service.settings import Role
from service.webhooks.handler import expect
from service.webhooks.signatures import HEADER as SIGNATURE

PREFIX = "/api/v1"
ANYTHING = PREFIX + "/{tail}"


@dataclass(frozen=True, slots=True)
class Route:
    """One route; `role` is None where no key is needed."""

    method: str
    path: str
    role: Role | None
    resource: Resource
    body: type[BaseModel] | None = None
    query: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The first line of the resource's docstring."""
        return (inspect.getdoc(self.resource) or "").splitlines()[0]


_PAGE = ("limit", "cursor")
_IDENTITY = "/accounts/{account}/identities/{user}"
_BLOCK = "/accounts/{account}/recipients/{user}/block"

API: tuple[Route, ...] = (
    Route("GET", "/status", "reader", accounts.status),
    Route("GET", "/accounts", "reader", accounts.list_),
    Route("GET", "/accounts/{account}", "reader", accounts.show),
    Route(
        "GET",
        "/identities",
        "reader",
        identities.list_,
        query=("state", "account", "updated_since", *_PAGE),
    ),
    Route(
        "POST",
        "/identities/acknowledge",
        "operator",
        identities.acknowledge_many,
        identities.ManyBody,
    ),
    Route("GET", _IDENTITY, "reader", identities.show),
    Route(
        "POST",
        f"{_IDENTITY}/acknowledge",
        "operator",
        identities.acknowledge,
        identities.DecisionBody,
        ("wait",),
    ),
    Route("POST", f"{_IDENTITY}/hold", "operator", identities.hold, identities.DecisionBody),
    Route("POST", f"{_IDENTITY}/refresh", "operator", identities.refresh),
    Route(
        "GET",
        "/accounts/{account}/contacts",
        "reader",
        contacts.list_,
        query=("input", "wa_id", *_PAGE),
    ),
    Route("POST", "/accounts/{account}/contacts", "operator", contacts.check, contacts.CheckBody),
    Route("GET", "/accounts/{account}/recipients/{user}", "gate", gate.show, query=("wait",)),
    Route("POST", "/accounts/{account}/recipients/lookup", "gate", gate.lookup, gate.LookupBody),
    Route("PUT", _BLOCK, "operator", gate.block, gate.BlockBody),
    Route("DELETE", _BLOCK, "operator", gate.unblock),
    Route("GET", "/issues", "reader", issues.list_),
    Route("DELETE", "/issues/{code}", "operator", issues.dismiss, query=issues.FILTERS),
    Route("GET", "/journal", "reader", journal.list_, query=("state", "account", *_PAGE)),
    Route("GET", "/journal/{id}", "reader", journal.show),
    Route("POST", "/journal/{id}/replay", "admin", journal.replay),
    Route("GET", "/audit", "reader", journal.audit, query=("account", "event", *_PAGE)),
)


_SAME = "/compat/{account}/v1/contacts/{wa_id}/identity"

COMPAT: tuple[Route, ...] = (
    Route("GET", _SAME, "reader", compat.show),
    Route("PUT", _SAME, "operator", compat.acknowledge, compat.HashBody),
)


WEBHOOKS: tuple[tuple[str, str, str], ...] = (
    ("POST", "/webhooks/{account}/{token}", "Take a callback of the WhatsApp client."),
    (
        "POST",
        "/webhooks/{account}",
        "Take a callback of an account without a token, or a signed one of an app's (Cloud API).",
    ),
    ("GET", "/webhooks/{account}", "Answer the handshake of an app of the Cloud API."),
)
"""The routes of the webhook endpoint, described with the others; none takes a key."""

_HANDSHAKE = ("hub.mode", "hub.verify_token", "hub.challenge")


async def openapi(_: web.Request) -> web.Response:
    """Return this description of the API."""
    return web.Response(text=_description(), content_type="application/json")


@cache
def _description() -> str:
    """Make the description once: it takes milliseconds, and anybody may ask for it."""
    return json.dumps(describe())


OPEN: tuple[Route, ...] = (
    Route("GET", "/health/live", None, health.live),
    Route("GET", "/health/ready", None, health.ready),
    Route("GET", "/health/status", None, health.status),
    Route("GET", "/metrics", None, health.metrics),
    Route("GET", "/openapi.json", None, openapi),
)


async def _nothing(request: web.Request) -> web.StreamResponse:
    """Raise a 405 where other methods of the path are known, else a 404."""
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        if resource.canonical != ANYTHING:
            allowed |= (await resource.resolve(request))[1]
    if allowed:
        raise web.HTTPMethodNotAllowed(request.method, allowed)
    raise ProblemError(404, "there is no such route")


def add_routes(app: web.Application) -> None:
    """Add the API, health and metrics to an application."""
    for prefix, routes in ((PREFIX, API), ("", COMPAT)):
        for route in routes:
            handler = guarded(route.role or "gate", route.resource)
            _add(app, route.method, prefix + route.path, handler)
    nothing = guarded("gate", _nothing)
    app.router.add_route("*", f"{PREFIX}/{{tail:.*}}", nothing, expect_handler=expect)
    for route in OPEN:
        _add(app, route.method, route.path, route.resource)


def _add(app: web.Application, method: str, path: str, handler: Handler) -> None:
    """Add a route; HEAD works where GET does."""
    for known in ("GET", "HEAD") if method == "GET" else (method,):
        app.router.add_route(known, path, handler, expect_handler=expect)


def describe() -> dict[str, Any]:
    """Return the API as OpenAPI 3.1."""
    paths: dict[str, Any] = {}
    for prefix, routes in ((PREFIX, API), ("", COMPAT), ("", OPEN)):
        for route in routes:
            operation = paths.setdefault(prefix + route.path, {})
            operation[route.method.lower()] = _operation(route)
    for method, path, summary in WEBHOOKS:
        paths.setdefault(path, {})[method.lower()] = _webhook(method, path, summary)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Ackgate", "version": __version__},
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _described(summary: str, path: str, query: tuple[str, ...], answer: str) -> dict[str, Any]:
    in_path = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return {
        "summary": summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in in_path
        ]
        + [{"name": name, "in": "query", "schema": {"type": "string"}} for name in query],
        "responses": {
            "200": {"description": "the answer", "content": {answer: {}}},
            "default": {"description": "a problem (RFC 9457)", "content": {MEDIA_TYPE: {}}},
        },
    }


def _webhook(method: str, path: str, summary: str) -> dict[str, Any]:
    if method == "GET":
        return _described(summary, path, _HANDSHAKE, "text/plain")
    described = _described(summary, path, (), "application/json")
    if not path.endswith("{token}"):
        header = {"name": SIGNATURE, "in": "header", "schema": {"type": "string"}}
        described["parameters"].append(header)
    return described | {"requestBody": {"required": True, "content": {"application/json": {}}}}


def _operation(route: Route) -> dict[str, Any]:
    described = _described(route.summary, route.path, route.query, "application/json")
    if route.role is not None:
        described["security"] = [{"key": []}]
        described["x-role"] = route.role
    if route.body is not None:
        schema = route.body.model_json_schema()
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return described
