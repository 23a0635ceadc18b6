"""Relays: each reads a log from its position on, and passes on what its destination asked for."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import structlog

from service.ledger.ledger import Ledger
from service.ledger.relays import SaveProgress
from service.model.pace import Pace
from service.model.relays import MAX_ROWS, Entry, Result, RowState, Schedule, result_of
from service.model.shapes import time_of
from service.observability import failpoints
from service.observability.metrics import Metrics
from service.settings import RelaySettings
from service.store.database import ERASED, ChangeSet, Database, UnavailableError
from service.store.relays import (
    Progress,
    RelayRow,
    ReplayRow,
    Source,
    delivery_rows,
    relay_rows,
    replay_rows,
)
from service.workers.destinations import Answer, Destination
from service.workers.relay_log import Log
from service.workers.relay_reader import LogReader
from service.workers.relay_rows import entry_of, row_of

STATES = ("running", "backing_off", "paused")
GONE, TOO_MANY_ROWS = "gone", "too_many_rows"
"""Why a relay pauses by itself."""

BUSY_PER_SECOND = 1200
"""Deliveries of all relays together while the ledger is busy: callbacks go first."""
SAVE_SECONDS = 1.0
LOOK_SECONDS = 60.0
"""How often a relay looks at everything, whether it was woken up or not."""
DATABASE_PAUSE_SECONDS = 1.0
FINISH_SECONDS = 2.0
"""How long open deliveries may take once the service stops."""

log = structlog.get_logger(__name__)


class Relay:
    """One relay. The properties say where it stands."""

    def __init__(
        self,
        name: str,
        settings: RelaySettings,
        source: Log,
        *,
        ledger: Ledger,
        database: Database,
        metrics: Metrics,
    ) -> None:
        self.name = name
        self.settings = settings
        self.paused_by: str | None = None
        self.last_error: str | None = None
        self.last_delivered_at: int | None = None
        self.skipped = 0
        self._source = source
        source.readers += 1
        self._ledger = ledger
        self._database = database
        self._metrics = metrics
        self._destination = Destination(settings)
        self._pace = Pace(settings.max_in_flight, settings.rate_per_second)
        self._schedule = Schedule(0, settings.give_up_after_hours * 3600, settings.ordered)
        self._open = 0
        self._stopping = False
        self._gives_way_until = 0.0
        self._look_at = 0.0
        self._saved = Progress(0, 0, ())
        self._unsaved_skipped = 0
        self._unsaved_pause: str | None = None
        self._asked = RelayRow(name, "", 0, 0, (), None, None, 0)
        self._retried: set[int] = set()
        self._last_replay = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._news, self._dirty = asyncio.Event(), asyncio.Event()
        self._reader = LogReader(settings, source, self._schedule, self._look)

    async def restore(self) -> None:
        """Find out how far it had come."""
        rows = await self._database.read(relay_rows)
        row = next(row for row in rows if row.name == self.name)
        stored = await self._database.read(partial(delivery_rows, relay=self.name))
        self._reader.begin_at(row)
        self._saved = Progress(row.position, row.read_up_to, tuple(row.undone))
        now, next_delivery = self._ledger.clock(), max((one.id for one in stored), default=0) + 1
        self._schedule.restore([entry_of(one, now) for one in stored], next_delivery)
        self.last_delivered_at, self.skipped = row.last_delivered_at, row.skipped
        self.pause(row.paused_by)
        self._asked = row
        await self._next_replay()

    async def _next_replay(self) -> None:
        """Go on with the replay that was asked for first, if there is one."""
        rows = await self._database.read(partial(replay_rows, relay=self.name))
        self._reader.replay, self._reader.replay_ended = rows[0] if rows else None, False
        self._reader.wake()

    def start(self) -> None:
        """Begin to read and to send."""
        self._ledger.listeners.append(self._on_commit)
        for loop in (self._reader.run, self._send, self._save, self._look_again):
            self._loops.append(asyncio.create_task(self._kept_up(loop)))

    async def _kept_up(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop; what goes wrong in it is logged, and it goes on."""
        while True:
            try:
                await loop()
            except UnavailableError:
                pass
            except Exception:
                log.exception("a relay failed", relay=self.name)
            await asyncio.sleep(DATABASE_PAUSE_SECONDS)

    def _on_commit(self, _: ChangeSet) -> None:
        self._reader.note_commit()

    def _look(self) -> None:
        """Look what may be sent, and what is to be saved."""
        self._news.set()
        self._dirty.set()

    async def _look_again(self) -> None:
        """Look from time to time, whatever should have been noticed before."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._reader.wake()
            self._look()

    # Sending.

    async def _send(self) -> None:
        """Begin deliveries, whenever there is something to send and it may be sent."""
        while True:
            self._news.clear()
            while (entry := self._next()) is not None:
                task = asyncio.create_task(self._work(entry))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            # Without a timer where no time is waited for: it costs as much as the waiting.
            seconds = None if self._look_at == math.inf else self._look_at - time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait()

    def _next(self) -> Entry | None:
        """Return what may be sent now, and count it as open.

        Where nothing may, None, and `_look_at` says when time alone will have changed that.
        """
        pace, now = self._pace, time.monotonic()
        self._look_at = math.inf
        if self._stopping or self.paused_by is not None:
            return None
        if not pace.may_begin(self._open, now):
            # Where too many are open, one that ends is waited for.
            self._look_at = pace.next_at() if pace.next_at() > now else math.inf
            return None
        if self._ledger.is_busy:
            if now < self._gives_way_until:
                self._look_at = self._gives_way_until
                return None
            self._gives_way_until = now + self._source.readers / BUSY_PER_SECOND
        take = self._schedule.take_probe if pace.is_backing_off else self._schedule.take
        entry = take(now)
        if entry is None:
            self._look_at = self._schedule.next_at() or math.inf
            return None
        pace.begin(now)
        self._open += 1
        return entry

    async def _work(self, entry: Entry | None) -> None:
        """Deliver one after another, for as long as there is something that may be sent."""
        while entry is not None:
            try:
                await self._deliver(entry)
            except UnavailableError:
                self._put_back(entry)
            except asyncio.CancelledError:
                self._put_back(entry)
                raise
            except Exception:
                log.exception("a delivery failed", relay=self.name)
                self._put_back(entry)
            finally:
                self._open -= 1
                self._dirty.set()
            has_room = self._pace.may_begin(self._open + 1, time.monotonic())
            entry = self._next()
            # This task goes on with one. Where more may begin beside it, now or when it is due,
            # others are started; where nothing waits, nobody is woken up.
            has_more = has_room and self._schedule.next_at() is not None
            if has_more or self._look_at < math.inf:
                self._news.set()

    def _put_back(self, entry: Entry) -> None:
        entry.due_at = time.monotonic() + DATABASE_PAUSE_SECONDS
        self._schedule.put_back(entry)

    async def _deliver(self, entry: Entry) -> None:
        """Send what an entry stands for, and note what came of it."""
        found = await self._reader.row_of(entry)
        if found is None or found.row.state == ERASED:
            self._schedule.forget(entry)
            if found is None and not await self._source.is_erased(entry.log_id):
                self._skip(1)
            return
        row, id_ = found.row, f"{self._source.ids}{entry.log_id}"
        headers = {
            "Ackgate-Received-At": time_of(row.at),
            "Ackgate-Attempt": str(entry.attempts + 1),
            **self._source.headers(row, found.routing),
        }
        if entry.replay:
            headers["Ackgate-Replay-Of"] = id_
            id_ = f"{id_}.{entry.replay}"
        began = time.monotonic()
        answer = await self._destination.send(id_, headers, row.body)
        self._record(entry, row.at, answer, began)

    def _record(self, entry: Entry, arrived: int, answer: Answer, began: float) -> None:
        """Note what came of a delivery."""
        now, chance, result = time.monotonic(), random.random(), result_of(answer.status)  # noqa: S311  spreads retries
        entry.last_status, entry.last_error, entry.answer = answer.status, answer.error, answer.text
        if result is Result.FAILED:
            self._pace.failed(began, now, chance, answer.wish)
        else:
            self._pace.succeeded()
        is_down = self._pace.is_backing_off
        self._schedule.record(entry, result, now, chance, is_down=is_down)
        self._metrics.observe_delivery(self.name, result, now - began)
        if result is Result.DELIVERED:
            self.last_delivered_at = self._ledger.clock()
            if entry.attempts == 1 and not entry.replay:
                seconds = (self.last_delivered_at - arrived) / 1000
                self._metrics.observe_delivery_delay(self.name, max(0.0, seconds))
            self._reader.drop(entry)
        else:
            self.last_error = answer.error
        if result is Result.GONE:
            self._pause_by_itself(GONE)
        elif len(self._schedule.rows) > MAX_ROWS:
            self._pause_by_itself(TOO_MANY_ROWS)

    def _pause_by_itself(self, why: str) -> None:
        if self.paused_by is None:
            log.warning("a relay is paused", relay=self.name, reason=why)
            self._unsaved_pause = why
            self.pause(why)

    def _skip(self, count: int) -> None:
        if count == 0:
            return
        self._dirty.set()
        self.skipped += count
        self._unsaved_skipped += count
        self._metrics.relay_skipped.labels(self.name).inc(count)

    # What a person asks, through whatever replica: it is in the database.

    def forget(self) -> None:
        """Read again from the database what is to be sent: something of it was erased."""
        self._reader.forget()
        self._source.forget()

    def heed(self, row: RelayRow, retries: Sequence[int], replays: Sequence[ReplayRow]) -> None:
        """Do what the database says by now that a person asked, as far as that is not done yet."""
        before, self._asked = self._asked, row
        if row.resumed_at != before.resumed_at and row.paused_by is None:
            self._resume()
        elif row.paused_by != before.paused_by:
            self.pause(row.paused_by)
        if new := [id_ for id_ in retries if id_ not in self._retried]:
            self._retry(new)
        replay = next((one for one in replays if one.id > self._last_replay), None)
        if replay is not None and self._reader.replay is None:
            self._reader.replay = replay
            self._reader.wake()

    def pause(self, by: str | None) -> None:
        """Send nothing more; `by` is who says so, or why it pauses by itself. None: send again."""
        self.paused_by, self._reader.is_paused = by, by is not None

    def _resume(self) -> None:
        """Send again, and at once."""
        self._unsaved_pause = None
        self.pause(None)
        self._pace = Pace(self.settings.max_in_flight, self.settings.rate_per_second)
        self._reader.wake()
        self._news.set()

    def _retry(self, ids: Sequence[int]) -> None:
        """Try rows again now. They stay marked until that is saved."""
        for id_ in ids:
            self._schedule.retry(id_, time.monotonic())
        self._retried.update(ids)
        self._dirty.set()
        self._news.set()

    def use(self, settings: RelaySettings) -> None:
        """Go by a configuration that was read again: URL, secrets and headers may differ."""
        self.settings = settings
        self._destination.use(settings)

    # Where it stands.

    @property
    def state(self) -> str:
        """Whether it sends: running, backing_off or paused."""
        if self.paused_by is not None:
            return "paused"
        return "backing_off" if self.is_backing_off else "running"

    @property
    def source(self) -> Source:
        """Which log it reads."""
        return self._source.source

    @property
    def is_backing_off(self) -> bool:
        """Whether its destination seems to be down."""
        return self._pace.is_backing_off

    async def behind(self) -> int:
        """Return how many rows of the log are neither delivered, nor passed over, nor have a row.

        Raises UnavailableError.
        """
        return await self._source.count(self._schedule.read_up_to) + len(self._schedule.entries)

    def counts(self) -> dict[RowState, int]:
        """Return how many rows there are by state."""
        counts = dict.fromkeys(RowState, 0)
        for entry in self._schedule.rows.values():
            if entry.state is not None:
                counts[entry.state] += 1
        return counts

    async def behind_seconds(self) -> float:
        """Return the age (s) of the oldest row that it is behind with; 0 if with none.

        Raises UnavailableError.
        """
        at = await self._reader.arrived_after(self._schedule.position)
        return 0.0 if at is None else max(0.0, (self._ledger.clock() - at) / 1000)

    @property
    def needs_from(self) -> int:
        """The id from which on it needs the log: for what it has not delivered, dead or not."""
        needed = [entry.log_id for entry in self._schedule.rows.values()]
        if (replay := self._reader.replay) is not None:
            needed.append(replay.position + 1)
        return min([self._schedule.position + 1, *needed])

    async def needed_seconds(self) -> float:
        """Return the age (s) of the oldest row that it needs, 0 for none.

        Raises UnavailableError.
        """
        at = await self._source.arrived_after(self.needs_from - 1)
        return 0.0 if at is None else max(0.0, (self._ledger.clock() - at) / 1000)

    def forget_skipped(self) -> None:
        """Count anew what is deleted before it was delivered, as the database does by now."""
        self.skipped = self._unsaved_skipped

    def lose(self, ids: Sequence[int]) -> None:
        """Note that rows were deleted from the log; those that it never read are counted."""
        self._skip(sum(1 for id_ in ids if id_ > self._schedule.read_up_to))

    # Keeping what was done.

    async def _save(self) -> None:
        """Write what was done, once a second, all relays together."""
        while True:
            await self._dirty.wait()
            await asyncio.sleep(SAVE_SECONDS - time.time() % SAVE_SECONDS)
            self._dirty.clear()
            await self.save()

    async def save(self) -> None:
        """Write what was done since. Raises UnavailableError: then the next time writes it."""
        schedule = self._schedule
        # Taken now, for more may be done, and saved, while this is written.
        changed, schedule.changed = schedule.changed, {}
        ended, schedule.ended = schedule.ended, []
        skipped, self._unsaved_skipped = self._unsaved_skipped, 0
        paused_by, self._unsaved_pause = self._unsaved_pause, None
        retried = [*self._retried]
        for entry in changed.values():
            if not entry.is_open and entry.attempts:
                self._reader.drop(entry)
        command = SaveProgress(
            self.name,
            Progress(schedule.position, schedule.read_up_to, schedule.undone),
            self.last_delivered_at,
            [row_of(self.name, entry, self._ledger.clock()) for entry in changed.values()],
            ended,
            self._reader.replay,
            self._reader.replay_ended,
            skipped,
            paused_by,
            retried,
        )
        nothing_new = not (changed or ended or command.replay or skipped or paused_by or retried)
        if nothing_new and command.progress == self._saved:
            return
        try:
            failpoints.reached("relay.before_save")
            await self._ledger.submit(command)
            failpoints.reached("relay.after_save")
        except BaseException:
            still = {id_: entry for id_, entry in changed.items() if id_ in schedule.rows}
            schedule.changed = still | schedule.changed
            schedule.ended[:0] = ended
            self._unsaved_skipped += skipped
            self._unsaved_pause = paused_by
            self._dirty.set()
            raise
        self._saved = command.progress
        self._retried.difference_update(retried)
        if command.replay_ended and command.replay is not None:
            self._last_replay = command.replay.id
            await self._next_replay()

    async def stop(self) -> None:
        """Read and send nothing more."""
        self._stopping = True
        if self._on_commit in self._ledger.listeners:
            self._ledger.listeners.remove(self._on_commit)
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def finish(self, seconds: float) -> None:
        """Let open deliveries end, for two seconds at most, and write what was done."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, min(seconds, FINISH_SECONDS)))
        open_still = [*self._tasks]
        for task in open_still:
            task.cancel()
        await asyncio.gather(*open_still, return_exceptions=True)
        with suppress(UnavailableError):
            await self.save()

    async def close(self) -> None:
        """Close the connections."""
        await self._destination.close()
