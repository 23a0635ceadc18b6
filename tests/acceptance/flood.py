"""Opens many connections to a service at once, from a process of its own, and counts the answers.

Reads one order, a JSON object, on standard input: `port`, `count`, and the `request` to send on
each connection, in which every `#######` becomes the connection's number. Writes the counts so far
as a JSON object for every further line, and ends with its input.
"""

import asyncio
import json
import resource
import sys
from collections import Counter
from typing import Any

AT_ONCE = 500
"""Connections on their way at a time: fewer than the listener's backlog."""


class Sender(asyncio.Protocol):
    """Sends one request, keeps the connection open, and notes what comes back."""

    def __init__(self, counts: Counter[str], request: bytes) -> None:
        self._counts = counts
        self._request = request
        self._came = b""
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._counts["open"] += 1
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        self._came += data
        head, end, _ = self._came.partition(b"\r\n\r\n")
        if end:
            self._answered = True
            self._counts[_described(head)] += 1

    def connection_lost(self, _: Exception | None) -> None:
        self._counts["open"] -= 1
        if not self._answered:
            self._counts["cut"] += 1


def _described(head: bytes) -> str:
    """Give the status, and whether it says when to come back."""
    status = head.split(b" ", 2)[1].decode()
    return f"{status} later" if b"\nretry-after:" in head.lower() else status


async def _open(counts: Counter[str], order: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    free = asyncio.Semaphore(AT_ONCE)

    async def begin(number: int) -> None:
        request = order["request"].replace("#######", f"{number:07}").encode()
        async with free:
            try:
                await loop.create_connection(
                    lambda: Sender(counts, request), "127.0.0.1", order["port"]
                )
            except OSError:
                counts["cut"] += 1

    await asyncio.gather(*(begin(number) for number in range(order["count"])))
    counts["begun"] = order["count"]


async def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    order = json.loads(await asyncio.to_thread(sys.stdin.readline))
    counts: Counter[str] = Counter()
    opening = asyncio.create_task(_open(counts, order))
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(counts), flush=True)  # noqa: T201  the answer
    opening.cancel()


if __name__ == "__main__":
    asyncio.run(main())
