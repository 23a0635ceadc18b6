"""`POST /webhooks/{account}/{token}` and `/webhooks/{app}`: a 200 means on disk and in effect."""

import asyncio
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, NamedTuple

from aiohttp import web

from service.dialects.common import size_to_read
from service.ingress.bodies import BodyError, Intake, Reservation, problem
from service.ingress.envelope import Envelope, envelope_of
from service.ingress.readers import Dialect, in_journal, reader_of
from service.ingress.received import Received
from service.ingress.signatures import HEADER, Seal, signature_of
from service.ledger.callbacks import MAX_SLICE, RecordCallback
from service.ledger.ledger import FullError, Ledger
from service.ledger.messages import Messages
from service.model.account_checks import IdentityCheck
from service.model.events import Fault, Reading
from service.observability.metrics import Metrics
from service.settings import AppSettings, Settings
from service.store.database import APP_MARK, UnavailableError

OFF_LOOP_BYTES = 65_536
"""Bodies above this are parsed off the event loop, one at a time.

What a body of 4 MiB is parsed into can take a dozen times as much.
"""

_PLAIN = re.compile(r"/webhooks/([a-z0-9_]+)(?:/([A-Za-z0-9._~-]+))?")
_KNOWN_PATHS = 256
_JSON = {"Content-Type": "application/json"}
_NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}

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


class Whole(NamedTuple):
    """A callback that has arrived as a whole: what its head names, and the body as it came.

    `signature` is the one it was sent with, or nothing.
    """

    account: str
    token: str
    envelope: Envelope
    signature: bytes
    body: bytes


Answer = Callable[[web.Response | BaseException | None], None]
"""Told once what became of a whole callback: nothing where it is kept; else what to answer, or what
nobody foresaw. What is no Exception, as where its task was cancelled, has no answer."""


