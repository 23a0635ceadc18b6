"""One delivery to a business's own system: how it is signed, made, and bounded.

Signed as Standard Webhooks say (https://www.standardwebhooks.com).
"""

import base64
import hmac
import ssl
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import aiohttp
from yarl import URL

from service.settings import RelaySettings

KEPT_BYTES = 1024
"""What is kept of an answer, for the operator."""
MAX_ANSWER_BYTES = 65_536
"""Of a longer answer no more is read, and its connection is closed."""
LOST = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
"""What is raised where the other side has closed the connection meanwhile."""


class Answer(NamedTuple):
    """What came back: the status, None where nothing did, and what is to be shown of it.

    `wish` is the Retry-After, in seconds.
    """

    status: int | None
    error: str | None = None
    text: str | None = None
    wish: float | None = None


def signature(keys: Sequence[bytes], id_: str, timestamp: int, body: bytes) -> str:
    """Sign a delivery with each key, for whoever knows one of them."""
    signed = f"{id_}.{timestamp}.".encode() + body
    digests = (hmac.digest(key, signed, "sha256") for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


class Destination:
    """Sends to one URL. Its session sends no cookies back, and follows no redirect."""

    def __init__(self, settings: RelaySettings) -> None:
        self.use(settings)
        context = (
            ssl.create_default_context(cafile=str(settings.ca_file)) if settings.ca_file else True
        )
        self._session = aiohttp.ClientSession(
            # The relay bounds how many connections there are.
            connector=aiohttp.TCPConnector(limit=0, ssl=context),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "ackgate", "Accept-Encoding": "identity"},
            skip_auto_headers=("Content-Type",),
            timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds),
            auto_decompress=False,
        )

    def use(self, settings: RelaySettings) -> None:
        """Take the URL, secrets and headers of a configuration that was read again."""
        self._url = URL(settings.url.get_secret_value())
        self._keys = settings.keys
        self._own_headers = settings.sent_headers

    async def send(self, id_: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a body, signed for this moment.

        A connection that the other side closed, as it may a kept one at any time, is no failure: it
        is sent again at once, once.
        """
        timestamp = int(time.time())
        sent = {
            **self._own_headers,
            **headers,
            "webhook-id": id_,
            "webhook-timestamp": str(timestamp),
        }
        if self._keys:
            sent["webhook-signature"] = signature(self._keys, id_, timestamp, body)
        try:
            try:
                return await self._post(sent, body)
            except aiohttp.ClientConnectorError:
                raise
            except LOST:
                return await self._post(sent, body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            name = "time-out" if isinstance(error, TimeoutError) else type(error).__name__
            return Answer(None, f"no answer ({name})")

    async def _post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        async with self._session.post(
            self._url, data=body, headers=headers, allow_redirects=False
        ) as response:
            text = await _beginning(response)
            if 200 <= response.status < 300:  # noqa: PLR2004  the class of success
                return Answer(response.status, None, text)
            wish = _seconds(response.headers.get("Retry-After"))
            return Answer(response.status, f"answered {response.status}", text, wish)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


async def _beginning(response: aiohttp.ClientResponse) -> str:
    """Read an answer, so that its connection can be used again; return its first kilobyte."""
    kept, size = b"", 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        kept += chunk[: KEPT_BYTES - len(kept)]
        if size > MAX_ANSWER_BYTES:
            response.close()
            break
    return kept.decode(errors="replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _seconds(retry_after: str | None) -> float | None:
    """Return what a Retry-After asks for, in seconds; None where it has none that is readable."""
    if not retry_after:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
