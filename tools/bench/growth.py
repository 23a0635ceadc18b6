"""What grows with the database: accepting, reading, starting, memory; sizes beside each other."""

import json
import statistics
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from tools.bench.accept import plan as accept_plan
from tools.bench.bodies import wa_id
from tools.bench.load import Plan
from tools.bench.loading import run
from tools.bench.measure import Series, interleaved, median, spread
from tools.bench.options import Effort
from tools.bench.quiet import read_through
from tools.bench.report import Goal, Section
from tools.bench.seeding import Size, seed
from tools.bench.servers import AUTHORIZATION, Installation, Server

EMPTY = 10
"""Identities of the database that stands for an empty one, so that a GET finds something."""
CONNECTIONS = 64
READERS = 4
READS = 2_000
PAGES = 100
PAGE_READS = 30
STARTS = 3
GOALS = {"accept": 0.85, "get": 2.0, "ready": 2.0, "rest": 150.0, "loaded": 250.0}
IDENTITIES = "/api/v1/identities"


@dataclass(slots=True)
class Grown:
    """A database of one size, the Ackgate that runs on it, and what was found. Times in ms."""

    users: int
    installation: Installation
    server: Server
    starts: list[float] = field(default_factory=list)
    starts_after_kill: list[float] = field(default_factory=list)
    at_rest: float = 0.0
    loaded: float = 0.0
    first_page: float = 0.0
    hundredth_page: float = 0.0


def measure(effort: Effort) -> Section:
    """Make the databases, then let them take turns."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        grown = []
        for users in (EMPTY, *effort.identities):
            grown.append(_grow(Path(folder) / str(users), users))
            stack.callback(lambda item: item.server.process.stop(), grown[-1])
        reads = _reads(grown, effort)
        for item in grown:
            _pages(item)
        accepts = _accepts(grown[1:], effort)
        in_memory = _accepts(grown[1:], effort, in_memory=True)
        for item in grown[1:]:
            item.loaded = item.server.process.memory_mb()
        for item in grown:
            _restart(item)
    return _section(grown, accepts, in_memory, reads)


def _grow(folder: Path, users: int) -> Grown:
    folder.mkdir()
    installation = Installation(folder)
    seed(installation.database, Size.of(users))
    server, seconds = installation.start()
    item = Grown(users, installation, _named(server, users), [1000 * seconds])
    item.at_rest = server.process.memory_mb()
    return item


def _named(server: Server, users: int) -> Server:
    return replace(server, name=f"{users:,}")


def _reads(grown: list[Grown], effort: Effort) -> Series:
    sys.stderr.write("GET identity\n")
    return interleaved(
        [item.server for item in grown],
        lambda server: _reading(server, effort),
        rounds=effort.rounds,
    )


def _reading(server: Server, effort: Effort) -> Plan:
    users = int(server.name.replace(",", ""))
    chance = Random(users)
    paths = tuple(
        f"/api/v1/accounts/main/identities/{wa_id(chance.randrange(users))}" for _ in range(READS)
    )
    return Plan(
        server.port, "get", READERS, effort.seconds, paths=paths, headers=AUTHORIZATION,
        limit=100_000,
    )  # fmt: skip


def _accepts(grown: list[Grown], effort: Effort, *, in_memory: bool = False) -> Series:
    """Accept with the file as it lies, or with all of it in the system's memory."""
    where = ", the file in memory" if in_memory else ""
    sys.stderr.write(f"everyday mix, {CONNECTIONS} connections{where}\n")
    items = {item.server.name: item for item in grown}

    def planned(server: Server) -> Plan:
        item = items[server.name]
        if in_memory:
            read_through(item.installation.database)
        return accept_plan(server, "everyday", CONNECTIONS, effort.seconds, item.users)

    return interleaved([item.server for item in grown], planned, rounds=effort.rounds)


def _pages(item: Grown) -> None:
    """Time the first and the hundredth page, read through the cursors of those before."""
    item.first_page = _page_ms(item.server, "")
    cursor: str | None = ""
    for _ in range(PAGES - 1):
        cursor = _page(item.server, cursor).get("next_cursor")
        if cursor is None:
            return
    item.hundredth_page = _page_ms(item.server, cursor)


