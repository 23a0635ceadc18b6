"""Rate limits: so many calls a second, with a burst."""

from collections.abc import Callable


class RateLimit:
    """A bucket of `burst` permits, refilled at `per_second`."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._permits = float(burst)
        self._at = clock()

    def allows(self) -> bool:
        """Take one permit; False when none is left."""
        now = self._clock()
        refilled = self._permits + (now - self._at) * self._per_second
        self._permits, self._at = min(float(self._burst), refilled), now
        if self._permits < 1:
            return False
        self._permits -= 1
        return True
