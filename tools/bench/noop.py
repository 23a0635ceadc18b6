"""The reference: aiohttp and uvloop, no access log; reads the body, stores nothing, answers 200."""

import sys

import uvloop
from aiohttp import web


async def take(request: web.Request) -> web.Response:
    """Read the body."""
    await request.read()
    return web.Response()


def main(port: int) -> None:
    """Serve until SIGTERM."""
    app = web.Application()
    app.router.add_post("/", take)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
