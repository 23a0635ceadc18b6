"""What a relay reads of its log: on from its position, and what is to be sent once more."""

import asyncio
import time
from collections.abc import Callable

from service.model.relays import Entry, Schedule
from service.settings import RelaySettings
from service.store.database import SYNTHETIC
from service.store.relays import RelayRow, ReplayRow
from service.workers.relay_log import Log, Routed

ROWS, BYTES = 1000, 4_194_304
"""What a relay has read and not yet delivered, at most: rows, and bytes of their bodies."""
REPLAY_ROWS = 200
"""Rows of a replay that are under way at once."""


class LogReader:
    """Fills a relay's schedule, and keeps what was read until it is delivered.

    `replay` is what is to be sent once more, as far as it was read; `replay_ended` whether that is
    all of it. `on_news` is called once there is something to send.
    """

    def __init__(
        self, settings: RelaySettings, source: Log, schedule: Schedule, on_news: Callable[[], None]
    ) -> None:
        self.replay: ReplayRow | None = None
        self.replay_ended = False
        self.is_paused = False
        self._source = source
        self._schedule = schedule
        self._on_news = on_news
        self._accounts, self._kinds = frozenset(settings.accounts), frozenset(settings.kinds)
        # By replay and id.
        self._kept: dict[tuple[int, int], Routed] = {}
        self._bytes = 0
        self._done_up_to, self._undone = 0, frozenset[int]()
        self._room = asyncio.Event()

    def begin_at(self, row: RelayRow) -> None:
        """Go on from a stored position; what was done beyond it is passed over."""
        self._schedule.read_up_to = row.position
        self._done_up_to, self._undone = row.read_up_to, frozenset(row.undone)

    def wake(self) -> None:
        """Look whether there is something to be read."""
        self._room.set()

    def note_commit(self) -> None:
        """Look for more, if a commit has appended to the log."""
        if self._source.has_after(self._schedule.read_up_to):
            self._room.set()

    async def run(self) -> None:
        """Read on, whenever there is something new and room for it. Raises UnavailableError."""
        while True:
            self._room.clear()
            if not self.is_paused and (await self._read_on() or await self._read_replay()):
                self._on_news()
            elif self.is_paused or self._source.is_in_order:
                await self._room.wait()
            else:
                await self._source.wait(self._room)

    async def _read_on(self) -> bool:
        """Read the next rows of the log; return whether there were any."""
        await self._source.look()
        schedule, newest = self._schedule, self._source.newest
        has_room = len(schedule.entries) < ROWS and self._bytes < BYTES
        if not has_room or schedule.read_up_to >= newest:
            return False
        found = await self._source.read(schedule.read_up_to)
        now = time.monotonic()
        for routed in found:
            id_ = routed.row.id
            is_done = id_ <= self._done_up_to and id_ not in self._undone
            if is_done or not self._wants(routed):
                schedule.skip(id_)
            else:
                self._keep(0, routed)
                schedule.add(_entry(routed, now))
        if not found:
            schedule.skip(newest)
        return True

    async def _read_replay(self) -> bool:
        """Read on in what is to be sent once more; return whether something was read."""
        replay, schedule = self.replay, self._schedule
        if replay is None or self.replay_ended or schedule.replaying >= REPLAY_ROWS:
            return False
        found = await self._source.read(replay.position, replay.until_id)
        for routed in filter(self._wants, found):
            self._keep(replay.id, routed)
            schedule.add_replayed(_entry(routed, time.monotonic(), replay.id))
        self.replay_ended = not found
        if found:
            self.replay = replay._replace(position=found[-1].row.id)
        return True

    def _wants(self, routed: Routed) -> bool:
        """Return whether any part of it is asked for: it goes whole. What doctor sends never is."""
        if routed.row.state == SYNTHETIC:
            return False
        routing = routed.routing
        if self._accounts and self._accounts.isdisjoint(routing.accounts):
            return False
        return not self._kinds or not self._kinds.isdisjoint(routing.kinds)

    def _keep(self, replay: int, routed: Routed) -> None:
        self._kept[replay, routed.row.id] = routed
        self._bytes += len(routed.row.body)

    async def row_of(self, entry: Entry) -> Routed | None:
        """Return what an entry stands for, if it is still kept. Raises UnavailableError."""
        kept = self._kept.get((entry.replay, entry.log_id))
        return kept or await self._source.row(entry.log_id)

    def forget(self) -> None:
        """Read again whatever is to be sent: something of it was erased."""
        self._kept.clear()
        self._bytes = 0

    def drop(self, entry: Entry) -> None:
        """Let go of what was read for an entry."""
        kept = self._kept.pop((entry.replay, entry.log_id), None)
        if kept is None:
            return
        self._bytes -= len(kept.row.body)
        is_behind = self._schedule.read_up_to < self._source.newest
        if self.replay is not None or (is_behind and len(self._schedule.entries) < ROWS // 2):
            self._room.set()

    async def arrived_after(self, id_: int) -> int | None:
        """Return when (Unix ms) the first row after an id arrived. Raises UnavailableError."""
        first = self._kept.get((0, id_ + 1))
        return first.row.at if first else await self._source.arrived_after(id_)


def _entry(routed: Routed, now: float, replay: int = 0) -> Entry:
    row, routing = routed
    return Entry(row.id, routing.kinds, routing.names, routing.is_of_one, replay=replay, due_at=now)
