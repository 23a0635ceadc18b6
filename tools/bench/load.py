"""The load generator: keep-alive connections, prebuilt requests, a process and a core of its own.

`python -m tools.bench.load` reads one `Plan`, as JSON, and writes one `Outcome`. It sends to
127.0.0.1 only, and stops by itself: after `seconds`, and after `limit` requests.
"""

import asyncio
import gc
import hashlib
import hmac
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice

import uvloop

from tools.bench.works import WORKS

HOST = "127.0.0.1"
LONGEST_SECONDS = 120.0
MOST_REQUESTS = 500_000
DRAIN_SECONDS = 10.0
CONNECT_SECONDS = 5.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send, to which port, and for how long (s); the first `warm_up` seconds don't count.

    `work` names bodies to POST, or is `get`: then `paths` are asked for, one after another, over
    and over. `rate` requests a second are sent over all connections, 0: as fast as they are
    answered. `answered` keeps the Unix time at which each was answered. With a `secret` bodies are
    signed, as the Cloud API signs them.
    """

    port: int
    work: str
    connections: int
    seconds: float
    path: str = "/"
    paths: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    warm_up: float = 0.5
    first: int = 0
    users: int = 10_000
    limit: int = 200_000
    rate: float = 0.0
    core: int | None = None
    answered: bool = False
    secret: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: answers with 200 a second, their latencies (ms), and how many had none."""

    count: int
    seconds: float
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    not_200: int
    errors: int
    sent: int
    ran_out: bool
    cpu_seconds: float = 0.0
    answered: list[float] = field(default_factory=list)


