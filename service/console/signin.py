"""Signing in with an API key or by a trusted proxy, signing out, and who may see a page."""

import functools
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple
from urllib.parse import quote

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from service.api.auth import CALLER, CALLER_BY, CALLER_ROLE, INCLUDED, LOCAL
from service.api.context import BODIES, CALLER_ACCOUNTS, RESERVATION, app_context
from service.api.problems import ProblemError
from service.console import session as sessions
from service.console.browser import (
    READING,
    comes_from_proxy,
    is_asked_by_page,
    is_own_form,
    is_secure,
    wants_fragment,
)
from service.console.forms import read_form, text_of
from service.console.pages import SIGNED_IN, Caller, page, problem_page, see_other, with_headers
from service.console.session import COOKIE, SECURE_COOKIE, Lifetime, Session
from service.model.users import By, by_key, by_person
from service.settings import ApiKeySettings, Role, Settings
from service.settings.console import MAX_HOURS
from service.store.sign_outs import is_signed_out, note_sign_out

HOME = "/console/"
SIGN_IN = "/console/sign-in"
LONGEST_MS = round(MAX_HOURS * 3.6e6)
"""The longest that any configuration lets a session last: so long a sign-out is remembered."""
PERSON = "person"
"""The caller's name in log lines where a proxy named a person, whose name is in the audit alone."""
MAX_NAME = 256
PAGES = web.AppKey("console_page_paths", re.Pattern[str])
"""What a path of a page looks like, that somebody may be sent to after signing in."""
_BELOW = re.compile(r"/console/[A-Za-z0-9._~%/?&=+:@,-]{0,2000}")
_UPWARDS = re.compile(r"\.\.|%2e", re.IGNORECASE)

Resource = Callable[[web.Request], Awaitable[web.StreamResponse]]

SECRET = web.AppKey("console_secret", bytes)
log = structlog.get_logger(__name__)


class Signed(NamedTuple):
    """Somebody who is signed in: what may be done, and what forms are signed with.

    `session` is None where there is no cookie: a proxy names the person, or this machine is all
    that can call.
    """

    name: str
    shown: str
    role: Role
    accounts: Sequence[str]
    by: By
    subject: str
    key: bytes
    session: Session | None = None


def signed_in(role: Role, resource: Resource) -> Handler:
    """Return a handler that answers only who is signed in with this role, or one that includes it.

    It is to pages what `service.api.auth.guarded` is to routes, and sets the same keys of the
    request. What is posted must be a form of this session, sent by a page of this host.
    """

    @functools.wraps(resource)
    async def guarded(request: web.Request) -> web.StreamResponse:
        who = await who_is(request)
        if who is None:
            return _to_sign_in(request)
        _set_caller(request, who)
        if request.method not in READING:
            await _need_own_form(request, who)
        _need_role(who, role)
        response = await resource(request)
        _renew(request, who, response)
        return response

    return open_to_all(guarded)


