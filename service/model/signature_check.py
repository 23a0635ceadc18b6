"""Whether the callbacks of an app seem to be signed with another secret than the configured one."""

from collections import deque
from dataclasses import dataclass, field

ENOUGH = 10
"""So many wrong ones, and no right one, within `WITHIN_MS`: strangers send fewer than Meta."""
WITHIN_MS = 600_000
LINE_EVERY_MS = 60_000
"""How often a line in the log may tell of them."""


@dataclass(slots=True)
class SignatureCheck:
    """What the signatures of one app's callbacks show; times are Unix milliseconds.

    `since` is when there were enough wrong ones; a right one ends that. `wrong` counts them since
    the last right one, `missing` those among them that had no signature at all. All of it is kept
    in memory and begins anew with each start: while the secret is wrong, Meta delivers again.
    """

    app: str
    since: int | None = None
    wrong: int = 0
    missing: int = 0
    _newest: deque[int] = field(default_factory=lambda: deque(maxlen=ENOUGH))
    _told_at: int | None = None
    _untold: int = 0

    def note_wrong(self, now: int, *, missing: bool) -> int:
        """Note a callback that was refused; return how many the log is to tell of now, or 0."""
        self.wrong += 1
        self.missing += missing
        self._newest.append(now)
        if self.since is None and len(self._newest) == ENOUGH:
            self.since = now if now - self._newest[0] <= WITHIN_MS else None
        self._untold += 1
        if self._told_at is not None and 0 <= now - self._told_at < LINE_EVERY_MS:
            return 0
        told, self._untold, self._told_at = self._untold, 0, now
        return told

    def clear(self) -> None:
        """Begin anew: a signature was right, other than the doctor's; or a person dismissed it."""
        self.since = None
        self.wrong = self.missing = 0
        self._newest.clear()

    @property
    def detail(self) -> str:
        """What is wrong, for people."""
        how = f", {self.missing} of them without any" if self.missing else ""
        return (
            f"{self.wrong} callbacks of the app {self.app} were refused (401) for their signature"
            f"{how}, and none was taken meanwhile"
        )
