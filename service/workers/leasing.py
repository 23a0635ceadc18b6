"""The loop that every worker is: lease what is due, do it, write down what it came to."""

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import structlog

from service.ledger.leases import Lease, LeaseWork, RecordOutcome, RenewLeases
from service.ledger.ledger import Ledger
from service.ledger.unit_of_work import Command
from service.model.outcomes import GetOutcome, NotTried, PutOutcome, Settled
from service.model.users import Kind
from service.observability import failpoints
from service.observability.metrics import Metrics
from service.store.database import ChangeSet, Database, UnavailableError
from service.store.queries import bring_near, next_due

RENEW_EVERY_SECONDS = 3.0
DATABASE_PAUSE_SECONDS = 1.0
LONGEST_SLEEP_SECONDS = 60.0
"""So that a clock that was set, or a lease that ended elsewhere, is noticed."""
SHORTEST_SLEEP_SECONDS = 0.005
LEASED_AHEAD = 8
"""So many times what may be in flight is leased, so that the calls need not wait for the database.

What is leased counts as begun: the more of it, the more a client is asked about after a crash.
"""
AT_ONCE = 512
"""So many pieces one transaction leases or renews at most: callbacks wait for it."""

Outcome = PutOutcome | GetOutcome
T = TypeVar("T")
log = structlog.get_logger(__name__)


