"""What grows with the database: accepting, reading, starting, memory; sizes beside each other."""

import json
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tools.bench.accept import plan as accept_plan
from tools.bench.load import Plan, run
from tools.bench.measure import Effort, Series, interleaved, median, read_through, spread
from tools.bench.report import Goal, Section
from tools.bench.servers import Server, seed, start_ackgate
from tools.bodies import wa_id
from tools.installation import AUTHORIZATION, Installation

EMPTY = 10
"""Identities of the database that stands for an empty one, so that a GET finds something."""
CONNECTIONS = 64
READERS = 4
READS = 2_000
PAGES = 100
PAGE_READS = 30
STARTS = 3
GOALS = {"accept": 0.8, "get": 2.0, "ready": 2.0, "rest": 150.0, "loaded": 250.0}
COLUMNS = (
    "identities", "accepts/s", "by the smallest", "spread", "in memory", "by the smallest",
    "spread", "GET p50 ms", "GET p99 ms", "p99 by empty", "page 1", "page 100", "start ms",
    "after kill", "MB at rest", "loaded",
)  # fmt: skip


@dataclass(slots=True)
class Grown:
    """A database of one size, the Ackgate that runs on it, and what was found. Times in ms."""

    users: int
    installation: Installation
    server: Server
    starts: list[float] = field(default_factory=list)
    starts_after_kill: list[float] = field(default_factory=list)
    mb_at_rest: float = 0.0
    mb_loaded: float = 0.0
    first_page: float = 0.0
    hundredth_page: float = 0.0

    @property
    def name(self) -> str:
        """Its server's name in tables."""
        return f"{self.users:,}"

    def restart(self, *, kill: bool) -> None:
        """Time the start after a stop in order, or after a kill under load."""
        if kill:
            run(accept_plan(self.server, "everyday", CONNECTIONS, 0.5, self.users))
            self.server.process.kill()
        else:
            self.server.process.end()
        self.server, seconds = start_ackgate(self.installation, name=self.name)
        (self.starts_after_kill if kill else self.starts).append(1000 * seconds)

    def time_pages(self) -> None:
        """Time the first and the hundredth page, read through the cursors of those before."""
        self.first_page = _page_ms(self.server, "")
        cursor: str | None = ""
        for _ in range(PAGES - 1):
            cursor = _page(self.server, cursor).get("next_cursor")
            if cursor is None:
                return
        self.hundredth_page = _page_ms(self.server, cursor)


def measure(effort: Effort) -> Section:
    """Make the databases, then let them take turns."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        grown = []
        for users in (EMPTY, *effort.identities):
            grown.append(_grow(Path(folder) / str(users), users))
            stack.callback(lambda item: item.server.process.end(), grown[-1])
        reads = _reads(grown, effort)
        for item in grown:
            item.time_pages()
        accepts = _accepts(grown[1:], effort)
        in_memory = _accepts(grown[1:], effort, in_memory=True)
        for item in grown[1:]:
            item.mb_loaded = item.server.process.memory_mb()
        for item in grown:
            for kill in (True, False) * STARTS:
                item.restart(kill=kill)
    return _section(grown, accepts, in_memory, reads)


def _grow(folder: Path, users: int) -> Grown:
    folder.mkdir()
    installation = Installation(folder)
    seed(installation, users)
    server, seconds = start_ackgate(installation, name=f"{users:,}")
    memory = server.process.memory_mb()
    return Grown(users, installation, server, [1000 * seconds], mb_at_rest=memory)


def _reads(grown: Sequence[Grown], effort: Effort) -> Series:
    sys.stderr.write("GET identity\n")
    users = {item.name: item.users for item in grown}

    def plan(server: Server) -> Plan:
        chance = Random(users[server.name])
        names = [wa_id(chance.randrange(users[server.name])) for _ in range(READS)]
        return Plan(
            server.port,
            "get",
            READERS,
            effort.seconds,
            paths=[f"/api/v1/accounts/main/identities/{name}" for name in names],
            headers=AUTHORIZATION,
            limit=100_000,
        )

    return interleaved([item.server for item in grown], plan, rounds=effort.rounds)


def _accepts(grown: Sequence[Grown], effort: Effort, *, in_memory: bool = False) -> Series:
    """Accept with the file as it lies, or with all of it in the system's memory."""
    where = ", the file in memory" if in_memory else ""
    sys.stderr.write(f"everyday mix, {CONNECTIONS} connections{where}\n")
    items = {item.name: item for item in grown}

    def plan(server: Server) -> Plan:
        item = items[server.name]
        if in_memory:
            read_through(item.installation.database)
        return accept_plan(server, "everyday", CONNECTIONS, effort.seconds, item.users)

    return interleaved([item.server for item in grown], plan, rounds=effort.rounds)


