"""The table of routes, from which the router and `docs/openapi.json` are made."""

from collections.abc import Callable
from functools import cache
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import JsonValue

from service.api import (
    accounts,
    compat,
    contacts,
    events,
    gate,
    health,
    identities,
    issues,
    journal,
    pages,
    privacy,
    relays,
    sending,
)
from service.api import schemas as s
from service.api.auth import guarded
from service.api.openapi import (
    FILE,
    FORM,
    IDEMPOTENCY_KEY,
    LAST_EVENT_ID,
    SIGNATURE,
    VERIFICATION,
    Answer,
    Errors,
    Route,
    describe,
)
from service.api.params import Query, WaitQuery
from service.api.problems import ProblemError
from service.api.wire import graph_error, onprem_error
from service.dialects.sends import CloudMessage, OnPremisesMessage, ReadMark
from service.webhooks.handler import WebhookHandler, expect

PREFIX = "/api/v1"
ANYTHING = PREFIX + "/{tail}"

_IDENTITY = "/accounts/{account}/identities/{user}"
_RECIPIENTS = "/accounts/{account}/recipients"
_LOOKUP = f"{_RECIPIENTS}/lookup"
_BLOCK = f"{_RECIPIENTS}/{{user}}/block"
_USER = "/accounts/{account}/users/{user}"
_RELAY = "/relays/{relay}"
_CONTACTS = "/accounts/{account}/contacts"

_UNCACHED = ("Cache-Control",)
_GATE = Answer(type=s.GateAnswer, headers=_UNCACHED)
_SENDER = ("other_spelling", "several_users")
_DECISION = ("no_identity", "another_hash", *_SENDER)
_CLIENT = ("no_client", "client_failed", "client_too_slow")

