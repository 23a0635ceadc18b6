"""Accepting callbacks beside the no-op, and having nothing to do beside it."""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from tools.bench.load import Plan
from tools.bench.measure import Effort, Series, interleaved, median, spread
from tools.bench.report import Goal, Section
from tools.bench.servers import ACKGATE, NOOP, Server, ackgate, noop, seed
from tools.installation import Installation
from tools.processes import LOAD_CORE
from tools.simulator import simulator

USERS = 10_000
RUN_SPAN = 300_000
"""Numbers that one run may use, so that no two runs send the same."""
MAX_RATE = 50_000
TITLES = {"identities": "identity changes", "everyday": "everyday mix"}
RATE_GOALS = {"identities": 0.28, "everyday": 0.40}
P99_GOAL = 4.0
GOAL_CONNECTIONS = 64
SETTLE_SECONDS = 3.0
IDLE_GOAL_PERCENT = 0.5

_firsts: Iterator[int] = count(0, RUN_SPAN)


def plan(server: Server, work: str, connections: int, seconds: float, users: int = USERS) -> Plan:
    """Return what to send to a server."""
    return Plan(
        server.port,
        work,
        connections,
        seconds,
        server.path,
        first=next(_firsts),
        users=users,
        limit=min(RUN_SPAN, int((seconds + 0.5) * MAX_RATE)),
    )


def measure(effort: Effort) -> Section:
    """Compare at every number of connections, with both kinds of work."""
    section = Section(
        "accept",
        "Accepting: durable and in effect, server on one core",
        (
            "work, connections", "Ackgate/s", "no-op/s", "ratio", "spread", "CPU µs",
            "no-op CPU µs", "p50 ms", "p99 ms", "no-op p99 ms", "p99 ratio", "not 200", "others",
        ),
        plot={
            "kind": "lines", "series": {}, "x": "connections", "y": "rate by the no-op's",
            "base": 2,
        },
    )  # fmt: skip
    for work, title in TITLES.items():
        with tempfile.TemporaryDirectory() as folder:
            installation = Installation(Path(folder))
            seed(installation, USERS if work == "everyday" else 0)
            with noop() as reference, ackgate(installation) as server:
                for connections in effort.connections:
                    sys.stderr.write(f"{title}, {connections} connections\n")
                    series = interleaved(
                        (reference, server),
                        lambda s, w=work, n=connections: plan(s, w, n, effort.seconds),  # type: ignore[misc] # mypy infers no lambda with a default
                        rounds=effort.rounds,
                    )
                    _add(section, work, connections, series)
    section.notes += [
        (
            "identity changes: 433 bytes, each of a user never seen; everyday mix: 60% statuses, "
            f"38% messages, 1% identity changes, 1% contact checks of {USERS:,} existing users"
        ),
        "ratio and p99 ratio: medians of the rounds, each by the no-op in the same round",
        "CPU: user and system time of the server process, from /proc, for one callback",
        "others: the most that other programs, the kernel among them, used in a round, in cores",
    ]
    return section


def _add(section: Section, work: str, connections: int, series: Series) -> None:
    ratios = series.ratios(ACKGATE, NOOP)
    p99_ratio = median(series.ratios(ACKGATE, NOOP, "p99_ms"))
    section.rows.append(
        (
            f"{TITLES[work]}, {connections}",
            series.median(ACKGATE, "rate"),
            series.median(NOOP, "rate"),
            median(ratios),
            spread(ratios),
            series.median(ACKGATE, "cpu_us"),
            series.median(NOOP, "cpu_us"),
            series.median(ACKGATE, "p50_ms"),
            series.median(ACKGATE, "p99_ms"),
            series.median(NOOP, "p99_ms"),
            p99_ratio,
            series.failures(ACKGATE, NOOP),
            series.others,
        )
    )
    section.plot["series"].setdefault(TITLES[work], []).append((connections, median(ratios)))
    if connections == GOAL_CONNECTIONS:
        what, noisy = f"{TITLES[work]} at {connections} connections", series.noisy
        section.goals += [
            Goal(f"{what}, rate by the no-op's", median(ratios), RATE_GOALS[work], noisy=noisy),
            Goal(f"{what}, p99 by the no-op's", p99_ratio, P99_GOAL, at_least=False, noisy=noisy),
        ]


def measure_idle(effort: Effort) -> Section:
    """Compare CPU time and wake-ups while nothing arrives."""
    seconds = effort.idle_seconds
    section = Section(
        "idle",
        f"Idle for {seconds:g} s, the WhatsApp client within reach",
        ("server", "CPU %", "CPU ms", "wake-ups/s", "memory MB"),
    )
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sim = stack.enter_context(simulator(Path(folder), core=LOAD_CORE))
        installation = Installation(Path(folder), sim.base_url, sim.ca_file, policy='mode = "auto"')
        seed(installation, USERS)
        servers = [
            stack.enter_context(noop(core=None)),
            stack.enter_context(ackgate(installation, core=None)),
        ]
        time.sleep(SETTLE_SECONDS)
        before = [(s.process.cpu_seconds(), s.process.wake_ups()) for s in servers]
        time.sleep(seconds)
        for server, (cpu, wake_ups) in zip(servers, before, strict=True):
            used = server.process.cpu_seconds() - cpu
            woken = server.process.wake_ups() - wake_ups
            percent = 100 * used / seconds
            section.rows.append(
                (
                    server.name,
                    percent,
                    round(1000 * used),
                    woken / seconds,
                    server.process.memory_mb(),
                )
            )
    section.goals.append(Goal("idle, % of a core", percent, IDLE_GOAL_PERCENT, at_least=False))
    section.notes.append("wake-ups: voluntary context switches of all threads; ticks of 10 ms")
    return section
