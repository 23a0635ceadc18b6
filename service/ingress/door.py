"""`POST /webhooks/{account}/{token}`: a 200 means on disk and in effect."""

import asyncio
import hmac
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from aiohttp import web

from service.dialects import onprem
from service.ingress.bodies import BodyError, Intake
from service.ledger.callbacks import slices, state_of
from service.ledger.ledger import FullError, Ledger
from service.model.events import Reading
from service.observability.logs import request_id
from service.observability.metrics import Metrics
from service.store.database import JournalRow, UnavailableError

MAX_HEADER_BYTES = 8192
MAX_LABEL_CHARACTERS = 200
OFF_LOOP_BYTES = 65_536
"""Bodies above this are parsed off the event loop."""

_JSON = {"Content-Type": "application/json"}

Dialect = Callable[[str, str, bytes], Reading]

DIALECTS: Mapping[str, Dialect] = {"onprem": onprem.read}


@dataclass(frozen=True, slots=True)
class Entrance:
    """One account's door: its token, None where none is configured, and how it speaks."""

    account: str
    token: str | None
    dialect: Dialect


class Door:
    """Takes the callbacks of every account."""

    def __init__(
        self, entrances: Mapping[str, Entrance], ledger: Ledger, intake: Intake, metrics: Metrics
    ) -> None:
        self._entrances = entrances
        self._ledger = ledger
        self._intake = intake
        self._metrics = metrics
        self._callbacks = cache(metrics.callbacks.labels)
        self._events = cache(metrics.events.labels)
        self._nobody = Entrance("", secrets.token_urlsafe(32), onprem.read)

    async def post(self, request: web.Request) -> web.Response:
        """Take one callback."""
        started = time.perf_counter()
        entrance = self._admit(request.match_info)
        if entrance is None:
            self._callbacks("", "refused").inc()
            raise web.HTTPNotFound
        try:
            result = await self._take(entrance, request)
        except BodyError as error:
            self._count(entrance, error.result)
            return error.response()
        except (FullError, UnavailableError) as error:
            self._count(entrance, "not_stored")
            return _unavailable(retry_after=1 if isinstance(error, FullError) else 5)
        self._count(entrance, result)
        self._metrics.callback_seconds.observe(time.perf_counter() - started)
        return web.Response(body=b"{}", headers=_JSON)

    def _count(self, entrance: Entrance, result: str) -> None:
        self._callbacks(entrance.account, result).inc()

    def _admit(self, named: Mapping[str, str]) -> Entrance | None:
        """Find the door that the token opens; an unknown account costs the same comparison."""
        entrance = self._entrances.get(named["account"], self._nobody)
        token = named.get("token", "")
        expected = entrance.token or ""
        fits = hmac.compare_digest(token.encode(errors="replace"), expected.encode())
        return entrance if fits and entrance is not self._nobody else None

    async def _take(self, entrance: Entrance, request: web.Request) -> str:
        with self._intake.reserve() as reservation:
            if self._ledger.full:
                raise FullError
            body = await self._intake.read(request, reservation)
            arrived = self._ledger.clock()
            content_type = label(request.headers.get("Content-Type", ""))
            encoding = label(request.headers.get("Content-Encoding", "")).strip().lower()
            reading = await read_body_of(entrance.dialect, content_type, encoding, body)
            state, reason = state_of(reading)
            row = JournalRow(
                entrance.account,
                arrived,
                state,
                reason,
                content_type,
                encoding,
                kept_headers(request),
                body,
            )
            for entry in slices(row, reading, request_id(request.headers.get("X-Request-ID"))):
                await self._ledger.submit(entry, bounded=entry.keeps_row)
        self._note(entrance, reading)
        return state

    def _note(self, entrance: Entrance, reading: Reading) -> None:
        counted = Counter(map(type, reading.events))
        for kind, count in counted.items():
            self._events(entrance.account, kind.__name__).inc(count)
        if reading.others:
            self._events(entrance.account, "Other").inc(reading.others)


async def read_body_of(
    dialect: Dialect, content_type: str, content_encoding: str, body: bytes
) -> Reading:
    """Let the dialect read a body, off the event loop where it is large."""
    if len(body) <= OFF_LOOP_BYTES:
        return dialect(content_type, content_encoding, body)
    return await asyncio.to_thread(dialect, content_type, content_encoding, body)


def _unavailable(retry_after: int) -> web.Response:
    return web.json_response(
        {
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "the callback could not be stored: deliver it again",
        },
        status=503,
        content_type="application/problem+json",
        headers={"Retry-After": str(retry_after)},
    )


def label(value: str) -> str:
    """Make a header's value fit to be kept: bounded, and without bytes that are no text."""
    return value.encode(errors="backslashreplace").decode()[:MAX_LABEL_CHARACTERS]


def kept_headers(request: web.Request) -> str:
    """Keep the user agent and the `x-*` headers as a JSON list of pairs, 8 kB at most."""
    kept: list[tuple[str, str]] = []
    room = MAX_HEADER_BYTES
    for name, value in request.headers.items():
        lower = name.lower()
        if lower != "user-agent" and not lower.startswith("x-"):
            continue
        room -= len(json.dumps((lower, value))) + 1
        if room < 0:
            break
        kept.append((lower, value))
    return json.dumps(kept)


async def expect(request: web.Request) -> None:
    """Let a sender go on that asks first; any other expectation is refused without repeating it."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
