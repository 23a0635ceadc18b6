"""The faults: the service is killed, stopped and hindered, and its client fails."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tools.soak.record import Record
from tools.soak.service import Client, Service

BETWEEN_SECONDS = (0.3, 3.0)
"""The time between two faults, at least and at most."""
PASSWORD, ANOTHER = "development-only", "another one"
WAL_HEADER = 4096

T = TypeVar("T")
Fault = Callable[[T, random.Random], Awaitable[None]]


async def cause_faults(
    of: T, weights: dict[Fault[T], int], record: Record, seed: str, stop: asyncio.Event
) -> None:
    """Cause one fault after another until `stop` is set; the last one is ended."""
    chance = random.Random(seed)
    while not stop.is_set():
        await asyncio.sleep(chance.uniform(*BETWEEN_SECONDS))
        (fault,) = chance.choices(list(weights), list(weights.values()))
        record.counts[f"fault: {fault.__name__.replace('_', ' ')}"] += 1
        await fault(of, chance)


class ServiceFaults:
    """What happens to the service's process, and to its disk.

    No process starts while `calm` is held: it would rightly give up without its database.
    """

    def __init__(self, service: Service, client: Client, calm: asyncio.Lock) -> None:
        self._service = service
        self._client = client
        self._calm = calm

    async def _start(self) -> None:
        async with self._calm:
            await self._service.start()

    async def killed(self, _: random.Random) -> None:
        """Kill it under load."""
        await self._service.kill()
        await self._start()

    async def killed_while_it_starts(self, chance: random.Random) -> None:
        """Kill it, and once or twice more while it starts."""
        await self._service.kill()
        for _ in range(chance.randint(1, 2)):
            async with self._calm:
                self._service.spawn()
                await asyncio.sleep(chance.uniform(0.1, 2.0))
                await self._service.kill()
        await self._start()

    async def killed_while_it_stops(self, chance: random.Random) -> None:
        """Stop it, and kill it meanwhile."""
        stopping = asyncio.create_task(self._service.stop(expected={0, -9}))
        await asyncio.sleep(chance.uniform(0.0, 0.6))
        await self._service.kill()
        await stopping
        await self._start()

    async def restarted(self, _: random.Random) -> None:
        """Stop it under load, and start it again."""
        await self._service.stop()
        await self._start()

    async def disk_full(self, chance: random.Random) -> None:
        """Let its files grow no more, and the write-ahead log be not even as large as it is."""
        size = self._service.wal_size()
        beyond = chance.choice((WAL_HEADER, size // 2, size + 6000))
        with self._service.disk_full(beyond):
            await asyncio.sleep(chance.uniform(0.5, 3.0))

    async def database_locked(self, chance: random.Random) -> None:
        """Lock the database, at times for longer than the service waits."""
        async with self._calm:
            await self._service.database.lock(chance.uniform(0.5, 7.0))

    async def server_crashed(self, _: random.Random) -> None:
        """Let the database's server crash, and recover."""
        async with self._calm:
            await self._service.database.crash()

    async def login_refused(self, chance: random.Random) -> None:
        """Let the password be wrong; a restart ends the pause that follows."""
        await self._client.do("change_password", password=ANOTHER)
        await asyncio.sleep(chance.uniform(0.5, 2.0))
        await self._client.do("change_password", password=PASSWORD)
        await self.restarted(chance)


class ClientFaults:
    """What happens to the WhatsApp client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def client_down(self, chance: random.Random) -> None:
        """Stop the client for a while."""
        await self._client.do("stop")
        await asyncio.sleep(chance.uniform(0.5, 4.0))
        await self._client.do("start")

    async def client_flapping(self, chance: random.Random) -> None:
        """Stop and start it several times."""
        for _ in range(chance.randint(2, 4)):
            await self._client.do("stop")
            await asyncio.sleep(chance.uniform(0.05, 0.4))
            await self._client.do("start")
            await asyncio.sleep(chance.uniform(0.05, 0.4))

    async def client_slow(self, chance: random.Random) -> None:
        """Let it answer late, at times later than the service waits."""
        await self._fault(chance, "any", latency=chance.uniform(0.3, 2.5))

    async def client_failing(self, chance: random.Random) -> None:
        """Let it answer with an error, at times after the effect."""
        operation = chance.choice(("any", "identity_put", "identity_get"))
        status = chance.choice((500, 502, 503, 429))
        effect = status in {500, 502} and chance.random() < 0.5  # noqa: PLR2004  half of them
        await self._fault(chance, operation, status=status, effect=effect)

    async def answers_lost(self, chance: random.Random) -> None:
        """Let connections break, before the effect or after it."""
        await self._fault(chance, "identity_put", drop=chance.choice(("before", "after")))

    async def answers_never_come(self, chance: random.Random) -> None:
        """Let calls hang, with or without an effect."""
        effect = chance.random() < 0.5  # noqa: PLR2004  half of them
        await self._fault(chance, "identity_put", hang=3.0, effect=effect)

    async def logged_out(self, _: random.Random) -> None:
        """Let every token expire."""
        await self._client.do("expire_tokens")

    async def _fault(self, chance: random.Random, operation: str, **what: object) -> None:
        await self._client.do("fault", operation=operation, **what)
        await asyncio.sleep(chance.uniform(0.5, 3.0))
        await self._client.do("clear_faults")


PROCESS_FAULTS: dict[Fault[ServiceFaults], int] = {
    ServiceFaults.killed: 8,
    ServiceFaults.killed_while_it_starts: 3,
    ServiceFaults.killed_while_it_stops: 1,
    ServiceFaults.restarted: 2,
}
"""Those that a second replica has by itself."""
_OF_BOTH = PROCESS_FAULTS | {
    ServiceFaults.database_locked: 2,
    ServiceFaults.login_refused: 1,
}
SERVICE_FAULTS = {
    "sqlite": _OF_BOTH | {ServiceFaults.disk_full: 3},
    "postgresql": _OF_BOTH | {ServiceFaults.server_crashed: 3},
}
"""By kind of database: on PostgreSQL the disk is its server's."""
CLIENT_FAULTS: dict[Fault[ClientFaults], int] = {
    ClientFaults.client_down: 2,
    ClientFaults.client_flapping: 2,
    ClientFaults.client_slow: 2,
    ClientFaults.client_failing: 2,
    ClientFaults.answers_lost: 2,
    ClientFaults.answers_never_come: 1,
    ClientFaults.logged_out: 1,
}
"""What may happen, and how often beside the other faults."""
