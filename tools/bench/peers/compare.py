"""Identity changes at 64 connections: Ackgate, the no-op, and other receivers."""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tools.bench.accept import NAME, REFERENCE, plan
from tools.bench.measure import Series, interleaved, median, spread
from tools.bench.options import Effort
from tools.bench.peers.installing import NotInstalledError
from tools.bench.peers.receivers import FASTAPI, FASTIFY, HOOKSPOOL, STARTS, peer
from tools.bench.processes import BenchmarkError
from tools.bench.report import Goal, Section
from tools.bench.seeding import Size, seed
from tools.bench.servers import Installation, Server, ackgate, noop

CONNECTIONS = 64
GOALS = {FASTIFY: 0.7, FASTAPI: 25.0, HOOKSPOOL: 20.0}
"""How many times a peer's rate Ackgate's must be."""


def measure(effort: Effort) -> Section:
    """Let all that can be had take turns."""
    section = Section(
        "peers",
        f"Peers: identity changes at {CONNECTIONS} connections, durable, server on one core",
        ("receiver", "accepts/s", "spread", "by the no-op", "Ackgate by it", "spread of that",
         "p50 ms", "p99 ms", "not 200"),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = _servers(Path(folder), stack, section)
        sys.stderr.write(f"identity changes, {CONNECTIONS} connections\n")
        series = interleaved(
            servers,
            lambda s: plan(s, "identities", CONNECTIONS, effort.seconds),
            rounds=effort.rounds,
        )
    for server in servers:
        section.rows.append(_row(server.name, series))
        _judge(section, server.name, series)
    section.plot = {
        "kind": "bars",
        "x": "rate by the no-op's",
        "bars": [(str(row[0]), row[3]) for row in section.rows],
    }
    section.notes.append(f"others used at most {series.others:.2f} cores in a round")
    section.notes.append(
        "WAL and FULL everywhere; Ackgate decides and keeps an audit trail, fastify and webhook "
        "only insert, hookspool's dispatcher is not running"
    )
    return section


def _servers(folder: Path, stack: ExitStack, section: Section) -> list[Server]:
    ours = folder / "ackgate"
    ours.mkdir()
    installation = Installation(ours)
    seed(installation.database, Size.of(0))
    servers = [stack.enter_context(noop()), stack.enter_context(ackgate(installation))]
    for index, name in enumerate(STARTS):
        try:
            servers.append(stack.enter_context(peer(name, folder / str(index))))
        except (NotInstalledError, BenchmarkError) as error:
            section.notes.append(f"{name}: not measured: {error}")
    return servers


def _row(name: str, series: Series) -> tuple[str | float | int, ...]:
    ours = series.ratios(NAME, name)
    return (
        name,
        median(series.rates(name)),
        spread(series.rates(name), 0),
        median(series.ratios(name, REFERENCE)),
        median(ours),
        spread(ours),
        series.middle(name, lambda o: o.p50_ms),
        series.middle(name, lambda o: o.p99_ms),
        series.failures(name),
    )


def _judge(section: Section, name: str, series: Series) -> None:
    if name not in GOALS:
        return
    ratio = median(series.ratios(NAME, name))
    section.goals.append(Goal(f"rate by that of {name}", ratio, GOALS[name], noisy=series.noisy))
    if name == FASTIFY:
        p99 = median(series.p99_ratios(NAME, name))
        section.goals.append(Goal(f"p99 by that of {name}", p99, 1.0, False, series.noisy))
