"""What both APIs have: the record of calls, the faults on them, the callbacks, a new beginning."""

import asyncio
import hashlib
import math
import secrets
from collections import Counter, deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

from service.simulator.delivery import Callback, Delivery, first_of
from service.simulator.faults import Fault, Faults
from service.simulator.options import ApiOptions

KEPT_CALLS = 100_000
KEPT_MESSAGES = 10_000


@dataclass(slots=True)
class Call:
    """One call that came in; `at` in Unix seconds."""

    operation: str
    method: str
    path: str
    request_id: str
    at: float
    wa_id: str | None = None
    hash: str | None = None
    """The hash that a PUT brought."""
    outcome: str = "no_effect"
    """The outcome here, whatever was answered: for a PUT `acknowledged`, `already`, `stale`,
    `unknown_user`, `unreadable`, or `no_effect` when a fault or a missing token kept it out."""
    status: int | None = None
    """The HTTP status that was answered; None for a dropped or hung call."""
    faulty: bool = False
    """Whether a fault applied to it."""


@dataclass(slots=True)
class Media:
    """A file that the business uploaded; the file itself is not kept."""

    id: str
    content_type: str
    size: int
    sha256: str

    @classmethod
    async def receive(cls, content_type: str, chunks: AsyncIterable[bytes]) -> Self:
        """Read a file to its end, and give it an id."""
        size, digest = 0, hashlib.sha256()
        async for chunk in chunks:
            size += len(chunk)
            digest.update(chunk)
        return cls(str(secrets.randbelow(10**15)), content_type, size, digest.hexdigest())


class Calls:
    """Every call, the last 100,000 in full; `calls["identity_put"]` counts one operation."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.in_flight: Counter[str] = Counter()
        self.most_in_flight: Counter[str] = Counter()
        """The largest number of calls of an operation that were under way at once."""
        self.list: deque[Call] = deque(maxlen=KEPT_CALLS)

    def __getitem__(self, operation: str) -> int:
        return self.counts[operation]

    def __iter__(self) -> Iterator[Call]:
        return iter(self.list)

    def __len__(self) -> int:
        return self.counts.total()

    def begin(self, call: Call) -> None:
        """Record a call that came in."""
        self.list.append(call)
        self.counts[call.operation] += 1
        self.in_flight[call.operation] += 1
        under_way = self.in_flight[call.operation]
        self.most_in_flight[call.operation] = max(under_way, self.most_in_flight[call.operation])

    def end(self, call: Call) -> None:
        """Record that a call is over."""
        self.in_flight[call.operation] -= 1

    def of(self, operation: str, wa_id: str | None = None) -> list[Call]:
        """Return the calls of an operation, of one user or of all."""
        return [
            call
            for call in self.list
            if call.operation == operation and wa_id in (None, call.wa_id)
        ]


class Api:
    """One API of the simulator; its actions are what a test or the control API makes it do."""

    options: ApiOptions
    delivery: Delivery
    """What delivers the callbacks."""

    def __init__(self, options: ApiOptions) -> None:
        self._initial = options.model_copy()
        self.options = options.model_copy()
        self.closing = asyncio.Event()
        """Ends every hanging call when the simulator stops."""
        self._begin()

    def _begin(self) -> None:
        """Begin as the options say; each API adds the state of its own."""
        self.calls = Calls()
        self.media: deque[Media] = deque(maxlen=KEPT_MESSAGES)
        """The files that the business uploaded."""
        self.faults = Faults(self.options.seed)
        for fault in self.options.faults:
            self.faults.add(fault)

    @property
    def callbacks(self) -> list[Callback]:
        """The callbacks so far, each with its state and its attempts."""
        return list(self.delivery.history)

    def now(self) -> float:
        """Return the time in Unix seconds."""
        return self.options.clock()

    def new_request_id(self) -> str:
        """Return an id for a call that brought none."""
        return secrets.token_hex(16)

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the simulator."""
        await first_of(self.closing.wait(), None if math.isinf(seconds) else seconds)

    async def answer(
        self,
        request: web.Request,
        call: Call,
        act: Callable[[], Awaitable[web.StreamResponse]],
        failed: Callable[[int], web.StreamResponse],
    ) -> web.StreamResponse:
        """Record a call, and answer it by `act`, or as the fault says that applies to it.

        `failed` makes the API's own answer with a status.
        """
        calls, fault = self.calls, self.faults.take(call.operation, call.wa_id)
        calls.begin(call)
        try:
            if fault is None:
                response = await act()
            else:
                call.faulty = True
                if fault.latency:
                    await self.pause(fault.latency)
                response = await act() if fault.takes_effect else web.Response()
                if fault.drop or fault.hang:
                    if fault.hang:
                        await self.pause(fault.hang)
                    if request.transport is not None:
                        request.transport.abort()
                    return web.Response()
                if fault.replaces_answer:
                    status = fault.status or 200
                    response = (
                        failed(status) if fault.body is None else _literal(fault.body, status)
                    )
            call.status = response.status
            return response
        finally:
            calls.end(call)

    def fault(self, operation: str, **what: Any) -> int:
        """Switch a fault on and return its number; see `Fault` for what can go wrong."""
        return self.faults.add(Fault.model_validate({"operation": operation, **what}))

    def clear_faults(self) -> None:
        """Switch every fault off, and deliver what one of them held."""
        self.faults.clear()
        self.delivery.release()

    def retry_now(self) -> int:
        """Try every pending callback now rather than at its time; return how many there are."""
        self.delivery.hurry()
        return len(self.delivery.pending)

    async def settled(self, timeout: float = 10) -> None:  # noqa: ASYNC109 - what tests call it
        """Wait until every callback is delivered; TimeoutError after so many seconds."""
        await self.delivery.settled(timeout)

    async def reset(self) -> None:
        """Forget everything: users, calls, messages, faults, callbacks, changed settings."""
        await self.delivery.pause()
        for name in type(self.options).model_fields:
            setattr(self.options, name, getattr(self._initial, name))
        self._begin()
        self.delivery.resume()


def _literal(body: str, status: int) -> web.Response:
    """Answer a body as it is; what looks like a page is one, as a proxy would answer it."""
    is_page = body.lstrip().startswith("<")
    content_type = "text/html" if is_page else "application/json"
    return web.Response(text=body, status=status, content_type=content_type)
