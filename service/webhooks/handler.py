"""`POST /webhooks/{account}/{token}` and `/webhooks/{app}`: a 200 means on disk and in effect."""

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from aiohttp import web

from service.dialects.common import OFF_LOOP_BYTES
from service.ledger.callbacks import MAX_SLICE, QUARANTINED, RecordCallback
from service.ledger.contacts import Messages
from service.ledger.ledger import FullError, Ledger
from service.model.account_checks import IdentityCheck
from service.model.events import WIRE_NAMES, Fault, Reading
from service.model.signature_check import SignatureCheck
from service.observability.logging import request_id
from service.observability.metrics import Metrics
from service.observability.tally import Tally
from service.settings import AppSettings, Settings
from service.store.database import APP_MARK, SYNTHETIC, UnavailableError
from service.webhooks.body import BodyReader, RefusedError, Reservation
from service.webhooks.incoming import (
    Dialect,
    IncomingCallback,
    envelope_of,
    in_journal,
    reader_of,
)
from service.webhooks.request_ids import HEADER as ID_HEADER
from service.webhooks.request_ids import REQUEST_ID
from service.webhooks.signatures import HEADER, SignatureVerifier

REFUSED = "refused"
"""What metrics call a callback whose account, token or signature is wrong."""

OTHER = "other"
"""What metrics call what is normal and of no interest here."""

UNKNOWN_NUMBER = "no account has "
"""How the fault begins, in the words of the Cloud dialect, of a number that no account has."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the callbacks of one account or of one app are sent to, and how they are read.

    `name` is what metrics and the journal call it. `token` is empty where none is configured; an
    app has a `verifier` in its place, and `signatures`, what those of its callbacks have shown,
    unless its callbacks bring a token too.
    """

    name: str
    token: bytes
    dialect: Dialect
    verifier: SignatureVerifier | None = None
    signatures: SignatureCheck | None = None


def endpoints(settings: Settings, checks: Mapping[str, SignatureCheck]) -> dict[str, Endpoint]:
    """Return every endpoint, by the first part of its path: an account's name, or an app's.

    `checks` has one for each app, by its name in the journal.
    """
    found = {}
    for name, account in settings.onprem_accounts.items():
        token = account.webhook_token.get_secret_value() if account.webhook_token else ""
        found[name] = Endpoint(name, token.encode(), reader_of(settings, name))
    for name, app in settings.apps.items():
        called = in_journal(name)
        dialect = reader_of(settings, called)
        if app.auth == "token" and app.webhook_token is not None:
            found[name] = Endpoint(called, app.webhook_token.get_secret_value().encode(), dialect)
        else:
            found[name] = Endpoint(called, b"", dialect, _verifier(app), checks[called])
    return found


def _verifier(app: AppSettings) -> SignatureVerifier:
    token = app.verify_token.get_secret_value().encode() if app.verify_token else None
    return SignatureVerifier(app.secrets, token, app.signature_header)


