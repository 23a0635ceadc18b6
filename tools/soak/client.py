"""The WhatsApp client's process, as the soak speaks with it."""

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from tools.bench.processes import ROOT, python

LONGEST_ANSWER = 1 << 28
END_SECONDS = 10.0


class Client:
    """A running simulator. Acts are carried out in the order in which they are asked for."""

    def __init__(self, process: Process, told: dict[str, str]) -> None:
        self._process = process
        self._one_at_a_time = asyncio.Lock()
        self.base_url = told["base_url"]
        self.ca_file = told["ca_file"]

    @classmethod
    async def start(cls, folder: Path) -> Self:
        """Start it; it keeps its certificate in the folder."""
        command = python("tools.soak.counterpart", str(folder))
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdin=PIPE, stdout=PIPE, limit=LONGEST_ANSWER
        )
        return cls(process, await _line(process))

    async def do(self, act: str, **what: Any) -> Any:
        """Let it do something, and give what it answers."""
        async with self._one_at_a_time:
            if self._process.stdin is None:
                raise ConnectionError("the simulator has no input")
            self._process.stdin.write(json.dumps([act, what]).encode() + b"\n")
            return await _line(self._process)

    async def end(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def _line(process: Process) -> Any:
    line = b"" if process.stdout is None else await process.stdout.readline()
    if not line:
        raise ConnectionError("the simulator ended")
    return json.loads(line)


@asynccontextmanager
async def client_in(folder: Path) -> AsyncIterator[Client]:
    """Run a simulator."""
    client = await Client.start(folder)
    try:
        yield client
    finally:
        await client.end()
