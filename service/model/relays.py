"""What a relay is to send next, and what becomes of a callback that could not be sent. Pure.

A relay reads a log from a position on. What it has read and not yet delivered are its *entries*, in
order. The position is before the first entry that is neither delivered nor has a *row* of its own:
a row is what a failed callback is remembered by, so that the position can go on without it. Behind
a row of a user, later callbacks of that user alone get rows too, and wait.

Only a 400, 413, 415 or 422 says that a callback is at fault. Everything else may mean that the
destination is down or deployed badly, and then nothing is moved: an entry gets a row after three
failures, and only where another was delivered since its first.
"""

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

VERDICTS = frozenset({400, 413, 415, 422})
GONE = 410
MIN_FAILURES = 3
ENTRY_DELAY_SECONDS, LONGEST_ENTRY_DELAY_SECONDS = 1.0, 4.0
ROW_DELAY_SECONDS, LONGEST_ROW_DELAY_SECONDS = 10.0, 3600.0
MAX_ROWS = 10_000


class RowState(StrEnum):
    """What becomes of a callback that has a row."""

    RETRYING = "retrying"
    WAITING = "waiting"
    DEAD = "dead"


class Result(StrEnum):
    """What came of a delivery."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    FAILED = "failed"
    GONE = "gone"


def result_of(status: int | None) -> Result:
    """Return what a status says of a delivery; None where there was no answer."""
    if status is None:
        return Result.FAILED
    if 200 <= status < 300:  # noqa: PLR2004  the class of success
        return Result.DELIVERED
    if status == GONE:
        return Result.GONE
    return Result.REFUSED if status in VERDICTS else Result.FAILED


@dataclass(slots=True, eq=False)
class Entry:
    """A row of the log that is to be delivered. Times are seconds of one steady clock.

    `names` are those of the users, as far as their order is kept; one that concerns several users
    has `is_of_one` false. `state` is None until it gets a row, `delivery` is that row's id.
    `replay` is the replay that it belongs to, 0 for none; `gives_up_at` when it is dead.
    """

    log_id: int
    kinds: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    is_of_one: bool = True
    replay: int = 0
    delivery: int | None = None
    state: RowState | None = None
    attempts: int = 0
    due_at: float = 0.0
    gives_up_at: float | None = None
    last_status: int | None = None
    last_error: str | None = None
    answer: str | None = None
    is_open: bool = False
    is_ready: bool = False
    delivered_before: int | None = None
    probed: int = 0
    queues: tuple[tuple[int, str], ...] = ()
    """The queues that it stands in, one for each name; a replay has queues of its own."""


@dataclass(slots=True)
class Schedule:
    """The entries of one relay. `read_up_to` is the id up to which the log was read.

    `changed` are the entries whose row is to be written, `ended` the ids of rows to be deleted.
    `replaying` is how many entries of replays are neither delivered nor dead.
    """

    read_up_to: int
    give_up_seconds: float
    ordered: bool = True
    delivered: int = 0
    entries: dict[int, Entry] = field(default_factory=dict)
    rows: dict[int, Entry] = field(default_factory=dict)
    changed: dict[int, Entry] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    replaying: int = 0
    _queues: dict[tuple[int, str], deque[Entry]] = field(default_factory=dict)
    _due: list[tuple[float, int, Entry]] = field(default_factory=list)
    _count: int = 0
    _probes: int = 0
    _probed: dict[frozenset[str], int] = field(default_factory=dict)
    _next_delivery: int = 1

    @property
    def position(self) -> int:
        """The id up to which everything is delivered, or has a row."""
        return next(iter(self.entries), self.read_up_to + 1) - 1

    @property
    def undone(self) -> tuple[int, ...]:
        """The ids up to `read_up_to` that are neither delivered nor have a row."""
        return tuple(self.entries)

    def restore(self, rows: Iterable[Entry], next_delivery: int) -> None:
        """Take the rows that were stored, in the order of the log."""
        self._next_delivery = next_delivery
        for entry in rows:
            if entry.delivery is not None:
                self.rows[entry.delivery] = entry
            if entry.state is not RowState.DEAD:
                self._enter(entry)

    def skip(self, log_id: int) -> None:
        """Note that the log was read up to here, with nothing to deliver in it."""
        self.read_up_to = max(self.read_up_to, log_id)

    def add(self, entry: Entry) -> None:
        """Add the next row of the log; one behind a row of its user gets a row at once."""
        self.skip(entry.log_id)
        self.entries[entry.log_id] = entry
        self._enter(entry)
        if self._is_behind_row(entry):
            self._pass_row(entry)

    def add_replayed(self, entry: Entry) -> None:
        """Add an entry of a replay, which has a row from the beginning."""
        self._give_row(entry, RowState.RETRYING)
        self._enter(entry)

    def _enter(self, entry: Entry) -> None:
        """Let an entry stand in the queues of its users, and be sent once it is first in all."""
        self.replaying += entry.replay != 0
        # One of several users that has failed waits alone.
        if self.ordered and (entry.is_of_one or not entry.attempts):
            entry.queues = tuple((entry.replay, name) for name in entry.names)
        for name in entry.queues:
            self._queues.setdefault(name, deque()).append(entry)
        self._look_at(entry)

    def _look_at(self, entry: Entry) -> None:
        """Let an entry be sent, now or when it is due, if it is the first in all its queues."""
        if entry.is_open or entry.is_ready or entry.state is RowState.DEAD:
            return
        if any(self._queues[name][0] is not entry for name in entry.queues):
            return
        if entry.state is RowState.WAITING:
            entry.state = RowState.RETRYING
            self._note(entry)
        entry.is_ready = True
        self._count += 1
        heapq.heappush(self._due, (entry.due_at, self._count, entry))

    def _is_behind_row(self, entry: Entry) -> bool:
        heads = (self._queues[name][0] for name in entry.queues)
        return any(head is not entry and head.state is not None for head in heads)

    def take(self, now: float) -> Entry | None:
        """Return the entry to be sent next, and hold it open; None where none is due."""
        while self._due and self._due[0][0] <= now:
            _, _, entry = heapq.heappop(self._due)
            if entry.is_ready and entry.due_at <= now:
                return self._open(entry)
        return None

    def take_probe(self, now: float) -> Entry | None:
        """Return what to try a destination with that seems to be down: each time another one.

        Those are first whose kind was not tried for the longest; rows are tried where there is
        nothing else, once they are due.
        """
        ready = [entry for entry in self.entries.values() if entry.is_ready]
        if not ready:
            return self.take(now)
        entry = min(ready, key=lambda one: (self._probed.get(one.kinds, 0), one.probed))
        self._probes += 1
        entry.probed = self._probed[entry.kinds] = self._probes
        return self._open(entry)

    def _open(self, entry: Entry) -> Entry:
        entry.is_open, entry.is_ready = True, False
        return entry

    def next_at(self) -> float | None:
        """Return when the next entry is due; None where none is."""
        while self._due and not self._due[0][2].is_ready:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def record(
        self, entry: Entry, result: Result, now: float, chance: float, *, is_down: bool
    ) -> None:
        """Note what came of a delivery. `is_down` is whether the destination seems to be down."""
        # It counts as open until its due time is settled: others that leave look at who is next.
        entry.attempts += 1
        if result is Result.DELIVERED:
            self.delivered += 1
            self._end(entry)
            return
        if entry.delivered_before is None:
            entry.delivered_before = self.delivered
        if not entry.is_of_one:
            self._leave(entry)
        if entry.state is None:
            others_pass = self.delivered > entry.delivered_before
            is_at_fault = entry.attempts >= MIN_FAILURES and others_pass
            if result is Result.REFUSED or is_at_fault:
                self._give_row(entry, RowState.RETRYING)
                self._wait_behind(entry)
        if entry.state is None:
            entry.due_at = now + _delay(
                ENTRY_DELAY_SECONDS, LONGEST_ENTRY_DELAY_SECONDS, entry.attempts, chance
            )
        else:
            entry.due_at = now + _delay(
                ROW_DELAY_SECONDS, LONGEST_ROW_DELAY_SECONDS, entry.attempts, chance
            )
            self._note(entry)
            if entry.gives_up_at is None:
                entry.gives_up_at = now + self.give_up_seconds
            elif now >= entry.gives_up_at and not is_down:
                self._die(entry)
        entry.is_open = False
        self._look_at(entry)

    def put_back(self, entry: Entry) -> None:
        """Let an entry that was taken be sent later after all: nothing is known of a delivery."""
        entry.is_open = False
        self._look_at(entry)

    def forget(self, entry: Entry) -> None:
        """Let an entry go that can't be read any more."""
        entry.is_open = False
        self._end(entry)

    def retry(self, delivery: int, now: float) -> bool:
        """Let a row be sent at once, a dead one too; return whether there is such a row."""
        entry = self.rows.get(delivery)
        if entry is None or entry.is_open:
            return entry is not None
        if entry.state is RowState.DEAD:
            entry.state, entry.gives_up_at = RowState.RETRYING, None
            self.replaying += entry.replay != 0
            entry.names = frozenset()  # the others of its user went on without it
        entry.due_at, entry.is_ready = now, False
        self._note(entry)
        self._look_at(entry)
        return True

    def _give_row(self, entry: Entry, state: RowState) -> None:
        entry.state, entry.delivery = state, self._next_delivery
        self._next_delivery += 1
        self.rows[entry.delivery] = entry
        if not entry.replay:
            del self.entries[entry.log_id]
        self._note(entry)

    def _wait_behind(self, entry: Entry) -> None:
        """Give rows to what is behind it, so that the position can go on."""
        for name in entry.queues:
            for other in [*self._queues[name]]:
                if other is not entry and other.state is None:
                    self._pass_row(other)

    def _pass_row(self, entry: Entry) -> None:
        """Let an entry behind a row wait with a row of its own, or not at all.

        One of several users does not wait: the refusal of one user's callback would hold up
        everybody's.
        """
        if entry.is_of_one:
            self._give_row(entry, RowState.WAITING)
        else:
            self._leave(entry)
            self._look_at(entry)

    def _note(self, entry: Entry) -> None:
        if entry.delivery is not None:
            self.changed[entry.delivery] = entry

    def _die(self, entry: Entry) -> None:
        self.replaying -= entry.replay != 0
        entry.state = RowState.DEAD
        self._note(entry)
        self._leave(entry)

    def _end(self, entry: Entry) -> None:
        if entry.delivery is not None:
            del self.rows[entry.delivery]
            self.changed.pop(entry.delivery, None)
            self.ended.append(entry.delivery)
        if entry.replay:
            self.replaying -= entry.state is not RowState.DEAD
        else:
            self.entries.pop(entry.log_id, None)
        self._leave(entry)

    def _leave(self, entry: Entry) -> None:
        """Let an entry leave its queues, and look at who is first in them now."""
        queues, entry.queues = entry.queues, ()
        for name in queues:
            queue = self._queues[name]
            queue.remove(entry)
            if not queue:
                del self._queues[name]
        for name in queues:
            if name in self._queues:
                self._look_at(self._queues[name][0])


def _delay(first: float, longest: float, attempts: int, chance: float) -> float:
    """Return the seconds until the next try: twice as long each time, give or take a quarter."""
    return float(min(first * 2 ** min(attempts - 1, 20), longest) * (0.75 + chance / 2))
