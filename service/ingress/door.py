"""`POST /webhooks/{account}/{token}`: a 200 means on disk and in effect."""

import asyncio
import hmac
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from aiohttp import web

from service.dialects import onprem
from service.ingress.bodies import BodyError, Intake, Reservation, problem
from service.ingress.received import Dialect, Received
from service.ledger.ledger import FullError, Ledger
from service.ledger.tally import Tally
from service.model.events import Reading
from service.observability.metrics import Metrics
from service.store.database import UnavailableError

OFF_LOOP_BYTES = 65_536
"""Bodies above this are parsed off the event loop, one at a time.

What a body of 4 MiB is parsed into can take thirty times as much.
"""

_PLAIN = re.compile(r"/webhooks/([a-z0-9_]+)/([A-Za-z0-9._~-]+)")
_KNOWN_PATHS = 256
_JSON = {"Content-Type": "application/json"}

DIALECTS: Mapping[str, Dialect] = {"onprem": onprem.read}


@dataclass(frozen=True, slots=True)
class Entrance:
    """One account's door: its token, None where none is configured, and how it speaks."""

    account: str
    token: str | None
    dialect: Dialect
    expected: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Have the token as bytes, to be compared in constant time."""
        object.__setattr__(self, "expected", (self.token or "").encode())


class Door:
    """Takes the callbacks of every account."""

    def __init__(
        self,
        entrances: Mapping[str, Entrance],
        ledger: Ledger,
        intake: Intake,
        metrics: Metrics,
        tally: Tally,
    ) -> None:
        self._entrances = entrances
        self._ledger = ledger
        self._intake = intake
        self._metrics = metrics
        self._tally = tally
        self._callbacks = metrics.callback_tally
        self._events = metrics.event_tally
        self._nobody = Entrance("", secrets.token_urlsafe(32), onprem.read)
        self._large = asyncio.Lock()

    async def post(self, request: web.Request) -> web.Response:
        """Take one callback, as the router hands it over."""
        named = request.match_info
        refused = await self.take(request, named["account"], named.get("token", ""))
        return web.Response(body=b"{}", headers=_JSON) if refused is None else refused

    async def take(self, request: web.BaseRequest, account: str, token: str) -> web.Response | None:
        """Take one callback for an account, if the token opens its door.

        Gives the answer where it is not kept; None where it is, for that answer is always the same.
        """
        started = time.perf_counter()
        entrance = self._admit(account, token)
        if entrance is None:
            self._callbacks.inc("", "refused")
            raise web.HTTPNotFound
        reservation = Reservation()
        try:
            self._ledger.check_room()
            body = self._intake.at_hand(request, reservation)
            if body is None:
                body = await self._intake.read(request, reservation)
            received = Received(
                entrance.account, self._ledger.clock(), entrance.dialect, request.headers, body
            )
            if len(body) > OFF_LOOP_BYTES:
                await self._keep_large(received)
            else:
                await self._ledger.submit(received, bounded=True)
                if received.rest:
                    await self._keep_rest(received)
        except BodyError as error:
            self._count(entrance, error.result)
            return error.response()
        except (FullError, UnavailableError) as error:
            self._count(entrance, "not_stored")
            return _unavailable(retry_after=1 if isinstance(error, FullError) else 5)
        finally:
            self._intake.release(reservation)
        self._count(entrance, received.state)
        self._note(entrance, received.reading)
        self._metrics.callback_seconds.observe(time.perf_counter() - started)
        return None

    def _count(self, entrance: Entrance, result: str) -> None:
        self._callbacks.inc(entrance.account, result)

    def _admit(self, account: str, token: str) -> Entrance | None:
        """Find the door that the token opens; an unknown account costs the same comparison."""
        entrance = self._entrances.get(account, self._nobody)
        fits = hmac.compare_digest(token.encode(errors="replace"), entrance.expected)
        return entrance if fits and entrance is not self._nobody else None

    async def _keep_large(self, received: Received) -> None:
        async with self._large:
            await asyncio.to_thread(received.read)
            await self._ledger.submit(received, bounded=True)
            await self._keep_rest(received)

    async def _keep_rest(self, received: Received) -> None:
        for entry in received.rest:
            await self._ledger.submit(entry)

    def _note(self, entrance: Entrance, reading: Reading) -> None:
        for event in reading.events:
            self._events.inc(entrance.account, type(event).__name__)
        if reading.others:
            self._events.inc(entrance.account, "Other", by=reading.others)
        if reading.sent or reading.delivered:
            self._tally.note(entrance.account, reading)


def _unavailable(retry_after: int) -> web.Response:
    response = problem(
        503, "Service Unavailable", "the callback could not be stored: deliver it again"
    )
    response.headers["Retry-After"] = str(retry_after)
    return response


def address_of(request: web.BaseRequest) -> tuple[str, str] | None:
    """Read account and token off a plain callback's path; None for whatever needs the router."""
    if request.method != "POST" or "Expect" in request.headers:
        return None
    return _address_in(request.raw_path)


@lru_cache(maxsize=_KNOWN_PATHS)
def _address_in(path: str) -> tuple[str, str] | None:
    plain = _PLAIN.fullmatch(path)
    return None if plain is None else (plain[1], plain[2])


async def expect(request: web.Request) -> None:
    """Let a sender go on that asks first; any other expectation is refused without repeating it."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
