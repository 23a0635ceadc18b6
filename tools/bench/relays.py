"""Three relays beside accepting: what they cost, how far they fall behind, and catch up."""

import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

import aiohttp
import uvloop

from tools.bench.accept import TITLES, USERS, plan
from tools.bench.measure import (
    MOST_OF_OTHERS,
    Effort,
    interleaved,
    measured,
    median,
    spread,
)
from tools.bench.report import Goal, Section
from tools.bench.servers import ACKGATE, NOW_MS, Server, ackgate, seed
from tools.bench.work import WORKS
from tools.installation import AUTHORIZATION, Installation
from tools.processes import LOAD_CORE, Process, free_port, python

RELAYS = 3
WITHOUT = f"{ACKGATE} without relays"
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
PACE = 1_000
CONNECTIONS = 64
IN_FLIGHT = 16
"""What a relay has in flight, and the bare client that it is measured by."""
IDLE_RATE = 20
BESIDE_RATE = 200
FAILS = 0.2
"""How often one of the destinations fails beside which another is to be well."""
GOAL_SHARE, GOAL_BEHIND_SECONDS, GOAL_IDLE_MS, GOAL_DRAIN = 0.5, 1.0, 10.0, 0.25
GOAL_BESIDE, GOAL_BESIDE_MS = 2.0, 50.0
"""Beside others that fail: so many times as late as alone, or so late, whichever is more."""


class Destination(NamedTuple):
    """Where relays lead to."""

    port: int
    process: Process


@contextmanager
def destination(fails: float = 0.0) -> Iterator[Destination]:
    """Run a destination on the core of the load, which fails so often."""
    port = free_port()
    command = python("tools.bench.sink", str(port), str(fails))
    process = Process(command, name="destination", core=LOAD_CORE)
    try:
        process.wait_for(f"http://127.0.0.1:{port}/r0")
        yield Destination(port, process)
    finally:
        process.end()


def _table(name: str, port: int) -> str:
    return f'[relays.{name}]\nurl = "http://127.0.0.1:{port}/{name}"\nsecret = "{SECRET}"\n'


def _tables(port: int, count: int = RELAYS) -> str:
    return "".join(_table(f"r{n}", port) for n in range(count))


def _get(url: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=AUTHORIZATION)) as answer:
        return json.load(answer)


def _came(port: int) -> Any:
    """Return what came to the destination since the last time."""
    return _get(f"http://127.0.0.1:{port}/r0")


def _relays(server: Server) -> list[dict[str, Any]]:
    return list(_get(f"{server.url}/api/v1/relays")["items"])


def _catch_up(server: Server, but: Collection[str] = ()) -> float:
    """Wait until nothing is behind, but for some that fail; return the seconds that took."""
    began = time.perf_counter()
    while any(relay["behind"] for relay in _relays(server) if relay["name"] not in but):
        time.sleep(0.1)
    return time.perf_counter() - began


def measure(effort: Effort) -> Section:
    """Measure all of it."""
    section = Section(
        "relays",
        f"{RELAYS} relays to one destination, each delivery signed; server on one core",
        ("what", "found", "spread or quantiles"),
    )
    with (
        destination() as sink,
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
    ):
        plain, relayed = Installation(Path(one)), Installation(Path(other), more=_tables(sink.port))
        for installation in (plain, relayed):
            seed(installation, USERS)
        with ackgate(plain, name=WITHOUT) as without, ackgate(relayed) as server:
            _saturate(section, effort, without, server, sink)
            _pace(section, effort, server, sink)
            _idle(section, effort, server, sink.port)
    _beside(section, effort)
    _drain(section, effort)
    section.notes += [
        "accepting: the rate with relays by that without, in the same round, 64 connections",
        f"behind: the age of the oldest callback not delivered, at {PACE:,} callbacks a second",
        "idle: from the arrival to the delivery, the commit and the 200 between them",
        (
            f"beside others: one relay at {BESIDE_RATE} callbacks a second, alone and beside one "
            f"whose destination fails for {FAILS:.0%} of them and one whose destination is down"
        ),
        f"draining: one relay by a bare aiohttp client, {IN_FLIGHT} in flight, same destination",
    ]
    return section


def _saturate(
    section: Section, effort: Effort, without: Server, server: Server, sink: Destination
) -> None:
    for work, title in TITLES.items():
        sys.stderr.write(f"{title}, saturated\n")
        caught_up: list[float] = []

        def plan_of(some: Server, work: str = work, took: list[float] = caught_up) -> Any:
            if some.name == ACKGATE:
                took.append(_catch_up(some))
            return plan(some, work, CONNECTIONS, effort.seconds)

        series = interleaved(
            (without, server), plan_of, rounds=effort.rounds, beside=[sink.process]
        )
        caught_up.append(_catch_up(server))
        shares = series.ratios(ACKGATE, WITHOUT)
        what = f"accepting {title}, saturated, by that without relays"
        section.rows.append((what, median(shares), spread(shares)))
        took = f"caught up after {effort.seconds:g} s of it, s"
        section.rows.append((took, median(caught_up[1:]), spread(caught_up[1:], 1)))
        section.goals.append(Goal(what, median(shares), GOAL_SHARE, noisy=series.noisy))


