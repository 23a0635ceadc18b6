"""One HTTP call to a WhatsApp client, or to the Cloud API: how it is made, bounded, and can fail.

`Transport` makes it, over the one session of an account. The errors are sorted by what is known of
a call's effect. `RateLimiter` and `Reachability` are what both APIs need beside it.
"""

import asyncio
import math
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import orjson
import structlog
from prometheus_client import Gauge
from yarl import URL

from service.dialects.common import UnreadableError, parse
from service.observability.metrics import Metrics
from service.settings import CloudAccountSettings, OnPremAccountSettings

MAX_REPLY_BYTES = 1_048_576
"""Of an answer no more than this is read, counted after decompression."""
CONNECTING_SHARE = 0.9
"""This part of a call's time may go by until it is connected.

It is less than all of it, so that of the two time-outs that of connecting comes first.
"""
NOTHING_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""The errors of a call that ended before any byte of its request was written."""
Sending = Literal["messages", "media"]
MESSAGES: Sending = "messages"
MEDIA: Sending = "media"
PLACE_SECONDS = 5.0
"""How long a message that is sent through waits for its place."""
BUSY_AGAIN_SECONDS = 1.0
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_MANY, UNAVAILABLE = 401, 403, 404, 429, 503

log = structlog.get_logger(__name__)


class CallError(Exception):
    """A call that was not answered; the text holds nothing of the call's content."""

    def __init__(self, text: str, *, timed_out: bool = False) -> None:
        super().__init__(text)
        self.timed_out = timed_out


class NotSentError(CallError):
    """No connection came about, or no login: the call certainly had no effect."""


class NoReplyError(CallError):
    """The call may have reached the other side: its effect is unknown."""


class LoginRefusedError(CallError):
    """The login or the access token is refused: nothing took effect, and an account pauses."""


class BusyError(NotSentError):
    """There are too many calls, by our own limit or the other side's; try in `seconds` again."""

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


class ForbiddenError(CallError):
    """The other side answered that this login, or access token, may not do that."""


class NotThereError(CallError):
    """Graph has no such object, or none that this access token may see: it doesn't say which."""


class InvalidError(CallError):
    """Graph rejects what is to be changed as wrong, or too early: nothing was changed."""


class HandshakeError(CallError):
    """Meta sent the webhook endpoint its challenge, and did not get it back."""


