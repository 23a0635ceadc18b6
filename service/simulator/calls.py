"""What the simulator saw: every call that came in, counted by operation."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

KEPT_CALLS = 100_000


@dataclass(slots=True)
class Call:
    """One call to the client; `at` in Unix seconds."""

    operation: str
    method: str
    path: str
    request_id: str
    at: float
    wa_id: str | None = None
    hash: str | None = None
    """The hash that a PUT brought."""
    outcome: str = "no_effect"
    """What it came to here, whatever was answered: for a PUT `acknowledged`, `already`, `stale`,
    `unknown_user`, `unreadable`, or `no_effect` when a fault or a missing token kept it out."""
    status: int | None = None
    """The HTTP status that was answered; None for a dropped or hung call."""
    faulty: bool = False
    """Whether a fault struck it."""


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
        """Note that a call came in."""
        self.list.append(call)
        self.counts[call.operation] += 1
        self.in_flight[call.operation] += 1
        under_way = self.in_flight[call.operation]
        self.most_in_flight[call.operation] = max(under_way, self.most_in_flight[call.operation])

    def end(self, call: Call) -> None:
        """Note that a call is over."""
        self.in_flight[call.operation] -= 1

    def of(self, operation: str, wa_id: str | None = None) -> list[Call]:
        """Return the calls of an operation, of one user or of all."""
        return [
            call
            for call in self.list
            if call.operation == operation and wa_id in (None, call.wa_id)
        ]
