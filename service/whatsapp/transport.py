"""One HTTP call to a WhatsApp client, or to the Cloud API; nothing repeats it behind our back."""

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
import structlog
from yarl import URL

from service.dialects.common import UnreadableError, parse
from service.observability.metrics import Metrics
from service.settings import CloudAccountSettings, OnPremAccountSettings
from service.whatsapp.errors import NoReplyError, NotSentError
from service.whatsapp.exchange import NOTHING_SENT, Exchange


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
        base = URL(str(account.base_url))
        self._prefix = base.raw_path.rstrip("/")
        self._slots = asyncio.Semaphore(max_in_flight)
        self._timeout = account.timeout_seconds
        self._exchange = Exchange(base, _tls(account))

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
        if not self._slots.locked():
            await self._slots.acquire()
            return
        try:
            async with asyncio.timeout(self._timeout):
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
        content = None if text is None else text.encode()
        if body is not None:
            sent["Content-Type"] = "application/json"
            content = orjson.dumps(body)
        elif text is not None:
            sent["Content-Type"] = "text/plain; charset=utf-8"
        try:
            answer = await self._exchange.call(
                method, f"{self._prefix}{path}", sent, content, self._timeout
            )
        except NOTHING_SENT as error:
            late = isinstance(error, TimeoutError)
            raise NotSentError(f"no connection ({type(error).__name__})", timed_out=late) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            late = isinstance(error, TimeoutError)
            raise NoReplyError(f"no answer ({type(error).__name__})", timed_out=late) from None
        raw = answer.body
        return Reply(answer.status, _json(raw), raw, answer.headers.get("Date"))

    async def close(self) -> None:
        """Close the connections."""
        await self._exchange.close()


def _tls(account: OnPremAccountSettings | CloudAccountSettings) -> ssl.SSLContext | bool:
    if not account.verify_tls:
        return False
    if account.ca_file is None:
        return True
    return ssl.create_default_context(cafile=str(account.ca_file))


def _json(raw: bytes) -> Any:
    try:
        return parse(raw)
    except UnreadableError:
        return None
