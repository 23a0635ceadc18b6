"""How callbacks are delivered (Meta's pages on webhooks).

An HTTP POST each, some at once; success is HTTP 200 alone and no redirect is followed; a failed one
is tried again. The On-Premises client waits 3 s, 6 s, 9 s … capped at 900 s, and gives up after 24
hours; the Cloud API after 7 days. What isn't delivered outlives a stop and a restart of the client
while `callback_persist` is on, but never the end of the process.
"""

import asyncio
import io
import ssl
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import aiohttp

from service.simulator.faults import Fault, Faults

KEPT_CALLBACKS = 10_000
LARGE_BYTES = 1024 * 1024


@dataclass(slots=True, eq=False)
class Callback:
    """One callback on its way; times in Unix seconds, `delay` in seconds."""

    kind: str
    body: bytes
    wa_id: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0
    """How long after it was sent the first attempt comes."""
    due: float = 0
    """When the first attempt comes, on the monotonic clock."""
    number: int = 0
    created_at: float = 0
    attempts: int = 0
    state: str = "pending"
    """`pending`, `delivered`, `lost` by a fault or a restart, or `given_up`."""
    problem: str | None = None
    """Why the last attempt failed."""
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the first attempt is over."""
    after: "Callback | None" = None
    """The callback whose first attempt comes before this one's."""
    phone_number_id: str = ""
    """On the Cloud API: the business number whose webhook it goes to."""
    signed: bool = True
    """On the Cloud API: whether it has its signature."""


class Limits(Protocol):
    """The times of a delivery, in seconds."""

    @property
    def webhook_timeout_seconds(self) -> float:
        """How long one attempt may take."""

    @property
    def give_up_seconds(self) -> float:
        """How old a callback becomes before it is given up."""

    @property
    def clock(self) -> Callable[[], float]:
        """Unix seconds."""


class Ways(Protocol):
    """Where callbacks go, and how."""

    @property
    def concurrency(self) -> int:
        """How many attempts may be under way at once."""

    def retry_seconds(self, attempts: int) -> float:
        """Return the pause after so many failed attempts."""

    def url_for(self, callback: Callback) -> str | None:
        """Return where a callback goes now; None for nowhere."""

    def headers_for(self, callback: Callback) -> Mapping[str, str]:
        """Return the headers of the API's own."""


