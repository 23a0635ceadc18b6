"""Reading bodies within bounds: so large, so slow, and so many at once."""

import asyncio
from dataclasses import dataclass

from aiohttp import ClientPayloadError, web

from service.ledger.ledger import FullError
from service.observability.metrics import Metrics

LINGER_SECONDS = 2.0
"""How long an answered sender may go on sending before the connection is cut."""

BELIEVED_BYTES = 65_536
"""A body that announces up to this is counted as announced, a larger one beyond it as it comes.

Else a handful of senders that announce much and send nothing would fill the door.
"""

MAX_STALLS = 6
"""A body that keeps coming may take this many times as long as one that stalls.

One that is not verified may not: whoever sends it may be a stranger.
"""

READING_PART = 7 / 8
"""A large body, and what it is parsed into, count up to this part of the bytes in flight.

So any body can be read once it is nearly alone, and small ones are taken meanwhile.
"""

UNVERIFIED_PART = 4
"""All bodies that are not verified have this part of the bytes in flight, on top of them."""


def problem(status: int, title: str, detail: str) -> web.Response:
    """Write an error of the door as `application/problem+json` (RFC 9457)."""
    return web.json_response(
        {"type": "about:blank", "title": title, "status": status, "detail": detail},
        status=status,
        content_type="application/problem+json",
    )


class BodyError(Exception):
    """A body that was not taken; nothing of it is stored."""

    def __init__(self, status: int, result: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.result = result
        self.detail = detail

    def response(self) -> web.Response:
        """Answer, and close the connection afterwards: the rest of the body is not wanted."""
        titles = {408: "Request Timeout", 413: "Content Too Large", 400: "Bad Request"}
        response = problem(self.status, titles[self.status], self.detail)
        response.force_close()
        return response


@dataclass(slots=True)
class Share:
    """How many bytes may be held at once, and how many are."""

    most: int
    held: int = 0


@dataclass(slots=True)
class Reservation:
    """The bytes that one request holds of a share; `verified`: its sender is known."""

    share: Share
    verified: bool
    held: int = 0

    def hold(self, count: int) -> None:
        """Hold more bytes; raises FullError."""
        if self.share.held + count > self.share.most:
            raise FullError
        self.share.held += count
        self.held += count

    def hold_for_reading(self, size: int) -> None:
        """Hold what a body is going to be parsed into, too, but never all; raises FullError."""
        self.hold(max(0, min(size, int(self.share.most * READING_PART) - self.held)))

    def release(self) -> None:
        """Let go of all of them."""
        self.share.held -= self.held
        self.held = 0


class Intake:
    """Reads bodies, and counts the bytes of all that are being read or wait to be stored.

    What strangers send, before a signature is found to fit, counts in a share of its own: however
    much they send, whoever has a token is not held up.
    """

    def __init__(
        self, metrics: Metrics, *, max_body: int, max_in_flight: int, timeout_seconds: float
    ) -> None:
        self._known = Share(max_in_flight)
        self._strangers = Share(max(max_in_flight // UNVERIFIED_PART, max_body))
        metrics.bytes_in_flight.set_function(lambda: self._known.held + self._strangers.held)
        self._max_body = max_body
        self._timeout = timeout_seconds

    def reservation(self, *, verified: bool) -> Reservation:
        """Begin a request, whose sender is known by its token, or not known yet."""
        return Reservation(self._known if verified else self._strangers, verified)

    def verify(self, reservation: Reservation, body: bytes) -> None:
        """Count a body among those of known senders, for its signature fits; raises FullError."""
        reservation.release()
        reservation.share, reservation.verified = self._known, True
        reservation.hold(len(body))

    def at_hand(self, request: web.BaseRequest, reservation: Reservation) -> bytes | None:
        """Take a body that has arrived as a whole; None where it has to be waited for.

        A small one that is not verified counts only when it is, which is at once: so a share that
        strangers have filled holds up no small callback that comes in one piece.

        Raises FullError, and BodyError (413 too large).
        """
        announced = request.content_length
        if announced is None:
            return None
        self._check(announced)
        content = request.content
        if not content.is_eof() or content.exception() is not None:
            return None
        if reservation.verified or announced > BELIEVED_BYTES:
            reservation.hold(announced)
        return content.read_nowait()

    async def read(self, request: web.BaseRequest, reservation: Reservation) -> bytes:
        """Read the body as it comes over the wire.

        A stranger's body counts only as it comes, for what it announces costs its sender nothing.

        Raises BodyError (413 too large, 408 stalled, 400 broken off) and FullError.
        """
        if reservation.verified:
            reservation.hold(min(request.content_length or 0, BELIEVED_BYTES))
        try:
            async with asyncio.timeout(self._timeout) as patience:
                return await self._read_all(request, reservation, patience)
        except TimeoutError:
            raise BodyError(408, "stalled", "the body stalled, or took too long") from None
        except (ClientPayloadError, web.RequestPayloadError, ConnectionError):
            raise BodyError(400, "broken", "the body broke off") from None

    async def _read_all(
        self, request: web.BaseRequest, reservation: Reservation, patience: asyncio.Timeout
    ) -> bytes:
        """Read on as long as bytes keep coming, but not without end."""
        chunks = []
        size = 0
        loop = asyncio.get_running_loop()
        end = loop.time() + (MAX_STALLS if reservation.verified else 1) * self._timeout
        while chunk := await request.content.readany():
            size += len(chunk)
            patience.reschedule(min(end, loop.time() + self._timeout))
            self._check(size)
            if size > reservation.held:
                reservation.hold(size - reservation.held)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _check(self, size: int) -> None:
        if size > self._max_body:
            raise self._too_large()

    def _too_large(self) -> BodyError:
        return BodyError(413, "too_large", f"the body is larger than {self._max_body} bytes")
