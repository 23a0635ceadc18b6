"""The reference: aiohttp and uvloop; it reads the body, stores nothing, and answers 200."""

import sys

import uvloop
from aiohttp import web


async def accept(request: web.Request) -> web.Response:
    """Read the body."""
    await request.read()
    return web.Response()


if __name__ == "__main__":
    app = web.Application()
    app.router.add_post("/", accept)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
