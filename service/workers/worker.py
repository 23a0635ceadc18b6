"""The loop of all who work off the outbox: lease what is due, make the call, record its outcome."""

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import structlog

from service.ledger.leases import Lease, LeaseWork, RecordOutcome, RenewLeases
from service.ledger.ledger import Ledger
from service.model.outcomes import GetOutcome, NotTried, PutOutcome, Settled
from service.model.users import Kind
from service.observability import failpoints
from service.observability.metrics import Metrics
from service.store.database import ChangeSet, Database, UnavailableError
from service.store.outbox import bring_near, next_due

RENEW_EVERY_SECONDS = 3.0
DATABASE_PAUSE_SECONDS = 1.0
LONGEST_SLEEP_SECONDS = 60.0
"""So that a clock that was set, or a lease that ended elsewhere, is noticed."""
SHORTEST_SLEEP_SECONDS = 0.005

Outcome = PutOutcome | GetOutcome
log = structlog.get_logger(__name__)


class Worker:
    """Does one kind of work for one account, with at most `max_in_flight` calls open at once.

    It leases no more than it can call now. `perform` makes the call for a lease, and never raises
    for what a client does; `paused_for` returns for how long (s) the account is not to be called.
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
        self._max_in_flight = max_in_flight
        # Bound once: a logger that is not binds itself anew for every line, even one left out.
        self._log = log.bind(account=account, kind=str(kind))
        self._names = (f"{secrets.token_hex(8)}-{n}" for n in itertools.count())
        self._tasks: dict[Lease, asyncio.Task[None]] = {}
        # By user: whose call is open, and what was leased meanwhile, the newest lease alone.
        self._calling: set[int] = set()
        self._skipped: dict[int, Lease] = {}
        self._more_is_due = False
        self._seen_at: int | None = None
        self._wake = asyncio.Event()
        self._leasing: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work."""
        self._ledger.listeners.append(self._on_commit)
        self._leasing = asyncio.create_task(self._run())
        self._renewing = asyncio.create_task(self._renew())

    async def stop(self) -> None:
        """Take no more work."""
        if self._leasing is not None:
            await _cancel(self._leasing)
            self._leasing = None

    async def finish(self, seconds: float) -> None:
        """Let the work under way end; cut what takes longer. What is cut keeps its row."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=max(0.0, seconds))
        await _cancel(*self._tasks.values())
        if self._renewing is not None:
            self._ledger.listeners.remove(self._on_commit)
            await _cancel(self._renewing)
            self._renewing = None

    def _on_commit(self, commit: ChangeSet) -> None:
        if (self._account, self._kind) in commit.work:
            self._wake.set()

    async def _run(self) -> None:
        while True:
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
        """Lease what is due and can be called now; return the seconds until the next look."""
        paused = self._paused_for()
        if paused > 0:
            return min(paused, LONGEST_SLEEP_SECONDS)
        free = self._max_in_flight - len(self._calling)
        if free <= 0:
            return LONGEST_SLEEP_SECONDS  # The next call that ends wakes the worker.
        holders = [next(self._names) for _ in range(free)]
        command = LeaseWork(self._account, self._kind, holders)
        failpoints.reached("before_lease", self._kind)
        leases = await self._ledger.submit(command)
        failpoints.reached("after_lease", self._kind)
        for lease in leases:
            self._begin(lease)
        await self._follow_clock(command.now)
        self._more_is_due = len(command.due) == free
        if self._more_is_due:
            # The rules may have left some of it out, or a call of the same user is still open.
            return 0 if len(self._calling) < self._max_in_flight else LONGEST_SLEEP_SECONDS
        due = await self._database.read(partial(next_due, account=self._account, kind=self._kind))
        if due is None:
            return LONGEST_SLEEP_SECONDS
        seconds = (due - command.now) / 1000
        return min(max(seconds, SHORTEST_SLEEP_SECONDS), LONGEST_SLEEP_SECONDS)

    async def _follow_clock(self, now: int) -> None:
        """At the start, or when the store's clock was set back, bring near what lies too far ahead.

        By no other clock: the leader before this one may have calls open, whose leases must last.
        """
        if self._seen_at is None or now < self._seen_at:
            account, kind = self._account, self._kind
            await self._database.write_dated(
                lambda connection, now: bring_near(connection, account, kind, now), led=True
            )
        self._seen_at = now

    def _begin(self, lease: Lease) -> None:
        """Begin a call, unless one about this user is still open.

        That happens where its lease ended first, or another identity superseded the one that it is
        about. Two calls at once could hide from each other what they came to.
        """
        if lease.user_id in self._calling:
            self._skipped[lease.user_id] = lease
            return
        self._calling.add(lease.user_id)
        self._tasks[lease] = task = asyncio.create_task(self._do(lease))
        task.add_done_callback(lambda _: self._tasks.pop(lease))

    async def _do(self, lease: Lease) -> None:
        # For this asyncio task alone, whose context ends with it.
        structlog.contextvars.bind_contextvars(request_id=lease.request_id or lease.holder)
        try:
            try:
                outcome = await self._perform(lease)
            finally:
                # Another call may take its place while the outcome is recorded.
                self._calling.discard(lease.user_id)
                skipped = self._skipped.pop(lease.user_id, None)
                if self._more_is_due or self._paused_for() > 0:
                    self._wake.set()
            await self._record(lease, outcome)
            if skipped is not None:
                await self._record(skipped, NotTried(skipped.begun))
        except Exception:
            # The lease ends by itself, and the work is tried again.
            log.exception("a worker failed", account=self._account, kind=self._kind)

    async def _record(self, lease: Lease, outcome: Outcome) -> None:
        """Record an outcome, however long the database is not available."""
        while True:
            try:
                failpoints.reached("before_outcome", self._kind)
                settled = await self._ledger.submit(RecordOutcome(lease, outcome))
                failpoints.reached("after_outcome", self._kind)
                break
            except UnavailableError:
                await asyncio.sleep(DATABASE_PAUSE_SECONDS)
        name = outcome.name if settled is Settled.TAKEN else settled.name.lower()
        self._metrics.count_outcome(lease.account, lease.kind, name)
        if not isinstance(outcome, NotTried):
            self._log.info("work done", outcome=name)

    async def _renew(self) -> None:
        """Renew the leases of all calls that are open, or whose outcome is not yet recorded."""
        while True:
            await asyncio.sleep(RENEW_EVERY_SECONDS)
            leases = (*self._tasks, *self._skipped.values())
            if not leases:
                continue
            try:
                failpoints.reached("before_renew", self._kind)
                await self._ledger.submit(RenewLeases(leases))
                failpoints.reached("after_renew", self._kind)
            except UnavailableError:
                continue
            except Exception:
                log.exception("renewing leases failed", account=self._account, kind=self._kind)


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
