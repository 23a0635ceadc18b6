"""A business's own system: takes what a relay passes on, and answers as a test says."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Answers = Callable[["Delivery"], Awaitable[web.Response] | web.Response | int]


@dataclass(frozen=True)
class Delivery:
    """One POST that came."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Sink:
    """What came, in order; `taken` is what was answered with success."""

    url: str = ""
    answer: Answers = lambda _: 200
    hits: list[Delivery] = field(default_factory=list)
    taken: list[Delivery] = field(default_factory=list)
    _server: web.TCPSite | None = None
    _runner: web.AppRunner | None = None

    async def handle(self, request: web.Request) -> web.Response:
        delivery = Delivery(request.headers.copy(), await request.read())
        self.hits.append(delivery)
        answered = self.answer(delivery)
        if isinstance(answered, Awaitable):
            answered = await answered
        response = web.Response(status=answered) if isinstance(answered, int) else answered
        if 200 <= response.status < 300:
            self.taken.append(delivery)
        return response

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.taken]

    async def open(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_post("/{rest:.*}", self.handle)
        # What it does not answer is cut when it goes down.
        self._runner = web.AppRunner(
            app, access_log=None, auto_decompress=False, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True, ssl_context=tls)
        await site.start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._runner.addresses[0][1]}/hook"

    async def close(self) -> None:
        """Go down; `open` with the same port comes up again."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].partition("/")[0])


@asynccontextmanager
async def sink(answer: Answers = lambda _: 200) -> AsyncIterator[Sink]:
    """Run one."""
    made = Sink(answer=answer)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def never(_: Delivery) -> web.Response:
    """Answer not within the time of any test."""
    await asyncio.sleep(3600)
    return web.Response()
