"""What lies between senders, replicas and their database: what can be cut, and who is skipped."""

import asyncio
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Self

import aiohttp

PIECE = 65_536
LOOK_SECONDS = 0.2
"""How often a balancer asks whether a replica is ready."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """A connection to a server for one that came, until either end closes it or it is cut."""

    def __init__(self, near: Streams, far: Streams) -> None:
        self._near, self._far = near, far
        self._pumps: asyncio.Future[object] | None = None

    async def carry(self) -> None:
        """Pass everything on, both ways."""
        there = asyncio.ensure_future(_pump(self._near[0], self._far[1]))
        back = asyncio.ensure_future(_pump(self._far[0], self._near[1]))
        self._pumps = asyncio.gather(there, back, return_exceptions=True)
        with suppress(asyncio.CancelledError):
            await self._pumps

    def reset(self) -> None:
        """Let both ends see that the connection is gone, at once."""
        self.fall_silent()
        for _, writer in (self._near, self._far):
            _reset(writer)

    def fall_silent(self) -> None:
        """Pass nothing on any more. Neither end sees anything: what they say gets no answer."""
        if self._pumps is not None:
            self._pumps.cancel()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
    except OSError:
        _reset(writer)
        return
    writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that its other end sees a reset, and no orderly end."""
    raw = writer.get_extra_info("socket")
    if not writer.transport.is_closing():
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class _Server:
    """Listens on a port of this machine."""

    port = 0

    def __init__(self) -> None:
        self.is_deaf = False
        """Whether it takes connections, and passes nothing on."""
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """Listen; in the end every connection is cut."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._server.close()
            for link in list(self._links):
                link.reset()
            await asyncio.sleep(0)

    async def _take(self, *near: *Streams) -> None:
        far = await self._connect()
        if far is None:
            _reset(near[1])
            return
        link = _Link(near, far)
        self._links.add(link)
        if self.is_deaf:
            return
        await link.carry()
        if near[1].transport.is_closing():
            self._links.discard(link)

    async def _connect(self) -> Streams | None:
        """Return a connection to where this one leads; None where there is none to be had."""
        raise NotImplementedError


class Proxy(_Server):
    """Stands between a replica and its database."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._to = port

    async def _connect(self) -> Streams | None:
        with suppress(OSError):
            return await asyncio.open_connection("127.0.0.1", self._to)
        return None

    def reset(self) -> None:
        """Cut all connections, with word to both ends. New ones can be made."""
        for link in self._links:
            link.reset()

    def fall_silent(self) -> None:
        """Cut all connections without a word. New ones can be made."""
        for link in self._links:
            link.fall_silent()


class Balancer(_Server):
    """Stands before the replicas: in turns, those that are ready, and another where one is gone."""

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__()
        self._ports = ports
        self._turns = itertools.count()
        self._ready: set[int] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """Listen, and ask the replicas again and again whether they are ready."""
        async with super().listening(), aiohttp.ClientSession() as http:
            looking = [asyncio.create_task(self._look(http, port)) for port in self._ports]
            try:
                yield self
            finally:
                for task in looking:
                    task.cancel()
                await asyncio.gather(*looking, return_exceptions=True)

    async def _look(self, http: aiohttp.ClientSession, port: int) -> None:
        timeout = aiohttp.ClientTimeout(total=1)
        while True:
            url = f"http://127.0.0.1:{port}/health/ready"
            try:
                async with http.get(url, timeout=timeout) as response:
                    is_ready = response.status == 200
            except (aiohttp.ClientError, OSError):
                is_ready = False
            (self._ready.add if is_ready else self._ready.discard)(port)
            await asyncio.sleep(LOOK_SECONDS)

    async def _connect(self) -> Streams | None:
        first = next(self._turns)
        turns = [self._ports[(first + n) % len(self._ports)] for n in range(len(self._ports))]
        for port in sorted(turns, key=lambda port: port not in self._ready):
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None
