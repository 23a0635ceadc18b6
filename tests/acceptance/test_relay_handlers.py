"""The handlers of docs/relay.md, as they stand there, behind a relay."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.acceptance.conftest import OTHER_ID, Install, Installation, Json, until
from tests.acceptance.sinks import sink
from tests.acceptance.test_relays import OLD_SECRET, SECRET, deliveries, relay, status, text, to
from tests.conftest import installed
from tests.docs.conftest import ROOT, blocks

FAILS_ONCE = "FAILS_ONCE"


@dataclass
class Handler:
    """A handler that runs, and what it has handled."""

    url: str
    handled: Callable[[], list[Json]]


def block(language: str) -> str:
    (found,) = [each for each in blocks(language) if each.page.name == "relay.md"]
    return found.text


@pytest.fixture
async def in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Handler]:
    monkeypatch.setenv("RELAY_SECRET", SECRET)
    monkeypatch.setenv("DATABASE", str(tmp_path / "deliveries.db"))
    page: dict[str, Any] = {"__name__": "receiver"}
    exec(compile(block("python"), "docs/relay.md", "exec"), page)
    handled: list[Json] = []
    failed: list[Json] = []

    def handle(callback: Json) -> None:
        if FAILS_ONCE in json.dumps(callback) and callback not in failed:
            failed.append(callback)
            raise ConnectionError("not now")
        handled.append(callback)

    page["handle"] = handle
    runner = web.AppRunner(page["receiver"](), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Handler(f"http://127.0.0.1:{runner.addresses[0][1]}/webhook", lambda: handled)
    await runner.cleanup()


HANDLE = """
const failed = new Set();
handle = (callback) => {
  const text = JSON.stringify(callback);
  if (text.includes("FAILS_ONCE") && !failed.has(text)) {
    failed.add(text);
    throw new Error("not now");
  }
  console.log(text);
};
"""


@pytest.fixture
async def in_node(tmp_path: Path) -> AsyncIterator[Handler]:
    script = tmp_path / "receiver.js"
    script.write_text(block("js") + HANDLE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    modules = ROOT / "tests/clients/node_modules"
    env = {**os.environ, "NODE_PATH": str(modules), "PORT": str(port), "RELAY_SECRET": SECRET}
    out = tmp_path / "handled"
    with out.open("wb") as stdout, (tmp_path / "errors").open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(installed("node"), script), env=env, stdout=stdout, stderr=stderr
        )

    async def listens() -> bool:
        assert process.returncode is None, f"{(tmp_path / 'errors').read_text()}: run 'make tools'"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await until(listens, 30)
    yield Handler(
        f"http://127.0.0.1:{port}/webhook",
        lambda: [json.loads(line) for line in out.read_text().splitlines()],
    )
    process.terminate()
    await process.wait()


@pytest.fixture(params=["in_python", pytest.param("in_node", marks=pytest.mark.tools)])
def handler(request: pytest.FixtureRequest) -> Handler:
    made: Handler = request.getfixturevalue(request.param)
    return made


async def is_through(made: Installation) -> bool:
    return bool((await relay(made))["behind"] == 0)


async def test_a_handler_gets_what_arrives_and_each_delivery_once(
    install: Install, handler: Handler
) -> None:
    made = await install(relays=to(handler.url, secret=SECRET))
    await made.deliver(text(1), status(2, OTHER_ID), text(3))
    await until(lambda: is_through(made))
    found = handler.handled()
    wanted = [json.loads(text(1)), json.loads(status(2, OTHER_ID)), json.loads(text(3))]
    assert sorted(map(str, found)) == sorted(map(str, wanted))
    assert [found.index(wanted[0]) < found.index(wanted[2])] == [True]

    # As after a crash: the same once more, with the same id.
    async with sink() as copies:
        await made.stop()
        await made.start(relays={"copy": {"url": copies.url, "secret": SECRET}})
        await made.deliver(text(4))
        await until(lambda: copies.taken)
        [copy] = copies.taken
        await until(lambda: len(handler.handled()) == 4)
        async with made.http.post(handler.url, data=copy.body, headers=copy.headers) as answer:
            assert answer.status == 204
    assert len(handler.handled()) == 4


async def test_a_handler_refuses_what_is_signed_by_another(
    install: Install, handler: Handler
) -> None:
    made = await install(relays=to(handler.url, secret=OLD_SECRET))
    assert (await made.api("POST", "/relays/crm/test"))[1]["status"] == 401
    await made.deliver(text(1))
    await until(lambda: _answered(made, "answered 401"))
    assert handler.handled() == []


async def _answered(made: Installation, error: str) -> bool:
    return bool((await relay(made))["last_error"] == error)


async def test_a_handler_that_fails_gets_the_delivery_again(
    install: Install, handler: Handler
) -> None:
    once = {"messages": [{"from": OTHER_ID, "id": FAILS_ONCE, "type": "text"}]}
    made = await install(relays=to(handler.url, secret=SECRET))
    await made.deliver(once, text(1))
    await until(lambda: is_through(made), 30)
    assert (await relay(made))["last_error"] == "answered 500"
    assert sorted(map(str, handler.handled())) == sorted(map(str, [once, json.loads(text(1))]))


async def test_a_body_that_is_no_json_holds_up_nothing(install: Install, handler: Handler) -> None:
    made = await install(relays=to(handler.url, secret=SECRET))
    await made.deliver(b"no JSON", text(1))
    await until(lambda: is_through(made))
    assert handler.handled() == [json.loads(text(1))]
    [row] = await deliveries(made)
    assert row["last_status"] == 400
