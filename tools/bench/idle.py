"""Nothing to do: the CPU time and the wake-ups of a minute, beside an idle no-op."""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tools.bench.options import Effort
from tools.bench.partner import partner
from tools.bench.report import Goal, Section
from tools.bench.seeding import Size, seed
from tools.bench.servers import Installation, ackgate, noop

USERS = 10_000
SETTLE_SECONDS = 3.0
CPU_GOAL = 0.5


def measure(effort: Effort) -> Section:
    """Look at both processes over the same time."""
    seconds = effort.idle_seconds
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        simulator = stack.enter_context(partner(Path(folder), tls=True))
        installation = Installation(Path(folder), simulator.base_url, "auto", simulator.ca_file)
        seed(installation.database, Size.of(USERS))
        servers = [
            stack.enter_context(noop(core=None)),
            stack.enter_context(ackgate(installation, core=None)),
        ]
        time.sleep(SETTLE_SECONDS)
        before = [(s.process.cpu_seconds(), s.process.switches()) for s in servers]
        time.sleep(seconds)
        after = [(s.process.cpu_seconds(), s.process.switches()) for s in servers]
        memory = [s.process.memory_mb() for s in servers]
    section = Section(
        "idle",
        f"Idle for {seconds:g} s, the WhatsApp client within reach",
        ("server", "CPU %", "CPU ms", "wake-ups/s", "memory MB"),
    )
    for server, (cpu, slept), (cpu_then, slept_then), size in zip(
        servers, before, after, memory, strict=True
    ):
        used, woken = cpu_then - cpu, slept_then - slept
        section.rows.append(
            (server.name, 100 * used / seconds, round(1000 * used), woken / seconds, size)
        )
    percent = section.rows[-1][1]
    section.goals.append(Goal("idle, % of a core", float(percent), CPU_GOAL, at_least=False))
    section.notes.append("wake-ups: voluntary context switches of all threads; ticks of 10 ms")
    return section