def open_to_all(resource: Resource) -> Handler:
    """Return a handler of a page whoever asks; what goes wrong is shown as a page as well."""

    @functools.wraps(resource)
    async def handler(request: web.Request) -> web.StreamResponse:
        reservation = request[RESERVATION] = request.app[BODIES].reservation(verified=False)
        response: web.StreamResponse
        try:
            response = await resource(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown as a page
            response = problem_page(request, error)
        finally:
            reservation.release()
        return with_headers(request, response)

    return handler


async def who_is(request: web.Request) -> Signed | None:
    """Return who is signed in, by the settings as they are now. Raises UnavailableError."""
    settings, secret = app_context(request).settings, request.app[SECRET]
    person = _person(request, settings, secret)
    if person is not None:
        return person
    if settings.open_to_loopback_only:
        key = sessions.key_of_session(secret, LOCAL)
        return Signed(LOCAL, "this machine", "admin", (), by_key(LOCAL), LOCAL, key)
    who = _of_cookie(request, settings, secret)
    if who is not None and who.session is not None:
        is_out = partial(is_signed_out, session_id=who.session.id)
        if await app_context(request).database.read(is_out):
            return None
    return who


def _person(request: web.Request, settings: Settings, secret: bytes) -> Signed | None:
    """Return whom a trusted proxy names; None where there is none, or nobody who may enter."""
    proxy = settings.console.proxy
    name = request.headers.get(proxy.user_header, "").strip()
    if not name or len(name) > MAX_NAME or not name.isprintable() or not comes_from_proxy(request):
        return None
    role = proxy.role_of(name)
    if role == "none":
        return None
    subject = f"person:{name}"
    key = sessions.key_of_session(secret, subject)
    return Signed(PERSON, name, role, (), by_person(name), subject, key)


def _of_cookie(request: web.Request, settings: Settings, secret: bytes) -> Signed | None:
    cookie = request.cookies.get(SECURE_COOKIE if is_secure(request) else COOKIE, "")
    name = sessions.key_named(cookie)
    known = None if name is None else settings.api.keys.get(name)
    now = app_context(request).ledger.clock()
    if name is None or known is None or not _is_usable(known, now):
        return None
    key = _signing_key(secret, known)
    session = sessions.read(cookie, key)
    if session is None or not session.holds(now, lifetime_of(settings)):
        return None
    return Signed(name, name, known.role, known.accounts, by_key(name), session.id, key, session)


def _is_usable(key: ApiKeySettings, now: int) -> bool:
    is_in_time = key.expires_ms is None or now < key.expires_ms
    return is_in_time and "reader" in INCLUDED[key.role]


def _signing_key(secret: bytes, key: ApiKeySettings) -> bytes:
    return sessions.key_of_session(secret, key.sha256.get_secret_value())


def lifetime_of(settings: Settings) -> Lifetime:
    """Return how long a session holds."""
    console = settings.console
    return Lifetime(round(console.session_minutes * 60_000), round(console.session_hours * 3.6e6))


async def is_still_signed_in(request: web.Request) -> bool:
    """Return whether who opened a stream is still signed in, with the same rights."""
    who = await who_is(request)
    if who is None:
        return False
    same = (request[CALLER_BY], request[CALLER_ROLE], [*request[CALLER_ACCOUNTS]])
    return (who.by, who.role, [*who.accounts]) == same


def _set_caller(request: web.Request, who: Signed) -> None:
    request[CALLER] = who.name
    request[CALLER_BY] = who.by
    request[CALLER_ROLE] = who.role
    request[CALLER_ACCOUNTS] = who.accounts
    request[SIGNED_IN] = Caller(
        who.shown,
        who.role,
        sessions.form_token(who.subject, who.key),
        who.session is not None,
        app_context(request).settings.console.proxy.sign_out_url,
    )


def _need_role(who: Signed, role: Role) -> None:
    if role not in INCLUDED[who.role]:
        raise ProblemError(403, f"the role {role} is needed, you have {who.role}")


async def _need_own_form(request: web.Request, who: Signed) -> None:
    """Raise a 403 for what no page of this session sent."""
    if not is_own_form(request):
        raise ProblemError(403, "only a page of the console itself may send this")
    token = request.headers.get("X-Form-Token") or text_of(await read_form(request), "form_token")
    if not sessions.is_form_token(token, who.subject, who.key):
        detail = "the form is of another sign-in, so nothing was done; go back and send it again"
        raise ProblemError(403, detail)


def _to_sign_in(request: web.Request) -> web.Response:
    """Send whoever is not signed in to the sign-in page, and from there back."""
    if request.path.endswith("/stream"):
        return web.Response(status=401)
    if request.method in READING:
        shown = request.headers.get("HX-Current-URL", "") if wants_fragment(request) else ""
        path = "/" + shown.partition("://")[2].partition("/")[2] if shown else request.path_qs
        target = f"{SIGN_IN}?next={quote(path, safe='')}"
    else:
        target = f"{SIGN_IN}?ended=1"
    if wants_fragment(request):
        return web.Response(headers={"HX-Redirect": target})
    return see_other(target)


def _next(request: web.Request, text: str) -> str:
    """Return where to go after signing in: a page of the console alone."""
    is_below = _BELOW.fullmatch(text) and not _UPWARDS.search(text)
    is_page = request.app[PAGES].fullmatch(text.partition("?")[0])
    return text if is_below and is_page else HOME


async def show(request: web.Request) -> web.Response:
    """Show the sign-in page; who is signed in already goes on."""
    to = _next(request, request.query.get("next", HOME))
    if await who_is(request) is not None:
        return see_other(to)
    return _sign_in_page(request, to, has_ended="ended" in request.query)


def _sign_in_page(
    request: web.Request, to: str, *, has_ended: bool = False, wrong: str = "", status: int = 200
) -> web.Response:
    return page(
        request,
        "sign_in.html",
        status=status,
        next=to,
        has_ended=has_ended,
        wrong=wrong,
        is_behind_proxy=comes_from_proxy(request),
    )


async def sign_in(request: web.Request) -> web.Response:
    """Begin a session with an API key."""
    if not is_own_form(request):
        raise ProblemError(403, "only a page of the console itself may send this")
    form = await read_form(request)
    to = _next(request, text_of(form, "next"))
    context = app_context(request)
    now = context.ledger.clock()
    found = _known_key(context.settings, text_of(form, "api_key").strip())
    if found is None:
        context.count_refused_key(is_given=True)
        return _sign_in_page(request, to, wrong="This API key is not known.", status=403)
    name, key = found
    if not _is_usable(key, now):
        wrong = "This API key is not for people: its role may not see the console."
        if "reader" in INCLUDED[key.role]:
            wrong = "This API key has expired."
        return _sign_in_page(request, to, wrong=wrong, status=403)
    log.info("signed in", caller=name)
    response = see_other(to)
    _set_cookie(request, response, Session.begin(name, now), _signing_key(request.app[SECRET], key))
    return response


def _known_key(settings: Settings, presented: str) -> tuple[str, ApiKeySettings] | None:
    digest = hashlib.sha256(presented.encode(errors="replace")).hexdigest()
    found = None
    # All keys are compared, so that the time taken does not depend on which one it was.
    for name, key in settings.api.keys.items():
        if hmac.compare_digest(digest, key.sha256.get_secret_value()):
            found = name, key
    return found


async def sign_out(request: web.Request) -> web.Response:
    """End the session: in this browser, and for whoever has a copy of its cookie."""
    context = app_context(request)
    who = _of_cookie(request, context.settings, request.app[SECRET])
    if who is not None and who.session is not None:
        ends_at = who.session.began_at + LONGEST_MS
        note = partial(
            note_sign_out, now=context.ledger.clock(), session_id=who.session.id, ends_at=ends_at
        )
        await context.database.write(note)
    response = see_other(SIGN_IN)
    for name, secure in ((COOKIE, False), (SECURE_COOKIE, True)):
        response.del_cookie(name, path="/", secure=secure, httponly=True, samesite="Strict")
    return response


def _renew(request: web.Request, who: Signed, response: web.StreamResponse) -> None:
    """Let a session last longer where a person did something, and not the page by itself."""
    now = app_context(request).ledger.clock()
    if who.session is None or response.prepared or is_asked_by_page(request):
        return
    is_out = any(name in response.cookies for name in (COOKIE, SECURE_COOKIE))
    if not is_out and now - who.session.used_at >= sessions.RENEW_AFTER_MS:
        _set_cookie(request, response, who.session.used(now), who.key)


def _set_cookie(
    request: web.Request, response: web.StreamResponse, session: Session, key: bytes
) -> None:
    secure = is_secure(request)
    response.set_cookie(
        SECURE_COOKIE if secure else COOKIE,
        sessions.written(session, key),
        path="/",
        secure=secure,
        httponly=True,
        samesite="Strict",
    )
