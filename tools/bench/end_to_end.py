"""From a callback to the PUT: how many a second, and how long after the 200."""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tools.bench.bodies import NEW_USERS, wa_id
from tools.bench.load import Outcome, Plan, quantile
from tools.bench.loading import begin, end, run
from tools.bench.measure import EXTRA_ROUNDS, median, spread
from tools.bench.options import Effort
from tools.bench.partner import Partner, partner
from tools.bench.processes import BenchmarkError
from tools.bench.quiet import MOST_OF_OTHERS, Moment
from tools.bench.report import Goal, Section
from tools.bench.seeding import Size, seed
from tools.bench.servers import Installation, Server, ackgate, noop

CONNECTIONS = 64
USERS = 10_000
SPAN = 100_000
PACE = 20.0
"""Changes a second: 50 ms apart."""
TRAFFIC = 2_000.0
"""Callbacks a second that ask for no work, beside the paced changes."""
TRAFFIC_CONNECTIONS = 16
PATIENCE_SECONDS = 60.0
RATE_GOAL, P50_GOAL_MS, P99_GOAL_MS = 0.15, 5.0, 25.0

_firsts: Iterator[int] = count(0, SPAN)


@dataclass(slots=True)
class Stage:
    """All that takes part."""

    server: Server
    reference: Server
    simulator: Partner
    effort: Effort


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
    for way, tls in (("TLS", True), ("plain", False)):
        with tempfile.TemporaryDirectory() as folder:
            _measure_way(section, way, Path(folder), effort, tls=tls)
    section.plot = {
        "kind": "bars",
        "x": "PUT/s by the no-op's rate",
        "bars": [(str(row[0]), row[4]) for row in section.rows],
    }
    section.notes += _notes(effort)
    return section


def _notes(effort: Effort) -> list[str]:
    return [
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


def _measure_way(section: Section, way: str, folder: Path, effort: Effort, *, tls: bool) -> None:
    with ExitStack() as stack:
        simulator = stack.enter_context(partner(folder, tls=tls))
        installation = Installation(folder, simulator.base_url, "auto", simulator.ca_file)
        seed(installation.database, Size.of(USERS))
        reference = stack.enter_context(noop())
        server = stack.enter_context(ackgate(installation))
        stage = Stage(server, reference, simulator, effort)
        idle, loaded = _paced(stage, 0.0), _paced(stage, TRAFFIC)
        bursts = _bursts(stage)
    ratios = [burst.done / burst.noop for burst in bursts]
    section.rows.append(
        (
            way,
            median(b.done for b in bursts),
            median(b.accepted for b in bursts),
            median(b.noop for b in bursts),
            median(ratios),
            spread(ratios),
            *(1000 * quantile(found, part) for found in (idle, loaded) for part in (0.5, 0.99)),
        )
    )
    noisy = max(b.others for b in bursts) > MOST_OF_OTHERS
    section.goals += [
        Goal(f"PUT/s by the no-op's rate, {way}", median(ratios), RATE_GOAL, noisy=noisy),
        Goal(f"200 to PUT, p50 ms, {way}", 1000 * quantile(idle, 0.5), P50_GOAL_MS, at_least=False),
        Goal(
            f"200 to PUT, p99 ms, {way}", 1000 * quantile(idle, 0.99), P99_GOAL_MS, at_least=False
        ),
    ]


def _bursts(stage: Stage) -> list[Burst]:
    found: list[Burst] = []
    for number in range(stage.effort.rounds + EXTRA_ROUNDS):
        burst = _burst(stage)
        found.append(burst)
        sys.stderr.write(
            f"  round {number + 1}: {burst.done:,.0f} PUT/s, {burst.accepted:,.0f} accepted/s, "
            f"no-op {burst.noop:,.0f}/s, others {burst.others:.2f} cores\n"
        )
        if sum(b.others <= MOST_OF_OTHERS for b in found) >= stage.effort.rounds:
            break
    return sorted(found, key=lambda b: b.others)[: stage.effort.rounds]


def _burst(stage: Stage) -> Burst:
    changes, first = stage.effort.end_to_end_changes, next(_firsts)
    stage.simulator.ask("forget")
    stage.simulator.ask(f"know {NEW_USERS + first} {changes}")
    port, seconds = stage.reference.port, stage.effort.seconds
    before, moment = _cpu(stage), Moment.now()
    reference = run(Plan(port, "identities", CONNECTIONS, seconds, first=first))
    started = time.time()
    outcome = run(_plan(stage, first, changes))
    last = _last_put(stage, changes)
    ours = _cpu(stage) - before + outcome.cpu_seconds + reference.cpu_seconds
    others = moment.others(ours)
    began = outcome.answered[0] - outcome.max_ms / 1000 if outcome.answered else started
    began = max(began, started)
    accepted = changes / max(outcome.answered[-1] - began, 1e-9)
    return Burst(accepted, changes / (last - began), reference.rate, others)


def _plan(stage: Stage, first: int, changes: int) -> Plan:
    server = stage.server
    return Plan(
        server.port,
        "identities",
        CONNECTIONS,
        PATIENCE_SECONDS,
        server.path,
        warm_up=0,
        first=first,
        limit=changes,
        answered=True,
    )


def _cpu(stage: Stage) -> float:
    found = (stage.server.process, stage.reference.process, stage.simulator)
    return sum(process.cpu_seconds() for process in found)


def _last_put(stage: Stage, changes: int) -> float:
    """Wait until every change has had its PUT; give the Unix time of the last."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (done := stage.simulator.ask("count")) < changes:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"only {done:,} of {changes:,} changes were acknowledged")
        time.sleep(0.1)
    return max(at for _, at in stage.simulator.ask("puts"))


def _paced(stage: Stage, traffic: float) -> list[float]:
    """Give the times (s) from the 200 to the PUT, in order of size."""
    changes, first = stage.effort.paced_changes, next(_firsts)
    stage.simulator.ask("forget")
    stage.simulator.ask(f"know {NEW_USERS + first} {changes}")
    background = _traffic(stage, traffic, changes / PACE + 1) if traffic else None
    child = None if background is None else begin(background)
    outcome = run(_paced_plan(stage, first, changes))
    _last_put(stage, changes)
    if child is not None and background is not None:
        end(child, background)
    return _delays(stage, outcome, first)


def _paced_plan(stage: Stage, first: int, changes: int) -> Plan:
    server = stage.server
    return Plan(
        server.port,
        "identities",
        1,
        PATIENCE_SECONDS,
        server.path,
        warm_up=0,
        first=first,
        limit=changes,
        rate=PACE,
        answered=True,
    )


def _traffic(stage: Stage, rate: float, seconds: float) -> Plan:
    server = stage.server
    return Plan(
        server.port,
        "traffic",
        TRAFFIC_CONNECTIONS,
        seconds,
        server.path,
        first=next(_firsts),
        users=USERS,
        rate=rate,
    )


def _delays(stage: Stage, outcome: Outcome, first: int) -> list[float]:
    puts = dict(stage.simulator.ask("puts"))
    names = (wa_id(NEW_USERS + first + n) for n in count())
    pairs = zip(names, outcome.answered, strict=False)
    return sorted(puts[name] - at for name, at in pairs)
