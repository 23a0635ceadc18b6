"""No log line, metric or problem holds a phone number, hash, token, key or body."""

import asyncio
import hashlib
import io
import json
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from service.simulator import Options, Simulator

WA_ID = "16315550913"
OTHER_WA_ID = "16315550914"
HASH = "SenTineL/a0="
OTHER_HASH = "SenTineL/b1="
TOKEN = "sentinel-webhook-token-77"
KEY = "sentinel-api-key-88"
PASSWORD = "sentinel-password-99"
BODY = "sentinel-body-text"
INPUT = "+1 (631) 555-0913"
SENTINELS = (WA_ID, OTHER_WA_ID, "SenTineL", TOKEN, KEY, PASSWORD, BODY, "555-0913", "Bearer ey")

CONFIG = """
[server]
port = {port}
drain_seconds = 0
body_timeout_seconds = 0.5
[log]
level = "debug"
format = "json"
[database]
url = "{database}"
[accounts.main]
base_url = "{base_url}"
username = "ackgate"
password = "{password}"
ca_file = "{ca_file}"
webhook_token = "{token}"
timeout_seconds = 0.5
[api.keys.sentry]
role = "admin"
sha256 = "{digest}"
"""


class Looker:
    """Asks, and keeps every problem that is answered."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self.problems: list[str] = []

    async def ask(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {KEY}"} | how.pop("headers", {})
        url = self._url + path
        async with self._http.request(method, url, headers=headers, **how) as response:
            text = await response.text()
        if response.content_type != "application/problem+json":
            assert response.status < 400, "every error is a problem"
            return json.loads(text) if text.startswith("{") else {}
        problem: dict[str, Any] = json.loads(text)
        problem.pop("identity", None)
        self.problems.append(json.dumps(problem))
        return problem

    async def deliver(self, callback: Any, token: str = TOKEN, **how: Any) -> None:
        data = callback if isinstance(callback, bytes) else json.dumps(callback).encode()
        headers = {"Content-Type": "application/json"} | how.pop("headers", {})
        await self.ask("POST", f"/webhooks/main/{token}", data=data, headers=headers, **how)


def notification(wa_id: str, hash_: str, at: int) -> dict[str, Any]:
    return {
        "messages": [
            {
                "from": wa_id,
                "id": f"x{at}",
                "system": {"identity": hash_, "type": "user_identity_changed", "user": wa_id},
                "timestamp": str(at),
                "type": "system",
            }
        ]
    }


async def go_through_everything(looker: Looker, simulator: Simulator) -> None:
    """Let as much go well and wrong as the outside can bring about."""
    identity = f"/api/v1/accounts/main/identities/{WA_ID}"
    simulator.set_user(WA_ID, hash=HASH, acknowledged=False)
    await looker.deliver(notification(WA_ID, HASH, 1_602_535_356))
    await looker.deliver(notification(WA_ID, HASH, 1_602_535_356), token=TOKEN + "x")
    await looker.deliver({"messages": [{"from": WA_ID, "type": "text", "text": {"body": BODY}}]})
    await looker.deliver({"contacts": [{"input": INPUT, "status": "valid", "wa_id": WA_ID}]})
    await looker.deliver({"contacts": [{"input": INPUT, "status": 7, "wa_id": WA_ID + "/"}]})
    for broken in (
        f'{{"x": "{BODY}"'.encode(),
        b"\xff" + BODY.encode(),
        f'["{BODY}"]'.encode(),
        json.dumps({"messages": [notification(WA_ID + "/..", HASH * 200, 1)["messages"][0]]}),
        json.dumps({"messages": [WA_ID, {"type": "system", "system": BODY, "from": WA_ID}]}),
        json.dumps({"messages": {WA_ID: HASH}, "statuses": BODY}),
    ):
        await looker.deliver(broken.encode() if isinstance(broken, str) else broken)
    await looker.deliver(BODY.encode(), headers={"Content-Encoding": "gzip"})
    await looker.deliver(BODY.encode(), headers={"Content-Type": f"text/{BODY}"})
    await looker.ask("POST", f"/webhooks/main/{TOKEN}", data=io.BytesIO(BODY.encode() * 300_000))
    await looker.ask("POST", f"{identity}/acknowledge", json={"hash": OTHER_HASH})
    await looker.ask("POST", f"{identity}/acknowledge", json={"hash": HASH, BODY: BODY})
    await looker.ask("POST", f"{identity}/acknowledge", json={"hash": [HASH]})
    await looker.ask("POST", f"{identity}/acknowledge", data=f"{{{BODY}".encode())
    for status in (500, 404, 409):
        simulator.fault("identity_put", status=status, times=1)
    simulator.fault("identity_get", status=500, times=1)
    await looker.ask("POST", f"{identity}/acknowledge?wait=1", json={"hash": HASH, "note": BODY})
    simulator.fault("identity_get", hang=True, times=1)
    await looker.ask("POST", f"{identity}/refresh")
    simulator.fault("identity_get", body=f'{{"{BODY}": "{HASH}"}}', times=1)
    await looker.ask("POST", f"{identity}/refresh")
    await looker.ask("POST", f"/api/v1/accounts/main/identities/{OTHER_WA_ID}/refresh")
    await looker.ask("GET", f"/api/v1/accounts/main/recipients/{WA_ID}%2F{BODY}")
    await looker.ask("GET", f"/api/v1/accounts/{WA_ID}/recipients/{WA_ID}")
    await looker.ask("GET", f"/api/v1/identities?state={BODY}")
    await looker.ask("GET", f"/api/v1/identities?cursor={BODY}&limit={BODY}")
    await looker.ask("GET", f"/api/v1/{WA_ID}/{HASH}")
    await looker.ask("GET", "/api/v1/status", headers={"Authorization": f"Bearer {KEY}x"})
    await looker.ask("GET", f"/api/v1/journal/{WA_ID}")
    lookup = {"recipients": [WA_ID, INPUT, 7]}
    await looker.ask("POST", "/api/v1/accounts/main/recipients/lookup", json=lookup)
    listed = await looker.ask("GET", "/api/v1/journal?state=quarantined")
    assert listed["items"]
    for item in listed["items"]:
        await looker.ask("POST", f"/api/v1/journal/{item['id']}/replay")
        assert not [s for s in SENTINELS if s in json.dumps(item)], "a reason holds content"
    await malformed(looker)
    simulator.change_password("another", expire_tokens=True)
    await looker.ask("POST", f"{identity}/refresh")
    await looker.ask("GET", "/health/status")


async def malformed(looker: Looker) -> None:
    """Speak no proper HTTP."""
    port = int(looker._url.rpartition(":")[2])
    for lines in (
        f"POST /webhooks/main/{TOKEN} HTTP/1.1\r\nHost: a\r\nX {BODY}\r\n\r\n",
        f"{BODY}\r\n\r\n",
        f"POST /webhooks/main/{TOKEN} HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{BODY}",
        f"POST /webhooks/main/{TOKEN} HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(lines.encode())
        async with asyncio.timeout(10):
            answer = await reader.read(65_536)
        looker.problems.append(answer.decode(errors="replace"))
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def test_no_log_line_metric_or_problem_holds_a_number_hash_token_key_or_body(
    database_url: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = Options(port=0, var=tmp_path, password=PASSWORD, show_security_notifications=True)
    async with Simulator(options) as simulator, aiohttp.ClientSession() as http:
        config = tmp_path / "ackgate.toml"
        config.write_text(
            CONFIG.format(
                port=port,
                database=database_url,
                base_url=simulator.base_url,
                password=PASSWORD,
                ca_file=simulator.ca_file,
                token=TOKEN,
                digest=hashlib.sha256(KEY.encode()).hexdigest(),
            )
        )
        log = tmp_path / "log"
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service", "serve", "--config", str(config)),
                stdout=out,
                stderr=out,
            )
        looker = Looker(http, f"http://127.0.0.1:{port}")
        async with asyncio.timeout(30):
            while True:
                with suppress(aiohttp.ClientError):
                    async with http.get(f"http://127.0.0.1:{port}/health/ready") as response:
                        if response.status == 200:
                            break
                await asyncio.sleep(0.05)
        await go_through_everything(looker, simulator)
        async with http.get(f"http://127.0.0.1:{port}/metrics") as response:
            metrics = await response.text()
        process.terminate()
        assert await process.wait() == 0
    logged = log.read_text()
    assert "work done" in logged
    assert "ackgate_callbacks_total" in metrics
    assert len(looker.problems) > 15
    for sentinel in SENTINELS:
        assert sentinel not in logged
        assert sentinel not in metrics
        assert not [p for p in looker.problems if sentinel in p]
