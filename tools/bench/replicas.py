"""Several processes on one PostgreSQL database: what they accept together, and where they meet."""

import re
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from os import cpu_count
from pathlib import Path

from tools.bench.accept import TITLES, USERS, plan
from tools.bench.load import Outcome, finish, start
from tools.bench.measure import Effort, median, spread
from tools.bench.report import Goal, Section
from tools.bench.servers import ACKGATE, Server, ackgate
from tools.installation import Installation
from tools.postgres import LocalServer, local_server

CONNECTIONS = 64
"""Of all load generators together."""
AT_THREE, USERS_IN_COMMON = 24, 500
MEET_MS = 1000.0
"""What is promised of the slowest hundredth where users are the same."""
DEADLOCK = "40P01"
MAX_RATE = 10_000
"""More than one service accepts a second: so many requests are built, which takes its time."""
_CONFLICTS = re.compile(r'^ackgate_conflicts_total\{why="(.*)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Together:
    """What services did at once: their outcomes, and the cores that took part, by who used them."""

    outcomes: Sequence[Outcome]
    service_cores: float
    busiest: float
    """Of the services, the one that used most of a core."""
    server_cores: float
    load_cores: float

    @property
    def rate(self) -> float:
        """The answers with 200 a second."""
        return sum(outcome.rate for outcome in self.outcomes)

    @property
    def p99_ms(self) -> float:
        """The slowest hundredth, of the service where it is slowest."""
        return max(outcome.p99_ms for outcome in self.outcomes)

    @property
    def failures(self) -> int:
        """The requests without a 200."""
        return sum(outcome.failures for outcome in self.outcomes)


@contextmanager
def _services(count: int) -> Iterator[tuple[LocalServer, Sequence[Server]]]:
    """Run a PostgreSQL server, and so many services on one database of it, on any cores."""
    with ExitStack() as stack:
        server = stack.enter_context(local_server(durable=True))
        url = server.create_database("bench")
        services = []
        for number in range(count):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            installation = Installation(folder, database_url=url)
            name = f"{ACKGATE} {number + 1}"
            services.append(stack.enter_context(ackgate(installation, core=None, name=name)))
        yield server, services


def _at_once(
    server: LocalServer,
    services: Sequence[Server],
    work: str,
    connections: int,
    effort: Effort,
    users: int = USERS,
) -> Together:
    """Load services at once, each by a load generator of its own."""
    each = connections // len(services)
    limit = int(MAX_RATE * (effort.seconds + 1))
    plans = [replace(plan(one, work, each, effort.seconds, users), limit=limit) for one in services]
    before = [one.process.cpu_seconds() for one in services]
    of_server = server.cpu_seconds()
    loads = [start(one) for one in plans]
    outcomes = [finish(load, one) for load, one in zip(loads, plans, strict=True)]
    seconds = plans[0].warm_up + plans[0].seconds
    used = [one.process.cpu_seconds() - cpu for one, cpu in zip(services, before, strict=True)]
    return Together(
        outcomes,
        sum(used) / seconds,
        max(used) / seconds,
        (server.cpu_seconds() - of_server) / seconds,
        sum(outcome.sending_cpu_seconds for outcome in outcomes) / seconds,
    )


def measure(effort: Effort) -> Section:
    """Compare what two processes accept together with what one of them does alone."""
    section = Section(
        "replicas",
        f"Accepting by two processes on one PostgreSQL database, all on {cpu_count()} cores",
        (
            "work, processes", "accepted/s", "by one", "spread", "p99 ms", "service cores",
            "the busiest", "PostgreSQL cores", "load cores", "all", "not 200",
        ),
    )  # fmt: skip
    with _services(2) as (server, services):
        for work, title in TITLES.items():
            sys.stderr.write(f"{title}, {CONNECTIONS} connections\n")
            found: dict[int, list[Together]] = {1: [], 2: []}
            for number in range(effort.rounds):
                for count in (1, 2) if number % 2 else (2, 1):
                    chosen = services[:count]
                    found[count].append(_at_once(server, chosen, work, CONNECTIONS, effort))
            for count, rounds in found.items():
                ratios = [two.rate / one.rate for two, one in zip(rounds, found[1], strict=True)]
                section.rows.append((f"{title}, {count}", *_row(rounds, ratios)))
    section.notes += [
        "cores: CPU time of the processes by the time that it took; what all of them used together",
        "is bound by the machine where that is all it has, by a service where one of them uses one",
    ]
    return section


def _row(rounds: Sequence[Together], ratios: Sequence[float]) -> tuple[float | str, ...]:
    cores = [
        median(one.service_cores for one in rounds),
        median(one.busiest for one in rounds),
        median(one.server_cores for one in rounds),
        median(one.load_cores for one in rounds),
    ]
    return (
        median(one.rate for one in rounds),
        median(ratios),
        spread(ratios),
        median(one.p99_ms for one in rounds),
        *cores,
        cores[0] + cores[2] + cores[3],
        sum(one.failures for one in rounds),
    )


def measure_contention(effort: Effort) -> Section:
    """Let callbacks of six users each come to three processes, of few users altogether."""
    section = Section(
        "contention",
        f"Six of {USERS_IN_COMMON} users in each callback, at three processes on one database",
        ("round", "accepted/s", "p50 ms", "p99 ms", "longest ms", "not 200", "run again, by why"),
    )
    again: Counter[str] = Counter()
    worst = 0.0
    with _services(3) as (server, services):
        for number in range(effort.rounds):
            before = _conflicts(services)
            found = _at_once(server, services, "six changes", AT_THREE, effort, USERS_IN_COMMON)
            why = _conflicts(services) - before
            again += why
            worst = max(worst, found.p99_ms)
            section.rows.append(
                (
                    str(number + 1),
                    found.rate,
                    max(outcome.p50_ms for outcome in found.outcomes),
                    found.p99_ms,
                    max(outcome.max_ms for outcome in found.outcomes),
                    found.failures,
                    ", ".join(f"{reason} {count}" for reason, count in sorted(why.items())) or "-",
                )
            )
    section.goals += [
        Goal("deadlocks", again[DEADLOCK], 0, at_least=False),
        Goal("p99 of the slowest round, ms", worst, MEET_MS, at_least=False),
    ]
    return section


def _conflicts(services: Sequence[Server]) -> Counter[str]:
    """Return how often transactions were run again so far, by why."""
    found: Counter[str] = Counter()
    for service in services:
        with urllib.request.urlopen(f"{service.url}/metrics") as response:
            text = response.read().decode()
        for why, count in _CONFLICTS.findall(text):
            found[why] += int(float(count))
    return found
