"""One line a minute about what others can cause as often as they like."""

import asyncio
from collections import Counter
from contextvars import Context
from typing import Any

TELL_SECONDS = 60.0


class Tally:
    """Counts what happened, by reason, and writes one warning a minute with the counts.

    The first one is told at once. Whoever causes thousands a second fills no log, and the line
    holds nothing of what they sent.
    """

    def __init__(self, log: Any, event: str, *, every: float = TELL_SECONDS) -> None:
        self._log = log
        self._event = event
        self._every = every
        self._reasons: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def count(self, reason: str) -> None:
        """Count one; it is told within a minute."""
        self._reasons[reason] += 1
        if self._timer is None:
            self.tell()

    def tell(self) -> None:
        """Write what was counted since the last line, if anything, and wait for the next minute."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._reasons:
            return
        reasons, self._reasons = dict(self._reasons), Counter()
        # In a context of its own: the next line is not about the request that was counted last.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._every, self.tell, context=Context())
        self._log.warning(self._event, count=sum(reasons.values()), reasons=reasons)

    def close(self) -> None:
        """Write what was counted since the last line, and nothing after it."""
        self.tell()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