class WebhookHandler:
    """Takes the callbacks of every account and every app.

    `endpoints` may be replaced: the next request is admitted by the new ones.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        ledger: Ledger,
        bodies: BodyReader,
        metrics: Metrics,
        messages: Messages,
        identity_checks: Mapping[str, IdentityCheck],
    ) -> None:
        self.endpoints = endpoints
        self._ledger = ledger
        self._bodies = bodies
        self._metrics = metrics
        self._messages = messages
        self._identity_checks = identity_checks
        # An unknown account costs the same comparison as a wrong token.
        self._nobody = Endpoint("", secrets.token_urlsafe(32).encode(), _nothing)
        self._large = asyncio.Lock()
        # Bound once: a logger that is not binds itself anew for every line, even one left out.
        self._log = structlog.get_logger(__name__).bind()
        self._refused = Tally(self._log, "callbacks were refused")

    def add_routes(self, app: web.Application) -> None:
        """Add the webhook endpoints to an application."""
        router = app.router
        router.add_post("/webhooks/{account}/{token}", self.post, expect_handler=expect)
        router.add_post("/webhooks/{account}", self.post, expect_handler=expect)
        router.add_get(
            "/webhooks/{account}", self.verify_subscription, allow_head=False, expect_handler=expect
        )

    async def post(self, request: web.Request) -> web.Response:
        """Take one callback of an account or an app, if its token or its signature is right.

        Raises HTTPNotFound, alike for an unknown account and a wrong token, and RefusedError where
        the callback is not taken.
        """
        started = time.perf_counter()
        endpoint = self.endpoints.get(request.match_info["account"], self._nobody)
        token = request.match_info.get("token", "").encode(errors="replace")
        if not hmac.compare_digest(token, endpoint.token) or endpoint is self._nobody:
            self._note_refused("", REFUSED)
            raise web.HTTPNotFound
        reservation = self._bodies.reservation(verified=endpoint.verifier is None)
        try:
            body = await self._read(request, endpoint, reservation)
            header = HEADER if endpoint.verifier is None else endpoint.verifier.header
            envelope = envelope_of(request.headers, request[REQUEST_ID], header)
            arrived = self._ledger.clock()
            callback = IncomingCallback(endpoint.name, arrived, endpoint.dialect, envelope, body)
            await self._keep(callback)
        except (RefusedError, FullError, UnavailableError) as error:
            refused = _refusal(error)
            self._note_refused(endpoint.name, refused.result)
            if refused.result == REFUSED:
                app = endpoint.name.removeprefix(APP_MARK)
                self._metrics.signature_failures.labels(app).inc()
            raise refused from None
        finally:
            reservation.release()
        self._metrics.callback_seconds.observe(time.perf_counter() - started)
        self._note(endpoint, callback)
        self._say(callback)
        return web.Response(body=b"{}", content_type="application/json")

    async def verify_subscription(self, request: web.Request) -> web.Response:
        """Answer an app's verification request with its challenge, if the verify token is right.

        Raises HTTPForbidden where it is not. The endpoint of an account is not verified, and is
        answered as one that is not there: HTTPNotFound.
        """
        endpoint = self.endpoints.get(request.match_info["account"], self._nobody)
        if endpoint.verifier is None:
            self._note_refused("", REFUSED)
            raise web.HTTPNotFound
        challenge = endpoint.verifier.challenge(request.query)
        if challenge is None:
            self._note_refused(endpoint.name, REFUSED)
            raise web.HTTPForbidden
        return web.Response(text=challenge, headers={"X-Content-Type-Options": "nosniff"})

    async def _read(
        self, request: web.Request, endpoint: Endpoint, reservation: Reservation
    ) -> bytes:
        """Read the body, and check its signature where it has to have one."""
        verifier = endpoint.verifier
        signature = None if verifier is None else verifier.signature_of(request.headers)
        if verifier is not None and signature is None:
            # Its body is not even read.
            raise self._wrong_signature(endpoint, missing=True)
        self._ledger.check_room()
        body = await self._bodies.read(request, reservation)
        if verifier is not None and signature is not None:
            if len(body) > OFF_LOOP_BYTES:
                matches = await asyncio.to_thread(verifier.matches, signature, body)
            else:
                matches = verifier.matches(signature, body)
            if not matches:
                raise self._wrong_signature(endpoint, missing=False)
            self._bodies.verify(reservation, body)
        return body

    def _wrong_signature(self, endpoint: Endpoint, *, missing: bool) -> RefusedError:
        """Note a callback with a wrong signature or none, and return what it is refused with."""
        header = HEADER if endpoint.verifier is None else endpoint.verifier.header
        check = endpoint.signatures
        if check is not None and (count := check.note_wrong(self._ledger.clock(), missing=missing)):
            log.warning("wrong signatures", app=check.app, callbacks=count)
        detail = f"{header} is missing or wrong"
        return RefusedError(401, REFUSED, detail, {"WWW-Authenticate": header}, close=missing)

    async def _keep(self, callback: IncomingCallback) -> None:
        """Write a callback; return once all of it is on disk and in effect."""
        if len(callback.body) <= OFF_LOOP_BYTES:
            await self._write(callback)
            return
        async with self._large:
            # What fails here fails again in the ledger, which keeps the callback all the same.
            with suppress(Exception):
                await asyncio.to_thread(callback.read)
            await self._write(callback)

    async def _write(self, callback: IncomingCallback) -> None:
        await self._ledger.submit(callback, bounded=True)
        for slices in _together(callback.rest):
            await asyncio.gather(*map(self._ledger.submit, slices))

    def _note(self, endpoint: Endpoint, callback: IncomingCallback) -> None:
        """Count a callback that was kept, and what it held."""
        self._metrics.count_callback(callback.account, callback.state)
        if endpoint.signatures is not None and callback.state != SYNTHETIC:
            # `ackgate doctor` signs its own with the configured secret, be that right or wrong.
            endpoint.signatures.clear()
        for account, reading in callback.readings.items():
            for event in reading.events:
                self._metrics.count_events(account, WIRE_NAMES[type(event)])
            if reading.others:
                self._metrics.count_events(account, OTHER, reading.others)
            if reading.sent or reading.delivered:
                self._messages.note(account, reading)
            if (check := self._identity_checks.get(account)) is not None:
                check.note(reading.events, callback.arrived)
            if not account and any(_is_unknown_number(fault) for fault in reading.faults):
                app = endpoint.name.removeprefix(APP_MARK)
                self._metrics.unknown_numbers.labels(app).inc()

    def _note_refused(self, name: str, result: str) -> None:
        """Count a callback that is not taken; the log tells of each at `debug` alone."""
        self._metrics.count_callback(name, result)
        self._log.debug("callback refused", account=name, result=result)
        self._refused.count(result)

    def _say(self, callback: IncomingCallback) -> None:
        """Write the line of a callback that was kept: at `info` where somebody may look for it."""
        changed = callback.changed
        is_news = bool(changed) or callback.state == QUARANTINED
        if not is_news and not self._log.is_enabled_for(logging.DEBUG):
            return
        events = {type(e) for reading in callback.readings.values() for e in reading.events}
        write = self._log.info if is_news else self._log.debug
        write(
            "callback",
            account=callback.account,
            state=callback.state,
            events=sorted(WIRE_NAMES[event] for event in events),
            identities=changed,
            journal_id=callback.first.journal_id if callback.first else None,
        )

    def close(self) -> None:
        """Tell of the callbacks that were refused since the last line about them."""
        self._refused.close()


def _refusal(error: RefusedError | FullError | UnavailableError) -> RefusedError:
    """Return what a callback is refused with: 503, where it could not be stored."""
    if isinstance(error, RefusedError):
        return error
    seconds = "1" if isinstance(error, FullError) else "5"
    detail = "the callback could not be stored: deliver it again"
    return RefusedError(503, "not_stored", detail, {"Retry-After": seconds}, close=False)


def _together(slices: Sequence[RecordCallback]) -> Iterator[list[RecordCallback]]:
    """Put small slices together, for one transaction; neighbours get in between."""
    group: list[RecordCallback] = []
    events = 0
    for entry in slices:
        if group and events + len(entry.events) > MAX_SLICE:
            yield group
            group, events = [], 0
        group.append(entry)
        events += len(entry.events)
    if group:
        yield group


def _is_unknown_number(fault: Fault) -> bool:
    return fault.reason.startswith(UNKNOWN_NUMBER)


def _nothing(_: str, __: str, ___: bytes) -> Mapping[str, Reading]:
    return {}


async def expect(request: web.Request) -> None:
    """Refuse any expectation but `100-continue`, without repeating it.

    That one is met by `BodyReader`, once it is known that the body is wanted.
    """
    if request.headers.get("Expect", "").lower() != "100-continue":
        id_ = request_id(request.headers.get(ID_HEADER))
        raise web.HTTPExpectationFailed(headers={ID_HEADER: id_})
