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
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Protocol

import aiohttp

from service.simulator.faults import Faults
from service.simulator.options import ApiOptions

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


class Destination(Protocol):
    """Where callbacks go, and how: what differs between the two APIs."""

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
    """Delivers callbacks to their destination as it is now; `resume` starts, `pause` stops it."""

    def __init__(
        self, options: ApiOptions, destination: Callable[[], Destination], faults: Faults
    ) -> None:
        self._options = options
        self._destination = destination
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
        """How many were accepted, delivered, lost and given_up, and how many attempts failed."""
        self.answers: Counter[str] = Counter()
        """How often each status was answered, or which error came instead of one."""
        self.pending: dict[int, Callback] = {}
        self.history: deque[Callback] = deque(maxlen=KEPT_CALLBACKS)
        self.tls: ssl.SSLContext | None = None
        """Verifies the webhook's certificate; None for the system's authorities."""

    def resume(self) -> None:
        """Start to deliver all that is pending."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._options.webhook_timeout_seconds),
            connector=aiohttp.TCPConnector(limit=0),
            skip_auto_headers=("User-Agent",),
        )
        for callback in self.pending.values():
            if callback not in self._held:
                self._start(callback)

    async def pause(self) -> None:
        """Stop delivering; what is pending stays."""
        session, self._session = self._session, None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if session is not None:
            await session.close()

    def lose_pending(self) -> None:
        """Lose all that is pending, as a restart does that keeps nothing on disk."""
        for task in self._tasks:
            task.cancel()
        for callback in list(self.pending.values()):
            self._finish(callback, "lost")

    def send(self, callback: Callback) -> Callback:
        """Take on a callback, with the fault that applies to it, if any."""
        fault = self._faults.take(f"callback_{callback.kind}", callback.wa_id)
        callback.created_at = self._options.clock()
        callback.delay += 0 if fault is None else fault.latency
        callback.due = time.monotonic() + callback.delay
        if fault is None:
            self._add(callback)
        elif fault.lose:
            self._add(callback, held=True)
            self._finish(callback, "lost")
        else:
            held = fault.reorder > 1
            self._add(callback, held=held)
            for _ in range(fault.repeat - 1):
                self._add(replace(callback, tried=asyncio.Event()), held=held)
            if fault.again:
                delay, due = callback.delay + fault.again, callback.due + fault.again
                self._add(replace(callback, tried=asyncio.Event(), delay=delay, due=due))
            if held and len(self._held) >= fault.reorder:
                self.release()
        return callback

    def _add(self, callback: Callback, *, held: bool = False) -> None:
        callback.number = self.counts["accepted"] = self.counts["accepted"] + 1
        self.pending[callback.number] = callback
        self.history.append(callback)
        self._idle.clear()
        if held:
            self._held.append(callback)
        elif self._session is not None:
            self._start(callback)

    def release(self) -> None:
        """Deliver what a fault holds: in reverse, each after the attempt before it."""
        held, self._held = self._held[::-1], []
        for before, callback in zip([None, *held], held, strict=False):
            callback.after = before
            if self._session is not None:
                self._start(callback)

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

    def _start(self, callback: Callback) -> None:
        task = asyncio.create_task(self._deliver(callback))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, callback: Callback) -> None:
        """Attempt a callback until it is delivered, lost, or too old."""
        if callback.after is not None:
            await callback.after.tried.wait()
        if callback.delay and not callback.attempts:
            await asyncio.sleep(callback.due - time.monotonic())
        while callback.state == "pending":
            await self.running.wait()
            # The semaphore is made anew when the setting has changed.
            limit = self._destination().concurrency
            if self._slots[0] != limit:
                self._slots = (limit, asyncio.Semaphore(limit))
            async with self._slots[1]:
                callback.problem = await self._attempt(callback)
            callback.attempts += 1
            callback.tried.set()
            if callback.problem is None:
                self._finish(callback, "delivered")
                return
            self.counts["failed_attempts"] += 1
            if self._options.clock() - callback.created_at >= self._options.give_up_seconds:
                self._finish(callback, "given_up")
            else:
                pause = self._destination().retry_seconds(callback.attempts)
                await first_of(self._hurried.wait(), pause)

    async def _attempt(self, callback: Callback) -> str | None:
        """Post once; return what went wrong."""
        url = self._destination().url_for(callback)
        if url is None or self._session is None:
            return "no webhook URL"
        own = self._destination().headers_for(callback)
        # A large body goes as a file, which aiohttp sends in pieces.
        is_large = len(callback.body) > LARGE_BYTES
        try:
            async with self._session.post(
                url,
                data=io.BytesIO(callback.body) if is_large else callback.body,
                headers={"Content-Type": "application/json", **own, **callback.headers},
                allow_redirects=False,
                ssl=True if self.tls is None else self.tls,
            ) as response:
                self.answers[str(response.status)] += 1
                if response.status == HTTPStatus.OK:  # success is 200 alone
                    return None
                return f"answered {response.status}"
        except (aiohttp.ClientError, OSError) as error:
            self.answers[type(error).__name__] += 1
            return f"{type(error).__name__}: {error}"

    def _finish(self, callback: Callback, state: str) -> None:
        callback.state = state
        self.counts[state] += 1
        del self.pending[callback.number]
        if callback in self._held:
            self._held.remove(callback)
        if not self.pending:
            self._idle.set()


async def first_of(awaited: Awaitable[object], seconds: float | None) -> None:
    """Wait for something, but no longer than so many seconds."""
    with suppress(TimeoutError):
        await asyncio.wait_for(awaited, seconds)
