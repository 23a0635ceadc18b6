"""What goes wrong: the service is killed, stopped and hindered, and its client fails."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from tools.soak.client import Client
from tools.soak.command import Command
from tools.soak.record import Record

BEFORE_SECONDS = (0.3, 3.0)
"""So long all is well between two faults."""
PASSWORD, ANOTHER = "development-only", "another one"
WAL_HEADER = 4096

T = TypeVar("T")
Fault = Callable[[T, random.Random], Awaitable[None]]


class Trouble(Generic[T]):
    """Faults of one kind, one after another, until it is told to stop."""

    def __init__(self, of: T, weights: dict[Fault[T], int], record: Record) -> None:
        self._of = of
        self._weights = weights
        self._record = record

    async def cause(self, seed: str, stop: asyncio.Event) -> None:
        """Cause one fault after another; the one that was begun is ended."""
        chance = random.Random(seed)
        faults, weights = zip(*self._weights.items(), strict=True)
        while not stop.is_set():
            await asyncio.sleep(chance.uniform(*BEFORE_SECONDS))
            (fault,) = chance.choices(faults, weights)
            self._record.counts[f"fault: {fault.__name__.replace('_', ' ')}"] += 1
            await fault(self._of, chance)


class OfService:
    """What happens to the service's process, and to its disk."""

    def __init__(self, command: Command, client: Client) -> None:
        self._command = command
        self._client = client

    async def killed(self, _: random.Random) -> None:
        """Kill it under load."""
        await self._command.kill()
        await self._command.start()

    async def killed_while_it_starts(self, chance: random.Random) -> None:
        """Kill it, and once or twice more while it starts."""
        await self._command.kill()
        for _ in range(chance.randint(1, 2)):
            await self._command.spawn()
            await asyncio.sleep(chance.uniform(0.1, 2.0))
            await self._command.kill()
        await self._command.start()

    async def killed_while_it_stops(self, chance: random.Random) -> None:
        """Tell it to stop, and kill it meanwhile."""
        stopping = asyncio.create_task(self._command.stop(expected={0, -9}))
        await asyncio.sleep(chance.uniform(0.0, 0.6))
        await self._command.kill()
        await stopping
        await self._command.start()

    async def restarted(self, _: random.Random) -> None:
        """Stop it under load, and start it again."""
        await self._command.stop()
        await self._command.start()

    async def disk_full(self, chance: random.Random) -> None:
        """Let its files grow no more, the log of the database not even as large as it is."""
        size = self._command.log_size()
        beyond = chance.choice((WAL_HEADER, size // 2, size + 6000))
        with self._command.disk_full(beyond):
            await asyncio.sleep(chance.uniform(0.5, 3.0))

    async def database_locked(self, chance: random.Random) -> None:
        """Lock the database, for longer than the service is patient at times."""
        await self._command.locked(chance.uniform(0.5, 7.0))

    async def login_refused(self, chance: random.Random) -> None:
        """Let the password be wrong; a restart ends the pause that this brings."""
        await self._client.do("change_password", password=ANOTHER)
        await asyncio.sleep(chance.uniform(0.5, 2.0))
        await self._client.do("change_password", password=PASSWORD)
        await self.restarted(chance)


class OfClient:
    """What happens to the WhatsApp client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def client_down(self, chance: random.Random) -> None:
        """Let nobody listen."""
        await self._client.do("go")
        await asyncio.sleep(chance.uniform(0.5, 4.0))
        await self._client.do("come")

    async def client_flapping(self, chance: random.Random) -> None:
        """Let it come and go."""
        for _ in range(chance.randint(2, 4)):
            await self._client.do("go")
            await asyncio.sleep(chance.uniform(0.05, 0.4))
            await self._client.do("come")
            await asyncio.sleep(chance.uniform(0.05, 0.4))

    async def client_slow(self, chance: random.Random) -> None:
        """Let it take its time, at times more than the service waits."""
        await self._struck(chance, "any", latency=chance.uniform(0.3, 2.5))

    async def client_failing(self, chance: random.Random) -> None:
        """Let it answer with an error, at times after the effect."""
        operation = chance.choice(("any", "identity_put", "identity_get"))
        status = chance.choice((500, 502, 503, 429))
        effect = status in {500, 502} and chance.random() < 0.5  # noqa: PLR2004  half of them
        await self._struck(chance, operation, status=status, effect=effect)

    async def answers_lost(self, chance: random.Random) -> None:
        """Let connections break, before the effect or after it."""
        await self._struck(chance, "identity_put", drop=chance.choice(("before", "after")))

    async def answers_never_come(self, chance: random.Random) -> None:
        """Let calls hang, with or without an effect."""
        effect = chance.random() < 0.5  # noqa: PLR2004  half of them
        await self._struck(chance, "identity_put", hang=3.0, effect=effect)

    async def logged_out(self, _: random.Random) -> None:
        """Let every token expire."""
        await self._client.do("expire_tokens")

    async def _struck(self, chance: random.Random, operation: str, **what: object) -> None:
        await self._client.do("fault", operation=operation, **what)
        await asyncio.sleep(chance.uniform(0.5, 3.0))
        await self._client.do("clear_faults")


OF_SERVICE: dict[Fault[OfService], int] = {
    OfService.killed: 8,
    OfService.killed_while_it_starts: 3,
    OfService.killed_while_it_stops: 1,
    OfService.restarted: 2,
    OfService.disk_full: 3,
    OfService.database_locked: 2,
    OfService.login_refused: 1,
}
OF_CLIENT: dict[Fault[OfClient], int] = {
    OfClient.client_down: 2,
    OfClient.client_flapping: 2,
    OfClient.client_slow: 2,
    OfClient.client_failing: 2,
    OfClient.answers_lost: 2,
    OfClient.answers_never_come: 1,
    OfClient.logged_out: 1,
}
"""What may happen, and how often beside the rest."""
