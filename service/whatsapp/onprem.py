"""One account's WhatsApp client of the On-Premises API: identities, contacts, health, settings.

The answers are read here too, as they come over the wire, and liberally. They follow Meta's pages
on the contacts node, the health node, the application settings, and the webhooks' certificates.
"""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from service.dialects.common import FieldError, boolean, identity_hash, json_object, millisecond
from service.dialects.onprem import read_checks
from service.model.account_checks import ClientSettings
from service.model.events import ContactChecked
from service.model.outcomes import Answer
from service.observability.metrics import Metrics
from service.settings import OnPremAccountSettings
from service.whatsapp.http import (
    FORBIDDEN,
    MESSAGES,
    NOT_FOUND,
    PLACE_SECONDS,
    TOO_MANY,
    UNAUTHORIZED,
    UNAVAILABLE,
    BusyError,
    CallError,
    Content,
    ForbiddenError,
    NoReplyError,
    NotSentError,
    RateLimiter,
    Reachability,
    Reply,
    Sending,
    SendingPlaces,
    Transport,
    json_content,
)
from service.whatsapp.session import Session

BUSY_SECONDS = 3.0
"""For so long no contact is checked after the client said that there are too many checks."""
CHECKING_SHARE = 4
"""Of the calls to a client that may be under way one in so many may be contact checks."""
MESSAGES_SHARE, MEDIA_SHARE = 2, 8
"""And one in so many may be messages, or uploads: acknowledgements always find a place."""
SETTINGS = "/v1/settings/application"
WEBHOOK_CA = "/v1/certificates/webhooks/ca"
GATEWAY = ("connected", "connecting", "disconnected", "uninitialized", "unregistered")
"""The states of a container's connection to WhatsApp, from the best to the worst."""
HALF_A_SECOND = 0.5
"""The Date of an answer has whole seconds: on average it is so much older."""

_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL | re.ASCII
)


