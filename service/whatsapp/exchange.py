"""One request and its answer, over connections that aiohttp keeps.

aiohttp's connector opens, verifies and keeps the connections, and its parser reads the answers;
what its session does around a call for the sake of cookies, redirects, proxies and uploads is left
out, for a client of ours has none of them: that took three quarters of a call.
"""

import asyncio
from collections.abc import Mapping
from ssl import SSLContext
from typing import NamedTuple

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy
from yarl import URL

MAX_REPLY_BYTES = 1_048_576
"""An answer beyond this is not read on."""
MAX_HINTS = 100
"""So many informational answers may come before the one that counts."""
USER_AGENT = "ackgate"
_NO_TIMEOUT = aiohttp.ClientTimeout()
"""Whoever calls sets the time that all of a call may take."""
_INFORMATIONAL = range(100, 200)
_SWITCHING = 101


class NotBegunError(aiohttp.ClientConnectionError):
    """The connection was of no use before anything was written to it."""


NOTHING_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, NotBegunError)
"""How a call fails before anything of it was written."""


class Answer(NamedTuple):
    """What came back: the status, the headers, and the body as it came."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class Exchange:
    """Calls one host. `base` is where; `tls` how it is verified, False for not at all."""

    def __init__(self, base: URL, tls: SSLContext | bool) -> None:
        self._connector = aiohttp.TCPConnector(limit=0, ssl=tls)
        # It tells the connector where to connect to; it is never sent.
        self._whither = aiohttp.ClientRequest("GET", base, loop=asyncio.get_running_loop(), ssl=tls)
        self._common = {"Host": self._whither.headers["Host"], "User-Agent": USER_AGENT}

    async def call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        seconds: float | None = None,
    ) -> Answer:
        """Send a request and wait for the answer. `path` is percent-encoded.

        All of it takes so many `seconds` at most.

        Nothing is sent twice, not even where a kept connection turns out to be closed: a PUT that
        is repeated may take effect twice, and hides that the outcome of the first is unknown.

        Raises ValueError for what can't be sent, those of NOTHING_SENT where nothing was sent, and
        TimeoutError, other aiohttp.ClientErrors and OSErrors where there is no whole answer.
        """
        request = _written(method, path, {**self._common, **headers}, body)
        connection = None
        try:
            async with asyncio.timeout(seconds):
                connection = await self._connector.connect(self._whither, [], _NO_TIMEOUT)
                return await _over(connection, request)
        except TimeoutError:
            if connection is None:
                raise aiohttp.ConnectionTimeoutError from None
            raise

    async def close(self) -> None:
        """Close the connections."""
        await self._connector.close()


async def _over(connection: Connection, request: bytes) -> Answer:
    transport = connection.transport
    try:
        answer, taken = await _converse(connection, request)
    except BaseException:
        _drop(connection, transport)
        raise
    if taken:
        connection.release()
    else:
        _drop(connection, transport)
    return answer


def _drop(connection: Connection, transport: asyncio.Transport | None) -> None:
    """Close at once: closed in order it stays open until the peer takes what it was written."""
    if transport is not None:
        transport.abort()
    connection.close()


async def _converse(connection: Connection, request: bytes) -> tuple[Answer, bool]:
    """Give the answer, and whether the peer took all of the request, as far as is known here."""
    speaker, transport = connection.protocol, connection.transport
    # What came before the request is no answer to it, be it ever so like one.
    if speaker is None or transport is None or speaker.should_close:
        raise NotBegunError("closed, or spoken on unasked")
    try:
        speaker.set_response_params(read_until_eof=True, auto_decompress=True)
        transport.write(request)
        answer = await _read(speaker)
        return answer, transport.get_write_buffer_size() == 0
    except (HttpProcessingError, aiohttp.EofStream, RuntimeError) as error:
        raise aiohttp.ClientPayloadError("the answer is no HTTP, or broke off") from error


async def _read(speaker: ResponseHandler) -> Answer:
    message, content = await _head(speaker)
    # Hardly an answer to us comes in pieces.
    body = await (_body(content) if content.is_eof() else _body_in_pieces(speaker, content))
    return Answer(message.code, message.headers, body)


async def _head(speaker: ResponseHandler) -> tuple[RawResponseMessage, StreamReader]:
    for _ in range(MAX_HINTS):
        message, content = await speaker.read()
        if message.code == _SWITCHING:
            raise aiohttp.ClientPayloadError("another protocol, that nobody asked for")
        if message.code not in _INFORMATIONAL:
            return message, content
    raise aiohttp.ClientPayloadError("hints beyond all bounds")


async def _body_in_pieces(speaker: ResponseHandler, content: StreamReader) -> bytes:
    """Read a body of which something is still to come.

    aiohttp tells its reader nothing where the parser fails amid it or the connector is closed, so
    that it would wait until its time is up.
    """
    ended = speaker.closed
    if ended is None:
        raise aiohttp.ServerDisconnectedError

    def break_off(_: asyncio.Future[None]) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the answer broke off"))

    # Once for each connection, however many answers came over it.
    ended.remove_done_callback(_heed)
    ended.add_done_callback(_heed)
    ended.add_done_callback(break_off)
    try:
        return await _body(content)
    finally:
        ended.remove_done_callback(break_off)


def _heed(ended: asyncio.Future[None]) -> None:
    """Look at how a connection ended: asyncio complains of what nobody looked at."""
    if not ended.cancelled():
        ended.exception()


async def _body(content: StreamReader) -> bytes:
    chunks, size = [], 0
    while chunk := await content.readany():
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise aiohttp.ClientPayloadError("an answer beyond all bounds")
        chunks.append(chunk)
    return b"".join(chunks)


def _written(method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *[f"{name}: {it}" for name, it in headers.items()]]
    if body is not None or method != "GET":
        lines.append(f"Content-Length: {len(body or b'')}")
    if not "".join(lines).isprintable():
        raise ValueError("control characters, that could make two headers of one")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")