API: tuple[Route, ...] = (
    Route("GET", "/status", "reader", accounts.status, None, Query, Answer(type=s.Status)),
    Route("GET", "/accounts", "reader", accounts.list_, None, Query, Answer(type=s.AccountList)),
    Route(
        "GET", "/accounts/{account}", "reader", accounts.show, None, Query, Answer(type=s.Account)
    ),
    Route(
        "GET",
        "/identities",
        "reader",
        identities.list_,
        query=identities.IdentitiesQuery,
        answer=Answer(type=s.IdentityList),
    ),
    Route(
        "GET",
        _IDENTITY,
        "reader",
        identities.show,
        query=Query,
        answer=Answer(type=s.IdentityWithHistory),
        problems=("no_identity",),
    ),
    Route(
        "POST",
        "/identities/acknowledge",
        "operator",
        identities.acknowledge_many,
        identities.ManyBody,
        Query,
        Answer(type=s.DecidedIdentities),
    ),
    Route(
        "POST",
        f"{_IDENTITY}/acknowledge",
        "operator",
        identities.acknowledge,
        identities.DecisionBody,
        WaitQuery,
        Answer(type=s.Identity, statuses=(200, 202)),
        _DECISION,
    ),
    Route(
        "POST",
        f"{_IDENTITY}/hold",
        "operator",
        identities.hold,
        identities.DecisionBody,
        Query,
        Answer(type=s.Identity),
        (*_DECISION, "too_late"),
    ),
    Route(
        "POST",
        f"{_IDENTITY}/refresh",
        "operator",
        identities.refresh,
        query=Query,
        answer=Answer(type=s.Identity),
        problems=("no_identity", "several_users", *_CLIENT),
    ),
    Route(
        "GET",
        _CONTACTS,
        "reader",
        contacts.list_,
        query=contacts.ContactsQuery,
        answer=Answer(type=s.ContactList),
    ),
    Route(
        "POST",
        _CONTACTS,
        "operator",
        contacts.check,
        contacts.CheckBody,
        Query,
        Answer(type=s.CheckedContacts, headers=("Idempotency-Replayed",)),
        ("over_budget", "over_rate", *_CLIENT),
        (IDEMPOTENCY_KEY,),
    ),
    # Before the route below, which would take it for a user.
    Route(
        "POST",
        _LOOKUP,
        "gate",
        gate.lookup,
        gate.LookupBody,
        Query,
        Answer(type=s.LookupAnswers, headers=_UNCACHED),
    ),
    Route("GET", f"{_RECIPIENTS}/{{user}}", "gate", gate.show, None, WaitQuery, _GATE),
    Route("PUT", _BLOCK, "operator", gate.block, gate.BlockBody, Query, _GATE, _SENDER),
    Route(
        "DELETE",
        _BLOCK,
        "operator",
        gate.unblock,
        query=Query,
        answer=_GATE,
        problems=("not_blocked", *_SENDER),
    ),
    Route(
        "POST",
        f"{_USER}/erase",
        "admin",
        privacy.erase,
        query=Query,
        answer=Answer(type=s.Erased),
        problems=_SENDER,
    ),
    Route(
        "GET",
        f"{_USER}/export",
        "admin",
        privacy.export,
        query=Query,
        answer=Answer(type=s.Exported, headers=_UNCACHED),
        problems=_SENDER,
    ),
    Route("GET", "/issues", "reader", issues.list_, None, Query, Answer(type=s.IssueList)),
    Route(
        "DELETE",
        "/issues/{code}",
        "operator",
        issues.dismiss,
        query=issues.DismissalQuery,
        answer=Answer(type=s.IssueList),
        problems=("no_such_issue", "issue_stands"),
    ),
    Route(
        "GET",
        "/journal",
        "reader",
        journal.list_,
        query=journal.JournalQuery,
        answer=Answer(type=s.JournalList),
    ),
    Route(
        "GET",
        "/journal/{id}",
        "reader",
        journal.show,
        query=Query,
        answer=Answer(type=s.JournalEntryWithBody),
        problems=("no_such_entry",),
    ),
    Route(
        "POST",
        "/journal/{id}/replay",
        "admin",
        journal.replay,
        query=Query,
        answer=Answer(type=s.JournalEntry),
        problems=("no_such_entry",),
    ),
    Route("GET", "/relays", "reader", relays.list_, None, Query, Answer(type=s.RelayList)),
    Route(
        "GET",
        _RELAY,
        "reader",
        relays.show,
        query=Query,
        answer=Answer(type=s.Relay),
        problems=("no_such_relay",),
    ),
    Route(
        "POST",
        f"{_RELAY}/pause",
        "operator",
        relays.pause,
        query=Query,
        answer=Answer(type=s.Relay),
        problems=("no_such_relay",),
    ),
    Route(
        "POST",
        f"{_RELAY}/resume",
        "operator",
        relays.resume,
        query=Query,
        answer=Answer(type=s.Relay),
        problems=("no_such_relay",),
    ),
    Route(
        "POST",
        f"{_RELAY}/test",
        "operator",
        relays.test,
        query=Query,
        answer=Answer(type=s.RelayTest),
        problems=("no_such_relay",),
    ),
    Route(
        "GET",
        f"{_RELAY}/deliveries",
        "reader",
        relays.deliveries,
        query=relays.DeliveriesQuery,
        answer=Answer(type=s.DeliveryList),
        problems=("no_such_relay",),
    ),
    # Before the route of one delivery, which has as many parts.
    Route(
        "POST",
        f"{_RELAY}/deliveries/retry",
        "operator",
        relays.retry_dead,
        query=Query,
        answer=Answer(type=s.Count, statuses=(202,)),
        problems=("no_such_relay",),
    ),
    Route(
        "POST",
        f"{_RELAY}/deliveries/{{id}}/retry",
        "operator",
        relays.retry,
        query=Query,
        answer=Answer(type=s.Count, statuses=(202,)),
        problems=("no_such_relay", "no_such_delivery"),
    ),
    Route(
        "POST",
        f"{_RELAY}/replay",
        "admin",
        relays.replay,
        relays.RangeBody,
        Query,
        Answer(type=s.Count, statuses=(202,)),
        ("no_such_relay",),
    ),
    Route(
        "GET",
        "/events",
        "reader",
        events.follow,
        query=events.EventsQuery,
        answer=Answer(type=s.EventList, streams=True, headers=_UNCACHED),
        more=(LAST_EVENT_ID,),
    ),
    Route(
        "GET",
        "/audit",
        "reader",
        journal.audit,
        query=journal.TrailQuery,
        answer=Answer(type=s.TrailList),
    ),
)


_SAME = "/compat/{account}/v1/contacts/{wa_id}/identity"

COMPAT: tuple[Route, ...] = (
    Route(
        "GET",
        _SAME,
        "reader",
        compat.show,
        answer=Answer(type=s.OnPremisesContacts),
        problems=("no_identity",),
    ),
    Route(
        "PUT",
        _SAME,
        "operator",
        compat.acknowledge,
        compat.HashBody,
        answer=Answer(type=s.Empty),
        problems=(*_DECISION, "not_acknowledged"),
    ),
)


_MEANINGS = {
    400: "It can't be read in one way alone, or the API refuses it",
    401: "An API key is needed; or the API refuses the account's login",
    403: "The role of the key is too low; or only this machine is answered",
    404: "There is no such account or phone number",
    408: "The body took too long",
    409: "The gate is closed; nothing was sent",
    413: "The body is too large",
    429: "The API takes no more now",
    500: "The service failed",
    502: "There was no usable answer; it is not known whether it was sent",
    503: "Nothing was sent; it can be tried again",
    504: "There was no answer in time; it is not known whether it was sent",
}
_GRAPH = Errors(s.GraphFailure, graph_error, _MEANINGS)
_ONPREM = Errors(s.OnPremisesFailure, onprem_error, _MEANINGS)