class Delivery:
    """Delivers callbacks where the ways lead; `resume` starts, `pause` stops it."""

    def __init__(self, limits: Limits, ways: Callable[[], Ways], faults: Faults) -> None:
        self._limits = limits
        self._ways = ways
        self._faults = faults
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = (0, asyncio.Semaphore())
        self._hurried = asyncio.Event()
        self._held: list[Callback] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self.running = asyncio.Event()
        """Cleared while the Coreapps restart."""
        self.running.set()
        self.counts: Counter[str] = Counter()
        """How many were delivered, lost and given_up, and how many attempts failed."""
        self.answers: Counter[str] = Counter()
        """How often each status was answered, or which error came instead of one."""
        self.pending: dict[int, Callback] = {}
        self.history: deque[Callback] = deque(maxlen=KEPT_CALLBACKS)
        self.tls: ssl.SSLContext | None = None
        """Verifies the webhook's certificate; None for the system's authorities."""

    def resume(self) -> None:
        """Open the way, and start on all that is pending."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._limits.webhook_timeout_seconds),
            connector=aiohttp.TCPConnector(limit=0),
            skip_auto_headers=("User-Agent",),
        )
        for callback in self.pending.values():
            if callback not in self._held:
                self._spawn(callback)

    async def pause(self) -> None:
        """Stop delivering; what is pending stays."""
        session, self._session = self._session, None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if session is not None:
            await session.close()

    def restarted(self, *, is_kept: bool) -> None:
        """Begin again with what is kept on disk: all that is pending, or nothing."""
        if is_kept:
            return
        for task in self._tasks:
            task.cancel()
        for callback in list(self.pending.values()):
            self._finish(callback, "lost")

    def send(self, callback: Callback) -> Callback:
        """Take on a callback, with whatever faults strike it."""
        fault = self._faults.take(f"callback_{callback.kind}", callback.wa_id)
        callback.created_at = self._limits.clock()
        callback.delay += 0 if fault is None else fault.latency
        callback.due = time.monotonic() + callback.delay
        if fault is None:
            self._enter(callback)
        elif fault.lose:
            self._enter(callback, held=True)
            self._finish(callback, "lost")
        else:
            self._send_faulty(callback, fault)
        return callback

    def _send_faulty(self, callback: Callback, fault: Fault) -> None:
        held = fault.reorder > 1
        copies = [replace(callback, tried=asyncio.Event()) for _ in range(fault.repeat - 1)]
        for each in (callback, *copies):
            self._enter(each, held=held)
        if fault.again:
            self._enter(_later(callback, fault.again))
        if held and len(self._held) >= fault.reorder:
            self.release()

    def _enter(self, callback: Callback, *, held: bool = False) -> None:
        callback.number = self.counts["accepted"] = self.counts["accepted"] + 1
        self.pending[callback.number] = callback
        self.history.append(callback)
        self._idle.clear()
        if held:
            self._held.append(callback)
        elif self._session is not None:
            self._spawn(callback)

    def release(self) -> None:
        """Deliver what a fault holds: in reverse, each after the attempt before it."""
        held, self._held = self._held[::-1], []
        for before, callback in zip([None, *held], held, strict=False):
            callback.after = before
            if self._session is not None:
                self._spawn(callback)

    def hurry(self) -> None:
        """Try everything that waits for its next attempt now."""
        self._hurried.set()
        self._hurried = asyncio.Event()

    async def settled(self, seconds: float) -> None:
        """Wait until nothing is pending; TimeoutError, with what is, when the time is up."""
        self.release()
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            problems = Counter(callback.problem for callback in self.pending.values())
            raise TimeoutError(f"callbacks still pending: {dict(problems)}") from None

    def _spawn(self, callback: Callback) -> None:
        task = asyncio.create_task(self._deliver(callback))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, callback: Callback) -> None:
        if callback.after is not None:
            await callback.after.tried.wait()
        if callback.delay and not callback.attempts:
            await asyncio.sleep(callback.due - time.monotonic())
        while callback.state == "pending":
            await self.running.wait()
            async with self._slot():
                callback.problem = await self._attempt(callback)
            callback.attempts += 1
            callback.tried.set()
            await self._conclude(callback)

    def _slot(self) -> asyncio.Semaphore:
        limit = self._ways().concurrency
        if self._slots[0] != limit:
            self._slots = (limit, asyncio.Semaphore(limit))
        return self._slots[1]

    async def _attempt(self, callback: Callback) -> str | None:
        """Post once; return what went wrong."""
        url = self._ways().url_for(callback)
        if url is None or self._session is None:
            return "no webhook URL"
        own = self._ways().headers_for(callback)
        try:
            async with self._session.post(
                url,
                data=_data(callback.body),
                headers={"Content-Type": "application/json", **own, **callback.headers},
                allow_redirects=False,
                ssl=True if self.tls is None else self.tls,
            ) as response:
                self.answers[str(response.status)] += 1
                return None if response.status == 200 else f"answered {response.status}"  # noqa: PLR2004 - success is 200 alone
        except (aiohttp.ClientError, OSError) as error:
            self.answers[type(error).__name__] += 1
            return f"{type(error).__name__}: {error}"

    async def _conclude(self, callback: Callback) -> None:
        if callback.problem is None:
            self._finish(callback, "delivered")
            return
        self.counts["failed_attempts"] += 1
        age = self._limits.clock() - callback.created_at
        if age >= self._limits.give_up_seconds:
            self._finish(callback, "given_up")
        else:
            await self._sleep(self._ways().retry_seconds(callback.attempts))

    def _finish(self, callback: Callback, state: str) -> None:
        callback.state = state
        self.counts[state] += 1
        del self.pending[callback.number]
        if callback in self._held:
            self._held.remove(callback)
        if not self.pending:
            self._idle.set()

    async def _sleep(self, seconds: float) -> None:
        await first_of(self._hurried.wait(), seconds)


def _data(body: bytes) -> bytes | io.BytesIO:
    """Return what is posted: a large body as a file, which aiohttp sends in pieces."""
    return body if len(body) <= LARGE_BYTES else io.BytesIO(body)


def _later(callback: Callback, seconds: float) -> Callback:
    """Make the copy of a callback that comes so much later than it."""
    due = callback.due + seconds
    return replace(callback, tried=asyncio.Event(), delay=callback.delay + seconds, due=due)


async def first_of(awaited: Awaitable[object], seconds: float | None) -> None:
    """Wait for something, but no longer than so many seconds."""
    try:
        await asyncio.wait_for(awaited, seconds)
    except TimeoutError:
        return
