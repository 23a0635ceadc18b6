"""Single sign-on as its page configures it: a real nginx, and a stand-in of oauth2-proxy."""

import asyncio
import re
import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.acceptance.conftest import (
    WA_ID,
    Installation,
    certificates,
    digest_of,
    http,
    install,
    prepare,
    simulate,
    stack,
    until,
)
from tests.conftest import installed
from tests.docs.conftest import blocks
from tools.processes import free_port

__all__ = ["certificates", "http", "install", "prepare", "simulate", "stack"]

pytestmark = [pytest.mark.tools, pytest.mark.sqlite]

ANA, EVE = "ana@shop.example", "eve@shop.example"
[CONFIG] = [block.text for block in blocks("toml") if block.page.name == "sso.md"]
[NGINX] = [block.text for block in blocks("nginx") if block.page.name == "sso.md"]


async def auth(request: web.Request) -> web.Response:
    """Answer nginx as oauth2-proxy does with `set_xauthrequest`; the cookie is the address."""
    person = request.cookies.get("_oauth2_proxy")
    if person is None:
        return web.Response(status=401)
    return web.Response(status=202, headers={"X-Auth-Request-Email": person})


def without_tls(port: int, proxy: int, console: int) -> str:
    """Return the server of the page with ports of this test."""
    text = re.sub(r"listen 443 ssl;", f"listen 127.0.0.1:{port};", NGINX)
    text = re.sub(r"ssl_certificate.*\n", "", text)
    text = text.replace("127.0.0.1:4180", f"127.0.0.1:{proxy}")
    return text.replace("127.0.0.1:8081", f"127.0.0.1:{console}")


@dataclass
class Front:
    """The address that a browser knows, and what is behind it."""

    url: str
    made: Installation

    async def get(
        self, path: str, person: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str, Any]:
        cookies = {} if person is None else {"Cookie": f"_oauth2_proxy={person}"}
        async with self.made.http.get(
            self.url + path, headers={**cookies, **(headers or {})}, allow_redirects=False
        ) as response:
            return response.status, await response.text(), response.headers


@pytest.fixture
async def front(install: Any, tmp_path: Path) -> AsyncIterator[Front]:
    console: dict[str, Any] = tomllib.loads(CONFIG)["console"]
    keys = {"console": {"role": "admin", "sha256": digest_of("a-key")}}
    made = await install(
        server={"internal": {"host": "127.0.0.1", "port": 0}}, console=console, api={"keys": keys}
    )
    made.key = "a-key"
    app = web.Application()
    app.router.add_get("/oauth2/auth", auth)
    port = free_port()
    file = tmp_path / "nginx.conf"
    temporary = "".join(
        f"{kind}_temp_path {tmp_path / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    async with TestServer(app) as proxy:
        server = without_tls(port, int(proxy.port or 0), int(made.inside.rpartition(":")[2]))
        file.write_text(
            f"daemon off;\npid {tmp_path / 'pid'};\nerror_log {tmp_path / 'log'};\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{server}}}\n"
        )
        nginx = await asyncio.create_subprocess_exec(installed("nginx"), "-c", str(file))
        found = Front(f"http://127.0.0.1:{port}", made)

        async def answers() -> bool:
            assert nginx.returncode is None
            try:
                return (await found.get("/"))[0] == 404
            except aiohttp.ClientError:
                return False

        await until(answers)
        yield found
        nginx.terminate()
        await nginx.wait()


async def test_whom_the_proxy_names_is_signed_in_and_decides_by_name(front: Front) -> None:
    hash_ = await front.made.change()
    status, page, headers = await front.get("/console/", ANA)
    assert (status, ANA in page) == (200, True)
    assert headers["Strict-Transport-Security"]
    [token] = set(re.findall(r'name="form_token" value="([^"]+)"', page))
    form = {"hash": hash_, "verb": "acknowledge", "form_token": token}
    async with front.made.http.post(
        f"{front.url}/console/accounts/main/identities/{WA_ID}/decide",
        data=form,
        headers={"Cookie": f"_oauth2_proxy={ANA}", "Origin": front.url},
        allow_redirects=False,
    ) as response:
        assert response.status == 303, await response.text()
    [entry] = await front.made.audit(event="decided")
    assert (entry["by"]["kind"], entry["by"]["name"]) == ("person", ANA)


async def test_nobody_gets_in_by_claiming_to_be_somebody(front: Front) -> None:
    claim = {"X-Forwarded-Email": ANA}
    status, _, headers = await front.get("/console/", None, claim)
    assert (status, headers["Location"]) == (302, f"{front.url}/oauth2/start?rd=/console/")
    # Signed in at the proxy, and no one of the list.
    status, _, headers = await front.get("/console/", EVE, claim)
    assert status == 303
    assert headers["Location"].startswith("/console/sign-in")
    for path in ("/api/v1/status", "/metrics", "/oauth2/auth"):
        assert (await front.get(path, ANA))[0] == 404
