"""Signed callbacks of the Cloud API beside On-Premises ones of their size, and many in one POST."""

import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from tools.bench.load import Plan
from tools.bench.measure import Effort, Round, Series, interleaved, measured, median, spread
from tools.bench.report import Goal, Section
from tools.bench.servers import Server, ackgate, seed
from tools.bench.work import BATCH, cloud_users
from tools.installation import APP_SECRET, CLOUD_WEBHOOK, CloudAccount, Installation
from tools.webhooks import signature

USERS = 10_000
SPAN = 1_000_000
"""Numbers that one run may use, so that no two runs send the same."""
MAX_RATE = 30_000
MAX_BATCH_RATE = 120
CONNECTIONS = 64
RATE_GOAL, BATCH_GOAL = 0.9, 5.0
CLOUD, ONPREM = "Cloud", "On-Premises"
SINGLE, MANY = "single", "many"
SHOP = CloudAccount("shop", "106540352242922")
TITLES = {
    "cloud messages by number": "messages, by number",
    "cloud messages": "messages, by user id",
    "cloud statuses by number": "statuses, by number",
    "cloud statuses": "statuses, by user id",
}
BATCHES = {"cloud message batches": "cloud messages", "cloud status batches": "cloud statuses"}
"""Many updates in one POST, and the single ones that they are compared with."""


class Comparison(NamedTuple):
    """What is sent to the Cloud API's endpoint, and meanwhile to the On-Premises one."""

    work: str
    reference: str
    beside: str


COMPARISONS = [
    Comparison(
        "cloud messages by number", "messages as long as cloud messages by number", "a message"
    ),
    Comparison(
        "cloud messages by number",
        "changes as long as cloud messages by number",
        "an identity change",
    ),
    Comparison("cloud messages", "changes as long as cloud messages", "an identity change"),
    Comparison(
        "cloud statuses by number", "statuses as long as cloud statuses by number", "a status"
    ),
    Comparison("cloud statuses", "statuses as long as cloud statuses", "a status"),
]

_firsts: Iterator[int] = count(0, SPAN)


def measure(effort: Effort) -> Section:
    """Compare singles at 64 connections, then a thousand updates in one POST with single ones."""
    section = Section(
        "cloud",
        "Cloud API: signed callbacks, durable and in effect, server on one core",
        ("what, connections", "Cloud/s", "reference", "reference/s", "ratio", "spread", "p50 ms",
         "p99 ms", "CPU µs", "reference CPU µs", "not 200", "others"),
    )  # fmt: skip
    with ExitStack() as stack:
        onprem, cloud = _start(stack)
        for comparison in COMPARISONS:
            sys.stderr.write(f"{TITLES[comparison.work]} beside {comparison.beside}\n")
            _compare(section, onprem, cloud, comparison, effort)
        for work in BATCHES:
            for connections in (1, CONNECTIONS):
                sys.stderr.write(f"{work} beside single ones over {connections} connections\n")
                _compare_batches(section, cloud, work, connections, effort)
    section.plot = {"kind": "bars", "x": "rate by the reference's", "bars": bars(section.rows)}
    section.notes += [
        (
            "messages: with the identity hash, each of a user never seen, trusted on first use; by "
            "number as Meta's page on the check has them, by user id as they are since 2026; the "
            "references: messages and identity changes of users never seen, padded to that size"
        ),
        f"statuses: of {USERS:,} users who are known; the reference: the same, padded",
        f"{BATCH:,} in one POST over one connection: updates a second; the reference: single ones",
        "CPU: user and system time of the server process, from /proc, for one update",
    ]
    return section


def bars(rows: Sequence[Sequence[Any]]) -> list[tuple[str, float]]:
    """Return a bar for each row, named by its reference too: some differ in nothing else."""
    return [(f"{row[0]}\nby {row[2]}", row[4]) for row in rows]


def _start(stack: ExitStack) -> tuple[Server, Server]:
    """Start two services, each with a database of its own and as many users who are known."""
    folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
    installations = [Installation(folder, cloud=(SHOP,)) for folder in folders]
    seed(installations[0], USERS)
    onprem = stack.enter_context(ackgate(installations[0], name=ONPREM))
    started = stack.enter_context(ackgate(installations[1], name=CLOUD))
    cloud = replace(started, path=CLOUD_WEBHOOK)
    for body in cloud_users(USERS):
        headers = {"Content-Type": "application/json", **signature(APP_SECRET, body)}
        request = urllib.request.Request(cloud.url + cloud.path, body, headers)
        with urllib.request.urlopen(request):
            pass  # an answer that is no success raises HTTPError
    return onprem, cloud


def _plan(server: Server, work: str, connections: int, effort: Effort) -> Plan:
    most = MAX_BATCH_RATE if work in BATCHES else MAX_RATE
    return Plan(
        server.port,
        work,
        connections,
        effort.seconds,
        server.path,
        first=next(_firsts),
        users=USERS,
        limit=int((effort.seconds + 0.5) * most),
        secret="" if server.name == ONPREM else APP_SECRET,
    )


def _compare(
    section: Section, onprem: Server, cloud: Server, comparison: Comparison, effort: Effort
) -> None:
    def plan(server: Server) -> Plan:
        work = comparison.reference if server is onprem else comparison.work
        return _plan(server, work, CONNECTIONS, effort)

    series = interleaved((onprem, cloud), plan, rounds=effort.rounds)
    title, ratios = TITLES[comparison.work], series.ratios(CLOUD, ONPREM)
    reference = f"{ONPREM}, {comparison.beside}"
    section.rows.append(
        _row(f"{title}, {CONNECTIONS}", CLOUD, reference, ONPREM, series, spread(ratios))
    )
    what = f"{title}, rate by {comparison.beside} of the same size On-Premises"
    section.goals.append(Goal(what, median(ratios), RATE_GOAL, noisy=series.noisy))


def _compare_batches(
    section: Section, server: Server, work: str, connections: int, effort: Effort
) -> None:
    """Send a thousand updates in one POST, and single ones, in turns."""
    single, rounds = BATCHES[work], []
    for _ in range(effort.rounds):
        one, first = measured(server, _plan(server, single, connections, effort))
        many, second = measured(server, _plan(server, work, 1, effort))
        many = replace(many, rate=BATCH * many.rate, cpu_us=many.cpu_us / BATCH)
        rounds.append(Round({SINGLE: one, MANY: many}, max(first, second)))
        sys.stderr.write(f"  {many.rate:,.0f} updates/s, single {one.rate:,.0f}/s\n")
    series = Series(rounds)
    ratios, what = series.ratios(MANY, SINGLE), f"{BATCH:,} {TITLES[single]}, in one POST"
    reference = f"single, {connections}"
    section.rows.append(_row(f"{what}, 1", MANY, reference, SINGLE, series, spread(ratios, 1)))
    if connections == 1:
        text = f"{what}, rate by single ones' over as many connections"
        section.goals.append(Goal(text, median(ratios), BATCH_GOAL, noisy=series.noisy))


def _row(
    title: str, name: str, reference: str, reference_name: str, series: Series, spread_: str
) -> tuple[str | float, ...]:
    return (
        title,
        series.median(name, "rate"),
        reference,
        series.median(reference_name, "rate"),
        median(series.ratios(name, reference_name)),
        spread_,
        series.median(name, "p50_ms"),
        series.median(name, "p99_ms"),
        series.median(name, "cpu_us"),
        series.median(reference_name, "cpu_us"),
        series.failures(name, reference_name),
        series.others,
    )
