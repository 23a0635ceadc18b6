"""Asks about contacts again: those that were not answered about, and those that expire in use.

Beside it what checks need is looked after: messages counted, forms found, old requests forgotten.
"""

import asyncio
from contextlib import suppress
from functools import partial

import structlog

from service.ledger.contact_checks import KEPT_MS, CountMessages, RenewContacts, TakeDueChecks
from service.ledger.ledger import Ledger
from service.ledger.messages import Messages
from service.ledger.unit_of_work import ChangeSet
from service.model.budget import Usage
from service.model.contacts import DAY_MS, FRESH_MS, patience_after
from service.model.numbers import canonical
from service.model.policy import delay_seconds
from service.model.users import usable_alias
from service.observability import failpoints
from service.observability.metrics import Metrics
from service.store.contact_checks import (
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
from service.store.database import Database, Transaction, UnavailableError
from service.store.retention import forget_recipients, has_old_recipients
from service.whatsapp.errors import CallError
from service.workers.checker import BATCH, Checker

LONGEST_SLEEP_SECONDS = 60.0
SHORTEST_SLEEP_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 60.0
"""After calls that did not succeed."""
LOOK_EVERY_SECONDS = 600.0
"""How often is looked for what is about to expire."""
LOOK_BACK_MS = DAY_MS
"""What expired so long ago at most is renewed too: the service was down, or the budget spent."""
ROWS = 500
"""Rows that one read looks at, or one transaction changes."""
WRITE_EVERY_SECONDS = 60.0
"""How often the messages that were counted are written; so much of them a crash may lose."""
HOUR_MS = 3_600_000
RECIPIENTS_KEPT_MS = 30 * DAY_MS
"""So long a message may wait for its user's phone, and a status of it come in."""

log = structlog.get_logger(__name__)


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
        ledger.listeners.append(self._hear)

    def _hear(self, commit: ChangeSet) -> None:
        if self._account in commit.checks:
            self._wake.set()

    async def run(self) -> None:
        """Ask, again and again."""
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
        """Do what is to be done now; give the seconds until there may be more."""
        paused = self._checker.client.paused_for()
        if paused > 0:
            return min(paused, LONGEST_SLEEP_SECONDS)
        await self._heed_clock()
        if self._settings.renew and self._ledger.clock() >= self._look_at:
            await self._look()
        due = await self._database.read(partial(next_due_check, account=self._account))
        # What is asked meanwhile is due no earlier than that.
        longest = min(LONGEST_SLEEP_SECONDS, self._settings.answer_seconds)
        seconds = longest if due is None else (due - self._ledger.clock()) / 1000
        if seconds <= 0:
            await self._ask_due()
        self._failures = 0
        return min(max(seconds, SHORTEST_SLEEP_SECONDS), longest)

    async def _heed_clock(self) -> None:
        """When the clock was set back, bring near what now lies too far ahead."""
        now = self._ledger.clock()
        if now < self._seen_at or not self._seen_at:
            patience = self._checker.patience_ms
            latest = now + patience_after(patience, self._settings.max_attempts)
            account = self._account
            await self._database.write(
                lambda t: bring_checks_near(t.connection, account, now, latest)
            )
            self._look_at = min(self._look_at, now)
        self._seen_at = now

    async def _ask_due(self) -> None:
        """Ask about some that are due, or give them up."""
        settings, patience = self._settings, self._checker.patience_ms
        now = self._ledger.clock()
        entry = TakeDueChecks(self._account, BATCH, patience, settings.max_attempts, now)
        failpoints.reached("recheck.before_due")
        due = await self._ledger.submit(entry)
        failpoints.reached("recheck.after_due")
        if due.failed:
            self._metrics.contact_failures.labels(self._account).inc(due.failed)
            log.warning("checks given up", account=self._account, count=due.failed)
        for inputs, force in ((due.plain, False), (due.forced, True)):
            if inputs:
                await self._checker.ask_again(inputs, force=force)

    async def _look(self) -> None:
        """Open a check of every contact that is about to expire and in use."""
        now = self._ledger.clock()
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
                entry = RenewContacts(
                    self._account, found.inputs, checker.budget, checker.unwritten
                )
                done = await self._ledger.submit(entry)
                renewed, refused = renewed + done.count, refused + done.refused
        self._look_at = now + round(LOOK_EVERY_SECONDS * 1000)
        if renewed:
            log.info("renewing contacts", account=self._account, count=renewed)
        if refused:
            self._metrics.contact_refusals.labels(self._account, "renewal").inc(refused)
            log.warning("contacts not renewed: budget spent", account=self._account, count=refused)


class Upkeep:
    """Writes what was counted, finds the forms of numbers, and forgets what is too old."""

    def __init__(
        self,
        countries: dict[str, str | None],
        messages: Messages,
        *,
        ledger: Ledger,
        database: Database,
    ) -> None:
        self._countries = countries
        self._messages = messages
        self._ledger = ledger
        self._database = database

    async def run(self) -> None:
        """Look after it, again and again."""
        while True:
            try:
                await self.once()
            except UnavailableError:
                pass
            except Exception:
                log.exception("looking after contacts failed")
            await asyncio.sleep(WRITE_EVERY_SECONDS)

    async def once(self) -> None:
        """Look after it now."""
        await self.write()
        for account, country in self._countries.items():
            await self._form(account, country)
        before = self._ledger.clock() - KEPT_MS
        if await self._database.read(partial(has_old_requests, before=before)):
            await self._database.write(lambda t: forget_requests(t.connection, before, ROWS))
        before = self._ledger.clock() - RECIPIENTS_KEPT_MS
        while await self._database.read(partial(has_old_recipients, before=before)):
            await self._database.write(partial(_forget_recipients, before=before))

    async def finish(self) -> None:
        """Write what was counted, for the service stops."""
        with suppress(UnavailableError):
            await self.write()

    async def write(self) -> None:
        """Write the messages that were counted; a little at a time, for callbacks wait for it."""
        for account in self._countries:
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

    async def _form(self, account: str, country: str | None) -> None:
        """Find the canonical forms of inputs that callbacks brought, and nobody asked for."""
        while True:
            inputs = await self._database.read(partial(not_formed, account=account, limit=ROWS))
            if not inputs:
                return
            forms = await asyncio.to_thread(_forms, inputs, country)
            await self._database.write(partial(_form, account=account, forms=forms))


def _forget_recipients(transaction: Transaction, before: int) -> None:
    forget_recipients(transaction.connection, before, ROWS)


def _forms(inputs: list[str], country: str | None) -> list[tuple[str, str]]:
    return [(text, canonical(text, country) or "") for text in inputs]


def _form(transaction: Transaction, account: str, forms: list[tuple[str, str]]) -> None:
    form(transaction.connection, account, forms)
