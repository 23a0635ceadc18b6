"""The load generator: keep-alive connections and prebuilt requests, in a process of its own.

`python -m tools.bench.load` reads a `Plan` and writes an `Outcome`, both as JSON. It sends to
127.0.0.1 only, and stops by itself: after `seconds`, and after `limit` requests.
"""

import asyncio
import gc
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice

import uvloop

from tools.bench.work import WORKS
from tools.processes import LOAD_CORE, ROOT, RunError, on_core, python
from tools.webhooks import signature

HOST = "127.0.0.1"
LONGEST_SECONDS = 120.0
MOST_REQUESTS = 500_000
DRAIN_SECONDS = 10.0
CONNECT_SECONDS = 5.0
BUILD_SECONDS = 60.0
"""The time that building the requests may take."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send to a port, and for how long (s); the first `warm_up` seconds don't count.

    `work` names bodies to POST, or is `get`: then `paths` are asked for, one after another, over
    and over. `rate` requests a second are sent over all connections, or, for 0, as many as are
    answered. With a `secret` bodies are signed, as the Cloud API signs them. `keep_times` keeps the
    Unix time of each answer.
    """

    port: int
    work: str
    connections: int
    seconds: float
    path: str = "/"
    paths: Sequence[str] = ()
    headers: dict[str, str] = field(default_factory=dict)
    warm_up: float = 0.5
    first: int = 0
    users: int = 10_000
    limit: int = 200_000
    rate: float = 0.0
    secret: str = ""
    keep_times: bool = False

    def requests(self) -> list[bytes]:
        """Build every request ahead of time."""
        limit = min(self.limit, MOST_REQUESTS)
        headers = {"Host": f"{HOST}:{self.port}", **self.headers}
        if self.work == "get":
            gets = [_request("GET", path, headers) for path in self.paths]
            return [gets[n % len(gets)] for n in range(limit)]
        headers["Content-Type"] = "application/json"
        bodies = WORKS[self.work](self.first, time.time_ns() // 1_000_000, self.users)
        made = []
        for body in islice(bodies, limit):
            signed = signature(self.secret, body) if self.secret else {}
            length = {"Content-Length": str(len(body))}
            made.append(_request("POST", self.path, headers | length | signed) + body)
        return made


def _request(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answers with 200 a second, their latencies (ms), and the requests without a 200.

    `load_cpu_seconds` is the CPU time of the load generator, and `sending_cpu_seconds` without that
    of building the requests; `cpu_us` is that of the server for one request, as
    `tools.bench.measure` finds it.
    """

    count: int
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    not_200: int
    errors: int
    sent: int
    load_cpu_seconds: float
    times: list[float] = field(default_factory=list)
    cpu_us: float = 0.0
    sending_cpu_seconds: float = 0.0

    @property
    def failures(self) -> int:
        """The answers that were no 200, and the connections that broke."""
        return self.not_200 + self.errors


class Run:
    """What is still to be sent, and what has been answered."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pause = plan.connections / plan.rate if plan.rate else 0.0
        self.latencies: list[float] = []
        self.times: list[float] = []
        self.not_200 = self.errors = self.sent = 0
        self.counts_from = self.ends_at = self.last_at = 0.0
        self.open: set[Connection] = set()
        self.over = asyncio.Event()
        self._left: Iterator[bytes] = iter(plan.requests())
        self._ran_out = False
        self._building_cpu_seconds = time.process_time()

    def begin(self) -> None:
        """Start the clock."""
        self.counts_from = time.perf_counter() + self.plan.warm_up
        self.ends_at = self.counts_from + min(self.plan.seconds, LONGEST_SECONDS)

    def next_request(self, now: float) -> bytes | None:
        """Return the next request; None when the run is over."""
        if now < self.ends_at and self.sent < MOST_REQUESTS:
            request = next(self._left, None)
            if request is not None:
                self.sent += 1
                return request
            self._ran_out = True
        return None

    def note(self, started: float, now: float, *, is_200: bool) -> None:
        """Count an answer."""
        if not is_200:
            self.not_200 += 1
            return
        if self.plan.keep_times:
            self.times.append(time.time())
        if self.counts_from <= now <= self.ends_at:
            self.latencies.append(now - started)
            self.last_at = now

    def leave(self, connection: "Connection") -> None:
        """Remove a connection that sends nothing more."""
        self.open.discard(connection)
        if not self.open:
            self.over.set()

    def outcome(self) -> Outcome:
        """Sum up; rates count from the end of the warming up."""
        found = sorted(self.latencies)
        ended = self.last_at if self._ran_out else self.ends_at
        return Outcome(
            len(found),
            len(found) / max(ended - self.counts_from, 1e-9),
            1000 * quantile(found, 0.5),
            1000 * quantile(found, 0.99),
            1000 * quantile(found, 1),
            self.not_200,
            self.errors,
            self.sent,
            time.process_time(),
            self.times,
            sending_cpu_seconds=time.process_time() - self._building_cpu_seconds,
        )


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return a quantile of what is in order; 0 of nothing."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


class Connection(asyncio.Protocol):
    """A keep-alive connection, which sends the next request when the answer has come."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._transport: asyncio.WriteTransport | None = None
        self._rest = b""
        self._started = 0.0
        self._waits = self._ended = False
        self._connecting: asyncio.Task[None] | None = None
        run.open.add(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the start."""
        self._transport = transport  # type: ignore[assignment] # TCP has both ways

    def send(self) -> None:
        """Send the next request, or leave."""
        transport, now = self._transport, time.perf_counter()
        if transport is None or transport.is_closing():
            return
        request = self._run.next_request(now)
        if request is None:
            self.close()
            return
        self._started, self._waits = now, True
        transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Count an answer once it is whole."""
        if self._rest:
            data = self._rest + data
        if not _is_whole(data):
            self._rest = data
            return
        self._rest = b""
        now = time.perf_counter()
        self._waits = False
        self._run.note(self._started, now, is_200=data.startswith(b"HTTP/1.1 200"))
        if self._run.pause:
            wait = max(0.0, self._started + self._run.pause - now)
            asyncio.get_running_loop().call_later(wait, self.send)
        else:
            self.send()

    def connection_lost(self, _: Exception | None) -> None:
        """Count a missing answer as an error, and connect again unless the run is over."""
        if self._waits:
            self._run.errors += 1
        self._transport = None
        if self._ended or time.perf_counter() >= self._run.ends_at:
            self._run.leave(self)
        else:
            self._waits = False
            self._connecting = asyncio.create_task(self.connect())

    async def connect(self) -> None:
        """Connect, and send if the run has begun."""
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
        """Leave the run."""
        self._ended = True
        if self._transport is not None:
            self._transport.close()


def _is_whole(data: bytes) -> bool:
    end = data.find(_END)
    if end < 0:
        return False
    found = _LENGTH.search(data, 0, end + 2)
    if found is None:
        return data.endswith(b"0\r\n\r\n") or b"chunked" not in data[:end].lower()
    return len(data) >= end + len(_END) + int(found[1])


async def _send(plan: Plan) -> Outcome:
    run = Run(plan)
    gc.collect()
    gc.freeze()
    loop = asyncio.get_running_loop()
    for _ in range(plan.connections):
        await Connection(run).connect()
    run.begin()
    connections = list(run.open)
    for index, connection in enumerate(connections):
        loop.call_later(index * run.pause / len(connections), connection.send)
    longest = plan.warm_up + plan.seconds + DRAIN_SECONDS
    try:
        async with asyncio.timeout(min(longest, LONGEST_SECONDS + DRAIN_SECONDS)):
            await run.over.wait()
    except TimeoutError:
        for connection in list(run.open):
            connection.close()
        run.errors += len(run.open)
    return run.outcome()


def start(plan: Plan) -> "subprocess.Popen[str]":
    """Start the load generator, on the core of the load."""
    with on_core(LOAD_CORE):
        child = subprocess.Popen(
            python("tools.bench.load"),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    if child.stdin is not None:
        json.dump(asdict(plan), child.stdin)
        child.stdin.close()
        child.stdin = None
    return child


def finish(child: "subprocess.Popen[str]", plan: Plan) -> Outcome:
    """Wait for the outcome; RunError where there is none."""
    longest = plan.warm_up + plan.seconds + DRAIN_SECONDS + BUILD_SECONDS
    try:
        written, _ = child.communicate(timeout=longest)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        raise RunError("the load generator did not end") from None
    if child.returncode:
        raise RunError(f"the load generator failed with {child.returncode}")
    return Outcome(**json.loads(written))


def run(plan: Plan) -> Outcome:
    """Load a server, and return the outcome."""
    return finish(start(plan), plan)


if __name__ == "__main__":
    json.dump(asdict(uvloop.run(_send(Plan(**json.load(sys.stdin))))), sys.stdout)
