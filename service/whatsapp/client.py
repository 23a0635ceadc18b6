"""What is asked of one account's WhatsApp client: identities, acknowledgements, health."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from service.dialects.common import FieldError, boolean, identity_hash, json_object, millisecond
from service.dialects.onprem import read_checks
from service.model.account_checks import ClientSettings
from service.model.events import ContactChecked
from service.model.outcomes import Answer
from service.observability.metrics import Metrics
from service.settings import OnPremAccountSettings
from service.whatsapp.errors import (
    BusyError,
    CallError,
    ForbiddenError,
    NoReplyError,
    NotSentError,
)
from service.whatsapp.rate import Rate, SaturatedError
from service.whatsapp.reachability import Reachability
from service.whatsapp.session import UNAUTHORIZED, Session
from service.whatsapp.settings import SETTINGS, WEBHOOK_CA, fingerprints, settings_of, skew_of
from service.whatsapp.transport import Reply, Transport

FORBIDDEN = 403
NOT_FOUND = 404
TOO_MANY = 429
UNAVAILABLE = 503
BUSY_SECONDS = 3.0
"""How long no contact is checked once the client said that it is too much."""
CHECKING_SHARE = 4
"""Of the calls to a client that may be under way one in so many may be contact checks."""


class _Health(BaseModel):
    gateway_status: str = "unknown"


class Client:
    """One account's WhatsApp client."""

    def __init__(self, name: str, account: OnPremAccountSettings, metrics: Metrics) -> None:
        self.name = name
        self.max_in_flight = account.max_in_flight
        self.timeout_seconds = account.timeout_seconds
        self._transport = Transport(name, account, metrics, max_in_flight=account.max_in_flight)
        self.session = Session(name, account, self._transport)
        self.reachability = Reachability(name, metrics.reachable.labels(name))
        self._rate = Rate()
        self._checking = asyncio.Semaphore(max(1, account.max_in_flight // CHECKING_SHARE))
        self.skew_seconds: float | None = None
        """How far its clock is ahead, when it was last asked for its settings."""

    def paused_for(self) -> float:
        """Tell how long (s) the client is not to be called, because it refused the login."""
        return self.session.paused_for

    async def identity(self, wa_id: str) -> Answer | None:
        """Ask for the latest identity of a user; None where the client knows none (404).

        Raises CallError where the answer is none to go by; a 404 with a page is not the client's.
        """
        reply = await self._call("identity_get", "GET", _identity_path(wa_id))
        if reply.status == NOT_FOUND and reply.is_json:
            return None
        if not reply.succeeded:
            raise NoReplyError(f"GET identity was answered with {_described(reply)}")
        return _answer(reply.payload)

    async def acknowledge(self, wa_id: str, hash_: str) -> int:
        """PUT the hash; give the status of the answer.

        Raises CallError where there is none, or a 2xx that is none to go by.
        """
        path = _identity_path(wa_id)
        reply = await self._call("identity_put", "PUT", path, body={"hash": hash_})
        if reply.ok and not reply.succeeded:
            raise NoReplyError(f"it was answered with {_described(reply)}")
        return reply.status

    async def check_contacts(
        self, inputs: Sequence[str], *, wait: bool, force: bool, patience: float
    ) -> list[ContactChecked]:
        """Ask whether numbers are WhatsApp accounts; some may be `processing`, or not answered.

        Follows Meta's page on the contacts node. `patience` is how long (s) a place within the
        client's rate limit is waited for. Raises CallError where the answer is none to go by;
        BusyError, which had no effect, where too much is asked.
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
        except SaturatedError as error:
            raise BusyError("too many checks are asked for", error.seconds) from None
        finally:
            self._checking.release()

    async def check_health(self) -> None:
        """Ask the client how it is; `reachability` tells afterwards."""
        try:
            reply = await self._call("health", "GET", "/v1/health")
        except CallError:
            return
        payload = reply.payload if isinstance(reply.payload, dict) else {}
        self.reachability.gateway = _gateway(payload.get("health"))

    async def settings(self) -> ClientSettings:
        """Ask for the application settings, and for the webhook's authority.

        Raises ForbiddenError where the login may not read them, CallError where there is no answer.
        """
        began = time.time()
        reply = await self._call("settings", "GET", SETTINGS)
        self.skew_seconds = skew_of(reply.date, began, time.time())
        _demand(reply, "GET settings")
        told = settings_of(reply, await self._authorities(), self.skew_seconds)
        if told is None:
            raise NoReplyError("GET settings was answered with no settings")
        return told

    async def _authorities(self) -> frozenset[str] | None:
        """Ask which certificates verify the webhook; None where that is not told."""
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
        _demand(reply, "PATCH settings")

    async def upload_authority(self, pem: str) -> None:
        """Give the client the certificates that verify the webhook. Raises as `settings` does.

        They take the place of those that it has, and count once the Coreapps have restarted.
        """
        reply = await self._call("certificates", "POST", WEBHOOK_CA, text=pem)
        _demand(reply, "POST certificate")

    async def _call(
        self, operation: str, method: str, path: str, body: Any = None, text: str | None = None
    ) -> Reply:
        """Call with a token; log in again, once, when it is refused."""
        try:
            token = await self.session.token()
            reply = await self._send(operation, method, path, token, body, text)
            if reply.status == UNAUTHORIZED:
                refused, token = token, await self.session.token(instead_of=token)
                if token != refused:
                    reply = await self._send(operation, method, path, token, body, text)
        except CallError as error:
            self.reachability.note_failure(error)
            raise
        if reply.status != UNAUTHORIZED:
            self.session.prove(token)
        self.reachability.note_reply()
        return reply

    async def _send(
        self, operation: str, method: str, path: str, token: str, body: Any, text: str | None
    ) -> Reply:
        headers = {"Authorization": f"Bearer {token}"}
        call = self._transport.call
        return await call(operation, method, path, headers=headers, body=body, text=text)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()


def _demand(reply: Reply, what: str) -> None:
    if reply.status == FORBIDDEN:
        raise ForbiddenError(f"{what} was answered with 403: the login is no admin's")
    if not reply.succeeded:
        raise NoReplyError(f"{what} was answered with {_described(reply)}")


def _described(reply: Reply) -> str:
    """Say what came back in place of an answer to go by, without its content."""
    if not reply.ok or reply.succeeded:
        return str(reply.status)
    return f"{reply.status} and {'errors' if reply.is_json else 'no JSON'}"


def _identity_path(wa_id: str) -> str:
    return f"/v1/contacts/{quote(wa_id, safe='')}/identity"


def _answer(payload: Any) -> Answer:
    """Read Meta's "Retrieve the latest identity hash for a user"; `contacts` is an object here."""
    try:
        told = json_object(payload if isinstance(payload, dict) else {}, "contacts", "contacts")
        hash_ = identity_hash(told, "hash", "hash")
    except FieldError as error:
        raise NoReplyError(f"GET identity was answered with no identity: {error}") from None
    acknowledged = boolean(told.get("acknowledged"))
    if acknowledged is None:
        raise NoReplyError("GET identity did not tell whether it is acknowledged")
    return Answer(hash_, millisecond(told.get("created_timestamp")), acknowledged)


def _gateway(health: Any) -> str:
    """Read one container's health, or the worst of a map of containers."""
    if not isinstance(health, dict):
        return "unknown"
    if "gateway_status" in health:
        return _status(health)
    found = {_status(part) for part in health.values() if isinstance(part, dict)}
    known = ("connected", "connecting", "disconnected", "uninitialized", "unregistered")
    return max((s for s in found if s in known), key=known.index, default="unknown")


def _status(part: dict[str, Any]) -> str:
    try:
        return _Health.model_validate(part).gateway_status[:32]
    except ValidationError:
        return "unknown"
