"""The gate beside the no-op: single lookups, and lookups of a thousand, among many contacts."""

import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random

from tools.bench.accept import plan as accept_plan
from tools.bench.bodies import RECIPIENTS, wa_id
from tools.bench.load import Plan
from tools.bench.loading import run
from tools.bench.measure import Series, interleaved, median, spread
from tools.bench.options import Effort
from tools.bench.quiet import read_through
from tools.bench.report import Goal, Section
from tools.bench.seeding import Size, seed
from tools.bench.servers import AUTHORIZATION, Installation, Server, ackgate, noop

CONNECTIONS = (1, 64)
PATHS = 20_000
"""Users that single lookups ask about, drawn anew for each run."""
MAX_BODIES = 400
RATE_GOAL, THOUSAND_GOAL = 0.25, 40.0
NAME, REFERENCE = "Ackgate", "no-op"
RECIPIENT = "/api/v1/accounts/main/recipients"

_seeds: Iterator[int] = count()


def measure(effort: Effort) -> Section:
    """Compare single lookups at every number of connections, then time lookups of a thousand."""
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation(Path(folder))
        seed(installation.database, Size(effort.contacts, 0, effort.contacts))
        with noop() as reference, ackgate(installation) as server:
            section = _measure(server, reference, effort)
        with ackgate(installation, core=None) as server:
            _note_thousands(section, server, installation.database, effort)
    return section


def _measure(server: Server, reference: Server, effort: Effort) -> Section:
    section = Section(
        "gate",
        f"The gate among {effort.contacts:,} contacts",
        (
            "asked, connections", "Ackgate/s", "no-op/s", "ratio", "spread", "p50 ms", "p99 ms",
            "CPU µs", "no-op CPU µs", "not 200", "others",
        ),
        plot={
            "kind": "lines", "series": {}, "x": "connections", "y": "rate by the no-op's",
            "base": 2,
        },
    )  # fmt: skip
    for connections in CONNECTIONS:
        sys.stderr.write(f"single lookups, {connections} connections\n")
        series = interleaved(
            (reference, server),
            lambda s, n=connections: _plan(s, n, effort),  # type: ignore[misc] # mypy infers no lambda with a default
            rounds=effort.rounds,
        )
        _note_singles(section, (server, reference), connections, series, effort)
    section.notes += [
        "single lookups: server on one core; a thousand, and those that it is measured by: on both",
        "a single lookup: GET of one user at random; the no-op is sent the everyday mix",
        f"a thousand: {RECIPIENTS // 2} wa_ids and as many numbers as they were checked, at random",
        "the database's file is read through before each run of thousands: it lies in memory",
        "CPU: of the whole server process, for one request, in a run of its own",
    ]
    return section


def _plan(server: Server, connections: int, effort: Effort) -> Plan:
    if server.name == REFERENCE:
        return accept_plan(server, "everyday", connections, effort.seconds)
    chance = Random(next(_seeds))
    paths = tuple(f"{RECIPIENT}/{wa_id(chance.randrange(effort.contacts))}" for _ in range(PATHS))
    return Plan(
        server.port, "get", connections, effort.seconds, paths=paths, headers=AUTHORIZATION,
        limit=int((effort.seconds + 1) * 40_000),
    )  # fmt: skip


def _thousands(server: Server, effort: Effort) -> Plan:
    return Plan(
        server.port, "lookups", 1, effort.seconds, f"{RECIPIENT}/lookup", headers=AUTHORIZATION,
        first=next(_seeds), users=effort.contacts, limit=MAX_BODIES,
    )  # fmt: skip


def _cpu_us(server: Server, plan: Plan) -> float:
    """Give the CPU time (µs) that a request costs the server, whatever it spends it on."""
    before = server.process.cpu_seconds()
    outcome = run(plan)
    return 1e6 * (server.process.cpu_seconds() - before) / max(1, outcome.sent)


def _note_singles(
    section: Section,
    servers: tuple[Server, Server],
    connections: int,
    series: Series,
    effort: Effort,
) -> None:
    ratios = series.ratios(NAME, REFERENCE)
    section.rows.append(
        (
            f"one, {connections}",
            median(series.rates(NAME)),
            median(series.rates(REFERENCE)),
            median(ratios),
            spread(ratios),
            series.middle(NAME, lambda o: o.p50_ms),
            series.middle(NAME, lambda o: o.p99_ms),
            *(_cpu_us(server, _plan(server, connections, effort)) for server in servers),
            series.failures(NAME) + series.failures(REFERENCE),
            series.others,
        )
    )
    section.plot["series"].setdefault("single lookups", []).append((connections, median(ratios)))
    if connections == max(CONNECTIONS):
        what = f"single lookups at {connections} connections, rate by the no-op's"
        section.goals.append(Goal(what, median(ratios), RATE_GOAL, noisy=series.noisy))


def _note_thousands(section: Section, server: Server, database: Path, effort: Effort) -> None:
    """Time them beside single lookups at one connection, in the same rounds."""
    sys.stderr.write("lookups of a thousand, 1 connection\n")
    ratios, p50s, p99s, rates, failed = [], [], [], [], 0
    for _ in range(effort.rounds):
        single = run(_plan(server, 1, effort))
        read_through(database)
        many = run(_thousands(server, effort))
        ratios.append(many.p99_ms / single.p50_ms if single.p50_ms else 0.0)
        p50s.append(many.p50_ms)
        p99s.append(many.p99_ms)
        rates.append(many.rate)
        failed += many.not_200 + many.errors + single.not_200 + single.errors
        sys.stderr.write(
            f"  p50 {many.p50_ms:.1f} p99 {many.p99_ms:.1f} ms, a single one {single.p50_ms:.3f}\n"
        )
    cpu = _cpu_us(server, _thousands(server, effort))
    row = ("a thousand, 1", median(rates), "-", "-", "-", median(p50s), median(p99s), cpu)
    section.rows.append((*row, "-", failed, "-"))
    what = f"p99 of a lookup of {RECIPIENTS:,} by the median of a single one, 1 connection"
    section.goals.append(Goal(what, median(ratios), THOUSAND_GOAL, at_least=False))
    section.notes.append(f"p99 of a thousand by the median of one: {spread(ratios, 1)}")
