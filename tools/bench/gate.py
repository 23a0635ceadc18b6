"""The gate: single lookups beside the no-op, lookups of a thousand, and how fast it opens again."""

import http.client
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from tools.bench.accept import plan as accept_plan
from tools.bench.load import Plan, quantile, run
from tools.bench.measure import (
    Effort,
    Series,
    interleaved,
    measured,
    median,
    read_through,
    spread,
)
from tools.bench.report import Goal, Section
from tools.bench.servers import ACKGATE, NOOP, Server, ackgate, noop, seed
from tools.bench.work import NEW_USERS, RECIPIENTS
from tools.bodies import FIRST_SEEN_MS, blocked, hash_of, wa_id
from tools.installation import AUTHORIZATION, WEBHOOK, Installation
from tools.processes import LOAD_CORE, RunError
from tools.simulator import SimulatorProcess, simulator

CONNECTIONS = (1, 64)
PATHS = 20_000
"""Users whom single lookups ask about, drawn anew for each run."""
MAX_BODIES = 400
RATE_GOAL, THOUSAND_GOAL = 0.30, 100.0
CLEARED_USERS = 50
"""Users whose sends are refused, for each of the two ways."""
LONGEST_SECONDS = 10.0
CLEAR_GOAL_MS = 100.0
ACCOUNT = "/api/v1/accounts/main"

_seeds: Iterator[int] = count()


def measure(effort: Effort) -> Section:
    """Compare single lookups at every number of connections, then time lookups of a thousand."""
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
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation(Path(folder))
        seed(installation, effort.contacts, entries=0, contacts=effort.contacts)
        with noop() as reference, ackgate(installation) as server:
            for connections in CONNECTIONS:
                sys.stderr.write(f"single lookups, {connections} connections\n")
                series = interleaved(
                    (reference, server),
                    lambda s, n=connections: _single(s, n, effort),  # type: ignore[misc] # mypy infers no lambda with a default
                    rounds=effort.rounds,
                )
                _add_singles(section, connections, series)
        with ackgate(installation, core=None) as server:
            _add_thousands(section, server, installation.database, effort)
    section.notes += [
        "single lookups: server on one core; a thousand, and those that it is measured by: on both",
        "a single lookup: GET of one user at random; the no-op is sent the everyday mix",
        f"a thousand: {RECIPIENTS // 2} wa_ids and as many numbers as they were checked, at random",
        "the database's file is read through before each run of thousands: it lies in memory",
        "CPU: user and system time of the server process, from /proc, for one request",
    ]
    return section


def _single(server: Server, connections: int, effort: Effort) -> Plan:
    if server.name == NOOP:
        return accept_plan(server, "everyday", connections, effort.seconds)
    chance = Random(next(_seeds))
    users = [chance.randrange(effort.contacts) for _ in range(PATHS)]
    return Plan(
        server.port,
        "get",
        connections,
        effort.seconds,
        paths=[f"{ACCOUNT}/recipients/{wa_id(user)}" for user in users],
        headers=AUTHORIZATION,
        limit=int((effort.seconds + 1) * 40_000),
    )


def _add_singles(section: Section, connections: int, series: Series) -> None:
    ratios = series.ratios(ACKGATE, NOOP)
    section.rows.append(
        (
            f"one, {connections}",
            series.median(ACKGATE, "rate"),
            series.median(NOOP, "rate"),
            median(ratios),
            spread(ratios),
            series.median(ACKGATE, "p50_ms"),
            series.median(ACKGATE, "p99_ms"),
            series.median(ACKGATE, "cpu_us"),
            series.median(NOOP, "cpu_us"),
            series.failures(ACKGATE, NOOP),
            series.others,
        )
    )
    section.plot["series"].setdefault("single lookups", []).append((connections, median(ratios)))
    if connections == max(CONNECTIONS):
        what = f"single lookups at {connections} connections, rate by the no-op's"
        section.goals.append(Goal(what, median(ratios), RATE_GOAL, noisy=series.noisy))


