"""A destination of relays: it reads the body, and tells how many came and how late they were."""

import sys
import time
from datetime import datetime

import uvloop
from aiohttp import web

LATE = web.AppKey("late", list[float])


async def accept(request: web.Request) -> web.Response:
    """Read the body, and note how long ago (ms) the callback had arrived."""
    await request.read()
    late = 0.0
    if arrived := request.headers.get("Ackgate-Received-At"):
        late = 1000 * (time.time() - datetime.fromisoformat(arrived).timestamp())
    request.app[LATE].append(late)
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
    app.router.add_post("/{name}", accept)
    app.router.add_get("/{name}", tell)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
