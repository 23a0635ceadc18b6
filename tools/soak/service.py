"""The processes under test: the real command on one database, and the simulated client."""

import asyncio
import resource
import signal
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tools.installation import CLOUD_WEBHOOK, WEBHOOK, CloudAccount, Installation
from tools.processes import Process, RunError, free_port, python
from tools.simulator import SimulatorProcess
from tools.soak.database import Database
from tools.soak.record import MAX_CHANGES, PREFIXES, Handling

CLOUD_AUTOMATIC = "1643"
"""How the wa_ids of Cloud API users begin for whom policy decides, after a delay."""
STALL_SECONDS = 2.0
"""The time that a body may stall."""
DELAY_SECONDS = 1.5
"""The delay of a policy that has one."""
POLICY = f"""
mode = "auto"
max_changes = {MAX_CHANGES}
[[accounts.main.policy.rules]]
name = "people"
wa_id_prefixes = ["{PREFIXES[Handling.MANUAL]}"]
mode = "manual"
[[accounts.main.policy.rules]]
name = "later"
wa_id_prefixes = ["{PREFIXES[Handling.DELAYED]}"]
delay_seconds = {DELAY_SECONDS}
"""
SHOP_POLICY = f"""
mode = "manual"
[[accounts.shop.policy.rules]]
name = "later"
wa_id_prefixes = ["{CLOUD_AUTOMATIC}"]
mode = "auto"
delay_seconds = {DELAY_SECONDS}
max_changes = {MAX_CHANGES}
"""
CLOUD = (
    CloudAccount("shop", "106540352242922", SHOP_POLICY),
    CloudAccount("outlet", "106540352242923"),
)
# Without a sweep: the client must not be asked about what the service got wrong by itself.
NO_SWEEP = """
[reconciler]
sweep_after_seconds = 86400
"""


class Client:
    """The simulated client, which acts in the order in which it is asked to."""

    def __init__(self, simulator: SimulatorProcess) -> None:
        self.base_url, self.ca_file = simulator.base_url, simulator.ca_file
        self._simulator = simulator
        self._thread = ThreadPoolExecutor(max_workers=1)

    async def do(self, act: str, **arguments: Any) -> Any:
        """Carry out an act, and return what it answers."""
        call = partial(self._simulator.do, act, **arguments)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


class Service:
    """The service as a child process, with its configuration and log in a folder."""

    def __init__(self, folder: Path, client: Client, relays: str, database: Database) -> None:
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.webhook, self.cloud_webhook = self.url + WEBHOOK, self.url + CLOUD_WEBHOOK
        installation = Installation(
            folder,
            client.base_url,
            client.ca_file,
            drain_seconds=0.3,
            server=f"body_timeout_seconds = {STALL_SECONDS}",
            account="timeout_seconds = 2",
            policy=POLICY,
            more=NO_SWEEP + relays,
            database_url=database.url,
            cloud=CLOUD,
        )
        self.database, self.log = database, folder / "ackgate.log"
        self.starts = self.kills = 0
        self._command = installation.command(self.port)
        self._config, self._wal = installation.config, folder / "ackgate.db-wal"
        self._running: Process | None = None

    @property
    def _process(self) -> Process:
        if self._running is None:
            raise RunError("the service was never started")
        return self._running

    def spawn(self) -> None:
        """Start it, without waiting for anything."""
        self.starts += 1
        self._running = Process(self._command, name="the service", log=self.log)

    async def start(self) -> None:
        """Start it, and wait until it accepts callbacks; RunError if it doesn't."""
        self.spawn()
        await asyncio.to_thread(self._process.wait_for, f"{self.url}/health/ready")

    async def kill(self) -> None:
        """Kill it."""
        self.kills += 1
        await asyncio.to_thread(self._process.kill)

    async def stop(self, expected: Container[int] = (0,)) -> None:
        """Stop it in order; RunError if it doesn't stop, or with another exit code."""
        process = self._process
        process.send(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait)
        if code not in expected:
            raise RunError(f"the service stopped with {code}")

    async def back_up(self, file: Path) -> None:
        """Back its database up, whether it runs or not; RunError where that fails."""
        await self.database.back_up(self._care, file)

    async def restore(self, file: Path, kill_after: float | None = None) -> None:
        """Restore a backup, while it does not run; or kill the command after so many seconds."""
        await self.database.restore(self._care, file, kill_after)

    async def _care(self, *words: str, kill_after: float | None = None) -> None:
        """Run a command of `ackgate db`."""
        arguments = ("service", "db", *words, "--config", str(self._config))
        process = Process(python(*arguments), name=f"ackgate db {words[0]}")
        if kill_after is not None:
            await asyncio.sleep(kill_after)
            await asyncio.to_thread(process.kill)
        elif await asyncio.to_thread(process.wait):
            raise RunError(f"{process.name} failed: {process.printed()}")

    async def aclose(self) -> None:
        """End it, whatever happened."""
        if self._running is not None:
            await asyncio.to_thread(self._running.kill)

    @contextmanager
    def disk_full(self, beyond: int) -> Iterator[None]:
        """Let none of its files grow beyond so many bytes."""
        pid, limit = self._process.pid, resource.RLIMIT_FSIZE
        before = resource.prlimit(pid, limit)
        resource.prlimit(pid, limit, (beyond, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, limit, before)

    def wal_size(self) -> int:
        """Return the size of the write-ahead log of its database, a file."""
        return self._wal.stat().st_size if self._wal.exists() else 0