def _add_thousands(section: Section, server: Server, database: Path, effort: Effort) -> None:
    """Time them beside single lookups at one connection, in the same rounds."""
    sys.stderr.write("lookups of a thousand, 1 connection\n")
    ratios, found, failed = [], [], 0
    for _ in range(effort.rounds):
        single = run(_single(server, 1, effort))
        read_through(database)
        many, _ = measured(
            server,
            Plan(
                server.port,
                "lookups",
                1,
                effort.seconds,
                f"{ACCOUNT}/recipients/lookup",
                headers=AUTHORIZATION,
                first=next(_seeds),
                users=effort.contacts,
                limit=MAX_BODIES,
            ),
        )
        found.append(many)
        ratios.append(many.p99_ms / single.p50_ms if single.p50_ms else 0.0)
        failed += many.failures + single.failures
        sys.stderr.write(
            f"  p50 {many.p50_ms:.1f} p99 {many.p99_ms:.1f} ms, a single one {single.p50_ms:.3f}\n"
        )
    rate, p50, p99, cpu = (
        median(getattr(many, what) for many in found)
        for what in ("rate", "p50_ms", "p99_ms", "cpu_us")
    )
    section.rows.append(("a thousand, 1", rate, "-", "-", "-", p50, p99, cpu, "-", failed, "-"))
    what = f"p99 of a lookup of {RECIPIENTS:,} by the median of a single one, 1 connection"
    section.goals.append(Goal(what, median(ratios), THOUSAND_GOAL, at_least=False))
    section.notes.append(f"p99 of a thousand by the median of one: {spread(ratios, 1)}")


def measure_clearing(_: Effort) -> Section:
    """Let sends be refused, check that the gate closes with the answer, and time how it opens."""
    section = Section(
        "clearing",
        "The gate after a refused send: from the client's acceptance to sendable",
        ("refused with", "users", "closed with the answer", "p50 ms", "slowest ms"),
    )
    users = range(NEW_USERS, NEW_USERS + 2 * CLEARED_USERS)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sim = stack.enter_context(
            simulator(Path(folder), core=LOAD_CORE, max_concurrent_requests=24)
        )
        installation = Installation(Path(folder), sim.base_url, sim.ca_file)
        server = stack.enter_context(ackgate(installation))
        known = [(wa_id(user), hash_of(user)) for user in users]
        sim.do("set_users", users=known, created_ms=FIRST_SEEN_MS)
        business = Business(server, sim)
        half = users[:CLEARED_USERS], users[CLEARED_USERS:]
        _add_clearing(section, "480", half[0], business, business.is_refused_with_480)
        _add_clearing(section, "1028", half[1], business, business.is_refused_with_1028)
    section.notes.append(
        "closed with the answer: the gate asked next after the 200 of the callback, or of refresh"
    )
    return section


class Business:
    """Delivers callbacks, asks the gate, and decides, on one connection."""

    def __init__(self, server: Server, sim: SimulatorProcess) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONGEST_SECONDS)
        self._sim = sim

    def is_refused_with_480(self, user: str) -> None:
        """Deliver the status of a message that the client did not send."""
        self._call("POST", WEBHOOK, blocked(user, int(user), FIRST_SEEN_MS))

    def is_refused_with_1028(self, user: str) -> None:
        """Have the client asked, since it refused a message at once."""
        self._call("POST", f"{ACCOUNT}/identities/{user}/refresh")

    def may_send(self, user: str) -> bool:
        """Ask the gate."""
        _, answer = self._call("GET", f"{ACCOUNT}/recipients/{user}")
        return bool(answer["sendable"])

    def acknowledge(self, user: str, hash_: str) -> None:
        """Acknowledge the identity as soon as it is known."""
        path = f"{ACCOUNT}/identities/{user}/acknowledge"
        body = json.dumps({"hash": hash_, "note": "benchmark"}).encode()
        _wait_until(lambda: self._call("POST", path, body)[0] in {200, 202})

    def seconds_to_open(self, user: str) -> float:
        """Wait for the gate; return the seconds since the client accepted the acknowledgement."""
        _wait_until(lambda: self.may_send(user))
        opened = time.time()
        accepted: dict[str, float] = self._sim.do("acknowledged")
        return opened - accepted[user]

    def _call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        headers = AUTHORIZATION | {"Content-Type": "application/json"}
        self._http.request(method, path, body, headers)
        answer = self._http.getresponse()
        return answer.status, json.loads(answer.read())


def _wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while not is_true():
        if time.monotonic() > deadline:
            raise RunError("the gate did not clear")


def _add_clearing(
    section: Section, code: str, users: range, business: Business, refused: Callable[[str], None]
) -> None:
    closed, took = 0, []
    for number in users:
        user = wa_id(number)
        if not business.may_send(user):
            raise RunError("a user who is not known is not sendable")
        refused(user)
        closed += not business.may_send(user)
        business.acknowledge(user, hash_of(number))
        took.append(1000 * business.seconds_to_open(user))
    took.sort()
    section.rows.append((code, len(users), closed, quantile(took, 0.5), took[-1]))
    section.goals += [
        Goal(f"{code}: closed with the answer, of {len(users)}", closed, len(users)),
        Goal(f"{code}: slowest to clear, ms", took[-1], CLEAR_GOAL_MS, at_least=False),
    ]