def _page(server: Server, cursor: str | None) -> dict[str, Any]:
    query = f"?cursor={cursor}" if cursor else ""
    url = f"{server.url}/api/v1/identities{query}"
    request = urllib.request.Request(url, headers=AUTHORIZATION)
    with urllib.request.urlopen(request, timeout=30) as response:
        found: dict[str, Any] = json.load(response)
    return found


def _page_ms(server: Server, cursor: str | None) -> float:
    """Return the median time of a page."""
    found = []
    for _ in range(PAGE_READS):
        started = time.perf_counter()
        _page(server, cursor)
        found.append(1000 * (time.perf_counter() - started))
    return statistics.median(found)


def _section(grown: Sequence[Grown], accepts: Series, in_memory: Series, reads: Series) -> Section:
    section = Section("growth", "Growth: five journal entries for every identity", COLUMNS)
    empty, smallest, largest = grown[0].name, grown[1].name, grown[-1]
    for item in grown:
        accepted: list[str | float] = ["-"] * 6
        if item is not grown[0]:
            accepted = []
            for series in (accepts, in_memory):
                ratios = series.ratios(item.name, smallest)
                accepted += [series.median(item.name, "rate"), median(ratios), spread(ratios)]
        section.rows.append(
            (
                item.name,
                *accepted,
                reads.median(item.name, "p50_ms"),
                reads.median(item.name, "p99_ms"),
                median(reads.ratios(item.name, empty, "p99_ms")),
                item.first_page,
                item.hundredth_page or "-",
                median(item.starts),
                median(item.starts_after_kill),
                item.mb_at_rest,
                item.mb_loaded or "-",
            )
        )
    section.plot = {
        "kind": "lines",
        "x": "identities",
        "y": "everyday mix, rate by the smallest's",
        "series": {
            name: [(item.users, median(series.ratios(item.name, smallest))) for item in grown[1:]]
            for name, series in (("as it lies", accepts), ("the file in memory", in_memory))
        },
    }
    at = f"at {largest.name} identities"
    accept_ratio = median(in_memory.ratios(largest.name, smallest))
    get_ratio = median(reads.ratios(largest.name, empty, "p99_ms"))
    slowest = max(largest.starts + largest.starts_after_kill) / 1000
    section.goals += [
        Goal(
            f"accepts {at} by those at {smallest}, the file in memory",
            accept_ratio,
            GOALS["accept"],
            noisy=in_memory.noisy,
        ),
        Goal(
            f"GET p99 {at} by that on the empty one",
            get_ratio,
            GOALS["get"],
            at_least=False,
            noisy=reads.noisy,
        ),
        Goal(f"slowest start {at}, s", slowest, GOALS["ready"], at_least=False),
        Goal(f"memory at rest {at}, MB", largest.mb_at_rest, GOALS["rest"], at_least=False),
        Goal(f"memory under load {at}, MB", largest.mb_loaded, GOALS["loaded"], at_least=False),
    ]
    others = max(series.others for series in (accepts, in_memory, reads))
    section.notes += [
        f"accepts: everyday mix over all of the identities, {CONNECTIONS} connections",
        "in memory: the same with the file read through just before each run",
        f"GET: one identity at random, {READERS} connections; {EMPTY} identities stand for none",
        "start: until /health/ready says 200; after kill: with SIGKILL right after a load",
        f"others used at most {others:.2f} cores in a round",
    ]
    return section