SENDING: tuple[Route, ...] = (
    Route(
        "POST",
        "/graph/{version}/{phone_number_id}/messages",
        "sender",
        sending.send_cloud,
        CloudMessage | ReadMark,
        answer=Answer(type=s.GraphSent),
        errors=_GRAPH,
    ),
    Route(
        "POST",
        "/graph/{version}/{phone_number_id}/media",
        "sender",
        sending.upload_cloud,
        answer=Answer(type=s.GraphUploaded),
        errors=_GRAPH,
        upload=FORM,
    ),
    Route(
        "POST",
        "/compat/{account}/v1/messages",
        "sender",
        sending.send_onprem,
        OnPremisesMessage,
        answer=Answer(type=s.OnPremisesSent),
        errors=_ONPREM,
    ),
    Route(
        "POST",
        "/compat/{account}/v1/media",
        "sender",
        sending.upload_onprem,
        answer=Answer(type=s.OnPremisesUploaded),
        errors=_ONPREM,
        upload=FILE,
    ),
)
"""The routes that send through; there is no other below /graph/, and none to administer by."""


WEBHOOKS: tuple[Route, ...] = (
    Route(
        "POST",
        "/webhooks/{account}/{token}",
        None,
        WebhookHandler.post,
        JsonValue,
        answer=Answer(type=s.Empty),
        problems=("nothing_here",),
        name="webhooks_take",
        title="Take a callback of the WhatsApp client, or of an app with a token (Cloud API).",
    ),
    Route(
        "POST",
        "/webhooks/{account}",
        None,
        WebhookHandler.post,
        JsonValue,
        answer=Answer(type=s.Empty),
        problems=("nothing_here", "wrong_signature"),
        more=(SIGNATURE,),
        name="webhooks_take_signed",
        title="Take a signed callback of an app, or one of an account without a token.",
    ),
    Route(
        "GET",
        "/webhooks/{account}",
        None,
        WebhookHandler.verify_subscription,
        answer=Answer(media="text/plain"),
        problems=("nothing_here", "verification_refused"),
        more=VERIFICATION,
        name="webhooks_verify",
        title="Answer the verification request of an app of the Cloud API.",
    ),
)
"""The routes of the webhook endpoint, described with the others; none takes a key."""


_HTML = Answer(media="text/html")

OPEN: tuple[Route, ...] = (
    Route("GET", "/health/live", None, health.live, answer=Answer(type=s.Alive)),
    Route(
        "GET",
        "/health/ready",
        None,
        health.ready,
        answer=Answer(type=s.Checks, statuses=(200, 503)),
    ),
    Route("GET", "/health/status", None, health.status, answer=Answer(type=s.Checks)),
    Route("GET", "/metrics", None, health.metrics, answer=Answer(media="text/plain")),
    Route("GET", "/openapi.json", None, pages.openapi, answer=Answer(type=s.Description)),
    Route("GET", "/docs", None, pages.docs, answer=_HTML),
    Route("GET", "/docs/problems", None, pages.problems, answer=_HTML),
)


@cache
def description() -> dict[str, Any]:
    """Return all routes as OpenAPI 3.1."""
    parts = ((PREFIX, API), ("", COMPAT), ("", SENDING), ("", WEBHOOKS), ("", OPEN))
    return describe((prefix, route) for prefix, routes in parts for route in routes)


async def _nothing(request: web.Request) -> web.StreamResponse:
    """Raise a 405 where other methods of the path are known, else a 404."""
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        if resource.canonical != ANYTHING:
            allowed |= (await resource.resolve(request))[1]
    if allowed:
        raise web.HTTPMethodNotAllowed(request.method, allowed)
    raise ProblemError(404, "there is no such route")


async def _only_lookups(request: web.Request) -> web.StreamResponse:
    """Raise a 405: it is no user whose name is "lookup"."""
    raise web.HTTPMethodNotAllowed(request.method, {"POST"})


def add_routes(app: web.Application) -> None:
    """Add the API, its description, health and metrics to an application."""
    make_pages: Callable[[], pages.Pages] = cache(lambda: pages.make(description()))
    app[pages.PAGES] = make_pages
    for prefix, routes in ((PREFIX, API), ("", COMPAT)):
        for route in routes:
            handler = guarded(route.role or "gate", route.resource, route.query, route.body)
            _add(app, route.method, prefix + route.path, handler)
            if route.path == _LOOKUP:
                others = guarded("gate", _only_lookups)
                app.router.add_route("*", prefix + route.path, others, expect_handler=expect)
    for route in SENDING:
        # Their bodies are read by the resources themselves.
        _add(app, route.method, route.path, guarded(route.role or "sender", route.resource))
    nothing = guarded("gate", _nothing)
    app.router.add_route("*", f"{PREFIX}/{{tail:.*}}", nothing, expect_handler=expect)
    for route in OPEN:
        _add(app, route.method, route.path, route.resource)


def _add(app: web.Application, method: str, path: str, handler: Handler) -> None:
    """Add a route; HEAD works where GET does."""
    for known in ("GET", "HEAD") if method == "GET" else (method,):
        app.router.add_route(known, path, handler, expect_handler=expect)