@dataclass(frozen=True, slots=True)
class Content:
    """The body of a call, at once or as it comes, with the headers that are about it.

    `seconds` is how long the whole call may take, where that is not as every other.
    """

    data: bytes | AsyncIterable[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None


NO_CONTENT = Content()


def json_content(body: Any) -> Content:
    """Return a JSON body."""
    return Content(orjson.dumps(body), {"Content-Type": "application/json"})


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, and its JSON body, None where it has none that is readable.

    `raw` is the body as it came.
    """

    status: int
    payload: Any
    raw: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the status is a 2xx."""
        return self.status in range(200, 300)

    @property
    def is_json(self) -> bool:
        """Whether the body is JSON, or empty."""
        return self.payload is not None or self.raw.strip() in (b"", b"null")

    @property
    def succeeded(self) -> bool:
        """Whether it is a 2xx whose body is empty, or JSON with nothing in `errors`.

        What stands in front of a client may answer 200 with a page of its own.
        """
        payload = self.payload if isinstance(self.payload, dict) else {}
        return self.ok and self.is_json and not payload.get("errors")


async def send_once(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Raise ClientPayloadError where a connection was lost, as client middleware of a session.

    On the two errors that are replaced here a session sends a GET or a PUT again. A PUT that is
    repeated may take effect twice, and hides that the outcome of the first is unknown.
    """
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise  # No connection came about; a session does not repeat that.
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientPayloadError("the connection was lost") from error


class Transport:
    """Makes one account's calls: bounded in number and time, over a verified connection.

    Its session sends no cookies back, follows no redirect, and uses no proxy of the environment.
    """

    def __init__(
        self,
        name: str,
        account: OnPremAccountSettings | CloudAccountSettings,
        metrics: Metrics,
        *,
        max_in_flight: int,
    ) -> None:
        self._name = name
        self._metrics = metrics
        self._log = log.bind(account=name)
        self._base = str(account.base_url).rstrip("/")
        self._slots = asyncio.Semaphore(max_in_flight)
        self._seconds = account.timeout_seconds
        self._session = aiohttp.ClientSession(
            # The slots bound how many connections there are.
            connector=aiohttp.TCPConnector(limit=0, ssl=_tls(account)),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "ackgate"},
            middlewares=[send_once],
        )

    async def call(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: Any = None,
        text: str | None = None,
    ) -> Reply:
        """Make one call, with a JSON `body` or with plain `text`. `path` is percent-encoded.

        Raises NotSentError where it certainly had no effect, NoReplyError where that is unknown.
        """
        content = NO_CONTENT
        if body is not None:
            content = json_content(body)
        elif text is not None:
            content = Content(text.encode(), {"Content-Type": "text/plain; charset=utf-8"})

        async def written() -> Content:
            return content

        return await self.send(operation, method, path, headers=headers, content=written)

    async def send(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        content: Callable[[], Awaitable[Content]],
        patience: float | None = None,
    ) -> Reply:
        """Make one call whose body is asked for once the call has its place, just before it goes.

        `patience` is how long (s) it waits for that, and raises BusyError then. Raises as `call`
        does, and what `content` raises: then nothing was sent.
        """
        try:
            async with asyncio.timeout(self._seconds if patience is None else patience):
                await self._slots.acquire()
        except TimeoutError:
            text = "too many calls are under way"
            if patience is not None:
                raise BusyError(text, BUSY_AGAIN_SECONDS) from None
            raise NotSentError(text) from None
        try:
            return await self._observed(operation, method, path, headers, await content())
        finally:
            self._slots.release()

    async def _observed(
        self,
        operation: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        content: Content,
    ) -> Reply:
        started = time.perf_counter()
        outcome = "no_reply"
        try:
            reply = await self._request(method, path, headers, content)
            outcome = str(reply.status)
        except NotSentError:
            outcome = "not_sent"
            raise
        finally:
            seconds = time.perf_counter() - started
            self._metrics.observe_call(self._name, operation, outcome, seconds)
            if method == "PUT":
                self._log.info("PUT", operation=operation, status=outcome)
        return reply

    async def _request(
        self, method: str, path: str, headers: Mapping[str, str], content: Content
    ) -> Reply:
        sent = {**headers, **content.headers}
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        if request_id:
            sent["X-Request-ID"] = request_id
        url = URL(f"{self._base}{path}", encoded=True)
        timeout = self._timeout(content.seconds or self._seconds)
        try:
            async with self._session.request(
                method,
                url,
                headers=sent,
                data=content.data,
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                raw = await _read(response.content)
        except NOTHING_SENT as error:
            late = isinstance(error, TimeoutError)
            raise NotSentError(f"no connection ({type(error).__name__})", timed_out=late) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            late = isinstance(error, TimeoutError)
            raise NoReplyError(f"no answer ({type(error).__name__})", timed_out=late) from None
        try:
            payload = parse(raw)
        except UnreadableError:
            payload = None
        return Reply(response.status, payload, raw, response.headers)

    def _timeout(self, total: float) -> aiohttp.ClientTimeout:
        # Rounded to whole seconds, the two time-outs could come in either order.
        connect = CONNECTING_SHARE * self._seconds
        return aiohttp.ClientTimeout(total=total, connect=connect, ceil_threshold=math.inf)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


def _tls(account: OnPremAccountSettings | CloudAccountSettings) -> ssl.SSLContext | bool:
    if not account.verify_tls:
        return False
    if account.ca_file is None:
        return True
    return ssl.create_default_context(cafile=str(account.ca_file))


async def _read(content: aiohttp.StreamReader) -> bytes:
    """Read a body; raise ClientPayloadError where it is longer than MAX_REPLY_BYTES."""
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise aiohttp.ClientPayloadError("an answer that is too long")
    return bytes(body)


class SendingPlaces:
    """How many messages, and how many uploads, an account may have under way at once.

    Each kind has places of its own, so that slow uploads hold up no message, and neither holds up
    what else an account's client is asked. A place is waited for a few seconds alone: what is sent
    through is sent now, or not at all.
    """

    def __init__(self, *, messages: int, media: int) -> None:
        self._places = {
            MESSAGES: asyncio.Semaphore(max(1, messages)),
            MEDIA: asyncio.Semaphore(max(1, media)),
        }

    @asynccontextmanager
    async def place(self, operation: Sending) -> AsyncIterator[None]:
        """Hold a place; raise BusyError where none is free in time: then nothing was sent."""
        places = self._places[operation]
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                await places.acquire()
        except TimeoutError:
            raise BusyError(f"too many {operation} are under way", BUSY_AGAIN_SECONDS) from None
        try:
            yield
        finally:
            places.release()


class RateLimiter:
    """A bucket of permits, taken in turn and refilled steadily: the rate of calls to a client.

    A client allows 20 checks a second with a burst of 60 (Meta's page on rate limits of the
    On-Premises API), and counts them as they arrive: calls that left apart may arrive together. So
    a little less is sent, and a process begins with an almost empty bucket: the one before it,
    which was just stopped, may have emptied the client's.
    """

    def __init__(
        self,
        per_second: float = 19.0,
        burst: int = 50,
        first: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._all = per_second, burst
        self._per_second = per_second
        self._burst = float(burst)
        self._permits = first
        self._clock = clock
        self._at = clock()

    async def take(self, patience: float) -> None:
        """Take a permit, and wait until there is one; raise BusyError beyond `patience` (s)."""
        now = self._clock()
        permits = min(self._burst, self._permits + (now - self._at) * self._per_second)
        seconds = (1 - permits) / self._per_second
        if seconds > patience:
            raise BusyError("too many checks are asked for", seconds)
        self._permits, self._at = permits - 1, now
        if seconds > 0:
            await asyncio.sleep(seconds)

    def share(self, parts: int) -> None:
        """Take one of so many parts of the rate: other processes take the others."""
        per_second, burst = self._all
        self._per_second, self._burst = per_second / parts, max(1.0, burst / parts)

    def pause(self, seconds: float) -> None:
        """Let there be no permit for so long: the client said that there are too many calls."""
        self._permits = min(self._permits, -seconds * self._per_second)
        self._at = self._clock()


@dataclass(slots=True)
class Reachability:
    """Whether an account's client, or the Cloud API, answered its last call.

    The gate, the health routes and the metrics show it, the metrics from the first call on; times
    are Unix milliseconds.
    """

    account: str
    gauge: Gauge
    gateway: str = "unknown"
    unreachable_since: int | None = None
    last_error: str | None = None

    def note_failure(self, error: CallError) -> None:
        """Note a call that was not answered."""
        self.last_error = str(error)
        self.gauge.labels(self.account).set(0)
        if self.unreachable_since is None:
            self.unreachable_since = time.time_ns() // 1_000_000
            login = isinstance(error, LoginRefusedError)
            log.warning("account unreachable", account=self.account, error=str(error), login=login)

    def take_over(self, since: int | None, error: str | None, gateway: str) -> None:
        """Go by what another replica has found, who asked more lately than this one."""
        self.unreachable_since, self.last_error, self.gateway = since, error, gateway

    def note_reply(self) -> None:
        """Note an answer."""
        self.gauge.labels(self.account).set(1)
        if self.unreachable_since is not None:
            log.info("account reachable again", account=self.account)
        self.unreachable_since = self.last_error = None