class _Visit(NamedTuple):
    """A whole callback that is being written, and whom to tell."""

    entrance: Entrance
    received: Received
    reservation: Reservation
    started: float
    answer: Answer


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
        intake: Intake,
        metrics: Metrics,
        messages: Messages,
        identity_checks: Mapping[str, IdentityCheck],
    ) -> None:
        self._entrances = entrances
        self._ledger = ledger
        self._intake = intake
        self._metrics = metrics
        self._messages = messages
        self._identity_checks = identity_checks
        self._callbacks = metrics.callback_tally
        self._events = metrics.event_tally
        self._nobody = Entrance("", secrets.token_urlsafe(32), _nothing)
        self._large = asyncio.Lock()

    async def post(self, request: web.Request) -> web.Response:
        """Take one callback, as the router hands it over."""
        named = request.match_info
        refused = await self.take(request, named["account"], named.get("token", ""))
        return web.Response(body=b"{}", headers=_JSON) if refused is None else refused

    async def take(self, request: web.BaseRequest, account: str, token: str) -> web.Response | None:
        """Take one callback of an account or an app, if the token or the signature opens its door.

        Gives the answer where it is not kept; None where it is, for that answer is always the same.
        """
        started = time.perf_counter()
        entrance = self._admit(account, token)
        if entrance is None:
            self._callbacks.inc("", "refused")
            raise web.HTTPNotFound
        reservation = self._intake.reservation(verified=entrance.seal is None)
        try:
            body = await self._body(request, entrance.seal, reservation)
            received = self._receive(entrance, envelope_of(request.headers), body)
            if len(body) > OFF_LOOP_BYTES:
                await self._keep_large(received, reservation)
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
        return None

    def opens(self, whole: Whole) -> bool:
        """Tell whether a small callback has the token or the signature that opens its door."""
        return self._opened(whole) is not None

    def _opened(self, whole: Whole) -> Entrance | None:
        entrance = self._admit(whole.account, whole.token)
        if entrance is None or len(whole.body) > OFF_LOOP_BYTES:
            return None
        seal = entrance.seal
        return entrance if seal is None or seal.fits(whole.signature, whole.body) else None

    def take_whole(self, whole: Whole, answer: Answer) -> bool:
        """Take a small callback that has arrived as a whole; `answer` is called once it is kept.

        False, and nothing is done, where it has to be refused or needs more looking at: see `take`.
        """
        started = time.perf_counter()
        entrance = None if self._ledger.full else self._opened(whole)
        if entrance is None:
            return False
        received = self._receive(entrance, whole.envelope, whole.body)
        reservation = self._intake.reservation(verified=True)
        written = None
        try:
            self._intake.take_whole(whole.body, reservation)
            written = self._ledger.submit(received, bounded=True)
        except (BodyError, FullError):
            return False
        finally:
            if written is None:
                reservation.release()
        visit = _Visit(entrance, received, reservation, started, answer)
        written.add_done_callback(partial(self._written, visit))
        return True

    def _written(self, visit: "_Visit", written: asyncio.Future[Any]) -> None:
        """Answer a callback that was taken as a whole, or write what is left of it first."""
        error = asyncio.CancelledError() if written.cancelled() else written.exception()
        received = visit.received
        if error is None and received.rest:
            rest = asyncio.ensure_future(self._keep_rest(received.rest))
            received.rest = ()
            rest.add_done_callback(partial(self._written, visit))
            return
        visit.reservation.release()
        if isinstance(error, UnavailableError):
            self._count(visit.entrance, "not_stored")
            visit.answer(_unavailable(retry_after=5))
            return
        if error is None:
            try:
                self._note(visit.entrance, received, visit.started)
            except Exception as fault:  # noqa: BLE001  nobody else would answer the sender
                error = fault
        visit.answer(error)

    def _receive(self, entrance: Entrance, envelope: Envelope, body: bytes) -> Received:
        return Received(entrance.name, self._ledger.clock(), entrance.dialect, envelope, body)

    async def _body(
        self, request: web.BaseRequest, seal: Seal | None, reservation: Reservation
    ) -> bytes:
        """Read the body, and see whether its signature fits where it has to have one."""
        signature = None if seal is None else _demand_signature(request)
        self._ledger.check_room()
        body = self._intake.at_hand(request, reservation)
        if body is None:
            body = await self._intake.read(request, reservation)
        if seal is not None and signature is not None:
            await _check(seal, signature, body)
            self._intake.verify(reservation, body)
        return body

    def _count(self, entrance: Entrance, result: str) -> None:
        self._callbacks.inc(entrance.name, result)

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
            self._callbacks.inc("", "refused")
            raise web.HTTPNotFound
        challenge = entrance.seal.challenge(request.query)
        if challenge is None:
            self._count(entrance, "refused")
            raise web.HTTPForbidden
        return web.Response(text=challenge, headers=_NO_SNIFFING)

    async def _keep_large(self, received: Received, reservation: Reservation) -> None:
        async with self._large:
            size = await asyncio.to_thread(size_to_read, received.body)
            reservation.hold_for_reading(size)
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
        self._callbacks.inc(received.account, received.state)
        for account, reading in received.readings.items():
            for event in reading.events:
                self._events.inc(account, type(event).__name__)
            if reading.others:
                self._events.inc(account, "Other", by=reading.others)
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
    return fault.reason.startswith(UNKNOWN_NUMBER)


def _nothing(_: str, __: str, ___: bytes) -> Mapping[str, Reading]:
    return {}


def _unavailable(retry_after: int) -> web.Response:
    response = problem(
        503, "Service Unavailable", "the callback could not be stored: deliver it again"
    )
    response.headers["Retry-After"] = str(retry_after)
    return response


def address_of(request: web.BaseRequest) -> tuple[str, str] | None:
    """Read account and token, or app and nothing, off a plain callback's path.

    None for whatever needs the router.
    """
    if request.method != "POST" or "Expect" in request.headers:
        return None
    return address_in(request.raw_path)


@lru_cache(maxsize=_KNOWN_PATHS)
def address_in(path: str) -> tuple[str, str] | None:
    """Read account and token, or app and nothing, off a path; None where it is another one."""
    plain = _PLAIN.fullmatch(path)
    return None if plain is None else (plain[1], plain[2] or "")


async def expect(request: web.Request) -> None:
    """Let a sender go on that asks first; any other expectation is refused without repeating it."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
