"""The simulator in a process of its own, told what to know, and asked what it saw.

`python -m tools.bench.counterpart FOLDER --tls|--plain CORE` says its port, then answers every line
of its input with a line of JSON: `know FIRST COUNT` (users with unacknowledged identities),
`count` (PUTs that were accepted), `puts` (each of them: wa_id, Unix time), `forget`.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import uvloop

from service.simulator import Options, Simulator
from tools.bench.bodies import FIRST_SEEN_MS, hash_of, wa_id

ACCEPTED = "acknowledged"


async def serve(folder: Path, *, tls: bool) -> None:
    """Serve until the input ends."""
    options = Options(port=0, tls=tls, var=folder, max_concurrent_requests=24)
    async with Simulator(options) as sim:
        say({"port": sim.port, "ca_file": str(sim.ca_file)})
        lines = await lines_of_input()
        while line := (await lines.readline()).decode().split():
            say(_answer(sim, line[0], [int(word) for word in line[1:]]))


def _answer(sim: Simulator, command: str, numbers: list[int]) -> Any:
    match command, numbers:
        case "know", [first, count]:
            for user in range(first, first + count):
                name, at = wa_id(user), FIRST_SEEN_MS
                sim.set_user(name, hash=hash_of(user), acknowledged=False, created_timestamp=at)
            return count
        case "count", []:
            return sum(call.outcome == ACCEPTED for call in sim.puts)
        case "puts", []:
            return [(call.wa_id, call.at) for call in sim.puts if call.outcome == ACCEPTED]
        case "forget", []:
            sim.calls.list.clear()
            return sim.users.clear()
        case _:
            raise ValueError(command)


async def lines_of_input() -> asyncio.StreamReader:
    """Give the lines of the standard input as they come."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    return lines


def say(value: Any) -> None:
    """Answer with a line of JSON."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main(folder: str, way: str, core: str) -> None:
    """Pin the process, and serve."""
    if int(core) < (os.cpu_count() or 1):
        os.sched_setaffinity(0, {int(core)})
    uvloop.run(serve(Path(folder), tls=way == "--tls"))


if __name__ == "__main__":
    main(*sys.argv[1:])
