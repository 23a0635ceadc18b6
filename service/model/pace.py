"""How fast a destination is sent to: less where it fails, one probe where it is down. Pure.

As TCP does it: each success allows one more at once, each failure fewer. After some failures with
no success in between the destination is taken for down, and after each pause one delivery alone is
tried.
"""

from dataclasses import dataclass

DOWN_AFTER = 5
"""So many failures in a row are taken for a destination that is down."""
FEWER = 0.7
"""This part of what was allowed at once stays allowed after a failure."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
LONGEST_WISH_SECONDS = 3600.0
"""What a Retry-After may ask for at most."""


@dataclass(slots=True)
class Pace:
    """What may be sent now. Times are seconds of one steady clock; `chance` is from 0 to 1.

    `pauses` is how many came one after another, `paused_until` when the last of them ends.
    """

    max_in_flight: int
    per_second: float = 0.0
    pauses: int = 0
    paused_until: float = 0.0
    _allowed: float = 0.0
    _in_a_row: int = 0
    _paused_at: float = 0.0
    _next_at: float = 0.0

    def __post_init__(self) -> None:
        self._allowed = float(self.max_in_flight)

    @property
    def is_backing_off(self) -> bool:
        """Whether the destination is taken for down."""
        return self.pauses > 0

    def may_begin(self, open_now: int, now: float) -> bool:
        """Return whether one more delivery may begin, beside those that are open."""
        return now >= self.next_at() and open_now < (1 if self.pauses else int(self._allowed))

    def next_at(self) -> float:
        """Return when the next delivery may begin, as far as time is in its way."""
        return max(self.paused_until, self._next_at)

    def begin(self, now: float) -> None:
        """Note that a delivery begins."""
        if self.per_second > 0:
            # What was not used of the last second may be made up for.
            self._next_at = max(self._next_at, now - 1) + 1 / self.per_second

    def succeeded(self) -> None:
        """Note that a delivery was answered: the destination is there."""
        self._allowed = 1.0 if self.pauses else min(self._allowed + 1, self.max_in_flight)
        self._in_a_row = self.pauses = 0

    def failed(self, begun_at: float, now: float, chance: float, wish: float | None) -> None:
        """Note that one failed which began at a time; `wish` is its Retry-After, in seconds."""
        if wish is not None:
            self.paused_until = max(self.paused_until, now + min(wish, LONGEST_WISH_SECONDS))
        if self.pauses and begun_at < self._paused_at:
            return  # it was open when the pause began, so it tells nothing new
        self._in_a_row += 1
        self._allowed = max(1.0, self._allowed * FEWER)
        if self.pauses or self._in_a_row >= DOWN_AFTER:
            seconds = min(FIRST_PAUSE_SECONDS * 2**self.pauses, LONGEST_PAUSE_SECONDS)
            self.paused_until = max(self.paused_until, now + seconds * (0.75 + chance / 2))
            self._paused_at = now
            self.pauses = min(self.pauses + 1, 30)
