"""Relays: each reads a log from its position on, and passes on what its destination asked for."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog

from service.dialects.routing import Routing
from service.ledger.ledger import Ledger
from service.ledger.relays import SaveProgress
from service.model.pace import Pace
from service.model.relays import MAX_ROWS, Entry, Result, RowState, Schedule, result_of
from service.observability import failpoints
from service.observability.metrics import Metrics
from service.settings import RelaySettings
from service.store.database import SYNTHETIC, ChangeSet, Database, UnavailableError
from service.store.relays import (
    DeliveryRow,
    LogRow,
    RelayRow,
    ReplayRow,
    arrived_at,
    delivery_rows,
    log_row,
    newest_id,
    read_log,
    relay_rows,
    replay_rows,
)
from service.workers.destinations import Answer, Destination

ROWS = 1000
BYTES = 4_194_304
"""What a relay has read and not yet delivered, at most: rows, and bytes of their bodies."""
READ_ROWS, READ_BYTES = 200, 1_048_576
"""What is read at once."""
REPLAY_ROWS = 200
"""Rows of a replay that are under way at once."""
OFF_LOOP_BYTES = 65_536
"""Bodies above this are read off the event loop."""
SAVE_SECONDS = 1.0
DATABASE_PAUSE_SECONDS = 1.0
FINISH_SECONDS = 2.0
"""How long open deliveries may take once the service stops."""
LOOK_SECONDS = 60.0
"""How long a relay waits at most where nothing is due, so that a clock that was set is noticed."""
ROWS_A_TURN = 20
"""Rows that are looked at before others have their turn on the event loop."""
BUSY = 16
"""Where so many commands wait to be written, a relay has one delivery open: callbacks go first."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """What a relay needs to know of its log: how a row is routed, and what it is sent with.

    `headers` are those that a row's kind of log adds. `ids` begins the ids of deliveries.
    """

    route: Callable[[LogRow], Routing]
    headers: Callable[[LogRow, Routing], Mapping[str, str]]
    ids: str


class Relay:
    """One relay. `status` says where it stands; `wake` has it look at what is new."""

    def __init__(
        self,
        name: str,
        settings: RelaySettings,
        source: Source,
        *,
        ledger: Ledger,
        database: Database,
        metrics: Metrics,
    ) -> None:
        self.name = name
        self.settings = settings
        self.paused_by: str | None = None
        self.last_error: str | None = None
        self.skipped = 0
        self._source = source
        self._ledger = ledger
        self._database = database
        self._metrics = metrics
        self._log = log.bind(relay=name)
        self._destination = Destination(settings)
        self._pace = Pace(settings.max_in_flight, settings.rate_per_second)
        self._schedule = Schedule(0, settings.give_up_after_hours * 3600, settings.ordered)
        # What was read and is kept until it is delivered, by replay and id.
        self._kept: dict[tuple[int, int], tuple[LogRow, Routing]] = {}
        self._bytes = 0
        self._newest = 0
        self._saved_position = 0
        self._last_delivered_at: int | None = None
        self._replay: ReplayRow | None = None
        self._replay_ended = False
        self._unsaved_skipped = 0
        self._unsaved_pause: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._news, self._room, self._dirty = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def restore(self) -> None:
        """Find out how far it had come."""
        rows = await self._database.read(relay_rows)
        row = next(row for row in rows if row.name == self.name)
        stored = await self._database.read(partial(delivery_rows, relay=self.name))
        self._take_over(row, stored)
        self._newest = await self._database.read(newest_id)
        replays = await self._database.read(partial(replay_rows, relay=self.name))
        self._replay = replays[0] if replays else None

    def _take_over(self, row: RelayRow, stored: list[DeliveryRow]) -> None:
        schedule = self._schedule
        schedule.read_up_to = self._saved_position = row.position
        schedule.restore(map(self._entry_of, stored), max((r.id for r in stored), default=0) + 1)
        self._last_delivered_at, self.skipped = row.last_delivered_at, row.skipped
        self.paused_by = row.paused_by

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

    def _on_commit(self, commit: ChangeSet) -> None:
        if commit.journal_id:
            self._newest = commit.journal_id
            self._room.set()

    # Reading.

    async def _read(self) -> None:
        """Read on, whenever there is something new and room for it."""
        while True:
            self._room.clear()
            if self.paused_by is None and (await self._read_on() or await self._read_replay()):
                continue
            await _wait(self._room, LOOK_SECONDS)

    async def _read_on(self) -> bool:
        """Read the next rows of the log; return whether there were any."""
        schedule = self._schedule
        has_room = len(schedule.entries) < ROWS and self._bytes < BYTES
        if not has_room or schedule.read_up_to >= self._newest:
            return False
        rows = await self._database.read(
            partial(read_log, after=schedule.read_up_to, rows=READ_ROWS, size=READ_BYTES)
        )
        for count, row in enumerate(rows):
            if count % ROWS_A_TURN == 0:
                await asyncio.sleep(0)
            routing = await self._wanted(row)
            if routing is None:
                schedule.skip(row.id)
            else:
                self._keep(0, row, routing)
                schedule.add(_entry(row, routing, time.monotonic()))
        if not rows:
            schedule.skip(self._newest)
        self._news.set()
        self._dirty.set()
        return True

    async def _read_replay(self) -> bool:
        """Read on in what is to be sent once more; return whether something was read."""
        replay, schedule = self._replay, self._schedule
        if replay is None or self._replay_ended or schedule.replaying >= REPLAY_ROWS:
            return False
        rows = await self._database.read(
            partial(
                read_log,
                after=replay.position,
                rows=REPLAY_ROWS,
                size=READ_BYTES,
                until=replay.until_id,
            )
        )
        for row in rows:
            routing = await self._wanted(row)
            if routing is not None:
                self._keep(replay.id, row, routing)
                entry = _entry(row, routing, time.monotonic())
                entry.replay = replay.id
                schedule.add_replayed(entry)
        self._replay_ended = not rows
        if rows:
            self._replay = replay._replace(position=rows[-1].id)
        self._news.set()
        self._dirty.set()
        return True

    async def _wanted(self, row: LogRow) -> Routing | None:
        """Return how a row is routed, if it is to be passed on."""
        if row.state == SYNTHETIC:
            return None
        if len(row.body) > OFF_LOOP_BYTES:
            routing = await asyncio.to_thread(self._source.route, row)
        else:
            routing = self._source.route(row)
        settings = self.settings
        if settings.accounts and not set(settings.accounts) & set(routing.accounts):
            return None
        if settings.kinds and not set(settings.kinds) & routing.kinds:
            return None
        return routing

    def _keep(self, replay: int, row: LogRow, routing: Routing) -> None:
        self._kept[replay, row.id] = row, routing
        self._bytes += len(row.body)

    def _drop(self, entry: Entry) -> None:
        """Let go of what was read for an entry."""
        kept = self._kept.pop((entry.replay, entry.log_id), None)
        if kept is not None:
            self._bytes -= len(kept[0].body)
            self._room.set()

    # Sending.

    async def _send(self) -> None:
        """Begin deliveries, whenever there is something to send and it may be sent."""
        while True:
            self._news.clear()
            await _wait(self._news, self._begin())

    def _begin(self) -> float:
        """Begin what may be sent now; return the seconds until the next look."""
        pace, schedule, now = self._pace, self._schedule, time.monotonic()
        if self.paused_by is not None:
            return LOOK_SECONDS
        while pace.may_begin(len(self._tasks), now):
            if self._tasks and self._ledger.waiting >= BUSY:
                return LOOK_SECONDS  # the delivery that is open ends first
            entry = schedule.take_probe(now) if pace.is_backing_off else schedule.take(now)
            if entry is None:
                due_at = schedule.next_at()
                return LOOK_SECONDS if due_at is None else max(0.0, due_at - now)
            pace.begin(now)
            task = asyncio.create_task(self._deliver(entry))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        next_at = pace.next_at()
        return next_at - now if next_at > now else LOOK_SECONDS

    async def _deliver(self, entry: Entry) -> None:
        try:
            found = self._kept.get((entry.replay, entry.log_id)) or await self._load(entry)
            if found is None:
                self._schedule.forget(entry)
                self._skip(1)
            else:
                await self._send_one(entry, *found)
        except Exception as error:
            if not isinstance(error, UnavailableError):
                log.exception("a delivery failed", relay=self.name)
            entry.due_at = time.monotonic() + DATABASE_PAUSE_SECONDS
            self._schedule.put_back(entry)
        except asyncio.CancelledError:
            self._schedule.put_back(entry)
            raise
        finally:
            if task := asyncio.current_task():
                self._tasks.discard(task)
            self._dirty.set()
            self._news.set()

    async def _load(self, entry: Entry) -> tuple[LogRow, Routing] | None:
        row = await self._database.read(partial(log_row, id_=entry.log_id))
        return None if row is None else (row, self._source.route(row))

    async def _send_one(self, entry: Entry, row: LogRow, routing: Routing) -> None:
        id_ = f"{self._source.ids}{row.id}"
        headers = {
            "Ackgate-Received-At": rfc3339(row.at),
            "Ackgate-Attempt": str(entry.attempts + 1),
            **self._source.headers(row, routing),
        }
        if entry.replay:
            headers["Ackgate-Replay-Of"] = id_
            id_ = f"{id_}.{entry.replay}"
        began = time.monotonic()
        answer = await self._destination.send(id_, headers, row.body)
        self._record(entry, row, answer, began)

    def _record(self, entry: Entry, row: LogRow, answer: Answer, began: float) -> None:
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
            self._last_delivered_at = self._ledger.clock()
            age = self._last_delivered_at - row.at
            if entry.attempts == 1 and not entry.replay:
                self._metrics.observe_delivery_delay(self.name, max(0.0, age / 1000))
            self._drop(entry)
        else:
            self.last_error = answer.error
        if result is Result.GONE:
            self.pause("gone")
        elif len(self._schedule.rows) > MAX_ROWS:
            self.pause("too_many_rows")

    def _skip(self, count: int) -> None:
        self.skipped += count
        self._unsaved_skipped += count
        self._metrics.relay_skipped.labels(self.name).inc(count)

    # What a person does.

    def pause(self, by: str) -> None:
        """Send nothing more; `by` is who says so, or why the relay does it by itself."""
        if self.paused_by is None:
            self._log.warning("a relay is paused", by=by)
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
    def last_delivered_at(self) -> int | None:
        """When (Unix ms) the last delivery was answered with success."""
        return self._last_delivered_at

    @property
    def behind(self) -> int:
        """How many rows of the log are neither delivered, nor passed over, nor have a row."""
        schedule = self._schedule
        return max(0, self._newest - schedule.read_up_to) + len(schedule.entries)

    def counts(self) -> dict[RowState, int]:
        """Return how many rows there are by state."""
        counts = dict.fromkeys(RowState, 0)
        for entry in self._schedule.rows.values():
            if entry.state is not None:
                counts[entry.state] += 1
        return counts

    async def behind_since(self) -> int | None:
        """Return when (Unix ms) the oldest row arrived that it is behind with; None if with none.

        Raises UnavailableError.
        """
        if not self.behind:
            return None
        first = self._kept.get((0, self._schedule.position + 1))
        if first is not None:
            return first[0].at
        return await self._database.read(partial(arrived_at, after=self.position))

    def age_of(self, at: int | None) -> float:
        """Return how long ago (s) something arrived; 0 for nothing."""
        return 0.0 if at is None else max(0.0, (self._ledger.clock() - at) / 1000)

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
            if not entry.is_open:
                self._drop(entry)
        command = SaveProgress(
            self.name,
            schedule.position,
            self._last_delivered_at,
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
        gives_up = None if row.gives_up_at is None else row.gives_up_at / 1000 + ahead
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
            gives_up,
            row.last_status,
            row.last_error,
            row.answer,
        )

    def _row_of(self, entry: Entry) -> DeliveryRow:
        ahead = self._ledger.clock() / 1000 - time.monotonic()
        gives_up = None if entry.gives_up_at is None else round((entry.gives_up_at + ahead) * 1000)
        return DeliveryRow(
            self.name,
            entry.delivery or 0,
            entry.log_id,
            entry.replay,
            str(entry.state),
            entry.attempts,
            round((entry.due_at + ahead) * 1000),
            gives_up,
            sorted(entry.kinds),
            sorted(entry.names),
            entry.is_of_one,
            entry.last_status,
            entry.last_error,
            entry.answer,
        )


def _entry(row: LogRow, routing: Routing, now: float) -> Entry:
    return Entry(row.id, routing.kinds, routing.names, routing.is_of_one, due_at=now)


def rfc3339(at: int) -> str:
    """Return Unix milliseconds as RFC 3339 in UTC with milliseconds."""
    text = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
