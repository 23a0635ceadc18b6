"""A simulator on a free port, a business that calls it, and a webhook that it calls."""

import asyncio
import base64
import json
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from service.simulator import CloudOptions, Options, Simulator
from service.simulator.cloud.cloud import Cloud

WA_ID = "16315553601"

Serve = Callable[..., Awaitable[asyncio.subprocess.Process]]


@dataclass
class Webhook:
    """Where callbacks come in: answers with the statuses given, then 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    seconds: float = 0
    now: int = 0
    most: int = 0

    async def take(self, request: web.Request) -> web.Response:
        self.now += 1
        self.most = max(self.most, self.now)
        self.raw.append(await request.read())
        self.headers.append(dict(request.headers))
        await asyncio.sleep(self.seconds)
        self.now -= 1
        status = self.statuses.pop(0) if self.statuses else 200
        headers = {"Location": "/elsewhere"} if status in (301, 302, 307) else {}
        return web.json_response({}, status=status, headers=headers)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(raw) for raw in self.raw]


@dataclass
class Business:
    """Calls the client's API as a business does."""

    sim: Simulator
    session: aiohttp.ClientSession
    token: str = ""

    async def login(self, password: str = "development-only") -> aiohttp.ClientResponse:
        credentials = base64.b64encode(f"ackgate:{password}".encode()).decode()
        answer = await self.session.post(
            "/v1/users/login", headers={"Authorization": f"Basic {credentials}"}
        )
        if answer.status == 200:
            self.token = (await answer.json())["users"][0]["token"]
        return answer

    async def call(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        if not self.token:
            await self.login()
        bearer = {"Authorization": f"Bearer {self.token}"}
        async with self.session.request(
            method, path, json=body, headers={**bearer, **headers}
        ) as answer:
            return answer.status, await answer.json()

    async def send(self, to: str = WA_ID) -> tuple[int, Any]:
        return await self.call(
            "POST", "/v1/messages", {"to": to, "type": "text", "text": {"body": "Hello"}}
        )

    async def identity(self, wa_id: str = WA_ID) -> Any:
        _, body = await self.call("GET", f"/v1/contacts/{wa_id}/identity")
        return body["contacts"]

    async def acknowledge(self, hash_: str, wa_id: str = WA_ID) -> tuple[int, Any]:
        return await self.call("PUT", f"/v1/contacts/{wa_id}/identity", {"hash": hash_})


def options(tmp_path: Path, **others: Any) -> Options:
    chosen = {
        "port": 0,
        "tls": False,
        "var": tmp_path,
        "show_security_notifications": True,
        "retry_base_seconds": 0.02,
        "retry_cap_seconds": 0.05,
        "contact_check_seconds": 0.02,
    }
    return Options(**(chosen | others))


@pytest.fixture
async def webhook() -> AsyncIterator[Webhook]:
    hook = Webhook()
    app = web.Application()
    app.router.add_post("/{rest:.*}", hook.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/main/secret"
    yield hook
    await runner.cleanup()


@pytest.fixture
async def sim(
    request: pytest.FixtureRequest, tmp_path: Path, webhook: Webhook
) -> AsyncIterator[Simulator]:
    """A simulator; `@pytest.mark.parametrize("sim", [{…options}], indirect=True)` sets it up."""
    others = getattr(request, "param", {})
    async with Simulator(options(tmp_path, **others)) as simulator:
        simulator.webhook_url = webhook.url
        yield simulator


def tls_of(sim: Simulator) -> ssl.SSLContext | bool:
    return ssl.create_default_context(cafile=sim.ca_file) if sim.options.tls else True


@pytest.fixture
async def business(sim: Simulator) -> AsyncIterator[Business]:
    connector = aiohttp.TCPConnector(force_close=True, ssl=tls_of(sim))
    async with aiohttp.ClientSession(sim.base_url, connector=connector) as session:
        session._retry_connection = False  # it would repeat a PUT that was dropped
        yield Business(sim, session)


NUMBER = "106540352242922"
WABA = "102290129340398"
SHEENA = "16505551234"
SECRET, TOKEN, VERIFY_TOKEN = "an app secret", "an access token", "a verify token"


@dataclass
class Endpoint(Webhook):
    """Where the Cloud API's webhooks come in: it also answers the handshake."""

    verify_token: str = VERIFY_TOKEN
    handshakes: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    challenge_headers: dict[str, str] = field(default_factory=dict)

    async def take(self, request: web.Request) -> web.Response:
        self.paths.append(request.path)
        return await super().take(request)

    async def challenge(self, request: web.Request) -> web.Response:
        self.handshakes.append(dict(request.query))
        self.challenge_headers = dict(request.headers)
        if request.path.endswith("/moved"):
            raise web.HTTPFound(request.url.with_path("/webhooks/meta", keep_query=True))
        if request.query["hub.verify_token"] != self.verify_token:
            raise web.HTTPForbidden
        return web.Response(text=request.query["hub.challenge"])

    @property
    def values(self) -> list[Any]:
        """The values of every change that came, in order."""
        changes = (entry["changes"] for body in self.bodies for entry in body["entry"])
        return [change["value"] for of_entry in changes for change in of_entry]

    @property
    def status_updates(self) -> list[Any]:
        return [status for value in self.values for status in value.get("statuses", [])]


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    hook = Endpoint()
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app.router.add_get("/webhooks/{rest:.*}", hook.challenge, allow_head=False)
    app.router.add_post("/{rest:.*}", hook.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/meta"
    yield hook
    await runner.cleanup()


def cloud_options(**others: Any) -> CloudOptions:
    chosen = {
        "app_secret": SECRET,
        "access_token": TOKEN,
        "max_concurrent_requests": 1,  # webhooks come in their order
        "retry_base_seconds": 0.02,
        "retry_cap_seconds": 0.05,
    }
    return CloudOptions(**(chosen | others))


@pytest.fixture
async def graph_sim(
    request: pytest.FixtureRequest, tmp_path: Path, endpoint: Endpoint
) -> AsyncIterator[Simulator]:
    """A simulator whose Cloud API `parametrize("graph_sim", [{…}], indirect=True)` sets up."""
    others = {"webhook_url": endpoint.url, **getattr(request, "param", {})}
    async with Simulator(options(tmp_path, cloud=cloud_options(**others))) as simulator:
        yield simulator


@pytest.fixture
def cloud(graph_sim: Simulator) -> Cloud:
    return graph_sim.cloud


@dataclass
class Graph:
    """Calls the Graph API as a business does."""

    session: aiohttp.ClientSession
    version: str = "v25.0"
    token: str = TOKEN

    async def call(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        bearer = {"Authorization": f"Bearer {self.token}"}
        async with self.session.request(
            method, f"/{self.version}{path}", json=body, headers={**bearer, **headers}
        ) as answer:
            assert answer.content_type == "application/json"
            return answer.status, await answer.json()

    async def send(
        self, hash_: str | None = None, *, number: str = NUMBER, **others: Any
    ) -> tuple[int, Any]:
        body = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "type": "text",
            "text": {"body": "Hello"},
            **(others or {"to": SHEENA}),
        }
        if hash_ is not None:
            body["recipient_identity_key_hash"] = hash_
        return await self.call("POST", f"/{number}/messages", body)

    async def check(self, *, is_on: bool, number: str = NUMBER) -> tuple[int, Any]:
        setting = {"user_identity_change": {"enable_identity_key_check": is_on}}
        return await self.call("POST", f"/{number}/settings", setting)


@pytest.fixture
async def graph(graph_sim: Simulator) -> AsyncIterator[Graph]:
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(graph_sim.base_url, connector=connector) as session:
        session._retry_connection = False
        yield Graph(session)


SERVE = (sys.executable, "-m", "service.simulator", "serve")


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Start the serving command in an empty folder; it is killed in the end."""
    started = []

    async def serve(*words: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *SERVE,
            *words,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        return process

    yield serve
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()
