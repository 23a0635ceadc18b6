"""The simulator in a process of its own: the real one, with a line of JSON for each act.

`python -m soak.counterpart FOLDER` says where it listens, then answers each line `[ACT, {…}]`.
"""

import asyncio
import json
import sys
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.counterpart import lines_of_input, say
from service.simulator import Options, Simulator
from service.simulator.api import Call

ACTS = frozenset(
    {"change_identity", "fault", "clear_faults", "expire_tokens", "change_password"},
)
"""The acts of the simulator itself that can be asked for by name."""
MANY = 1_000_000


class Counterpart:
    """Carries out what the lines say."""

    def __init__(self, sim: Simulator) -> None:
        self._sim = sim
        self._leaving: asyncio.Task[None] | None = None

    async def answer(self, act: str, what: dict[str, Any]) -> Any:
        """Do one act; give what it came to."""
        if act in ACTS:
            return getattr(self._sim, act)(**what)
        match act:
            case "go":
                self._leaving = asyncio.create_task(self._sim.stop())
            case "come":
                await self._come()
            case "user":
                user = self._sim.users.get(what["wa_id"])
                return None if user is None else asdict(user)
            case "seen":
                return self._seen()
            case _:
                raise ValueError(act)
        return None

    async def _come(self) -> None:
        """Be there again, on the same port and with all that it knew."""
        if self._leaving is not None:
            await self._leaving
            self._leaving = None
            await self._sim.start()

    def _seen(self) -> dict[str, Any]:
        calls = self._sim.calls
        users = self._sim.users.values()
        return {
            "users": [(user.wa_id, user.hash, user.acknowledged) for user in users],
            "puts": [_put(call) for call in calls.of("identity_put")],
            "gets": [(call.wa_id, call.at) for call in calls.of("identity_get")],
            "calls": dict(calls.counts),
        }


def _put(call: Call) -> tuple[Any, ...]:
    return call.wa_id, call.hash, call.at, call.outcome, call.faulty or call.status is None


async def serve(folder: Path) -> None:
    """Serve until the input ends."""
    options = Options(port=0, var=folder, show_security_notifications=True, health_per_minute=MANY)
    async with Simulator(options) as sim:
        sim.calls.list = deque()  # every call counts, however long it lasts
        say({"base_url": sim.base_url, "ca_file": str(sim.ca_file)})
        counterpart, lines = Counterpart(sim), await lines_of_input()
        while line := await lines.readline():
            act, what = json.loads(line)
            say(await counterpart.answer(act, what))


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
