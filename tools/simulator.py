"""The simulator in a process of its own, which acts on lines of JSON.

`python -m tools.simulator OPTIONS` prints where it listens. Then it answers each line of its input,
an act and its arguments, `["user", {"wa_id": "16315553601"}]`, with a line. It ends with its input.
"""

import asyncio
import json
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop

from service.simulator import Options, Simulator
from tools.processes import ROOT, STOP_SECONDS, RunError, cpu_seconds_of, on_core, python

ACTS = {"change_identity", "clear_faults", "change_password", "expire_tokens", "fault"}
"""The acts of the simulator itself that are called by their names."""
ACKNOWLEDGED = "acknowledged"
"""The outcome of a PUT that had an effect."""


class SimulatorProcess:
    """A running simulator, as the program that started it uses it."""

    def __init__(self, child: "subprocess.Popen[str]") -> None:
        self._child = child
        started = self._read()
        self.base_url: str = started["base_url"]
        self.ca_file = Path(started["ca_file"])

    def do(self, act: str, **arguments: Any) -> Any:
        """Carry out an act, and return what it answers."""
        if self._child.stdin is not None:
            self._child.stdin.write(json.dumps([act, arguments]) + "\n")
            self._child.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        line = self._child.stdout.readline() if self._child.stdout is not None else ""
        if not line:
            raise RunError("the simulator ended by itself")
        return json.loads(line)

    def cpu_seconds(self) -> float:
        """Return the CPU time so far."""
        return cpu_seconds_of(self._child.pid)


@contextmanager
def simulator(
    folder: Path, *, core: int | None = None, **options: Any
) -> Iterator[SimulatorProcess]:
    """Run a simulator with options of `service.simulator`; the folder gets its certificate."""
    options |= {"port": 0, "var": str(folder)}
    with on_core(core):
        child = subprocess.Popen(
            python("tools.simulator", json.dumps(options)),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        yield SimulatorProcess(child)
    finally:
        if child.stdin is not None:
            child.stdin.close()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class Actor:
    """Carries out the acts, in the simulator's own process."""

    def __init__(self, sim: Simulator) -> None:
        self._sim = sim
        self._stopping: asyncio.Task[None] | None = None

    async def act(self, name: str, arguments: dict[str, Any]) -> Any:
        """Carry out one act; ValueError for an unknown one."""
        if name in ACTS:
            return getattr(self._sim, name)(**arguments)
        if name == "start":
            return await self._start()
        acts: dict[str, Callable[..., Any]] = {
            "stop": self._stop,
            "set_users": self._set_users,
            "user": self._user,
            "acknowledged": self._acknowledged,
            "count_acknowledged": self._count_acknowledged,
            "seen": self._seen,
            "forget": self._forget,
        }
        if name not in acts:
            raise ValueError(name)
        return acts[name](**arguments)

    def _stop(self) -> None:
        """Begin to stop; what hangs may take a second to end."""
        self._stopping = asyncio.create_task(self._sim.stop())

    async def _start(self) -> None:
        """Start again, on the same port and with all that was known."""
        if self._stopping is not None:
            await self._stopping
            self._stopping = None
            await self._sim.start()

    def _set_users(self, users: list[tuple[str, str]], created_ms: int) -> None:
        """Add users, each with a wa_id and the hash of an identity that is not acknowledged."""
        for wa_id, hash_ in users:
            self._sim.set_user(wa_id, hash=hash_, acknowledged=False, created_timestamp=created_ms)

    def _user(self, wa_id: str) -> dict[str, Any] | None:
        user = self._sim.users.get(wa_id)
        return None if user is None else asdict(user)

    def _acknowledged(self) -> dict[str | None, float]:
        """Return the users whose identities were acknowledged, and when (Unix time)."""
        return {put.wa_id: put.at for put in self._sim.puts if put.outcome == ACKNOWLEDGED}

    def _count_acknowledged(self) -> int:
        return sum(put.outcome == ACKNOWLEDGED for put in self._sim.puts)

    def _seen(self) -> dict[str, Any]:
        """Return the users as they are now, and all PUTs and GETs of identities."""
        return {
            "users": [(u.wa_id, u.hash, u.acknowledged) for u in self._sim.users.values()],
            "puts": [
                (put.wa_id, put.hash, put.at, put.outcome, put.faulty or put.status is None)
                for put in self._sim.puts
            ],
            "gets": [(get.wa_id, get.at) for get in self._sim.calls.of("identity_get")],
        }

    def _forget(self) -> None:
        self._sim.calls.list.clear()
        self._sim.users.clear()


async def _serve(options: Options) -> None:
    async with Simulator(options) as sim:
        sim.calls.list = deque()  # every call counts, however long the run is
        _print({"base_url": sim.base_url, "ca_file": str(sim.ca_file)})
        actor, lines = Actor(sim), asyncio.StreamReader(limit=1 << 28)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
        )
        while line := await lines.readline():
            name, arguments = json.loads(line)
            _print(await actor.act(name, arguments))


def _print(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_serve(Options.model_validate_json(sys.argv[1])))
