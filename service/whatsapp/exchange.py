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
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy
from yarl import URL

MAX_REPLY_BYTES = 1_048_576
"""An answer beyond this is not read on."""
USER_AGENT = "ackgate"
_NO_TIMEOUT = aiohttp.ClientTimeout()
"""Whoever calls sets the time that all of a call may take."""
_INFORMATIONAL = range(100, 200)


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
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        """Send a request and wait for the answer. `path` is percent-encoded.

        Nothing is sent twice, not even where a kept connection turns out to be closed: a PUT that
        is repeated may take effect twice, and hides that the outcome of the first is unknown.

        Raises ValueError for what can't be sent, aiohttp.ClientConnectorError where there is no
        connection, and other aiohttp.ClientErrors and OSErrors where there is no whole answer.
        """
        request = _written(method, path, {**self._common, **headers}, body)
        connection = await self._connector.connect(self._whither, [], _NO_TIMEOUT)
        try:
            answer = await _converse(connection, request)
        except BaseException:
            connection.close()
            raise
        connection.release()
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._connector.close()


async def _converse(connection: Connection, request: bytes) -> Answer:
    speaker, transport = connection.protocol, connection.transport
    if speaker is None or transport is None:
        raise aiohttp.ServerDisconnectedError
    speaker.set_response_params(read_until_eof=True, auto_decompress=True)
    transport.write(request)
    try:
        return await _read(speaker)
    except HttpProcessingError as error:
        raise aiohttp.ClientPayloadError("the answer is no HTTP") from error


async def _read(speaker: ResponseHandler) -> Answer:
    message, content = await speaker.read()
    while message.code in _INFORMATIONAL:
        message, content = await speaker.read()
    chunks, size = [], 0
    while chunk := await content.readany():
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise aiohttp.ClientPayloadError("an answer beyond all bounds")
        chunks.append(chunk)
    return Answer(message.code, message.headers, b"".join(chunks))


def _written(method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *[f"{name}: {it}" for name, it in headers.items()]]
    if body is not None or method != "GET":
        lines.append(f"Content-Length: {len(body or b'')}")
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header that would be two")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")
