"""Reading bodies within bounds: how large, how slowly, and how many bytes at once."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import ClientPayloadError, web
from prometheus_client import Gauge

from service.ledger.ledger import FullError

LINGER_SECONDS = 2.0
"""How long an answered sender may go on sending before the connection is cut."""

BELIEVED_BYTES = 65_536
"""A body that announces up to this is counted as announced, a larger one beyond it as it comes.

Else a handful of senders that announce much and send nothing would use the budget up.
"""

MAX_STALLS = 6
"""A body that keeps coming may take this many times as long as one that stalls.

One that is not verified may not: anybody can send it.
"""

UNVERIFIED_PART = 4
"""All bodies that are not verified have this part of the bytes in flight, on top of them."""


class RefusedError(Exception):
    """A callback that is not taken: nothing of it is stored.

    `result` is what metrics call it. `close` closes the connection after the answer, where the rest
    of the body is not wanted.
    """

    def __init__(
        self,
        status: int,
        result: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        *,
        close: bool = True,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.result = result
        self.detail = detail
        self.headers = headers
        self.close = close


@dataclass(slots=True)
class ByteBudget:
    """How many bytes of bodies may be held at once, and how many are."""

    most: int
    held: int = 0


@dataclass(slots=True)
class Reservation:
    """The bytes that one request holds of a budget; `verified`: its sender is known."""

    budget: ByteBudget
    verified: bool
    held: int = 0

    def hold(self, count: int) -> None:
        """Hold more bytes; raises FullError."""
        if self.budget.held + count > self.budget.most:
            raise FullError
        self.budget.held += count
        self.held += count

    def release(self) -> None:
        """Give all of them back."""
        self.budget.held -= self.held
        self.held = 0


def invite(request: web.BaseRequest) -> None:
    """Tell a sender that asks first that its body is wanted."""
    if "Expect" in request.headers and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


class BodyReader:
    """Reads bodies, and counts the bytes of all that are being read or wait to be stored.

    A body whose signature is not checked yet counts in a budget of its own: however many of those
    anybody sends, whoever has a token is not held up. `gauge` shows the bytes of both budgets.
    """

    def __init__(
        self, gauge: Gauge, *, max_body: int, max_in_flight: int, timeout_seconds: float
    ) -> None:
        self._verified = ByteBudget(max_in_flight)
        self._unverified = ByteBudget(max(max_in_flight // UNVERIFIED_PART, max_body))
        gauge.set_function(lambda: self._verified.held + self._unverified.held)
        self._max_body = max_body
        self._timeout = timeout_seconds

    def reservation(self, *, verified: bool) -> Reservation:
        """Begin a request, whose sender is known by its token, or not known yet."""
        return Reservation(self._verified if verified else self._unverified, verified)

    def verify(self, reservation: Reservation, body: bytes) -> None:
        """Count a body among the verified ones, for its signature matches; raises FullError."""
        reservation.release()
        reservation.budget, reservation.verified = self._verified, True
        reservation.hold(len(body))

    async def read(self, request: web.BaseRequest, reservation: Reservation) -> bytes:
        """Read the body of a request.

        Raises RefusedError (413 too large, 408 stalled, 400 broken off) and FullError.
        """
        announced, content = request.content_length, request.content
        self._check(announced or 0)
        if announced is not None and content.is_eof() and content.exception() is None:
            # It is here as a whole. A small one that is not verified counts only when it is, which
            # is at once: whatever else is sent, no small callback in one piece is held up.
            if reservation.verified or announced > BELIEVED_BYTES:
                reservation.hold(announced)
            return content.read_nowait()
        if reservation.verified:
            # Of an unverified body only what came counts: announcing more costs its sender nothing.
            reservation.hold(min(announced or 0, BELIEVED_BYTES))
        invite(request)
        try:
            async with asyncio.timeout(self._timeout) as patience:
                return await self._read_on(request, reservation, patience)
        except TimeoutError:
            raise RefusedError(408, "stalled", "the body stalled, or took too long") from None
        except (ClientPayloadError, web.RequestPayloadError, ConnectionError):
            raise RefusedError(400, "broken", "the body broke off") from None

    async def _read_on(
        self, request: web.BaseRequest, reservation: Reservation, patience: asyncio.Timeout
    ) -> bytes:
        """Read as long as bytes keep coming, but not without end."""
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
        return b"".join(chunks)

    def _check(self, size: int) -> None:
        if size > self._max_body:
            detail = f"the body is larger than {self._max_body} bytes"
            raise RefusedError(413, "too_large", detail)
