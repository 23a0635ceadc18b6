"""A destination of relays: it reads the body, and tells how many came and how late they were.

`python -m tools.bench.sink PORT SHARE` fails that share of them, each time in another way.
"""

import asyncio
import random
import sys
import time
from datetime import datetime

import uvloop
from aiohttp import web

LATE = web.AppKey("late", list[float])
SHARE = web.AppKey("share", float)
FAILURES = (500, 429, 404)
SLOW_SECONDS = 3.0
"""More than a relay waits for an answer here."""


async def accept(request: web.Request) -> web.Response:
    """Read the body, and note how long ago (ms) the callback had arrived."""
    await request.read()
    if random.random() < request.app[SHARE]:
        return await fail(request)
    late = 0.0
    if arrived := request.headers.get("Ackgate-Received-At"):
        late = 1000 * (time.time() - datetime.fromisoformat(arrived).timestamp())
    request.app[LATE].append(late)
    return web.Response()


async def fail(request: web.Request) -> web.Response:
    """Answer with an error, too late, or not at all."""
    kind = random.randrange(len(FAILURES) + 2)
    if kind < len(FAILURES):
        return web.Response(status=FAILURES[kind])
    if kind == len(FAILURES):
        await asyncio.sleep(SLOW_SECONDS)
    elif request.transport is not None:
        request.transport.close()
    return web.Response()


async def tell(request: web.Request) -> web.Response:
    """Tell what came since the last time."""
    late = request.app[LATE]
    found = sorted(late)
    late.clear()
    quantiles = [found[int(part * (len(found) - 1))] if found else 0.0 for part in (0.5, 0.99, 1)]
    return web.json_response({"count": len(found), "late_ms": quantiles})


if __name__ == "__main__":
    app = web.Application()
    app[LATE] = []
    app[SHARE] = float(sys.argv[2])
    app.router.add_post("/{name}", accept)
    app.router.add_get("/{name}", tell)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