class Worker:
    """Does one kind of work for one account, at most `max_in_flight` pieces at once.

    `perform` does a piece and never raises for what a client does; `paused_for` tells how long (s)
    the account is not to be called.
    """

    def __init__(
        self,
        account: str,
        kind: Kind,
        *,
        ledger: Ledger,
        database: Database,
        metrics: Metrics,
        perform: Callable[[Lease], Awaitable[Outcome]],
        paused_for: Callable[[], float],
        max_in_flight: int,
    ) -> None:
        self._account = account
        self._kind = kind
        self._ledger = ledger
        self._database = database
        self._metrics = metrics
        self._perform = perform
        self._paused_for = paused_for
        # What is leased ahead waits here, without a limit: a transport's place is soon given up.
        self._slots = asyncio.Semaphore(max_in_flight)
        self._max_leased = LEASED_AHEAD * max_in_flight
        # Bound once: a logger that is not binds itself anew for every line, even one left out.
        self._log = log.bind(account=account, kind=str(kind))
        self._names = (f"{secrets.token_hex(8)}-{n}" for n in itertools.count())
        self._in_flight: dict[Lease, asyncio.Task[None]] = {}
        # By user: what waits for its turn, the newest lease alone; of that, what something was
        # written about since; by user and hash too: what was called, until it is written down.
        self._waiting: dict[int, Lease] = {}
        self._doubted: set[Lease] = set()
        self._called: dict[tuple[int, str | None], asyncio.Task[None]] = {}
        self._more_is_due = False
        self._seen_at = 0
        self._renewing: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._leasing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work."""
        self._ledger.listeners.append(self._hear)
        self._leasing = asyncio.create_task(self._run())
        self._renewing = asyncio.create_task(self._renew())

    async def stop(self) -> None:
        """Take no more work."""
        self._stopping = True
        if self._leasing is not None:
            await _cancel(self._leasing)
            self._leasing = None

    async def finish(self, seconds: float) -> None:
        """Let the work under way end; cut what takes longer. What is cut keeps its row."""
        if self._in_flight:
            await asyncio.wait(self._in_flight.values(), timeout=max(0.0, seconds))
        await _cancel(*self._in_flight.values())
        if self._renewing is not None:
            self._ledger.listeners.remove(self._hear)
            await _cancel(self._renewing)
            self._renewing = None

    def _hear(self, commit: ChangeSet) -> None:
        if (self._account, self._kind) in commit.work:
            self._wake.set()
        if self._waiting:
            ids = commit.users & self._waiting.keys()
            self._doubted.update(self._waiting[user_id] for user_id in ids)

    async def recall(self, user_id: int, entry: Command[T]) -> T | None:
        """Give back a user's work whose turn has not come, and write an entry right after that.

        None where no work of this user waits for its turn; nothing is written then. What was given
        back is found not to be ours when its turn comes. Raises UnavailableError.
        """
        task = self._waiting.get(user_id)
        if task is None or (task.user_id, task.hash) in self._called:
            return None
        self._doubted.add(task)  # Its turn may come before this is written.
        given_back = self._ledger.submit(RecordOutcome(task, NotTried(task.begun)))
        _, result = await asyncio.gather(given_back, self._ledger.submit(entry))
        return result

    async def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                seconds = await self._lease()
            except UnavailableError:
                seconds = DATABASE_PAUSE_SECONDS
            except Exception:
                log.exception("leasing failed", account=self._account, kind=self._kind)
                seconds = DATABASE_PAUSE_SECONDS
            if seconds > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._wake.wait()

    async def _lease(self) -> float:
        """Lease and begin what is due; give the seconds until the next look."""
        paused = self._paused_for()
        if paused > 0:
            return min(paused, LONGEST_SLEEP_SECONDS)
        free = min(self._max_leased - len(self._in_flight), AT_ONCE)
        if free <= 0:
            return LONGEST_SLEEP_SECONDS
        holders = [next(self._names) for _ in range(free)]
        now = self._ledger.clock()
        await self._heed_clock(now)
        entry = LeaseWork(self._account, self._kind, holders)
        failpoints.reached("before_lease", self._kind)
        tasks = await self._ledger.submit(entry)
        failpoints.reached("after_lease", self._kind)
        for task in tasks:
            self._begin(task)
        self._more_is_due = len(entry.due) == free
        if self._more_is_due:
            return 0 if len(self._in_flight) < self._max_leased else LONGEST_SLEEP_SECONDS
        due = await self._database.read(partial(next_due, account=self._account, kind=self._kind))
        if due is None:
            return LONGEST_SLEEP_SECONDS
        seconds = (due - self._ledger.clock()) / 1000
        return min(max(seconds, SHORTEST_SLEEP_SECONDS), LONGEST_SLEEP_SECONDS)

    async def _heed_clock(self, now: int) -> None:
        """At the start, and when the clock was set back, bring near what now lies too far ahead."""
        if now < self._seen_at or not self._seen_at:
            account, kind = self._account, self._kind
            await self._database.write(lambda c: bring_near(c, account, kind, now))
        self._seen_at = now

    def _begin(self, task: Lease) -> None:
        older = self._waiting.get(task.user_id)
        if older is not None:
            self._in_flight[older].cancel()  # Its lease has ended, or this one would not be.
        self._waiting[task.user_id] = task
        running = asyncio.create_task(self._do(task))
        self._in_flight[task] = running
        running.add_done_callback(partial(self._end, task))

    def _end(self, task: Lease, running: asyncio.Task[None]) -> None:
        del self._in_flight[task]
        self._doubted.discard(task)
        if self._waiting.get(task.user_id) is task:
            del self._waiting[task.user_id]
        if self._called.get((task.user_id, task.hash)) is running:
            del self._called[task.user_id, task.hash]
        if self._more_is_due or self._paused_for() > 0:
            self._wake.set()

    async def _do(self, task: Lease) -> None:
        # For this asyncio task alone, whose context ends with it.
        structlog.contextvars.bind_contextvars(request_id=task.request_id or task.holder)
        try:
            await self._write(task, await self._perform_in_turn(task))
        except Exception:
            # Its lease ends by itself, and the work is tried again.
            log.exception("a worker failed", account=task.account)

    async def _perform_in_turn(self, task: Lease) -> Outcome:
        """Do it when its turn comes, unless it is not ours by then, or nobody can tell.

        What was called for the same under a lease that ended is waited for: its call may be under
        way still, and two at once may hide from each other what they came to.
        """
        before = self._called.get((task.user_id, task.hash))
        if before is not None:
            await asyncio.wait([before])
        async with self._slots:
            del self._waiting[task.user_id]
            self._called[task.user_id, task.hash] = self._in_flight[task]
            if task in self._doubted and not await self._is_ours(task):
                return NotTried(task.begun)
            return await self._perform(task)

    async def _is_ours(self, task: Lease) -> bool:
        """Ask the database whether the lease still lasts; then it lasts anew."""
        try:
            return task in await self._prolong((task,))
        except UnavailableError:
            return False

    async def _write(self, task: Lease, outcome: Outcome) -> None:
        """Write the outcome down, as long as the lease lasts."""
        while True:
            try:
                failpoints.reached("before_outcome", self._kind)
                settled = await self._ledger.submit(RecordOutcome(task, outcome))
                failpoints.reached("after_outcome", self._kind)
                break
            except UnavailableError:
                await asyncio.sleep(DATABASE_PAUSE_SECONDS)
        name = outcome.name if settled is Settled.TAKEN else settled.name.lower()
        self._metrics.count_outcome(task.account, task.kind, name)
        if not isinstance(outcome, NotTried):
            self._log.info("work done", outcome=name)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_SECONDS)
            try:
                tasks = tuple(self._in_flight)
                for start in range(0, len(tasks), AT_ONCE):
                    await self._prolong(tasks[start : start + AT_ONCE])
            except UnavailableError:
                continue
            except Exception:
                log.exception("renewing leases failed", account=self._account, kind=self._kind)

    async def _prolong(self, tasks: tuple[Lease, ...]) -> list[Lease]:
        failpoints.reached("before_renew", self._kind)
        held = await self._ledger.submit(RenewLeases(tasks))
        failpoints.reached("after_renew", self._kind)
        return held


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
