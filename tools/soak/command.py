"""The real command, started, killed and stopped again and again on the same database."""

import asyncio
import hashlib
import os
import resource
import signal
import sqlite3
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Container, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

import aiohttp

from tools.bench.processes import ROOT, free_port, python
from tools.soak.client import Client
from tools.soak.record import MAX_CHANGES, PREFIXES, Handling

TOKEN = "soak-webhook-token"
KEY = "soak-key"
APP_SECRET = "0123456789abcdef" * 2
LATER = "1643"
"""How the wa_ids of the Cloud API begin that have a policy with a delay."""
START_SECONDS = 60.0
STOP_SECONDS = 30.0
LONGEST_PIECE = 65_536
STALL_SECONDS = 2.0
"""So long a body may stall."""
DELAY_SECONDS = 1.5
"""The delay of the policy that has one."""

_CONFIG = """
[server]
port = {port}
drain_seconds = 0.3
body_timeout_seconds = {stall}
[database]
url = "sqlite:///{database}"
[log]
level = "warning"
format = "json"
[reconciler]
sweep_after_seconds = 86400
[accounts.main]
base_url = "{base_url}"
username = "ackgate"
password = "development-only"
ca_file = "{ca_file}"
webhook_token = "{token}"
timeout_seconds = 2
[accounts.main.policy]
mode = "auto"
max_changes = {max_changes}
[[accounts.main.policy.rules]]
name = "people"
wa_id_prefixes = ["{manual}"]
mode = "manual"
[[accounts.main.policy.rules]]
name = "later"
wa_id_prefixes = ["{delayed}"]
delay_seconds = {delay}
[apps.meta]
app_secret = "{secret}"
verify_token = "soak-verify-token"
[accounts.shop]
kind = "cloud"
app = "meta"
phone_number_id = "106540352242922"
base_url = "http://127.0.0.1:9"
access_token = "soak-access-token"
[accounts.shop.policy]
mode = "manual"
[[accounts.shop.policy.rules]]
name = "later"
wa_id_prefixes = ["{later}"]
mode = "auto"
delay_seconds = {delay}
max_changes = {max_changes}
[accounts.outlet]
kind = "cloud"
app = "meta"
phone_number_id = "106540352242923"
base_url = "http://127.0.0.1:9"
access_token = "soak-access-token"
[api.keys.soak]
role = "admin"
sha256 = "{sha256}"
"""
"""Without a sweep: the client must not be asked about what the service got wrong by itself."""


class CommandError(Exception):
    """The service did not do as it was told; the text says what."""


class Command:
    """The service as a child process, with its configuration, database and log in a folder."""

    def __init__(self, folder: Path, client: Client) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.door = f"{self.url}/webhooks/main/{TOKEN}"
        self.cloud_door = f"{self.url}/webhooks/meta"
        self.database = folder / "ackgate.db"
        self.log = folder / "ackgate.log"
        self._config = folder / "ackgate.toml"
        self._config.write_text(
            _CONFIG.format(
                port=self.port,
                database=self.database,
                base_url=client.base_url,
                ca_file=client.ca_file,
                token=TOKEN,
                stall=STALL_SECONDS,
                max_changes=MAX_CHANGES,
                manual=PREFIXES[Handling.MANUAL],
                delayed=PREFIXES[Handling.DELAYED],
                delay=DELAY_SECONDS,
                later=LATER,
                secret=APP_SECRET,
                sha256=hashlib.sha256(KEY.encode()).hexdigest(),
            )
        )
        self.starts = self.kills = 0
        self._process: Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self.log.touch()

    async def spawn(self) -> None:
        """Start it, without waiting for anything."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("ACKGATE_")}
        command = python("service", "serve", "--config", str(self._config))
        self.starts += 1
        self._process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=environ, stdout=PIPE, stderr=STDOUT
        )
        self._listening = asyncio.create_task(self._listen(self._process))

    async def _listen(self, process: Process) -> None:
        """Write down what it says: it could not do so itself while the disk is full."""
        while process.stdout is not None and (said := await process.stdout.read(LONGEST_PIECE)):
            with self.log.open("ab") as log:
                log.write(said)

    async def start(self) -> None:
        """Start it, and wait until it takes callbacks."""
        await self.spawn()
        await self.ready()

    async def ready(self) -> None:
        """Wait until it takes callbacks; CommandError where it doesn't."""
        deadline = time.monotonic() + START_SECONDS
        async with aiohttp.ClientSession() as http:
            while time.monotonic() < deadline:
                if self._running().returncode is not None:
                    raise CommandError("the service ended by itself")
                with suppress(aiohttp.ClientError, OSError):
                    async with http.get(f"{self.url}/health/ready") as response:
                        if response.status == 200:  # noqa: PLR2004  it is ready
                            return
                await asyncio.sleep(0.02)
        raise CommandError(f"the service is not ready after {START_SECONDS:g} s")

    async def kill(self) -> None:
        """Kill it."""
        self.kills += 1
        with suppress(ProcessLookupError):
            self._running().send_signal(signal.SIGKILL)
        await self._ended()

    async def _ended(self) -> int:
        """Wait for its end and its last words; give its exit code."""
        code = await self._running().wait()
        if self._listening is not None:
            await self._listening
        return code

    async def stop(self, expected: Container[int] = (0,)) -> None:
        """Tell it to end; CommandError where it doesn't, or not as expected."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                code = await self._ended()
        except TimeoutError:
            raise CommandError(f"the service did not stop within {STOP_SECONDS:g} s") from None
        if code not in expected:
            raise CommandError(f"the service stopped with {code}")

    async def end(self) -> None:
        """End it, whatever became of the soak."""
        if self._process is not None and self._process.returncode is None:
            await self.kill()

    def _running(self) -> Process:
        if self._process is None:
            raise CommandError("the service was never started")
        return self._process

    @contextmanager
    def disk_full(self, beyond: int) -> Iterator[None]:
        """Let none of its files grow beyond so many bytes."""
        pid, which = self._running().pid, resource.RLIMIT_FSIZE
        before = resource.prlimit(pid, which)
        resource.prlimit(pid, which, (beyond, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, which, before)

    def log_size(self) -> int:
        """Give the size of the database's own log."""
        log = self.database.with_name(f"{self.database.name}-wal")
        return log.stat().st_size if log.exists() else 0

    async def locked(self, seconds: float) -> None:
        """Hold the database's write lock from another connection."""
        await asyncio.to_thread(self._lock, seconds)

    def _lock(self, seconds: float) -> None:
        with closing(sqlite3.connect(self.database, isolation_level=None, timeout=10)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            other.execute("ROLLBACK")


@asynccontextmanager
async def command_in(folder: Path, client: Client) -> AsyncIterator[Command]:
    """Run the service."""
    command = Command(folder, client)
    try:
        await command.start()
        yield command
    finally:
        await command.end()
