"""A reader of server-sent events, by the rules of the HTML standard and nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.acceptance.conftest import Installation


@dataclass
class Sent:
    """An event that was dispatched."""

    type: str
    data: Any
    last_id: str


@dataclass
class Stream:
    """One connection; `last_id` is what a browser would come again with."""

    response: aiohttp.ClientResponse
    last_id: str = ""
    retry: int | None = None
    raw: bytes = b""
    _fields: dict[str, str] = field(default_factory=dict)

    async def line(self) -> str | None:
        """Read the next line, and keep what it says; None at the end."""
        raw = await self.response.content.readline()
        self.raw += raw
        if not raw:
            return None
        line = raw.decode().rstrip("\n")
        name, _, value = line.partition(": ")
        if name == "retry":
            self.retry = int(value)
        elif name == "id":
            self.last_id = value
        if line:
            self._fields[name] = value
        return line

    async def next(self, seconds: float = 20) -> Sent | None:
        """Wait for the next event; None at the end of the stream."""
        async with asyncio.timeout(seconds):
            while (line := await self.line()) is not None:
                if line:
                    continue
                fields, self._fields = self._fields, {}
                if "data" in fields:
                    data = json.loads(fields["data"])
                    return Sent(fields.get("event", "message"), data, self.last_id)
        return None

    async def some(self, count: int) -> list[Sent]:
        """Wait for so many events."""
        found = [await self.next() for _ in range(count)]
        return [one for one in found if one is not None]

    async def moved(self, seconds: float = 20) -> str:
        """Wait until the last event id moves, by whatever; give it."""
        before = self.last_id
        async with asyncio.timeout(seconds):
            while self.last_id == before:
                assert await self.line() is not None
        return self.last_id


@asynccontextmanager
async def following(
    made: Installation, query: str = "", last_id: str | None = None, key: str | None = None
) -> AsyncIterator[Stream]:
    """Follow the events of an installation, as a browser does."""
    headers = {"Accept": "text/event-stream"}
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    if chosen := key or made.key:
        headers["Authorization"] = f"Bearer {chosen}"
    url = f"{made.inside or made.base}/api/v1/events{query}"
    timeout = aiohttp.ClientTimeout(total=None)
    async with made.http.get(url, headers=headers, timeout=timeout) as response:
        assert response.status == 200
        stream = Stream(response)
        await stream.moved()
        yield stream
