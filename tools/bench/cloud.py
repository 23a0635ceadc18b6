"""Signed callbacks of the Cloud API beside On-Premises ones of their size, and many in one POST."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from tools.bench.cloud_bodies import BATCH, known
from tools.bench.load import Plan
from tools.bench.loading import run
from tools.bench.measure import interleaved, measured, median, spread
from tools.bench.options import Effort
from tools.bench.quiet import MOST_OF_OTHERS
from tools.bench.report import Goal, Section
from tools.bench.seeding import Size, seed
from tools.bench.servers import APP_SECRET, Installation, Server, ackgate, at_cloud_door, tell

USERS = 10_000
SPAN = 1_000_000
"""Numbers that one run may use, so that no two send the same."""
MAX_RATE = 30_000
MAX_BATCH_RATE = 120
CONNECTIONS = 64
RATE_GOAL, BATCH_GOAL = 0.9, 5.0
CLOUD, ONPREM = "Cloud", "On-Premises"
SINGLES = {
    "cloud messages by number": "messages, by number",
    "cloud messages": "messages, by user id",
    "cloud statuses by number": "statuses, by number",
    "cloud statuses": "statuses, by user id",
}
REFERENCES = {
    "like cloud messages by number": ("cloud messages by number", "a message"),
    "as cloud messages by number": ("cloud messages by number", "an identity change"),
    "as cloud messages": ("cloud messages", "an identity change"),
    "as cloud statuses by number": ("cloud statuses by number", "a status"),
    "as cloud statuses": ("cloud statuses", "a status"),
}
"""What an On-Premises client sends meanwhile: beside what, and in words."""
BATCHES = {"cloud batches": "cloud messages", "cloud status batches": "cloud statuses"}
"""Many in one POST, and what each is measured by."""

_firsts: Iterator[int] = count(0, SPAN)


class Pair(NamedTuple):
    """Two services of their own, each with its own database: what is sent to which door."""

    onprem: Server
    cloud: Server


def measure(effort: Effort) -> Section:
    """Compare singles at 64 connections, then a thousand updates in one POST with single ones."""
    section = Section(
        "cloud",
        "Cloud API: signed callbacks, durable and in effect, server on one core",
        ("what, connections", "Cloud/s", "reference", "reference/s", "ratio", "spread", "p50 ms",
         "p99 ms", "CPU µs", "reference CPU µs", "not 200", "others"),
    )  # fmt: skip
    with ExitStack() as stack:
        pair = _begin(stack)
        for reference, (work, beside) in REFERENCES.items():
            sys.stderr.write(f"{SINGLES[work]} beside {beside}, {CONNECTIONS} connections\n")
            _compare(section, pair, reference, effort)
        for work in BATCHES:
            for connections in (1, CONNECTIONS):
                sys.stderr.write(f"{work} beside {connections} senders of single ones\n")
                _compare_batches(section, pair.cloud, work, connections, effort)
    section.plot = {
        "kind": "bars",
        "x": "rate by the reference's",
        "bars": bars(section.rows),
    }
    section.notes += [
        (
            "messages: with the identity hash, each of a user never seen, trusted on first use; "
            "by number as Meta's page on the check has them, by user id as they are since 2026; "
            "the references: messages and identity changes of users never seen, padded to that size"
        ),
        f"statuses: of {USERS:,} users who are known; the reference: the same, padded",
        f"{BATCH:,} in one POST over one connection: updates a second; the reference: single ones",
        "CPU: of the whole server process for one update, in a run of its own",
    ]
    return section


def bars(rows: Sequence[Sequence[Any]]) -> list[tuple[str, float]]:
    """Give a bar for each row, named by its reference too: some differ in nothing else."""
    return [(f"{row[0]}\nby {row[2]}", row[4]) for row in rows]


def _begin(stack: ExitStack) -> Pair:
    """Start both, with the same configuration and as many users who are known."""
    folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
    onprem, cloud = (Installation(folder, cloud=True) for folder in folders)
    seed(onprem.database, Size.of(USERS))
    pair = Pair(
        replace(stack.enter_context(ackgate(onprem)), name=ONPREM),
        at_cloud_door(stack.enter_context(ackgate(cloud)), CLOUD),
    )
    tell(pair.cloud, known(USERS))
    return pair


def _plan(server: Server, work: str, connections: int, effort: Effort) -> Plan:
    most = MAX_BATCH_RATE if work in BATCHES else MAX_RATE
    signed = server.name != ONPREM
    return Plan(
        server.port,
        work,
        connections,
        effort.seconds,
        server.path,
        first=next(_firsts),
        users=USERS,
        limit=int((effort.seconds + 0.5) * most),
        secret=APP_SECRET if signed else "",
    )


def _cpu_us(server: Server, plan: Plan) -> float:
    """Give the CPU time (µs) that an update costs the server, whatever it spends it on."""
    before = server.process.cpu_seconds()
    sent = run(plan).sent * (BATCH if plan.work in BATCHES else 1)
    return 1e6 * (server.process.cpu_seconds() - before) / max(1, sent)


def _compare(section: Section, pair: Pair, reference: str, effort: Effort) -> None:
    work, beside = REFERENCES[reference]

    def plan(server: Server) -> Plan:
        sent = reference if server.name == ONPREM else work
        return _plan(server, sent, CONNECTIONS, effort)

    series = interleaved((pair.onprem, pair.cloud), plan, rounds=effort.rounds)
    ratios = series.ratios(CLOUD, ONPREM)
    section.rows.append(
        (
            f"{SINGLES[work]}, {CONNECTIONS}",
            median(series.rates(CLOUD)),
            f"{ONPREM}, {beside}",
            median(series.rates(ONPREM)),
            median(ratios),
            spread(ratios),
            series.middle(CLOUD, lambda o: o.p50_ms),
            series.middle(CLOUD, lambda o: o.p99_ms),
            *(_cpu_us(one, plan(one)) for one in reversed(pair)),
            series.failures(CLOUD) + series.failures(ONPREM),
            series.others,
        )
    )
    what = f"{SINGLES[work]}, rate by {beside} of the same size On-Premises"
    section.goals.append(Goal(what, median(ratios), RATE_GOAL, noisy=series.noisy))


def _compare_batches(
    section: Section, server: Server, work: str, connections: int, effort: Effort
) -> None:
    """Send a thousand updates in one POST, and single ones, in turns."""
    single = BATCHES[work]
    rates, references, p50s, p99s, failed, others = [], [], [], [], 0, 0.0
    for _ in range(effort.rounds):
        one, first = measured(server, _plan(server, single, connections, effort))
        many, second = measured(server, _plan(server, work, 1, effort))
        references.append(one.rate)
        rates.append(BATCH * many.rate)
        p50s.append(many.p50_ms)
        p99s.append(many.p99_ms)
        failed += sum(outcome.not_200 + outcome.errors for outcome in (one, many))
        others = max(others, first, second)
        sys.stderr.write(f"  {rates[-1]:,.0f} updates/s, single {references[-1]:,.0f}/s\n")
    ratios = [rate / other for rate, other in zip(rates, references, strict=True) if other]
    what = f"{BATCH:,} {SINGLES[single]}, in one POST"
    section.rows.append(
        (
            f"{what}, 1",
            median(rates),
            f"single, {connections}",
            median(references),
            median(ratios),
            spread(ratios, 1),
            median(p50s),
            median(p99s),
            _cpu_us(server, _plan(server, work, 1, effort)),
            _cpu_us(server, _plan(server, single, connections, effort)),
            failed,
            others,
        )
    )
    if connections == 1:
        text = f"{what}, rate by single ones' over as many connections"
        noisy = others > MOST_OF_OTHERS
        section.goals.append(Goal(text, median(ratios), BATCH_GOAL, noisy=noisy))