def requests(plan: Plan) -> list[bytes]:
    """Build every request ahead of time."""
    lines = [f"Host: {HOST}:{plan.port}", *(f"{name}: {value}" for name, value in plan.headers)]
    common = "\r\n".join(lines)
    limit = min(plan.limit, MOST_REQUESTS)
    if plan.work == "get":
        gets = [f"GET {path} HTTP/1.1\r\n{common}\r\n\r\n".encode() for path in plan.paths]
        return [gets[n % len(gets)] for n in range(limit)]
    head = f"POST {plan.path} HTTP/1.1\r\n{common}\r\nContent-Type: application/json\r\n"
    start = f"{head}Content-Length: ".encode()
    made = islice(WORKS[plan.work](plan.first, time.time_ns() // 1_000_000, plan.users), limit)
    if plan.secret:
        secret = plan.secret.encode()
        return [b"%b%d%b%b%b" % (start, len(b), _signature(secret, b), _END, b) for b in made]
    return [b"%b%d%b%b" % (start, len(body), _END, body) for body in made]


def _signature(secret: bytes, body: bytes) -> bytes:
    signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
    return f"\r\nX-Hub-Signature-256: sha256={signature}".encode()


class Run:
    """One run: what is yet to be sent, and what has been answered."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        built = requests(plan)
        self.left: Iterator[bytes] = iter(built)
        self.pause = plan.connections / plan.rate if plan.rate else 0.0
        self.latencies: list[float] = []
        self.answered: list[float] = []
        self.not_200 = self.errors = self.sent = 0
        self.ran_out = False
        self.counting_from = self.ends_at = self.last_at = 0.0
        self.open: set[Connection] = set()
        self.over = asyncio.Event()

    def begin(self) -> None:
        """Start the clock."""
        started = time.perf_counter()
        self.counting_from = started + self.plan.warm_up
        self.ends_at = self.counting_from + min(self.plan.seconds, LONGEST_SECONDS)

    def next(self, now: float) -> bytes | None:
        """Give the next request; None when it is over."""
        if now < self.ends_at and self.sent < MOST_REQUESTS:
            request = next(self.left, None)
            if request is not None:
                self.sent += 1
                return request
            self.ran_out = True
        return None

    def note(self, started: float, now: float, *, good: bool) -> None:
        """Take an answer."""
        if not good:
            self.not_200 += 1
            return
        if self.plan.answered:
            self.answered.append(time.time())
        if self.counting_from <= now <= self.ends_at:
            self.latencies.append(now - started)
            self.last_at = now

    def leave(self, connection: "Connection") -> None:
        """Count a connection out."""
        self.open.discard(connection)
        if not self.open:
            self.over.set()

    def outcome(self) -> Outcome:
        """Sum up; rates count from the end of the warming up."""
        found = sorted(self.latencies)
        ended = self.last_at if self.ran_out else self.ends_at
        seconds = max(ended - self.counting_from, 1e-9)
        return Outcome(
            len(found),
            seconds,
            len(found) / seconds,
            1000 * quantile(found, 0.5),
            1000 * quantile(found, 0.99),
            1000 * quantile(found, 1),
            self.not_200,
            self.errors,
            self.sent,
            self.ran_out,
            time.process_time(),
            self.answered,
        )


def quantile(ordered: list[float], part: float) -> float:
    """Give a quantile of what is ordered; 0 of nothing."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


class Connection(asyncio.Protocol):
    """One keep-alive connection: the next request goes when the answer has come."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._started = 0.0
        self._waits = self._ended = False
        self._again: asyncio.Task[None] | None = None
        run.open.add(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the start."""
        self._transport = transport  # type: ignore[assignment] # TCP has both ways

    def send(self) -> None:
        """Send the next request, or leave."""
        transport, now = self._transport, time.perf_counter()
        if transport is None or transport.is_closing():
            return
        request = self._run.next(now)
        if request is None:
            self.close()
            return
        self._started, self._waits = now, True
        transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take an answer once it is whole."""
        if self._rest:
            data = self._rest + data
        if not _whole(data):
            self._rest = data
            return
        self._rest = b""
        now = time.perf_counter()
        self._waits = False
        self._run.note(self._started, now, good=data.startswith(b"HTTP/1.1 200"))
        if self._run.pause:
            wait = max(0.0, self._started + self._run.pause - now)
            asyncio.get_running_loop().call_later(wait, self.send)
        else:
            self.send()

    def connection_lost(self, _: Exception | None) -> None:
        """Count what was cut off as an error, and begin anew where it was not ours to end."""
        if self._waits:
            self._run.errors += 1
        self._transport = None
        if self._ended or time.perf_counter() >= self._run.ends_at:
            self._run.leave(self)
        else:
            self._waits = False
            self._again = asyncio.create_task(self.open())

    async def open(self) -> None:
        """Connect, and send where the run has begun."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: self, HOST, self._run.plan.port)
        except (OSError, TimeoutError):
            self._run.errors += 1
            self._run.leave(self)
            return
        if self._run.ends_at:
            self.send()

    def close(self) -> None:
        """Leave."""
        self._ended = True
        if self._transport is not None:
            self._transport.close()


def _whole(data: bytes) -> bool:
    end = data.find(_END)
    if end < 0:
        return False
    found = _LENGTH.search(data, 0, end + 2)
    if found is None:
        return data.endswith(b"0\r\n\r\n") or b"chunked" not in data[:end].lower()
    return len(data) >= end + len(_END) + int(found[1])


async def send(plan: Plan) -> Outcome:
    """Carry out a plan."""
    run = Run(plan)
    gc.collect()
    gc.freeze()
    loop = asyncio.get_running_loop()
    for _ in range(plan.connections):
        await Connection(run).open()
    run.begin()
    made = list(run.open)
    for index, connection in enumerate(made):
        loop.call_later(index * run.pause / len(made), connection.send)
    patience = plan.warm_up + plan.seconds + DRAIN_SECONDS
    try:
        async with asyncio.timeout(min(patience, LONGEST_SECONDS + DRAIN_SECONDS)):
            await run.over.wait()
    except TimeoutError:
        for connection in list(run.open):
            connection.close()
        run.errors += len(run.open)
    return run.outcome()


def main() -> None:
    """Read the plan, carry it out, write the outcome."""
    told = json.load(sys.stdin)
    told["headers"] = tuple(map(tuple, told.get("headers", ())))
    told["paths"] = tuple(told.get("paths", ()))
    plan = Plan(**told)
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    json.dump(asdict(uvloop.run(send(plan))), sys.stdout)


if __name__ == "__main__":
    main()
