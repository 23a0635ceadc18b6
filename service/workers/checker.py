"""Checks contacts of one account: plans, passes on in batches, and keeps what comes back."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from service.ledger.contact_checks import (
    KeepAnswer,
    Key,
    Limits,
    Plan,
    PlanChecks,
    Planned,
    PostponeChecks,
    RecordCheckResults,
)
from service.ledger.ledger import Ledger
from service.ledger.messages import Messages
from service.model.budget import Budget, Usage
from service.model.contacts import CheckOptions, Number
from service.observability import failpoints
from service.observability.metrics import Metrics
from service.settings import ContactsSettings
from service.whatsapp.client import Client
from service.whatsapp.errors import CallError, NoReplyError

BATCH = 100
"""Inputs that the client is asked about in one call."""
PATIENCE_SECONDS = 30.0
"""How long a request waits for its place within the client's rate limit."""
AGAIN_MS = 10_000
"""When a check that did not reach the client is asked again."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call under way, and how it asks: whoever asks no more than that waits for it."""

    wait: bool
    force: bool
    task: asyncio.Task[None]

    def covers(self, asking: CheckOptions) -> bool:
        return self.wait >= asking.wait and self.force >= asking.force


class Checker:
    """Checks the contacts of one account, each input once at a time."""

    def __init__(
        self,
        client: Client,
        settings: ContactsSettings,
        *,
        ledger: Ledger,
        metrics: Metrics,
        messages: Messages,
    ) -> None:
        self.account = client.name
        self.client = client
        self.settings = settings
        self.patience_ms = round(settings.answer_seconds * 1000)
        self._ledger = ledger
        self._metrics = metrics
        self._messages = messages
        self._calls: dict[str, _Call] = {}

    @property
    def budget(self) -> Budget:
        """What may be spent."""
        return self.settings.budget

    @property
    def unwritten(self) -> Usage:
        """The messages that callbacks told of, and that are not yet in the database."""
        return self._messages.counted(self.account)

    async def check(
        self, numbers: Sequence[Number], *, wait: bool, force: bool, key: Key | None = None
    ) -> Plan:
        """Ask the client what is to be asked; the contacts are as it answered afterwards.

        Raises CallError where a part was not answered; what was answered is kept all the same, and
        what was not is asked again. Nothing is done where the plan is not Planned.
        """
        asking = CheckOptions(wait, force, self.patience_ms)
        limits = Limits(self.budget, self.settings.require_opt_in, self.unwritten)
        failpoints.reached("check.before_plan")
        planned = await self._ledger.submit(PlanChecks(self.account, numbers, asking, limits, key))
        failpoints.reached("check.after_plan")
        if isinstance(planned, Planned):
            await self._finish(self._begin(planned.ask, asking, "asked"))
        return planned

    async def ask_again(self, inputs: Sequence[str], *, force: bool) -> None:
        """Ask about inputs whose check is open; raises CallError as `check` does."""
        asking = CheckOptions(wait=False, force=force, patience_ms=self.patience_ms)
        await self._finish(self._begin(inputs, asking, "again"))

    def _begin(
        self, inputs: Iterable[str], asking: CheckOptions, why: str
    ) -> set[asyncio.Task[None]]:
        """Begin the calls for inputs that no call under way asks about; give all that matter."""
        calls = {
            input_: call.task
            for input_ in inputs
            if (call := self._calls.get(input_)) is not None and call.covers(asking)
        }
        tasks = set(calls.values())
        for batch in _batches([input_ for input_ in inputs if input_ not in calls]):
            task = asyncio.create_task(self._ask(batch, asking, why))
            call = _Call(asking.wait, asking.force, task)
            self._calls |= dict.fromkeys(batch, call)
            task.add_done_callback(partial(self._end, batch, call))
            tasks.add(task)
        return tasks

    def _end(self, batch: Sequence[str], call: _Call, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # seen, even if whoever asked is gone
        for input_ in batch:
            if self._calls.get(input_) is call:
                del self._calls[input_]

    async def _finish(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait for calls, which go on even if who asked went away; raise the first fault."""
        if tasks:
            await asyncio.wait(tasks)
        faults = [fault for task in tasks if (fault := task.exception()) is not None]
        if faults:
            raise faults[0]

    async def _ask(self, batch: Sequence[str], asking: CheckOptions, why: str) -> None:
        try:
            failpoints.reached("check.before_post")
            results = await self.client.check_contacts(
                batch, wait=asking.wait, force=asking.force, patience=PATIENCE_SECONDS
            )
            failpoints.reached("check.after_post")
        except NoReplyError:
            # The client may have got it, and may call back.
            await self._ledger.submit(RecordCheckResults(self.account, batch, [], self.patience_ms))
            raise
        except CallError:
            due_at = self._ledger.clock() + AGAIN_MS
            await self._ledger.submit(PostponeChecks(self.account, batch, due_at))
            raise
        self._metrics.contact_checks.labels(self.account, why).inc(len(batch))
        await self._ledger.submit(
            RecordCheckResults(self.account, batch, results, self.patience_ms)
        )
        failpoints.reached("check.after_answer")

    async def keep_answer(self, key: Key, answer: str) -> None:
        """Keep what a request was answered, for its repetitions."""
        await self._ledger.submit(KeepAnswer(self.account, key, answer))

    async def close(self) -> None:
        """End the calls under way: their inputs stay open, and are asked about after the start."""
        tasks = {call.task for call in self._calls.values()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _batches(inputs: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(inputs), BATCH):
        yield inputs[start : start + BATCH]
