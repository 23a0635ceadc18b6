"""`POST /webhooks/{account}/{token}` and `/webhooks/{app}`: a 200 means on disk and in effect."""

import asyncio
import hmac
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp import web

from service.ingress.bodies import BodyError, BodyReader, Reservation, problem
from service.ingress.envelope import envelope_of
from service.ingress.readers import Dialect, in_journal, reader_of
from service.ingress.received import Received
from service.ingress.signatures import HEADER, Seal, signature_of
from service.ledger.callbacks import MAX_SLICE, RecordCallback
from service.ledger.ledger import FullError, Ledger
from service.ledger.messages import Messages
from service.model.events import (
    ContactChecked,
    Event,
    Fault,
    HashRefused,
    HashUnreadable,
    IdentitySeen,
    MessageSent,
    Named,
    NumberChanged,
    Reading,
    SendBlocked,
    UserWrote,
)
from service.model.identity_check import IdentityCheck
from service.observability.metrics import Metrics
from service.settings import AppSettings, Settings
from service.store.database import APP_MARK, UnavailableError

OFF_LOOP_BYTES = 65_536
"""Bodies above this are parsed off the event loop, one at a time.

What a body of 4 MiB is parsed into can take a dozen times as much.
"""

_NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}

EVENT_NAMES: Mapping[type[Event], str] = {
    IdentitySeen: "identity_seen",
    HashUnreadable: "hash_unreadable",
    SendBlocked: "send_blocked",
    HashRefused: "hash_refused",
    NumberChanged: "number_changed",
    UserWrote: "user_wrote",
    ContactChecked: "contact_checked",
    Named: "aliases_seen",
    MessageSent: "message_sent",
}
"""What metrics call each event."""
OTHER = "other"
"""What metrics call what is normal and of no interest here."""

UNKNOWN_NUMBER = "no account has "
"""How the fault begins, in the words of the Cloud dialect, of a number that no account has."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """One account's door, or one app's: what opens it, and how it speaks.

    `name` is what metrics and the journal call it. `token` is None where none is configured; an app
    has a `seal` in its place.
    """

    name: str
    token: str | None
    dialect: Dialect
    seal: Seal | None = None
    expected: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Have the token as bytes, to be compared in constant time."""
        object.__setattr__(self, "expected", (self.token or "").encode())


class RefusedError(Exception):
    """A callback whose signature is missing or wrong; nothing of it is stored.

    `unread`: nor was its body read.
    """

    def __init__(self, *, unread: bool) -> None:
        super().__init__()
        self.unread = unread

    def response(self) -> web.Response:
        """Answer; where the body was not read, close the connection, for it is not wanted."""
        response = problem(401, "Unauthorized", f"{HEADER} is missing or wrong")
        response.headers["WWW-Authenticate"] = HEADER
        if self.unread:
            response.force_close()
        return response


def entrances(settings: Settings) -> dict[str, Entrance]:
    """Return every door, by the first part of its path: an account's name, or an app's."""
    doors = {
        name: Entrance(
            name,
            account.webhook_token.get_secret_value() if account.webhook_token else None,
            reader_of(settings, name),
        )
        for name, account in settings.onprem_accounts.items()
    }
    for name, app in settings.apps.items():
        called, seal = in_journal(name), _seal(app)
        doors[name] = Entrance(called, None, reader_of(settings, called), seal)
    return doors


def _seal(app: AppSettings) -> Seal:
    secrets = [s for s in (app.app_secret, app.app_secret_previous) if s is not None]
    return Seal(
        [secret.get_secret_value().encode() for secret in secrets],
        app.verify_token.get_secret_value().encode(),
    )


