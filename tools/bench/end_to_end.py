"""From a callback to the PUT: how many a second, and how long after the 200."""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tools.bench.load import Outcome, Plan, finish, quantile, run, start
from tools.bench.measure import EXTRA_ROUNDS, MOST_OF_OTHERS, Effort, Others, median, spread
from tools.bench.report import Goal, Section
from tools.bench.servers import Server, ackgate, noop, seed
from tools.bench.work import NEW_USERS
from tools.bodies import FIRST_SEEN_MS, hash_of, wa_id
from tools.installation import Installation
from tools.processes import LOAD_CORE, RunError
from tools.simulator import SimulatorProcess, simulator

CONNECTIONS = 64
USERS = 10_000
SPAN = 100_000
PACE = 20.0
"""Changes a second: 50 ms apart."""
TRAFFIC = 2_000.0
"""Callbacks a second that lead to no call, beside the paced changes."""
TRAFFIC_CONNECTIONS = 16
LONGEST_SECONDS = 60.0
RATE_GOAL, P50_GOAL_MS, P99_GOAL_MS = 0.07, 5.0, 25.0

_firsts: Iterator[int] = count(0, SPAN)


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst of changes: accepted callbacks and PUTs a second, beside the no-op's rate."""

    accepted: float
    done: float
    noop: float
    others: float


def measure(effort: Effort) -> Section:
    """Measure over TLS, as a client speaks, and without."""
    section = Section(
        "end_to_end",
        "End to end: from a callback to the PUT that the simulator accepts",
        ("to the client", "PUT/s", "accepted/s", "no-op/s", "ratio", "spread", "p50 ms", "p99 ms",
         "loaded p50 ms", "loaded p99 ms"),
    )  # fmt: skip
    for name, tls in (("TLS", True), ("plain", False)):
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            stage = _set_up(Path(folder), stack, effort, tls=tls)
            idle, loaded = stage.paced(0.0), stage.paced(TRAFFIC)
            bursts = stage.bursts()
        _add(section, name, bursts, idle, loaded)
    section.plot = {
        "kind": "bars",
        "x": "PUT/s by the no-op's rate",
        "bars": [(str(row[0]), row[4]) for row in section.rows],
    }
    section.notes += [
        "Ackgate on one core, simulator and load generator on the other; policy auto, defaults",
        (
            f"PUT/s: {effort.end_to_end_changes:,} changes of new users over {CONNECTIONS} "
            "connections, from the first callback to the last PUT"
        ),
        (
            f"p50, p99: from the 200 to the PUT, {effort.paced_changes} changes 50 ms apart; "
            f"loaded: with {TRAFFIC:,.0f} statuses and messages a second beside them"
        ),
    ]
    return section


def _add(
    section: Section, name: str, bursts: list[Burst], idle: list[float], loaded: list[float]
) -> None:
    ratios = [burst.done / burst.noop for burst in bursts]
    p50, p99 = 1000 * quantile(idle, 0.5), 1000 * quantile(idle, 0.99)
    section.rows.append(
        (
            name,
            median(b.done for b in bursts),
            median(b.accepted for b in bursts),
            median(b.noop for b in bursts),
            median(ratios),
            spread(ratios),
            p50,
            p99,
            1000 * quantile(loaded, 0.5),
            1000 * quantile(loaded, 0.99),
        )
    )
    noisy = max(b.others for b in bursts) > MOST_OF_OTHERS
    section.goals += [
        Goal(f"PUT/s by the no-op's rate, {name}", median(ratios), RATE_GOAL, noisy=noisy),
        Goal(f"200 to PUT, p50 ms, {name}", p50, P50_GOAL_MS, at_least=False),
        Goal(f"200 to PUT, p99 ms, {name}", p99, P99_GOAL_MS, at_least=False),
    ]


def _set_up(folder: Path, stack: ExitStack, effort: Effort, *, tls: bool) -> "Stage":
    sim = stack.enter_context(
        simulator(folder, core=LOAD_CORE, tls=tls, max_concurrent_requests=24)
    )
    ca_file = sim.ca_file if tls else None
    installation = Installation(folder, sim.base_url, ca_file, policy='mode = "auto"')
    seed(installation, USERS)
    reference = stack.enter_context(noop())
    return Stage(stack.enter_context(ackgate(installation)), reference, sim, effort)


