"""Answers that are bytes already, but for the date: what aiohttp builds anew for each is saved."""

import time
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, web


def stays_open(request: web.BaseRequest) -> bool:
    """Tell whether the request is of the kind that `Written` can answer."""
    return request.keep_alive and request.version >= HttpVersion11


class Written:
    """Answers 200 with JSON on a connection that stays open.

    aiohttp builds a response object, its headers and their serialisation anew for every request,
    which is a sixth of what a callback costs. This has no state of a request: where all are
    answered alike one is enough.
    """

    __slots__ = ("_body", "_bytes", "_second")
    keep_alive = True

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._second = 0
        self._bytes = b""

    def written(self) -> bytes:
        """Give the answer as it goes over the wire."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._bytes = b"%b%d\r\n\r\n%b" % (_head(now), len(self._body), self._body)
        return self._bytes

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write the answer, as aiohttp asks a response to."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the sender went away")
        transport.write(self.written())
        if request.protocol.writing_paused:
            # A sender that sends on and reads nothing must not pile up answers here.
            await request.writer.drain()

    async def write_eof(self) -> None:
        """Do nothing more: it is written."""


@lru_cache(maxsize=1)
def _head(now: int) -> bytes:
    return (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        f"Date: {formatdate(now, usegmt=True)}\r\nContent-Length: "
    ).encode()


KEPT = Written(b"{}")
"""The answer to a callback that is kept."""
