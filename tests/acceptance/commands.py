"""Commands against a running service, and what may answer in its place."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from service.cli import app


def invoke(words: list[str], **more: Any) -> Result:
    """Run a command, to be called in a thread, as the service runs in this one.

    The lines that the service logs meanwhile would be taken for the command's.
    """
    with capture_logs():
        return CliRunner().invoke(app, words, **more)


async def run(
    *words: str, url: str = "", key: str = "", expect: int = 0, typed: str | None = None
) -> Result:
    """Run a command."""
    env = {"ACKGATE_URL": url or None, "ACKGATE_KEY": key or None, "ACKGATE_CONFIG": None}
    result = await asyncio.to_thread(invoke, list(words), env=env, input=typed)
    assert result.exit_code == expect, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


async def refused(*words: str, url: str = "", key: str = "", expect: int = 1) -> str:
    """Run a command that can't be done; give its one line."""
    result = await run(*words, url=url, key=key, expect=expect)
    [line] = result.stderr.splitlines()
    assert line.startswith("ackgate: ")
    return line.removeprefix("ackgate: ")


def parsed(result: Result) -> Any:
    return json.loads(result.stdout)


def answers(document: Any, status: int = 200) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response(document, status=status)

    return handler


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve something that may or may not answer as Ackgate does, and give its address."""
    odd = web.Application()
    odd.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(odd, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
