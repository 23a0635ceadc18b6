"""One HTTP call to a WhatsApp client, or to the Cloud API, by a session of aiohttp's.

A session sends no cookies back, follows no redirect, and uses no proxy of the environment.
"""

import asyncio
import math
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
import structlog
from yarl import URL

from service.dialects.bodies import UnreadableError, parse
from service.observability.metrics import Metrics
from service.settings import CloudAccountSettings, OnPremAccountSettings
from service.whatsapp.errors import NoReplyError, NotSentError

MAX_REPLY_BYTES = 1_048_576
"""Of an answer no more than this is read, counted after decompression."""
CONNECTING_SHARE = 0.9
"""This part of a call's time may go by until it is connected.

It is less than all of it, so that of the two time-outs that of connecting comes first.
"""
NOTHING_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""The errors of a call that ended before any byte of its request was written."""


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


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, and its JSON body, None where it has none that is readable.

    `raw` is the body as it came, `date` the header of that name.
    """

    status: int
    payload: Any
    raw: bytes = b""
    date: str | None = None

    @property
    def ok(self) -> bool:
        """Tell a 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004  the class of success

    @property
    def is_json(self) -> bool:
        """Tell whether the body is JSON, or empty."""
        return self.payload is not None or self.raw.strip() in (b"", b"null")

    @property
    def succeeded(self) -> bool:
        """Tell a 2xx whose body does not say otherwise: empty, or JSON with nothing in `errors`.

        What stands in front of a client may answer 200 with a page of its own.
        """
        told = self.payload if isinstance(self.payload, dict) else {}
        return self.ok and self.is_json and not told.get("errors")


class Transport:
    """Makes one account's calls: bounded in number and time, over a verified connection."""

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
        self._base = str(account.base_url).rstrip("/")
        self._slots = asyncio.Semaphore(max_in_flight)
        self._seconds = seconds = account.timeout_seconds
        self._session = aiohttp.ClientSession(
            # The slots bound how many connections there are.
            connector=aiohttp.TCPConnector(limit=0, ssl=_tls(account)),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "ackgate"},
            middlewares=[send_once],
            # Rounded to whole seconds, the two time-outs could come in either order.
            timeout=aiohttp.ClientTimeout(
                total=seconds, connect=CONNECTING_SHARE * seconds, ceil_threshold=math.inf
            ),
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

        Raises NotSentError where it had no effect for sure, NoReplyError where that is unknown.
        """
        await self._take_slot()
        started = time.perf_counter()
        outcome = "no_reply"
        try:
            reply = await self._call(method, path, headers, body, text)
            outcome = str(reply.status)
        except NotSentError:
            outcome = "not_sent"
            raise
        finally:
            self._slots.release()
            seconds = time.perf_counter() - started
            self._metrics.observe_call(self._name, operation, outcome, seconds)
        return reply

    async def _take_slot(self) -> None:
        """Wait for a place among the calls under way, but not longer than a call may take."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise NotSentError("too many calls are under way") from None

    async def _call(
        self, method: str, path: str, headers: Mapping[str, str], body: Any, text: str | None
    ) -> Reply:
        sent = {**headers}
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        if request_id:
            sent["X-Request-ID"] = request_id
        data = None if text is None else text.encode()
        if body is not None:
            sent["Content-Type"] = "application/json"
            data = orjson.dumps(body)
        elif text is not None:
            sent["Content-Type"] = "text/plain; charset=utf-8"
        url = URL(f"{self._base}{path}", encoded=True)
        try:
            async with self._session.request(
                method, url, headers=sent, data=data, allow_redirects=False
            ) as response:
                raw = await _read(response.content)
        except NOTHING_SENT as error:
            late = isinstance(error, TimeoutError)
            raise NotSentError(f"no connection ({type(error).__name__})", timed_out=late) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            late = isinstance(error, TimeoutError)
            raise NoReplyError(f"no answer ({type(error).__name__})", timed_out=late) from None
        return Reply(response.status, _json(raw), raw, response.headers.get("Date"))

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


def _json(raw: bytes) -> Any:
    try:
        return parse(raw)
    except UnreadableError:
        return None