def _page(server: Server, cursor: str | None) -> dict[str, Any]:
    query = f"?cursor={cursor}" if cursor else ""
    request = urllib.request.Request(
        f"{server.url}{IDENTITIES}{query}", headers=dict(AUTHORIZATION)
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        found: dict[str, Any] = json.load(response)
    return found


def _page_ms(server: Server, cursor: str | None) -> float:
    """Give the median time of a page."""
    found = []
    for _ in range(PAGE_READS):
        started = time.perf_counter()
        _page(server, cursor)
        found.append(1000 * (time.perf_counter() - started))
    return statistics.median(found)


def _restart(item: Grown) -> None:
    """Time the start after a stop in order, and after a kill under load."""
    for kill in (True, False) * STARTS:
        if kill:
            run(accept_plan(item.server, "everyday", CONNECTIONS, 0.5, item.users))
        item.server.process.stop(kill=kill)
        server, seconds = item.installation.start()
        item.server = _named(server, item.users)
        (item.starts_after_kill if kill else item.starts).append(1000 * seconds)


def _section(grown: list[Grown], accepts: Series, in_memory: Series, reads: Series) -> Section:
    section = Section(
        "growth",
        "Growth: five journal entries for every identity",
        (
            "identities", "accepts/s", "by the smallest", "spread", "in memory",
            "by the smallest", "spread", "GET p50 ms", "GET p99 ms",
            "p99 by empty", "page 1", "page 100", "start ms", "after kill", "MB at rest",
            "loaded",
        ),
        plot={
            "kind": "lines", "x": "identities", "y": "everyday mix, rate by the smallest's",
            "series": {},
        },
    )  # fmt: skip
    empty, smallest = grown[0].server.name, grown[1].server.name
    for item in grown:
        section.rows.append(_row(item, (accepts, in_memory), reads, empty, smallest))
    section.plot["series"] = {
        name: [
            (item.users, median(series.ratios(item.server.name, smallest))) for item in grown[1:]
        ]
        for name, series in (("as it lies", accepts), ("the file in memory", in_memory))
    }
    _judge(section, grown[-1], accepts, reads, (empty, smallest))
    section.notes += [
        f"accepts: everyday mix over all of the identities, {CONNECTIONS} connections",
        "in memory: the same with the file read through just before each run",
        f"GET: one identity at random, {READERS} connections; {EMPTY} identities stand for none",
        "start: until /health/ready says 200; after kill: with SIGKILL right after a load",
        f"others used at most {max(accepts.others, reads.others):.2f} cores in a round",
    ]
    return section


def _row(
    item: Grown, accepts: tuple[Series, ...], reads: Series, empty: str, smallest: str
) -> tuple[str | float, ...]:
    name = item.server.name
    accepted: list[str | float] = ["-", "-", "-"] * len(accepts)
    if name != empty:
        accepted = []
        for series in accepts:
            ratios = series.ratios(name, smallest)
            accepted += [median(series.rates(name)), median(ratios), spread(ratios)]
    return (
        name,
        *accepted,
        reads.middle(name, lambda o: o.p50_ms),
        reads.middle(name, lambda o: o.p99_ms),
        median(reads.p99_ratios(name, empty)),
        item.first_page,
        item.hundredth_page or "-",
        median(item.starts),
        median(item.starts_after_kill),
        item.at_rest,
        item.loaded or "-",
    )


def _judge(
    section: Section, largest: Grown, accepts: Series, reads: Series, names: tuple[str, str]
) -> None:
    name, (empty, smallest) = largest.server.name, names
    at = f"at {name} identities"
    slowest = max(largest.starts + largest.starts_after_kill) / 1000
    section.goals += [
        Goal(
            f"accepts {at} by those at {smallest}",
            median(accepts.ratios(name, smallest)),
            GOALS["accept"],
            noisy=accepts.noisy,
        ),
        Goal(
            f"GET p99 {at} by that on the empty one",
            median(reads.p99_ratios(name, empty)),
            GOALS["get"],
            at_least=False,
            noisy=reads.noisy,
        ),
        Goal(f"slowest start {at}, s", slowest, GOALS["ready"], at_least=False),
        Goal(f"memory at rest {at}, MB", largest.at_rest, GOALS["rest"], at_least=False),
        Goal(f"memory under load {at}, MB", largest.loaded, GOALS["loaded"], at_least=False),
    ]
