"""Replicas of the service on one PostgreSQL database, behind a balancer."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from sqlalchemy import make_url

from service.simulator import Simulator
from tests.crash.conftest import Command, Forked, Launcher
from tests.crash.network import Balancer, Proxy

TAKEOVER_SECONDS = 10.0
"""What is promised: so long after a leader has died another one leads."""
BACK_SECONDS = 30.0
"""What is allowed until all replicas are ready, and one leads, after whatever has happened."""
DRAIN_SECONDS = 1.0
"""Longer than the balancer needs to see that a replica stops."""
POLL_SECONDS = 0.05


class Replica:
    """One service, and the proxy through which alone it reaches the database."""

    def __init__(self, command: Command, launcher: Launcher, proxy: Proxy) -> None:
        self.command = command
        self.proxy = proxy
        self._launcher = launcher
        self._process: Forked | None = None

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def begin(self) -> None:
        """Start it, without waiting for anything."""
        assert not self.runs
        self._process = Forked(self._launcher, self.command, None)

    async def start(self) -> None:
        """Start it, and wait until it takes callbacks."""
        self.begin()
        assert self._process is not None
        assert await self.command.ready(self._process), self.command.log.read_text()

    def send_signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        if self._process is not None:
            await self._process.end()

    async def stop(self) -> int:
        """Stop it in order; give its exit code."""
        assert self._process is not None
        self.send_signal(signal.SIGTERM)
        return await self._process.wait()

    async def leads(self, http: aiohttp.ClientSession) -> bool:
        """Ask whether it leads; one that does not answer does not."""
        with suppress(aiohttp.ClientError, OSError):
            async with http.get(f"{self.command.url}/api/v1/status") as response:
                return response.status == 200 and (await response.json())["leader"] is True
        return False


class Replicas:
    """All of them. `front` is for whoever asks through the balancer, and looks into the database.

    `proxies` stand between each and the database.
    """

    def __init__(
        self, each: Sequence[Replica], front: Command, http: aiohttp.ClientSession
    ) -> None:
        self.each = each
        self.front = front
        self._http = http

    async def start(self) -> None:
        """Start all at once, and wait until one leads."""
        await asyncio.gather(*(replica.start() for replica in self.each))
        await self.until_led(BACK_SECONDS)

    async def end(self) -> None:
        await asyncio.gather(*(replica.kill() for replica in self.each))

    async def leaders(self) -> list[Replica]:
        running = [replica for replica in self.each if replica.runs]
        lead = await asyncio.gather(*(replica.leads(self._http) for replica in running))
        return [replica for replica, leads in zip(running, lead, strict=True) if leads]

    async def until_led(
        self, seconds: float = TAKEOVER_SECONDS, *, besides: Replica | None = None
    ) -> Replica:
        """Wait until one leads, another than that; fail where it takes longer."""
        others = [replica for replica in self.each if replica.runs and replica is not besides]
        waiting = [asyncio.create_task(self._until_leads(replica)) for replica in others]
        try:
            async with asyncio.timeout(seconds):
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                return done.pop().result()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _until_leads(self, replica: Replica) -> Replica:
        while not await replica.leads(self._http):
            await asyncio.sleep(POLL_SECONDS)
        return replica

    async def until_well(self) -> None:
        """Wait until all are ready, and one leads."""
        async with asyncio.timeout(BACK_SECONDS):
            while not await self._all_ready():
                await asyncio.sleep(POLL_SECONDS)
        await self.until_led(BACK_SECONDS)

    async def _all_ready(self) -> bool:
        for replica in self.each:
            try:
                async with self._http.get(f"{replica.command.url}/health/ready") as response:
                    if response.status != 200:
                        return False
            except (aiohttp.ClientError, OSError):
                return False
        return True


def at_port(url: str, port: int) -> str:
    """Return the URL of a database behind a proxy."""
    return make_url(url).set(host="127.0.0.1", port=port).render_as_string(hide_password=False)


@asynccontextmanager
async def behind_a_balancer(
    url: str, folder: Path, simulator: Simulator, launchers: Sequence[Launcher]
) -> AsyncIterator[Replicas]:
    """Prepare a replica for each launcher on the database, without starting any."""
    port = make_url(url).port
    assert port is not None
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        )
        each = []
        for number, launcher in enumerate(launchers):
            proxy = await stack.enter_async_context(Proxy(port).listening())
            own = folder / f"replica{number}"
            own.mkdir()
            reached_at = at_port(url, proxy.port)
            command = Command(
                own, simulator, url, reached_at=reached_at, drain_seconds=DRAIN_SECONDS
            )
            each.append(Replica(command, launcher, proxy))
        ports = [replica.command.port for replica in each]
        balancer = await stack.enter_async_context(Balancer(ports).listening())
        front = Command(folder, simulator, url)
        front.url = balancer.url
        made = Replicas(each, front, http)
        stack.push_async_callback(made.end)
        yield made