def _pace(section: Section, effort: Effort, server: Server, sink: Destination) -> None:
    sys.stderr.write(f"{PACE:,} callbacks a second\n")
    _came(sink.port)
    behind, over = [0.0], Event()

    def look() -> None:
        while not over.wait(0.1):
            behind.append(max(relay["behind_seconds"] for relay in _relays(server)))

    looking = Thread(target=look)
    looking.start()
    paced = replace(plan(server, "everyday", CONNECTIONS, 2 * effort.seconds), rate=PACE)
    outcome, others = measured(server, paced, [sink.process])
    over.set()
    looking.join()
    _catch_up(server)
    late = _came(sink.port)["late_ms"]
    section.rows += [
        ("paced: callbacks a second", outcome.rate, ""),
        ("paced: behind by at most, s", max(behind), _quantiles(late)),
        ("paced: CPU a callback, three deliveries included, µs", outcome.cpu_us, ""),
    ]
    what = f"behind at {PACE:,} a second, at most"
    noisy = others > MOST_OF_OTHERS
    goal = Goal(what, max(behind), GOAL_BEHIND_SECONDS, at_least=False, noisy=noisy)
    section.goals.append(goal)


def _idle(section: Section, effort: Effort, server: Server, port: int) -> None:
    sys.stderr.write("idle\n")
    _came(port)
    measured(server, replace(plan(server, "everyday", 1, 2 * effort.seconds), rate=IDLE_RATE))
    _catch_up(server)
    late = _came(port)["late_ms"]
    section.rows.append(("idle: from arrival to delivery, p50 ms", late[0], _quantiles(late)))
    section.goals.append(Goal("idle, p50 ms", late[0], GOAL_IDLE_MS, at_least=False))


def _beside(section: Section, effort: Effort) -> None:
    """Measure how late a relay is by itself, and beside relays to destinations that fail."""
    with destination() as sink, destination(FAILS) as failing:
        bad = f"{_table('failing', failing.port)}timeout_seconds = 1\n{_table('down', free_port())}"
        alone, _ = _late(effort, (sink, failing), "")
        beside, others = _late(effort, (sink, failing), bad, but=("failing", "down"))
    section.rows += [
        ("alone: from arrival to delivery, p99 ms", alone[1], _quantiles(alone)),
        ("beside others that fail: the same, p99 ms", beside[1], _quantiles(beside)),
    ]
    bound = max(GOAL_BESIDE * alone[1], GOAL_BESIDE_MS)
    what, noisy = "beside others that fail, p99 ms", others > MOST_OF_OTHERS
    section.goals.append(Goal(what, beside[1], bound, at_least=False, noisy=noisy))


def _late(
    effort: Effort, sinks: Sequence[Destination], bad: str, but: Collection[str] = ()
) -> tuple[list[float], float]:
    """Return the quantiles (ms) of how late one relay is, beside bad ones if there are any.

    It leads to the first of the sinks. Then come the cores that other programs used meanwhile.
    """
    port, processes = sinks[0].port, [sink.process for sink in sinks]
    sys.stderr.write(f"one relay, {'beside others that fail' if bad else 'alone'}\n")
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation(Path(folder), more=_tables(port, 1) + bad)
        seed(installation, USERS)
        with ackgate(installation) as server:
            _came(port)
            paced = plan(server, "everyday", CONNECTIONS, 4 * effort.seconds)
            _, others = measured(server, replace(paced, rate=BESIDE_RATE), processes)
            _catch_up(server, but)
            return list(_came(port)["late_ms"]), others


def _quantiles(late: list[float]) -> str:
    return ", ".join(
        f"{name} {ms:,.1f} ms" for name, ms in zip(("p50", "p99", "max"), late, strict=True)
    )


def _drain(section: Section, effort: Effort) -> None:
    """Let one relay deliver a backlog, and a bare client the same number of bodies."""
    entries = 10_000 if effort.quick else 100_000
    sys.stderr.write(f"a backlog of {entries:,}\n")
    with destination() as sink, tempfile.TemporaryDirectory() as folder:
        port = sink.port
        installation = Installation(Path(folder), more=_tables(port, 1))
        with ackgate(installation):
            pass  # the relay begins at the end of an empty journal
        seed(installation, USERS, entries=entries)
        bare = uvloop.run(_send(port, entries))
        _came(port)
        began = time.perf_counter()
        with ackgate(installation) as server:
            began = time.perf_counter()
            left = _relays(server)[0]["behind"]
            _catch_up(server)
            rate = left / (time.perf_counter() - began)
    section.rows += [
        ("draining, callbacks a second", rate, f"a bare client {bare:,.0f}"),
        ("draining, by a bare client", rate / bare, ""),
    ]
    section.goals.append(Goal("draining, by a bare client", rate / bare, GOAL_DRAIN))


async def _send(port: int, count: int) -> float:
    """POST the bodies of the everyday mix with a bare client; return the rate."""
    bodies = WORKS["everyday"](0, NOW_MS, USERS)
    numbers = iter(range(count))
    async with aiohttp.ClientSession() as session:

        async def work() -> None:
            for _ in numbers:
                async with session.post(f"http://127.0.0.1:{port}/bare", data=next(bodies)) as got:
                    await got.read()

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - began)
