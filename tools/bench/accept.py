"""Durable accepts beside the no-op: identity changes of new users, and the everyday mix."""

import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from tools.bench.load import Plan
from tools.bench.measure import Series, interleaved, median, spread
from tools.bench.options import Effort
from tools.bench.report import Goal, Section
from tools.bench.seeding import Size, seed
from tools.bench.servers import Installation, Server, ackgate, noop

USERS = 10_000
RUN_SPAN = 300_000
"""Numbers that one run may use, so that no two send the same."""
MAX_RATE = 50_000
GOALS = {"identities": 0.45, "everyday": 0.60}
TITLES = {"identities": "identity changes", "everyday": "everyday mix"}
P99_GOAL = 3.0
GOAL_CONNECTIONS = 64
NAME, REFERENCE = "Ackgate", "no-op"

_firsts: Iterator[int] = count(0, RUN_SPAN)


def plan(server: Server, work: str, connections: int, seconds: float, users: int = USERS) -> Plan:
    """Say what to send to a server."""
    limit = min(RUN_SPAN, int((seconds + 0.5) * MAX_RATE))
    return Plan(
        server.port,
        work,
        connections,
        seconds,
        server.path,
        first=next(_firsts),
        users=users,
        limit=limit,
    )


def measure(effort: Effort) -> Section:
    """Compare at every number of connections, with both kinds of work."""
    section = Section(
        "accept",
        "Accepting: durable and in effect, server on one core",
        (
            "work, connections", "Ackgate/s", "no-op/s", "ratio", "spread", "p50 ms", "p99 ms",
            "no-op p99 ms", "p99 ratio", "not 200", "others",
        ),
        plot={
            "kind": "lines", "series": {}, "x": "connections", "y": "rate by the no-op's",
            "base": 2,
        },
    )  # fmt: skip
    for work, title in TITLES.items():
        with tempfile.TemporaryDirectory() as folder:
            installation = Installation(Path(folder))
            seed(installation.database, Size.of(USERS if work == "everyday" else 0))
            with noop() as reference, ackgate(installation) as server:
                for connections in effort.connections:
                    sys.stderr.write(f"{title}, {connections} connections\n")
                    series = _compare((reference, server), work, connections, effort)
                    _note(section, work, connections, series)
    section.notes += [
        (
            "identity changes: 433 bytes, each of a user never seen; everyday mix: 60% statuses, "
            f"38% messages, 1% identity changes, 1% contact checks of {USERS:,} existing users"
        ),
        (
            "ratio and p99 ratio: medians of the rounds, each by the no-op in the same round; "
            "others: the most that other programs, the kernel among them, used in a round, in cores"
        ),
    ]
    return section


def _compare(servers: tuple[Server, Server], work: str, connections: int, effort: Effort) -> Series:
    return interleaved(
        servers,
        lambda server: plan(server, work, connections, effort.seconds),
        rounds=effort.rounds,
    )


def _note(section: Section, work: str, connections: int, series: Series) -> None:
    ratios, p99s = series.ratios(NAME, REFERENCE), series.p99_ratios(NAME, REFERENCE)
    section.rows.append(
        (
            f"{TITLES[work]}, {connections}",
            median(series.rates(NAME)),
            median(series.rates(REFERENCE)),
            median(ratios),
            spread(ratios),
            series.middle(NAME, lambda o: o.p50_ms),
            series.middle(NAME, lambda o: o.p99_ms),
            series.middle(REFERENCE, lambda o: o.p99_ms),
            median(p99s),
            series.failures(NAME) + series.failures(REFERENCE),
            series.others,
        )
    )
    section.plot["series"].setdefault(TITLES[work], []).append((connections, median(ratios)))
    if connections == GOAL_CONNECTIONS:
        what, noisy = f"{TITLES[work]} at {connections} connections", series.noisy
        section.goals += [
            Goal(f"{what}, rate by the no-op's", median(ratios), GOALS[work], noisy=noisy),
            Goal(f"{what}, p99 by the no-op's", median(p99s), P99_GOAL, False, noisy),
        ]
