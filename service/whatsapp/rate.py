"""The rate at which a client may be called: a bucket of permits, taken in turn.

The client allows 20 checks a second with a burst of 60 (Meta's page on rate limits of the
On-Premises API), and counts them as they arrive: calls that left apart may arrive together. So a
little less is sent, and a process begins with an almost empty bucket: the one before it, which was
just stopped, may have emptied the client's.
"""

import asyncio
import time
from collections.abc import Callable

PER_SECOND = 19.0
BURST = 50
FIRST = 5.0


class SaturatedError(Exception):
    """A permit would be there only in so many `seconds`, which is longer than was to be waited."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a permit in {seconds:.0f} s")
        self.seconds = seconds


class Rate:
    """A bucket of permits, refilled steadily."""

    def __init__(
        self,
        per_second: float = PER_SECOND,
        burst: int = BURST,
        first: float = FIRST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._permits = first
        self._clock = clock
        self._at = clock()

    async def take(self, patience: float) -> None:
        """Take a permit, and wait (s) until it is there; SaturatedError where that is too long."""
        now = self._clock()
        permits = min(self._burst, self._permits + (now - self._at) * self._per_second)
        seconds = (1 - permits) / self._per_second
        if seconds > patience:
            raise SaturatedError(seconds)
        self._permits, self._at = permits - 1, now
        if seconds > 0:
            await asyncio.sleep(seconds)

    def pause(self, seconds: float) -> None:
        """Let no permit be there for so long: the client said that it is too much."""
        self._permits = min(self._permits, -seconds * self._per_second)
        self._at = self._clock()
