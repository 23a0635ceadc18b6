"""Relays: each reads a log from its position on, and passes on what its destination asked for."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import structlog

from service.ledger.ledger import Ledger
from service.ledger.relays import SaveProgress
from service.model.pace import Pace
from service.model.relays import MAX_ROWS, Entry, Result, RowState, Schedule, result_of
from service.observability import failpoints
from service.observability.metrics import Metrics
from service.settings import RelaySettings
from service.store.database import SYNTHETIC, ChangeSet, Database, UnavailableError
from service.store.relays import DeliveryRow, ReplayRow, delivery_rows, relay_rows, replay_rows
from service.workers.destinations import Answer, Destination
from service.workers.relay_log import Log, Routed

STATES = ("running", "backing_off", "paused")
GONE, TOO_MANY_ROWS = "gone", "too_many_rows"
"""Why a relay pauses by itself."""

ROWS, BYTES = 1000, 4_194_304
"""What a relay has read and not yet delivered, at most: rows, and bytes of their bodies."""
REPLAY_ROWS = 200
"""Rows of a replay that are under way at once."""
BUSY = 16
"""Where so many commands wait to be committed, callbacks go first: see `BUSY_OPEN`."""
BUSY_OPEN = 2
"""Deliveries that a relay has open meanwhile."""
SAVE_SECONDS = 1.0
DATABASE_PAUSE_SECONDS = 1.0
FINISH_SECONDS = 2.0
"""How long open deliveries may take once the service stops."""
LOOK_SECONDS = 60.0
"""How long a relay waits at most where nothing is due, so that a clock that was set is noticed."""

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
        self._ledger = ledger
        self._database = database
        self._metrics = metrics
        self._accounts, self._kinds = frozenset(settings.accounts), frozenset(settings.kinds)
        self._destination = Destination(settings)
        self._pace = Pace(settings.max_in_flight, settings.rate_per_second)
        self._schedule = Schedule(0, settings.give_up_after_hours * 3600, settings.ordered)
        # What was read and is kept until it is delivered, by replay and id.
        self._kept: dict[tuple[int, int], Routed] = {}
        self._bytes = 0
        self._open = 0
        self._stopping = False
        self._saved_position = 0
        self._replay: ReplayRow | None = None
        self._replay_ended = False
        self._unsaved_skipped = 0
        self._unsaved_pause: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._room, self._news, self._dirty = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def restore(self) -> None:
        """Find out how far it had come."""
        rows = await self._database.read(relay_rows)
        row = next(row for row in rows if row.name == self.name)
        stored = await self._database.read(partial(delivery_rows, relay=self.name))
        self._schedule.read_up_to = self._saved_position = row.position
        next_delivery = max((one.id for one in stored), default=0) + 1
        self._schedule.restore(map(self._entry_of, stored), next_delivery)
        self.last_delivered_at, self.skipped = row.last_delivered_at, row.skipped
        self.paused_by = row.paused_by
        replays = await self._database.read(partial(replay_rows, relay=self.name))
        self._replay = replays[0] if replays else None

    def start(self) -> None:
        """Begin to read and to send."""
        self._ledger.listeners.append(self._on_commit)
        for loop in (self._read, self._send, self._save):
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
        if self._schedule.read_up_to < self._source.newest:
            self._room.set()

    # Reading.

    async def _read(self) -> None:
        """Read on, whenever there is something new and room for it."""
        while True:
            self._room.clear()
            if self.paused_by is None and (await self._read_on() or await self._read_replay()):
                continue
            await _wait(self._room, LOOK_SECONDS)

    @property
    def _has_room(self) -> bool:
        return len(self._schedule.entries) < ROWS and self._bytes < BYTES

    async def _read_on(self) -> bool:
        """Read the next rows of the log; return whether there were any."""
        schedule, newest = self._schedule, self._source.newest
        if not self._has_room or schedule.read_up_to >= newest:
            return False
        found = await self._source.read(schedule.read_up_to)
        now = time.monotonic()
        for routed in found:
            if self._wants(routed):
                self._keep(0, routed)
                schedule.add(_entry(routed, now))
            else:
                schedule.skip(routed.row.id)
        if not found:
            schedule.skip(newest)
        self._news.set()
        self._dirty.set()
        return True

    async def _read_replay(self) -> bool:
        """Read on in what is to be sent once more; return whether something was read."""
        replay, schedule = self._replay, self._schedule
        if replay is None or self._replay_ended or schedule.replaying >= REPLAY_ROWS:
            return False
        found = await self._source.read(replay.position, replay.until_id)
        for routed in filter(self._wants, found):
            self._keep(replay.id, routed)
            schedule.add_replayed(_entry(routed, time.monotonic(), replay.id))
        self._replay_ended = not found
        if found:
            self._replay = replay._replace(position=found[-1].row.id)
        self._news.set()
        self._dirty.set()
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

    def _drop(self, entry: Entry) -> None:
        """Let go of what was read for an entry."""
        kept = self._kept.pop((entry.replay, entry.log_id), None)
        if kept is None:
            return
        self._bytes -= len(kept.row.body)
        is_behind = self._schedule.read_up_to < self._source.newest
        if self._replay is not None or (is_behind and len(self._schedule.entries) < ROWS // 2):
            self._room.set()

    # Sending.

    async def _send(self) -> None:
        """Begin deliveries, whenever there is something to send and it may be sent."""
        while True:
            self._news.clear()
            while (entry := self._next()) is not None:
                task = asyncio.create_task(self._work(entry))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await _wait(self._news, self._seconds_to_wait())

    def _next(self) -> Entry | None:
        """Return what may be sent now, and count it as open; None where nothing may."""
        pace, now = self._pace, time.monotonic()
        is_busy = self._open >= BUSY_OPEN and self._ledger.unanswered >= BUSY
        if self._stopping or self.paused_by is not None:
            return None
        if is_busy or not pace.may_begin(self._open, now):
            return None
        take = self._schedule.take_probe if pace.is_backing_off else self._schedule.take
        entry = take(now)
        if entry is not None:
            pace.begin(now)
            self._open += 1
        return entry

    def _seconds_to_wait(self) -> float:
        """Return the seconds until something is due, as far as time alone is in its way."""
        due_at, now = self._schedule.next_at(), time.monotonic()
        if due_at is None or self.paused_by is not None:
            return LOOK_SECONDS
        if self._pace.is_backing_off and self._schedule.has_probe:
            due_at = 0.0  # a probe is taken before it is due
        seconds = max(due_at, self._pace.next_at()) - now
        if seconds > 0:
            return min(seconds, LOOK_SECONDS)
        # Due already: a delivery that ends is waited for. Where none is open it became due just
        # now, after it was looked for.
        return LOOK_SECONDS if self._open else 0.0

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
            if self._pace.may_begin(self._open + 1, time.monotonic()):
                self._news.set()
            entry = self._next()
        self._news.set()

    def _put_back(self, entry: Entry) -> None:
        entry.due_at = time.monotonic() + DATABASE_PAUSE_SECONDS
        self._schedule.put_back(entry)

    async def _deliver(self, entry: Entry) -> None:
        """Send what an entry stands for, and note what came of it."""
        kept = self._kept.get((entry.replay, entry.log_id))
        found = kept or await self._source.row(entry.log_id)
        if found is None:
            self._schedule.forget(entry)
            self._skip(1)
            return
        row, id_ = found.row, f"{self._source.ids}{entry.log_id}"
        headers = {
            "Ackgate-Received-At": rfc3339(row.at),
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
            self._drop(entry)
        else:
            self.last_error = answer.error
        if result is Result.GONE:
            self.pause(GONE)
        elif len(self._schedule.rows) > MAX_ROWS:
            self.pause(TOO_MANY_ROWS)

    def _skip(self, count: int) -> None:
        if count == 0:
            return
        self._dirty.set()
        self.skipped += count
        self._unsaved_skipped += count
        self._metrics.relay_skipped.labels(self.name).inc(count)

    # What a person does.

    def pause(self, by: str) -> None:
        """Send nothing more; `by` is who says so, or why the relay does it by itself."""
        if self.paused_by is None:
            log.warning("a relay is paused", relay=self.name, by=by)
            self.paused_by = self._unsaved_pause = by
            self._dirty.set()

    def resume(self) -> None:
        """Send again, and at once."""
        self.paused_by = self._unsaved_pause = None
        self._pace = Pace(self.settings.max_in_flight, self.settings.rate_per_second)
        self._room.set()
        self._news.set()

    def retry(self, ids: Iterable[int] | None) -> int:
        """Try rows again now, all dead ones where none is named; return how many that are."""
        rows = self._schedule.rows
        if ids is None:
            ids = [id_ for id_, entry in rows.items() if entry.state is RowState.DEAD]
        count = sum(self._schedule.retry(id_, time.monotonic()) for id_ in ids)
        self._dirty.set()
        self._news.set()
        return count

    def use(self, settings: RelaySettings) -> None:
        """Go by a configuration that was read again: URL, secrets and headers may differ."""
        self.settings = settings
        self._destination.use(settings)

    async def test(self, headers: Mapping[str, str], body: bytes) -> tuple[Answer, float]:
        """Send a body of our own now, whatever its state and position are.

        Return what came back, and after how many seconds.
        """
        began = time.monotonic()
        id_ = f"{self._source.ids}test.{self._ledger.clock()}"
        answer = await self._destination.send(id_, headers, body)
        return answer, time.monotonic() - began

    def add_replay(self, replay: ReplayRow) -> None:
        """Send a part of the log once more, after those that were asked for before."""
        if self._replay is None:
            self._replay = replay
        self._room.set()

    # Where it stands.

    @property
    def state(self) -> str:
        """Whether it sends: running, backing_off or paused."""
        if self.paused_by is not None:
            return "paused"
        return "backing_off" if self._pace.is_backing_off else "running"

    @property
    def position(self) -> int:
        """The id of the log up to which everything is delivered, or has a row."""
        return self._schedule.position

    @property
    def behind(self) -> int:
        """How many rows of the log are neither delivered, nor passed over, nor have a row."""
        schedule = self._schedule
        return max(0, self._source.newest - schedule.read_up_to) + len(schedule.entries)

    def counts(self) -> dict[RowState, int]:
        """Return how many rows there are by state."""
        counts = dict.fromkeys(RowState, 0)
        for entry in self._schedule.rows.values():
            if entry.state is not None:
                counts[entry.state] += 1
        return counts

    async def replaying(self) -> int:
        """Return how many callbacks of replays are still to be delivered, at most.

        Its filters are not applied yet to what is still to be read. Raises UnavailableError.
        """
        rows = await self._database.read(partial(replay_rows, relay=self.name))
        under_way = self._replay
        unread = sum(
            row.until_id - (under_way if under_way and under_way.id == row.id else row).position
            for row in rows
        )
        return unread + self._schedule.replaying

    async def behind_seconds(self) -> float:
        """Return the age (s) of the oldest row that it is behind with; 0 if with none.

        Raises UnavailableError.
        """
        if not self.behind:
            return 0.0
        first = self._kept.get((0, self.position + 1))
        at = first.row.at if first else await self._source.arrived_after(self.position)
        return 0.0 if at is None else max(0.0, (self._ledger.clock() - at) / 1000)

    @property
    def needs_from(self) -> int:
        """The id from which on it needs the log: for what it has not delivered, dead or not."""
        needed = [entry.log_id for entry in self._schedule.rows.values()]
        if self._replay is not None:
            needed.append(self._replay.position + 1)
        return min([self.position + 1, *needed])

    async def needed_seconds(self) -> float:
        """Return the age (s) of the oldest row that it needs, 0 for none.

        Raises UnavailableError.
        """
        at = await self._source.arrived_after(self.needs_from - 1)
        return 0.0 if at is None else max(0.0, (self._ledger.clock() - at) / 1000)

    def forget_skipped(self) -> None:
        """Count anew what is deleted before it was delivered."""
        self._unsaved_skipped -= self.skipped
        self.skipped = 0
        self._dirty.set()

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
        changed, ended = {**schedule.changed}, [*schedule.ended]
        schedule.changed.clear()
        schedule.ended.clear()
        for entry in changed.values():
            if not entry.is_open and entry.attempts:
                self._drop(entry)
        command = SaveProgress(
            self.name,
            schedule.position,
            self.last_delivered_at,
            [self._row_of(entry) for entry in changed.values()],
            ended,
            self._replay,
            self._replay_ended,
            self._unsaved_skipped,
            self._unsaved_pause,
        )
        nothing_new = not (changed or ended or self._replay or command.skipped)
        if nothing_new and command.paused_by is None and command.position == self._saved_position:
            return
        try:
            failpoints.reached("relay.before_save")
            await self._ledger.submit(command)
            failpoints.reached("relay.after_save")
        except BaseException:
            still = {id_: entry for id_, entry in changed.items() if id_ in schedule.rows}
            schedule.changed = still | schedule.changed
            schedule.ended[:0] = ended
            self._dirty.set()
            raise
        self._saved_position = command.position
        self._unsaved_skipped -= command.skipped
        self._unsaved_pause = None
        if command.replay_ended:
            rows = await self._database.read(partial(replay_rows, relay=self.name))
            self._replay, self._replay_ended = rows[0] if rows else None, False
            self._room.set()

    async def stop(self) -> None:
        """Read and send nothing more."""
        self._stopping = True
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

    def _entry_of(self, row: DeliveryRow) -> Entry:
        """Return the entry of a stored row; times of the wall clock become those of ours."""
        ahead = time.monotonic() - self._ledger.clock() / 1000
        return Entry(
            row.log_id,
            frozenset(row.kinds),
            frozenset(row.names),
            row.is_of_one,
            row.replay,
            row.id,
            RowState(row.state),
            row.attempts,
            row.due_at / 1000 + ahead,
            None if row.gives_up_at is None else row.gives_up_at / 1000 + ahead,
            row.last_status,
            row.last_error,
            row.answer,
        )

    def _row_of(self, entry: Entry) -> DeliveryRow:
        ahead = self._ledger.clock() / 1000 - time.monotonic()
        gives_up = entry.gives_up_at
        return DeliveryRow(
            self.name,
            entry.delivery or 0,
            entry.log_id,
            entry.replay,
            str(entry.state),
            entry.attempts,
            round((entry.due_at + ahead) * 1000),
            None if gives_up is None else round((gives_up + ahead) * 1000),
            sorted(entry.kinds),
            sorted(entry.names),
            entry.is_of_one,
            entry.last_status,
            entry.last_error,
            entry.answer,
        )


def _entry(routed: Routed, now: float, replay: int = 0) -> Entry:
    row, routing = routed
    return Entry(row.id, routing.kinds, routing.names, routing.is_of_one, replay=replay, due_at=now)


def rfc3339(at: int) -> str:
    """Return Unix milliseconds as RFC 3339 in UTC with milliseconds."""
    text = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