class Door:
    """Takes the callbacks of every account and every app."""

    def __init__(
        self,
        entrances: Mapping[str, Entrance],
        ledger: Ledger,
        bodies: BodyReader,
        metrics: Metrics,
        messages: Messages,
        identity_checks: Mapping[str, IdentityCheck],
    ) -> None:
        self._entrances = entrances
        self._ledger = ledger
        self._bodies = bodies
        self._metrics = metrics
        self._messages = messages
        self._identity_checks = identity_checks
        self._nobody = Entrance("", secrets.token_urlsafe(32), _nothing)
        self._large = asyncio.Lock()

    async def post(self, request: web.Request) -> web.Response:
        """Take one callback of an account or an app, if its token or its signature is right.

        Raises HTTPNotFound, alike for an unknown account and a wrong token.
        """
        started = time.perf_counter()
        named = request.match_info
        entrance = self._admit(named["account"], named.get("token", ""))
        if entrance is None:
            self._metrics.count_callback("", "refused")
            raise web.HTTPNotFound
        reservation = self._bodies.reservation(verified=entrance.seal is None)
        try:
            body = await self._body(request, entrance.seal, reservation)
            envelope = envelope_of(request.headers)
            received = Received(
                entrance.name, self._ledger.clock(), entrance.dialect, envelope, body
            )
            if len(body) > OFF_LOOP_BYTES:
                await self._keep_large(received)
            else:
                await self._ledger.submit(received, bounded=True)
                if received.rest:
                    await self._keep_rest(received.rest)
        except BodyError as error:
            self._count(entrance, error.result)
            return error.response()
        except RefusedError as error:
            self._count(entrance, "refused")
            return error.response()
        except (FullError, UnavailableError) as error:
            self._count(entrance, "not_stored")
            return _unavailable(retry_after=1 if isinstance(error, FullError) else 5)
        finally:
            reservation.release()
        self._note(entrance, received, started)
        return web.Response(body=b"{}", content_type="application/json")

    async def _body(
        self, request: web.BaseRequest, seal: Seal | None, reservation: Reservation
    ) -> bytes:
        """Read the body, and see whether its signature fits where it has to have one."""
        signature = None if seal is None else _demand_signature(request)
        self._ledger.check_room()
        body = await self._bodies.read(request, reservation)
        if seal is not None and signature is not None:
            await _check(seal, signature, body)
            self._bodies.verify(reservation, body)
        return body

    def _count(self, entrance: Entrance, result: str) -> None:
        self._metrics.count_callback(entrance.name, result)

    def _admit(self, account: str, token: str) -> Entrance | None:
        """Find the door that the token opens; an unknown account costs the same comparison."""
        entrance = self._entrances.get(account, self._nobody)
        fits = hmac.compare_digest(token.encode(errors="replace"), entrance.expected)
        return entrance if fits and entrance is not self._nobody else None

    async def shake_hands(self, request: web.Request) -> web.Response:
        """Answer the handshake of an app: whoever knows its verify token gets the challenge back.

        An account's door knows no handshake, and is answered as one that is not there.
        """
        entrance = self._entrances.get(request.match_info["account"], self._nobody)
        if entrance.seal is None:
            self._metrics.count_callback("", "refused")
            raise web.HTTPNotFound
        challenge = entrance.seal.challenge(request.query)
        if challenge is None:
            self._count(entrance, "refused")
            raise web.HTTPForbidden
        return web.Response(text=challenge, headers=_NO_SNIFFING)

    async def _keep_large(self, received: Received) -> None:
        async with self._large:
            # What fails here fails again in the ledger, which keeps the callback all the same.
            with suppress(Exception):
                await asyncio.to_thread(received.read)
            await self._ledger.submit(received, bounded=True)
            await self._keep_rest(received.rest)

    async def _keep_rest(self, rest: Sequence[RecordCallback]) -> None:
        for slices in _together(rest):
            await asyncio.gather(*map(self._ledger.submit, slices))

    def _note(self, entrance: Entrance, received: Received, started: float) -> None:
        self._metrics.callback_seconds.observe(time.perf_counter() - started)
        self._metrics.count_callback(received.account, received.state)
        for account, reading in received.readings.items():
            for event in reading.events:
                self._metrics.count_events(account, EVENT_NAMES[type(event)])
            if reading.others:
                self._metrics.count_events(account, OTHER, reading.others)
            if reading.sent or reading.delivered:
                self._messages.note(account, reading)
            if (check := self._identity_checks.get(account)) is not None:
                check.note(reading.events, received.arrived)
            if not account and any(_is_unknown_number(fault) for fault in reading.faults):
                app = entrance.name.removeprefix(APP_MARK)
                self._metrics.unknown_numbers.labels(app).inc()


def _demand_signature(request: web.BaseRequest) -> bytes:
    signature = signature_of(request.headers)
    if signature is None:
        raise RefusedError(unread=True)
    return signature


async def _check(seal: Seal, signature: bytes, body: bytes) -> None:
    """Raise RefusedError where the body, as it came, was not signed so."""
    if len(body) > OFF_LOOP_BYTES:
        fits = await asyncio.to_thread(seal.fits, signature, body)
    else:
        fits = seal.fits(signature, body)
    if not fits:
        raise RefusedError(unread=False)


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
    return fault.why.startswith(UNKNOWN_NUMBER)


def _nothing(_: str, __: str, ___: bytes) -> Mapping[str, Reading]:
    return {}


def _unavailable(retry_after: int) -> web.Response:
    response = problem(
        503, "Service Unavailable", "the callback could not be stored: deliver it again"
    )
    response.headers["Retry-After"] = str(retry_after)
    return response


async def expect(request: web.Request) -> None:
    """Let a sender go on that asks first; any other expectation is refused without repeating it."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