class Client:
    """One account's WhatsApp client."""

    def __init__(self, name: str, account: OnPremAccountSettings, metrics: Metrics) -> None:
        self.name = name
        self.max_in_flight = account.max_in_flight
        self.timeout_seconds = account.timeout_seconds
        self._transport = Transport(name, account, metrics, max_in_flight=account.max_in_flight)
        self.session = Session(name, account, self._transport)
        self.reachability = Reachability(name, metrics.reachable)
        self._rate = RateLimiter()
        self._checking = asyncio.Semaphore(max(1, account.max_in_flight // CHECKING_SHARE))
        self._sending = SendingPlaces(
            messages=account.max_in_flight // MESSAGES_SHARE,
            media=account.max_in_flight // MEDIA_SHARE,
        )
        self.skew_seconds: float | None = None
        """How far its clock was ahead when it was last asked for its settings."""

    def paused_for(self) -> float:
        """Return how long (s) the client is not to be called, because it refused the login."""
        return self.session.paused_for

    def share_rate(self, replicas: int) -> None:
        """Make no more checks than one of so many replicas may."""
        self._rate.share(replicas)

    async def identity(self, wa_id: str) -> Answer | None:
        """Return the latest identity of a user; None where the client knows none (404).

        Raises CallError where the answer can't be relied on: a 404 that comes with a page is not
        the client's.
        """
        reply = await self._call("identity_get", "GET", _identity_path(wa_id))
        if reply.status == NOT_FOUND and reply.is_json:
            return None
        if not reply.succeeded:
            raise NoReplyError(f"GET identity was answered with {_described(reply)}")
        return _answer(reply.payload)

    async def acknowledge(
        self, wa_id: str, hash_: str, begin: Callable[[], Awaitable[None]]
    ) -> int:
        """PUT the hash, and return the status of the answer.

        `begin` is awaited just before the PUT goes, and again where the token was refused and it is
        repeated. Raises CallError where there is no answer, or a 2xx that can't be relied on; and
        what `begin` raises: then no PUT was sent that could have an effect.
        """

        async def content() -> Content:
            await begin()
            return json_content({"hash": hash_})

        reply = await self._send("identity_put", "PUT", _identity_path(wa_id), content)
        if reply.ok and not reply.succeeded:
            raise NoReplyError(f"it was answered with {_described(reply)}")
        return reply.status

    async def check_contacts(
        self, inputs: Sequence[str], *, wait: bool, force: bool, patience: float
    ) -> list[ContactChecked]:
        """Ask whether numbers are WhatsApp accounts; some may be `processing`, or not answered.

        `patience` is how long (s) a place within the client's rate limit is waited for. Raises
        BusyError, which had no effect, where there are too many checks, and other CallErrors where
        the answer can't be relied on.
        """
        body: dict[str, Any] = {
            "blocking": "wait" if wait else "no_wait",
            "contacts": list(inputs),
            "force_check": force,
        }
        async with self._place_for_check(patience):
            reply = await self._call("contacts", "POST", "/v1/contacts", body=body)
        if reply.status in {TOO_MANY, UNAVAILABLE}:
            self._rate.pause(BUSY_SECONDS)
            text = f"POST contacts was answered with {reply.status}"
            raise BusyError(text, BUSY_SECONDS)
        if reply.status == UNAUTHORIZED:
            raise NotSentError("POST contacts was answered with 401")
        payload = reply.payload
        if not reply.succeeded or not isinstance(payload, dict):
            raise NoReplyError(f"POST contacts was answered with {_described(reply)}")
        return read_checks(payload.get("contacts"))

    @asynccontextmanager
    async def _place_for_check(self, patience: float) -> AsyncIterator[None]:
        """Wait for a place among the checks under way, and within the rate limit."""
        try:
            async with asyncio.timeout(patience):
                await self._checking.acquire()
        except TimeoutError:
            raise BusyError("too many checks are under way", patience) from None
        try:
            await self._rate.take(patience)
            yield
        finally:
            self._checking.release()

    async def check_health(self) -> None:
        """Ask for the client's health, and note it in `reachability`."""
        try:
            reply = await self._call("health", "GET", "/v1/health")
        except CallError:
            return
        self.reachability.gateway = _gateway(_table(reply.payload).get("health"))

    async def settings(self) -> ClientSettings:
        """Return the application settings, with the webhook's authority.

        Raises ForbiddenError where the login may not read them, other CallErrors where there is no
        answer that can be relied on.
        """
        began = time.time()
        reply = await self._call("settings", "GET", SETTINGS)
        self.skew_seconds = skew_of(reply.headers.get("Date"), began, time.time())
        _require_success(reply, "GET settings")
        settings = settings_of(reply, await self._authorities(), self.skew_seconds)
        if settings is None:
            raise NoReplyError("GET settings was answered with no settings")
        return settings

    async def _authorities(self) -> frozenset[str] | None:
        """Return which certificates verify the webhook; None where the client does not say."""
        reply = await self._call("certificates", "GET", WEBHOOK_CA)
        if reply.status == NOT_FOUND:
            return frozenset()
        try:
            found = fingerprints(reply.raw.decode()) if reply.ok else None
        except ValueError:
            return None
        return found or (frozenset() if reply.succeeded else None)

    async def change_settings(self, patch: Mapping[str, Any]) -> None:
        """Change a part of the application settings. Raises as `settings` does."""
        reply = await self._call("settings", "PATCH", SETTINGS, body=dict(patch))
        _require_success(reply, "PATCH settings")

    async def upload_authority(self, pem: str) -> None:
        """Upload the certificates that verify the webhook. Raises as `settings` does.

        They replace those that the client has, and count once the Coreapps have restarted.
        """
        reply = await self._call("certificates", "POST", WEBHOOK_CA, text=pem)
        _require_success(reply, "POST certificate")

    async def send(self, operation: Sending, content: Callable[[], Awaitable[Content]]) -> Reply:
        """Pass on a message or an upload, and return the answer, whatever it is.

        `content` is asked for just before it goes, that of a message once more where the token was
        refused; an upload, which passes as it comes, can't be repeated. Raises CallErrors as they
        are sorted by what is known of the effect, and what `content` raises.
        """
        path, again = f"/v1/{operation}", operation == MESSAGES
        async with self._sending.place(operation):
            return await self._send(operation, "POST", path, content, PLACE_SECONDS, again=again)

    async def _send(
        self,
        operation: str,
        method: str,
        path: str,
        content: Callable[[], Awaitable[Content]],
        patience: float | None = None,
        *,
        again: bool = True,
    ) -> Reply:
        """Call with a token; the body is asked for just before it goes."""

        async def send(token: str) -> Reply:
            headers = {"Authorization": f"Bearer {token}"}
            return await self._transport.send(
                operation, method, path, headers=headers, content=content, patience=patience
            )

        return await self._with_token(send, again=again)

    async def _call(
        self, operation: str, method: str, path: str, body: Any = None, text: str | None = None
    ) -> Reply:
        """Call with a token."""

        async def send(token: str) -> Reply:
            headers = {"Authorization": f"Bearer {token}"}
            call = self._transport.call
            return await call(operation, method, path, headers=headers, body=body, text=text)

        return await self._with_token(send)

    async def _with_token(
        self, send: Callable[[str], Awaitable[Reply]], *, again: bool = True
    ) -> Reply:
        """Call with a token; where it is refused, log in again, once, and repeat the call.

        Raises NotSentError where it can't be repeated: the next call has the new token.
        """
        is_renewed = False
        try:
            token = await self.session.token()
            reply = await send(token)
            if reply.status == UNAUTHORIZED:
                refused, token = token, await self.session.token(instead_of=token)
                is_renewed = token != refused
                if is_renewed and again:
                    reply = await send(token)
        except BusyError:
            raise  # It says nothing of the client.
        except CallError as error:
            self.reachability.note_failure(error)
            raise
        if reply.status != UNAUTHORIZED:
            self.session.note_accepted(token)
        self.reachability.note_reply()
        if is_renewed and not again:
            raise NotSentError("the token was refused; there is a new one now")
        return reply

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()


def _require_success(reply: Reply, what: str) -> None:
    if reply.status == FORBIDDEN:
        raise ForbiddenError(f"{what} was answered with 403: the login is no admin's")
    if not reply.succeeded:
        raise NoReplyError(f"{what} was answered with {_described(reply)}")


def _described(reply: Reply) -> str:
    """Describe an answer that can't be relied on, without its content."""
    if not reply.ok or reply.succeeded:
        return str(reply.status)
    return f"{reply.status} and {'errors' if reply.is_json else 'no JSON'}"


def _identity_path(wa_id: str) -> str:
    return f"/v1/contacts/{quote(wa_id, safe='')}/identity"


def _answer(payload: Any) -> Answer:
    """Read Meta's "Retrieve the latest identity hash for a user"; `contacts` is an object here."""
    try:
        found = json_object(_table(payload), "contacts", "contacts")
        hash_ = identity_hash(found, "hash", "hash")
    except FieldError as error:
        raise NoReplyError(f"GET identity was answered with no identity: {error}") from None
    acknowledged = boolean(found.get("acknowledged"))
    if acknowledged is None:
        raise NoReplyError("GET identity did not say whether it is acknowledged")
    return Answer(hash_, millisecond(found.get("created_timestamp")), acknowledged)


def _gateway(health: Any) -> str:
    """Read one container's `gateway_status`, or the worst of a map of containers."""
    health = _table(health)
    if "gateway_status" in health:
        return (_text(health["gateway_status"]) or "unknown")[:32]
    found = [_table(container).get("gateway_status") for container in health.values()]
    return max((s for s in GATEWAY if s in found), key=GATEWAY.index, default="unknown")


def settings_of(
    reply: Reply, authorities: frozenset[str] | None, skew_seconds: float | None
) -> ClientSettings | None:
    """Read the settings; return None where the answer holds none."""
    payload = _table(reply.payload)
    application = _table(payload.get("settings")).get("application")
    if not isinstance(application, dict):
        return None
    webhooks = _table(application.get("webhooks"))
    by_message = boolean(_table(webhooks.get("message")).get("sent"))
    return ClientSettings(
        security_notifications=boolean(application.get("show_security_notifications")),
        number_notifications=boolean(application.get("notify_user_change_number")),
        callback_persist=boolean(application.get("callback_persist")),
        sent_status=boolean(application.get("sent_status")) if by_message is None else by_message,
        sent_setting="sent_status" if by_message is None else "webhooks.message.sent",
        webhook_url=_text(webhooks.get("url")),
        max_concurrent_requests=_number(webhooks.get("max_concurrent_requests")),
        max_backoff_ms=_number(application.get("max_callback_backoff_delay_ms")),
        authorities=authorities,
        skew_seconds=skew_seconds,
        version=_text(_table(payload.get("meta")).get("version")),
        webhooks=webhooks,
    )


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> int | None:
    """Read a number, or its digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:18])
    return value if type(value) is int else None


def skew_of(date: str | None, began: float, ended: float) -> float | None:
    """Return how far (s) the client's clock is ahead, by the Date of its answer; None without one.

    `began` and `ended` are the Unix seconds of the call: within that time nothing can be seen.
    """
    try:
        at = parsedate_to_datetime(date or "")
    except (TypeError, ValueError):
        return None
    there = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() + HALF_A_SECOND
    return there - min(max(there, began), ended)


def fingerprints(pem: str) -> frozenset[str]:
    """Return the SHA-256 of each certificate in a PEM bundle; raise ValueError for a broken one."""
    found = (ssl.PEM_cert_to_DER_cert(each) for each in _CERTIFICATE.findall(pem))
    return frozenset(sha256(der).hexdigest() for der in found)