@dataclass(frozen=True, slots=True)
class Stage:
    """All processes that take part."""

    server: Server
    reference: Server
    sim: SimulatorProcess
    effort: Effort

    def bursts(self) -> list[Burst]:
        """Run bursts until enough of them were quiet; where too few are, the quietest count."""
        found: list[Burst] = []
        for number in range(self.effort.rounds + EXTRA_ROUNDS):
            burst = self._burst()
            found.append(burst)
            sys.stderr.write(
                f"  round {number + 1}: {burst.done:,.0f} PUT/s, {burst.accepted:,.0f} accepted/s, "
                f"no-op {burst.noop:,.0f}/s, others {burst.others:.2f} cores\n"
            )
            if sum(b.others <= MOST_OF_OTHERS for b in found) >= self.effort.rounds:
                break
        return sorted(found, key=lambda b: b.others)[: self.effort.rounds]

    def _burst(self) -> Burst:
        changes = self.effort.end_to_end_changes
        first = self._renew_users(changes)
        others, before = Others(), self._cpu_seconds()
        seconds, port = self.effort.seconds, self.reference.port
        reference = run(Plan(port, "identities", CONNECTIONS, seconds, first=first))
        started = time.time()
        outcome = run(self._plan(first, changes, CONNECTIONS))
        last = self._last_put(changes)
        ours = self._cpu_seconds() - before
        ours += outcome.load_cpu_seconds + reference.load_cpu_seconds
        began = max(outcome.times[0] - outcome.max_ms / 1000, started)
        return Burst(
            changes / max(outcome.times[-1] - began, 1e-9),
            changes / (last - began),
            reference.rate,
            others.cores(ours),
        )

    def paced(self, traffic: float) -> list[float]:
        """Return the times (s) from the 200 to the PUT, in order of size."""
        changes = self.effort.paced_changes
        first = self._renew_users(changes)
        background = Plan(
            self.server.port,
            "traffic",
            TRAFFIC_CONNECTIONS,
            changes / PACE + 1,
            self.server.path,
            first=next(_firsts),
            users=USERS,
            rate=traffic,
        )
        child = start(background) if traffic else None
        outcome = run(self._plan(first, changes, 1, PACE))
        self._last_put(changes)
        if child is not None:
            finish(child, background)
        return self._delays(outcome, first)

    def _renew_users(self, changes: int) -> int:
        """Let the simulator know new users alone; return the number of the first."""
        first = next(_firsts)
        numbers = range(NEW_USERS + first, NEW_USERS + first + changes)
        self.sim.do("forget")
        users = [(wa_id(number), hash_of(number)) for number in numbers]
        self.sim.do("set_users", users=users, created_ms=FIRST_SEEN_MS)
        return first

    def _plan(self, first: int, changes: int, connections: int, rate: float = 0.0) -> Plan:
        return Plan(
            self.server.port,
            "identities",
            connections,
            LONGEST_SECONDS,
            self.server.path,
            warm_up=0,
            first=first,
            limit=changes,
            rate=rate,
            keep_times=True,
        )

    def _cpu_seconds(self) -> float:
        processes = (self.server.process, self.reference.process, self.sim)
        return sum(process.cpu_seconds() for process in processes)

    def _last_put(self, changes: int) -> float:
        """Wait until every change has had its PUT; return the Unix time of the last."""
        deadline = time.monotonic() + LONGEST_SECONDS
        while (done := self.sim.do("count_acknowledged")) < changes:
            if time.monotonic() > deadline:
                raise RunError(f"only {done:,} of {changes:,} changes were acknowledged")
            time.sleep(0.1)
        times: dict[str, float] = self.sim.do("acknowledged")
        return max(times.values())

    def _delays(self, outcome: Outcome, first: int) -> list[float]:
        puts: dict[str, float] = self.sim.do("acknowledged")
        names = (wa_id(NEW_USERS + first + n) for n in count())
        pairs = zip(names, outcome.times, strict=False)
        return sorted(puts[name] - at for name, at in pairs)
