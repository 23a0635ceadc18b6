"""SIGKILL at random moments under load: a 200 means on disk and in effect."""

import asyncio
import itertools
import os
import random
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from service.simulator import Options, Simulator

KILLS = int(os.environ.get("ACKGATE_TEST_KILLS", "100"))
SENDERS = 12
TOKEN = "crash-webhook-token"
CONFIG = """
[server]
port = {port}
drain_seconds = 0
[database]
url = "sqlite:///{database}"
[log]
level = "warning"
[accounts.main]
base_url = "{base_url}"
username = "ackgate"
password = "development-only"
ca_file = "{ca_file}"
webhook_token = "{token}"
timeout_seconds = 5
[accounts.main.policy]
mode = "auto"
[[accounts.main.policy.rules]]
name = "people"
wa_id_prefixes = ["1632"]
mode = "manual"
"""


@pytest.fixture
async def simulator(tmp_path: Path) -> AsyncIterator[Simulator]:
    options = Options(
        port=0,
        var=tmp_path / "simulator",
        show_security_notifications=True,
        health_per_minute=100_000,
    )
    async with Simulator(options) as running:
        yield running


class Command:
    """The real command, started again and again on the same database."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = folder / "ackgate.db"
        self._config = folder / "ackgate.toml"
        self._config.write_text(
            CONFIG.format(
                port=self.port,
                database=self.database,
                base_url=simulator.base_url,
                ca_file=simulator.ca_file,
                token=TOKEN,
            )
        )

    async def start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service", "serve", "--config", str(self._config)
        )


async def notify(
    http: aiohttp.ClientSession, command: Command, wa_id: str, hash_: str, at_ms: int
) -> bool:
    """Deliver one notification; tell whether it was answered with 200."""
    message = {
        "from": wa_id,
        "id": f"m-{wa_id}-{at_ms}",
        "system": {"identity": hash_, "type": "user_identity_changed", "user": wa_id},
        "timestamp": str(at_ms // 1000),
        "type": "system",
    }
    with suppress(aiohttp.ClientError, OSError):
        url = f"{command.url}/webhooks/main/{TOKEN}"
        async with http.post(url, json={"messages": [message]}) as response:
            return response.status == 200
    return False


class Load:
    """Sends notifications and decisions, and remembers what was accepted."""

    def __init__(self, command: Command, simulator: Simulator) -> None:
        self.accepted: dict[str, str] = {}
        self.decided: set[str] = set()
        self._command = command
        self._simulator = simulator
        self._numbers = itertools.count(1)

    async def send_until(self, stop: asyncio.Event) -> None:
        async with aiohttp.ClientSession() as http:
            await asyncio.gather(*(self._send(http, stop) for _ in range(SENDERS)))

    async def _send(self, http: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        while not stop.is_set():
            number = next(self._numbers)
            manual = number % 4 == 0
            wa_id = f"{'1632' if manual else '1631'}{number:07}"
            hash_ = self._simulator.change_identity(wa_id, notify=False)
            at_ms = time.time_ns() // 1_000_000
            if not await notify(http, self._command, wa_id, hash_, at_ms):
                await asyncio.sleep(0.01)
                continue
            self.accepted[wa_id] = hash_
            if manual and number % 8 == 0:
                await self._decide(http, wa_id, hash_)

    async def _decide(self, http: aiohttp.ClientSession, wa_id: str, hash_: str) -> None:
        url = f"{self._command.url}/api/v1/accounts/main/identities/{wa_id}/acknowledge"
        with suppress(aiohttp.ClientError, OSError):
            async with http.post(url, json={"hash": hash_}) as response:
                if response.status in {200, 202}:
                    self.decided.add(wa_id)


async def ready(command: Command, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(30), aiohttp.ClientSession() as http:
        while True:
            assert process.returncode is None, "the service did not start again"
            with suppress(aiohttp.ClientError, OSError):
                async with http.get(f"{command.url}/health/ready") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.01)


def rows(database: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return found


async def until_idle(database: Path) -> None:
    """Wait until nothing is left to be done."""
    async with asyncio.timeout(60):
        while rows(database, "SELECT 1 FROM outbox LIMIT 1"):
            await asyncio.sleep(0.1)


@pytest.mark.timeout(900)
async def test_nothing_that_got_a_200_is_lost_by_a_kill_at_any_moment(
    tmp_path: Path, simulator: Simulator
) -> None:
    command = Command(tmp_path, simulator)
    load = Load(command, simulator)
    chance = random.Random(480)
    for _ in range(KILLS):
        process = await command.start()
        await ready(command, process)
        stop = asyncio.Event()
        sending = asyncio.create_task(load.send_until(stop))
        await asyncio.sleep(chance.uniform(0.01, 0.35))
        process.send_signal(signal.SIGKILL)
        await process.wait()
        stop.set()
        await sending
    process = await command.start()
    await ready(command, process)
    await until_idle(command.database)

    found = {
        wa_id: (hash_, state)
        for wa_id, hash_, state in rows(command.database, "SELECT wa_id, hash, state FROM users")
    }
    lost = {w for w, hash_ in load.accepted.items() if found.get(w, ("", ""))[0] != hash_}
    assert not lost
    due = {w for w in load.accepted if w.startswith("1631")} | load.decided
    assert not {w for w in due if found[w][1] != "acknowledged"}
    assert all(simulator.users[w].acknowledged for w in due)
    waiting = load.accepted.keys() - due
    assert {found[w][1] for w in waiting} <= {"pending", "acknowledged"}
    assert rows(command.database, "PRAGMA integrity_check") == [("ok",)]
    once = "SELECT user_id FROM audit WHERE event = 'changed' GROUP BY user_id HAVING count(*) > 1"
    assert not rows(command.database, once)
    journalled = rows(command.database, "SELECT count(*) FROM journal")[0][0]
    assert isinstance(journalled, int)
    assert journalled >= len(load.accepted) > 100
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
