"""Contact checks: the calls to a client, and the loops that ask again and tidy up.

`Checker` asks what a request, or a loop, wants to know. `Rechecks` asks again about what was not
answered, and about what is in use and about to expire. `MessageCounts` writes the messages that
were counted. `Upkeep` finds the canonical forms of numbers, and deletes what is too old.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy import Connection

from service.ledger.contacts import (
    KEPT_MS,
    CountMessages,
    KeepAnswer,
    Key,
    Limits,
    Messages,
    Plan,
    PlanChecks,
    Planned,
    PostponeChecks,
    RecordCheckResults,
    RenewContacts,
    TakeDueChecks,
)
from service.ledger.ledger import Ledger
from service.model.budget import Budget, Usage
from service.model.contacts import DAY_MS, FRESH_MS, CheckOptions, Number, patience_after
from service.model.numbers import canonical
from service.model.policy import delay_seconds
from service.model.users import usable_alias
from service.observability import failpoints
from service.observability.metrics import Metrics
from service.settings import ContactsSettings
from service.store.contacts import (
    WRITTEN_STEP_MS,
    Place,
    bring_checks_near,
    expiring,
    forget_requests,
    form,
    has_old_requests,
    next_due_check,
    not_formed,
)
from service.store.database import ChangeSet, Database, UnavailableError
from service.store.retention import forget_recipients, has_old_recipients
from service.whatsapp.http import CallError, NoReplyError
from service.whatsapp.onprem import Client

BATCH = 100
"""Inputs that the client is asked about in one call."""
PATIENCE_SECONDS = 30.0
"""How long a request waits for its place within the client's rate limit."""
AGAIN_MS = 10_000
"""When a check that did not reach the client is asked again."""
LONGEST_SLEEP_SECONDS = 60.0
SHORTEST_SLEEP_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 60.0
"""After calls that did not succeed."""
LOOK_EVERY_SECONDS = 600.0
"""How often to look for what is about to expire."""
LOOK_BACK_MS = DAY_MS
"""What expired so long ago at most is renewed too: the service was down, or the budget spent."""
ROWS = 500
"""Rows that one read looks at, or one transaction changes."""
WRITE_EVERY_SECONDS = 60.0
"""How often the messages that were counted are written; so much of them a crash may lose."""
HOUR_MS = 3_600_000
RECIPIENTS_KEPT_MS = 30 * DAY_MS
"""So long a message may wait for its user's phone, before a status of it comes in."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Call:
    """A call under way, and how it asks: whoever asks for no more waits for it."""

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
        """The messages that callbacks reported, and that are not yet in the database."""
        return self._messages.counted(self.account)

    async def check(
        self, numbers: Sequence[Number], *, wait: bool, force: bool, key: Key | None = None
    ) -> Plan:
        """Plan which numbers have to be checked, ask the client, and record its answers.

        Nothing is asked where the plan is not Planned. Raises CallError where a part was not
        answered; what was answered is kept all the same, and the rest is asked again.
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
        """Ask about inputs whose check is open. Raises CallError as `check` does."""
        asking = CheckOptions(wait=False, force=force, patience_ms=self.patience_ms)
        await self._finish(self._begin(inputs, asking, "again"))

    def _begin(
        self, inputs: Iterable[str], asking: CheckOptions, reason: str
    ) -> set[asyncio.Task[None]]:
        """Begin the calls for inputs that no call under way asks about; return all that matter."""
        calls = {
            input_: call.task
            for input_ in inputs
            if (call := self._calls.get(input_)) is not None and call.covers(asking)
        }
        tasks = set(calls.values())
        missing = [input_ for input_ in inputs if input_ not in calls]
        for batch in (missing[start : start + BATCH] for start in range(0, len(missing), BATCH)):
            task = asyncio.create_task(self._ask(batch, asking, reason))
            call = _Call(asking.wait, asking.force, task)
            self._calls |= dict.fromkeys(batch, call)
            task.add_done_callback(partial(self._end, batch, call))
            tasks.add(task)
        return tasks

    def _end(self, batch: Sequence[str], call: _Call, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # Retrieved, even if whoever asked is gone.
        for input_ in batch:
            if self._calls.get(input_) is call:
                del self._calls[input_]

    async def _finish(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait for calls, which go on even if whoever asked is gone; raise the first error."""
        if tasks:
            await asyncio.wait(tasks)
        errors = [error for task in tasks if (error := task.exception()) is not None]
        if errors:
            raise errors[0]

    async def _ask(self, batch: Sequence[str], asking: CheckOptions, reason: str) -> None:
        try:
            failpoints.reached("check.before_post")
            results = await self.client.check_contacts(
                batch, wait=asking.wait, force=asking.force, patience=PATIENCE_SECONDS
            )
            failpoints.reached("check.after_post")
        except NoReplyError:
            # The client may have received it, and may call back.
            await self._ledger.submit(RecordCheckResults(self.account, batch, [], self.patience_ms))
            raise
        except CallError:
            await self._ledger.submit(PostponeChecks(self.account, batch, AGAIN_MS))
            raise
        self._metrics.contact_checks.labels(self.account, reason).inc(len(batch))
        await self._ledger.submit(
            RecordCheckResults(self.account, batch, results, self.patience_ms)
        )
        failpoints.reached("check.after_answer")

    async def keep_answer(self, key: Key, answer: str) -> None:
        """Keep the answer to a request, for its repetitions."""
        await self._ledger.submit(KeepAnswer(self.account, key, answer))

    async def close(self) -> None:
        """End the calls under way: their checks stay open, and are asked again after the start."""
        tasks = {call.task for call in self._calls.values()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Rechecks:
    """Asks again about the contacts of one account."""

    def __init__(
        self, checker: Checker, *, ledger: Ledger, database: Database, metrics: Metrics
    ) -> None:
        self._checker = checker
        self._account = checker.account
        self._settings = checker.settings
        self._ledger = ledger
        self._database = database
        self._metrics = metrics
        self._wake = asyncio.Event()
        self._failures = 0
        self._look_at = 0
        self._seen_at = 0

    def _on_commit(self, commit: ChangeSet) -> None:
        if self._account in commit.checks:
            self._wake.set()

    async def run(self) -> None:
        """Ask, again and again."""
        self._ledger.listeners.append(self._on_commit)
        try:
            await self._run()
        finally:
            self._ledger.listeners.remove(self._on_commit)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                seconds = await self.step()
            except UnavailableError:
                seconds = self._fail()
            except CallError as error:
                log.info("contacts not checked", account=self._account, error=str(error))
                seconds = self._fail()
            except Exception:
                log.exception("checking contacts failed", account=self._account)
                seconds = self._fail()
            if self._failures:
                await asyncio.sleep(seconds)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    def _fail(self) -> float:
        self._failures += 1
        return delay_seconds(self._failures, 0.5, LONGEST_PAUSE_SECONDS)

    async def step(self) -> float:
        """Do what is due now; return the seconds until there may be more."""
        paused = self._checker.client.paused_for()
        if paused > 0:
            return min(paused, LONGEST_SLEEP_SECONDS)
        due, now = await self._database.write_dated(self._find_due, led=True)
        self._seen_at = now
        if self._settings.renew and now >= self._look_at:
            await self._look(now)  # what it opens wakes this once more
        # A check that is asked for meanwhile is due no earlier than that.
        longest = min(LONGEST_SLEEP_SECONDS, self._settings.answer_seconds)
        seconds = longest if due is None else (due - now) / 1000
        if seconds <= 0:
            await self._ask_due()
        self._failures = 0
        return min(max(seconds, SHORTEST_SLEEP_SECONDS), longest)

    def _find_due(self, connection: Connection, now: int) -> tuple[int | None, int]:
        """Return when the next check is due, and the time now, both by the store's clock.

        At the start, or when that was set back, bring near what lies too far ahead.
        """
        if now < self._seen_at or not self._seen_at:
            patience = self._checker.patience_ms
            latest = now + patience_after(patience, self._settings.max_attempts)
            bring_checks_near(connection, self._account, now, latest)
            self._look_at = min(self._look_at, now)
        return next_due_check(connection, self._account), now

    async def _ask_due(self) -> None:
        """Ask about some whose check is due, or give them up."""
        settings, patience = self._settings, self._checker.patience_ms
        command = TakeDueChecks(self._account, BATCH, patience, settings.max_attempts)
        failpoints.reached("recheck.before_due")
        due = await self._ledger.submit(command)
        failpoints.reached("recheck.after_due")
        if due.failed:
            self._metrics.contact_failures.labels(self._account).inc(due.failed)
            log.warning("checks given up", account=self._account, count=due.failed)
        for inputs, force in ((due.plain, False), (due.forced, True)):
            if inputs:
                await self._checker.ask_again(inputs, force=force)

    async def _look(self, now: int) -> None:
        """Open a check of every contact that is about to expire and in use."""
        until = now - FRESH_MS + round(self._settings.renew_before_hours * HOUR_MS)
        active_since = now - round(self._settings.active_days * DAY_MS) - WRITTEN_STEP_MS
        place: Place | None = Place(now - FRESH_MS - LOOK_BACK_MS)
        renewed = refused = 0
        while place is not None:
            found = await self._database.read(
                partial(
                    expiring,
                    account=self._account,
                    after=place,
                    until=until,
                    active_since=active_since,
                    opted_in=self._settings.require_opt_in,
                    limit=ROWS,
                )
            )
            place = found.place
            if found.inputs:
                checker = self._checker
                command = RenewContacts(
                    self._account, found.inputs, checker.budget, checker.unwritten
                )
                done = await self._ledger.submit(command)
                renewed, refused = renewed + done.count, refused + done.refused
        self._look_at = now + round(LOOK_EVERY_SECONDS * 1000)
        if renewed:
            log.info("renewing contacts", account=self._account, count=renewed)
        if refused:
            self._metrics.contact_refusals.labels(self._account, "renewal").inc(refused)
            log.warning("contacts not renewed: budget spent", account=self._account, count=refused)


class MessageCounts:
    """Writes the messages that callbacks reported to this process."""

    def __init__(self, accounts: Iterable[str], messages: Messages, ledger: Ledger) -> None:
        self._accounts = (*accounts,)
        self._messages = messages
        self._ledger = ledger

    async def run(self) -> None:
        """Write them, again and again."""
        while True:
            try:
                await self.write()
            except UnavailableError:
                pass
            except Exception:
                log.exception("writing the counts of messages failed")
            await asyncio.sleep(WRITE_EVERY_SECONDS)

    async def finish(self) -> None:
        """Write what was counted, as the service stops."""
        with suppress(UnavailableError):
            await self.write()

    async def write(self) -> None:
        """Write what was counted, a few at a time, for callbacks wait meanwhile."""
        for account in self._accounts:
            counted, wa_ids = self._messages.take(account)
            if counted == Usage():
                continue
            left = sorted(filter(usable_alias, wa_ids))
            try:
                while left or counted != Usage():
                    failpoints.reached("messages.before_write")
                    await self._ledger.submit(CountMessages(account, counted, left[:ROWS]))
                    failpoints.reached("messages.after_write")
                    counted, left = Usage(), left[ROWS:]
            except UnavailableError:
                self._messages.give_back(account, counted, left)
                raise


class Upkeep:
    """Finds the forms of numbers, and deletes what is too old."""

    def __init__(
        self, countries: dict[str, str | None], *, ledger: Ledger, database: Database
    ) -> None:
        self._countries = countries
        self._ledger = ledger
        self._database = database

    async def run(self) -> None:
        """Do it, again and again."""
        while True:
            try:
                await self.once()
            except UnavailableError:
                pass
            except Exception:
                log.exception("the upkeep of contacts failed")
            await asyncio.sleep(WRITE_EVERY_SECONDS)

    async def once(self) -> None:
        """Do it now."""
        for account, country in self._countries.items():
            await self._find_forms(account, country)
        before = self._ledger.clock() - KEPT_MS
        if await self._database.read(partial(has_old_requests, before=before)):
            forget = partial(forget_requests, before=before, limit=ROWS)
            await self._database.write(forget, led=True)
        before = self._ledger.clock() - RECIPIENTS_KEPT_MS
        while await self._database.read(partial(has_old_recipients, before=before)):
            forget = partial(forget_recipients, before=before, limit=ROWS)
            await self._database.write(forget, led=True)

    async def _find_forms(self, account: str, country: str | None) -> None:
        """Find the canonical forms of inputs that callbacks brought, and nobody asked for."""
        while True:
            inputs = await self._database.read(partial(not_formed, account=account, limit=ROWS))
            if not inputs:
                return
            forms = await asyncio.to_thread(_forms, inputs, country)
            await self._database.write(partial(form, account=account, forms=forms), led=True)


def _forms(inputs: list[str], country: str | None) -> list[tuple[str, str]]:
    return [(text, canonical(text, country) or "") for text in inputs]
