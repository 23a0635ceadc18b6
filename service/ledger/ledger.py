"""Group commit: what arrives while one batch is in flight makes up the next."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context
from random import random
from typing import Any, NamedTuple, TypeVar

import structlog

from service.ledger.unit_of_work import Command, UnitOfWork
from service.model.policy import Policies
from service.observability import failpoints
from service.observability.metrics import Metrics
from service.store.database import (
    Alias,
    ChangeSet,
    ConflictError,
    Database,
    FaultError,
    NotLeaderError,
    UnavailableError,
    let_others_join,
)

T = TypeVar("T")

MAX_ENTRIES = 256
MAX_WEIGHT = 1500
"""What one transaction takes at most: commands, and events in them."""

BUSY_ENTRIES, BUSY_SECONDS = 32, 0.1
"""So many commands in one batch say that there is more to do than can be done at once."""

MAX_TRIES = 8
"""So often a batch is tried at most whose rows another writer stored first."""

log = structlog.get_logger(__name__)


class FullError(Exception):
    """Too much waits already: nothing of this was written, try again later."""


class _Waiting(NamedTuple):
    command: Command[Any]
    future: asyncio.Future[Any]


class Ledger:
    """Writes commands in the order of their arrival, together, and answers each once committed.

    `listeners` hear of every commit on the event loop, before the commands are answered. `refused`
    counts the transactions that the database did not do. `policies` may be replaced: the next batch
    is decided by the new ones.
    """

    def __init__(
        self,
        database: Database,
        policies: Mapping[str, Policies],
        metrics: Metrics,
        *,
        max_waiting: int,
    ) -> None:
        self._database = database
        self.policies = policies
        self._metrics = metrics
        self._max_waiting = max_waiting
        self._queue: deque[_Waiting] = deque()
        self._busy_at = -math.inf
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.listeners: list[Callable[[ChangeSet], None]] = []
        self.available = True
        self.refused = 0

    def clock(self) -> int:
        """Return the time of this process (Unix ms)."""
        return self._database.clock()

    @property
    def waiting(self) -> int:
        """How many commands wait to be written."""
        return len(self._queue)

    @property
    def is_busy(self) -> bool:
        """Whether many commands were written together just now: others should give way."""
        return self._loop.time() - self._busy_at < BUSY_SECONDS

    @property
    def full(self) -> bool:
        """Return whether a callback would be turned away."""
        return len(self._queue) >= self._max_waiting

    def check_room(self) -> None:
        """Raise FullError where a callback would be turned away."""
        if len(self._queue) >= self._max_waiting:
            raise FullError

    def submit(self, command: Command[T], *, bounded: bool = False) -> asyncio.Future[T]:
        """Write a command; the future tells what the rules made of it, once it is on disk.

        Raises FullError where `bounded` and too much waits; the future holds UnavailableError where
        the database fails. In both cases nothing of the command is in effect.
        """
        if bounded:
            self.check_room()
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.append(_Waiting(command, future))
        if self._task is None:
            # In a context of its own: its log lines are not about the request that began the batch.
            self._task = self._loop.create_task(self._run(), context=Context())
        return future

    async def close(self) -> None:
        """Write what waits."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._queue:
                await let_others_join(self._queue, MAX_ENTRIES)
                batch = self._take()
                if len(batch) >= BUSY_ENTRIES:
                    self._busy_at = self._loop.time()
                await self._write(batch)
        finally:
            self._task = None

    def _take(self) -> list[_Waiting]:
        batch = [self._queue.popleft()]
        weight = batch[0].command.weight
        while self._queue and len(batch) < MAX_ENTRIES:
            weight += self._queue[0].command.weight
            if weight > MAX_WEIGHT:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _write(self, batch: list[_Waiting]) -> None:
        """Write a batch; if one of its commands is at fault, one by one: it harms only itself."""
        started = time.perf_counter()
        try:
            results, commit = await self._transact([w.command for w in batch])
        except NotLeaderError as error:
            for waiting in batch:
                if waiting.command.led:
                    _answer(waiting.future, error=error)
            if others := [waiting for waiting in batch if not waiting.command.led]:
                await self._write(others)
        except Exception as error:  # noqa: BLE001  whatever the rules raise is the command's fault
            at_fault = not isinstance(error, UnavailableError) or isinstance(error, ConflictError)
            if at_fault and len(batch) > 1:
                for waiting in batch:
                    await self._write([waiting])
            elif isinstance(error, UnavailableError):
                self._fail(batch, error)
            else:
                await self._write_fallback(batch[0], error)
        else:
            self._metrics.observe_commit(len(batch), time.perf_counter() - started)
            self._succeed(batch, results, commit)

    async def _write_fallback(self, waiting: _Waiting, error: Exception) -> None:
        log.error("the rules failed on a command", exc_info=error)
        substitute = waiting.command.fallback(error)
        if substitute is None:
            _answer(waiting.future, error=error)
            return
        self._metrics.rule_failures.inc()
        try:
            results, commit = await self._transact([substitute])
        except UnavailableError as failure:
            self._fail([waiting], failure)
        except Exception as second:  # noqa: BLE001  nothing may stop the loop that answers
            _answer(waiting.future, error=second)
        else:
            self._succeed([waiting], results, commit)

    async def _transact(self, commands: list[Command[Any]]) -> tuple[list[Any], ChangeSet]:
        """Write a batch, and once more where another writer was first with a row of it."""
        missed: set[Alias] = set()
        tries = 0
        while True:
            try:
                return await self._commit(commands, missed)
            except ConflictError as error:
                self._metrics.conflicts.labels(error.why).inc()
                tries += 1
                if tries == MAX_TRIES:
                    raise

    async def _commit(
        self, commands: list[Command[Any]], missed: set[Alias]
    ) -> tuple[list[Any], ChangeSet]:
        failpoints.reached("ledger.before_begin")
        led = any(command.led for command in commands)
        async with self._database.transaction(led=led) as transaction:
            failpoints.reached("ledger.after_begin")
            chance = random()  # noqa: S311  spreads retries
            uow = UnitOfWork(transaction, self.policies, chance, missed)
            await uow.load(commands)
            failpoints.reached("ledger.after_load")
            results = await uow.apply(commands)
            failpoints.reached("ledger.after_rules")
            changes = await uow.save()
            failpoints.reached("ledger.before_commit")
        return results, changes

    def _succeed(self, batch: list[_Waiting], results: list[Any], commit: ChangeSet) -> None:
        failpoints.reached("ledger.after_commit")
        self.available = True
        for account, age_ms in commit.acknowledged:
            self._metrics.observe_acknowledged(account, age_ms / 1000)
        self._metrics.count_told(commit.told)
        for listener in self.listeners:
            listener(commit)
        failpoints.reached("ledger.before_answer")
        for waiting, result in zip(batch, results, strict=True):
            _answer(waiting.future, result)
        failpoints.reached("ledger.after_answer")

    def _fail(self, batch: list[_Waiting], error: UnavailableError) -> None:
        if self.available and not isinstance(error, FaultError):
            log.error("the database can't be written", error=str(error))
        self.available = False
        self.refused += 1
        self._metrics.commit_failures.inc()
        for waiting in batch:
            _answer(waiting.future, error=error)


def _answer(
    future: asyncio.Future[Any], result: Any = None, error: Exception | None = None
) -> None:
    """Answer whoever still waits; a client that went away must not stop the others."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
