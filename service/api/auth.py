"""Who may ask: API keys with roles, and the rule for an installation without keys."""

import functools
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from service.api.context import BODIES, CALLER_ACCOUNTS, RESERVATION, app_context
from service.api.params import QUERY, Query, faults_of_body, read_query
from service.api.problems import ProblemError, from_validation
from service.model.users import By, by_key
from service.settings import ApiKeySettings, Role, Settings
from service.settings.types import is_loopback
from service.store.database import APP_MARK

ROLES: tuple[Role, ...] = ("gate", "sender", "reader", "operator", "admin")
INCLUDED: Mapping[Role, frozenset[Role]] = {
    "gate": frozenset({"gate"}),
    "sender": frozenset({"gate", "sender"}),
    "reader": frozenset({"gate", "reader"}),
    "operator": frozenset({"gate", "sender", "reader", "operator"}),
    "admin": frozenset(ROLES),
}
"""The roles that each may act as: who sends sees no identities, and who reads sends nothing."""

LOCAL = "local"
"""The caller's name where no key is configured."""

CALLER = web.RequestKey("caller", str)
CALLER_ROLE = web.RequestKey("caller_role", str)
CALLER_BY = web.RequestKey("caller_by", By)
"""Who the caller's decisions are recorded as."""

FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")

Resource = Callable[..., Awaitable[web.StreamResponse]]


def guarded(
    role: Role,
    resource: Resource,
    query: type[Query] | None = None,
    body: type[BaseModel] | None = None,
) -> Handler:
    """Return a handler that answers only callers whose key has this role, or includes it.

    It reads the query for the resource; None lets any query pass. Where the query is not valid the
    body is looked at too, so that a 422 names all fields at fault.
    """
    without = None if query is None else query()

    @functools.wraps(resource)
    async def handler(request: web.Request) -> web.StreamResponse:
        context = app_context(request)
        now = context.ledger.clock()
        try:
            name, key = _admit(context.settings, request.headers, role, now)
        except ProblemError as refused:
            if refused.status == HTTPStatus.UNAUTHORIZED:
                context.count_refused_key(is_given="Authorization" in request.headers)
            raise
        request[CALLER] = name
        request[CALLER_BY] = by_key(name)
        request[CALLER_ROLE] = "admin" if key is None else key.role
        request[CALLER_ACCOUNTS] = () if key is None else key.accounts
        # What a body is parsed into stays in memory until the request is answered.
        reservation = request[RESERVATION] = request.app[BODIES].reservation(verified=False)
        try:
            if without is not None:
                request[QUERY] = await _query(request, without, body)
            return await resource(request)
        finally:
            reservation.release()

    return handler


async def _query(request: web.Request, without: Query, body: type[BaseModel] | None) -> Query:
    """Return the query as the route wants it, `without` where there is none; raise a 422."""
    if not request.query_string:
        return without
    try:
        return read_query(request, type(without))
    except ValidationError as error:
        more = [] if body is None else await faults_of_body(request, body)
        raise from_validation(*more, query=error) from None


def visible(request: web.Request) -> frozenset[str] | None:
    """Return the names in the journal that the caller's key is for; None for all.

    That of an app is among them where all its accounts are, for what it has may be any one's.
    """
    of_key = request[CALLER_ACCOUNTS]
    if not of_key:
        return None
    accounts = frozenset(of_key)
    settings = app_context(request).settings
    apps = {app: set(settings.accounts_of(app).values()) for app in settings.apps}
    return accounts | {f"{APP_MARK}{app}" for app, of in apps.items() if of and of <= accounts}


def _admit(
    settings: Settings, headers: Mapping[str, str], role: Role, now: int
) -> tuple[str, ApiKeySettings | None]:
    """Return the caller's key with its name; no key where none is configured.

    Raises a 401 without a known key, and a 403 where the key's role doesn't include the one needed.
    """
    if not settings.api.keys:
        return LOCAL, None
    name, key = _authenticate(settings.api.keys, headers.get("Authorization", ""))
    if key.expires_ms is not None and now >= key.expires_ms:
        raise ProblemError(401, "the API key has expired")
    if role not in INCLUDED[key.role]:
        raise ProblemError(403, f"the role {role} is needed, this key has {key.role}")
    return name, key


def is_admitted(request: web.Request, role: Role) -> bool:
    """Return whether a caller who was admitted would be now, and for the same accounts."""
    context = app_context(request)
    try:
        name, key = _admit(context.settings, request.headers, role, context.ledger.clock())
    except ProblemError:
        return False
    accounts = () if key is None else key.accounts
    return (name, [*accounts]) == (request[CALLER], [*request[CALLER_ACCOUNTS]])


def _authenticate(
    keys: Mapping[str, ApiKeySettings], authorization: str
) -> tuple[str, ApiKeySettings]:
    scheme, _, presented = authorization.partition(" ")
    digest = hashlib.sha256(presented.strip().encode(errors="replace")).hexdigest()
    found: tuple[str, ApiKeySettings] | None = None
    # All keys are compared, so that the time taken does not depend on which one it was.
    for name, key in keys.items():
        if hmac.compare_digest(digest, key.sha256.get_secret_value()):
            found = name, key
    if found is None or scheme.lower() != "bearer":
        raise ProblemError(401, "an API key is needed: Authorization: Bearer KEY")
    return found


@web.middleware
async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the answers of the API by the route's pattern, which holds nothing of the caller's."""
    started = time.perf_counter()
    response = await handler(request)
    resource = request.match_info.route.resource
    if resource is not None and resource.canonical.startswith(("/api/", "/compat/", "/graph/")):
        route = f"{request.match_info.route.method} {resource.canonical}"
        # A stream ends when its reader or the service does: that says nothing of its answer.
        is_stream = response.content_type == "text/event-stream"
        seconds = None if is_stream else time.perf_counter() - started
        app_context(request).metrics.observe_request(route, response.status, seconds)
    return response


@web.middleware
async def loopback_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer only requests that come from this machine directly, and name it as loopback.

    In force while there is no API key. The checks of Origin and Host keep web pages out: those that
    call this address, and those whose own name resolves to it.
    """
    if any(name in request.headers for name in FORWARDED):
        raise _not_local("nothing forwarded is answered")
    origin = request.headers.get("Origin")
    if origin is not None and not _names_loopback(origin.partition("://")[2]):
        raise _not_local("no other site is answered")
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise _not_local("no other site is answered")
    if not _names_loopback(request.host):
        raise _not_local("only loopback is answered")
    return await handler(request)


def _not_local(what: str) -> ProblemError:
    return ProblemError(403, f"without an API key {what}", kind="not_local")


@functools.lru_cache(maxsize=256)
def _names_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return is_loopback(name.strip("[]"))
