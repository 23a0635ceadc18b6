"""Leased work: taken, prolonged, and settled, as entries of the ledger."""

from dataclasses import dataclass, field

import structlog

from service.ledger.book import Book, Wanted
from service.model.doubts import want_answer
from service.model.identities import come_due
from service.model.outcomes import (
    Accepted,
    GetOutcome,
    NoEffect,
    PutOutcome,
    Settled,
    answered,
    settle,
)
from service.model.users import LEASE_MS, Kind, User, Work
from service.store.database import Transaction
from service.store.queries import stale_unsettled

PUT_OFF_MS = 60_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A piece of leased work, as its holder sees it; each is itself alone.

    `begun` says that an earlier PUT may have reached the client: a GET comes first.
    """

    account: str
    wa_id: str
    user_id: int
    kind: Kind
    holder: str
    version: int
    hash: str | None
    begun: bool
    reason: str
    request_id: str | None


@dataclass(slots=True)
class LeaseEntry:
    """Takes work of one account that is due: one piece for each holder named, at most."""

    account: str
    kind: Kind
    holders: list[str]
    now: int
    due: list[int] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """One for each piece of work."""
        return 1 + len(self.holders)

    def wants(self, transaction: Transaction) -> Wanted:
        """Want the users whose work is due."""
        self.due = transaction.due(self.account, self.kind, self.now, len(self.holders))
        return Wanted(ids=self.due)

    def apply(self, book: Book) -> list[Task]:
        """Lease what is still to be done; the policy is asked once more where it was scheduled."""
        pairs = zip(self.due, self.holders, strict=False)
        leased = [self._lease(book, book.find_by_id(user_id), holder) for user_id, holder in pairs]
        return [task for task in leased if task is not None]

    def _lease(self, book: Book, user: User | None, holder: str) -> Task | None:
        if user is None:
            return None
        try:
            return self._take(book, user, holder)
        except Exception:
            log.exception("the rules failed on leased work", account=self.account, kind=self.kind)
            _put_off(user, self.kind, book.now + PUT_OFF_MS)
            return None

    def _take(self, book: Book, user: User, holder: str) -> Task | None:
        """Lease it, if it is still due: an entry before in the batch may have changed that."""
        work = _work(user, self.kind)
        if work is None or work.due_at > book.now or work.under_way(book.now):
            return None
        user.changed = True
        if self.kind is Kind.ACKNOWLEDGE:
            if not come_due(user, book.context(self.account)):
                user.work = None
                return None
            work = user.work
        if work is None:
            return None
        task = _task(user, work, holder)
        work.begun = work.begun or self.kind is Kind.ACKNOWLEDGE
        work.holder, work.lease_until = holder, book.now + LEASE_MS
        return task

    def poisoned(self, _: Exception) -> None:
        """Pass the fault to the worker."""


def _work(user: User, kind: Kind) -> Work | None:
    return user.ask if kind is Kind.ASK else user.work


def _put_off(user: User, kind: Kind, due_at: int) -> None:
    """Let work that the rules fail on wait, so that it does not keep others from being done."""
    work = _work(user, kind)
    if work is not None:
        work.due_at = due_at
        user.changed = True


def _task(user: User, work: Work, holder: str) -> Task:
    return Task(
        user.account,
        user.alias,
        user.id,
        work.kind,
        holder,
        user.version,
        work.hash,
        work.begun,
        work.reason,
        work.request_id,
    )


@dataclass(frozen=True, slots=True)
class OutcomeEntry:
    """What a piece of leased work came to; counted only while the lease lasts."""

    task: Task
    outcome: PutOutcome | GetOutcome
    weight: int = 1

    def wants(self, _: Transaction) -> Wanted:
        """Want the user."""
        return Wanted(ids=[self.task.user_id])

    def apply(self, book: Book) -> Settled:
        """Let the rules settle it."""
        task, outcome = self.task, self.outcome
        user = book.find_by_id(task.user_id)
        if user is None:
            return Settled.NOT_OURS
        context = book.context(task.account)
        if task.kind is Kind.ASK:
            if isinstance(outcome, Accepted | NoEffect):
                raise TypeError("a question is not answered like a PUT")
            return answered(user, task.holder, task.version, outcome, context)
        return settle(user, task.holder, task.hash or "", outcome, context)

    def poisoned(self, _: Exception) -> None:
        """Pass the fault to the worker."""


@dataclass(frozen=True, slots=True)
class RenewEntry:
    """Prolongs the leases that their holders still have; answered with those."""

    tasks: tuple[Task, ...]

    @property
    def weight(self) -> int:
        """One for each lease."""
        return 1 + len(self.tasks)

    def wants(self, _: Transaction) -> Wanted:
        """Want the users."""
        return Wanted(ids=[task.user_id for task in self.tasks])

    def apply(self, book: Book) -> list[Task]:
        """Prolong."""
        return [task for task in self.tasks if _prolong(book, task)]

    def poisoned(self, _: Exception) -> None:
        """Pass the fault to the worker."""


def _prolong(book: Book, task: Task) -> bool:
    user = book.find_by_id(task.user_id)
    work = None if user is None else _work(user, task.kind)
    if user is None or work is None or not work.held_by(task.holder, book.now):
        return False
    work.lease_until = book.now + LEASE_MS
    user.renewed = True
    return True


@dataclass(slots=True)
class SweepEntry:
    """Wants an answer about identities that stay unacknowledged and were not asked about lately.

    Answered with how many there were. `before` is Unix milliseconds.
    """

    account: str
    before: int
    limit: int
    ids: list[int] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """One for each identity."""
        return 1 + self.limit

    def wants(self, transaction: Transaction) -> Wanted:
        """Want those users."""
        self.ids = stale_unsettled(transaction.connection, self.account, self.before, self.limit)
        return Wanted(ids=self.ids)

    def apply(self, book: Book) -> int:
        """Put a GET for each into the outbox."""
        for user_id in self.ids:
            user = book.find_by_id(user_id)
            if user is not None:
                user.checked_at = book.now
                user.changed = True
                want_answer(user, "sweep", book.context(self.account))
        return len(self.ids)

    def poisoned(self, _: Exception) -> None:
        """Pass the fault to the worker."""
