"""Leased work: taken, prolonged, and settled, as entries of the ledger."""

from dataclasses import dataclass, field
from functools import partial

import structlog

from service.ledger.unit_of_work import Required, UnitOfWork
from service.model.identity import ask_client, come_due
from service.model.outcomes import (
    Accepted,
    GetOutcome,
    NoEffect,
    PutOutcome,
    Settled,
    settle_get,
    settle_put,
)
from service.model.users import LEASE_MS, Kind, User, Work
from service.store.database import Transaction
from service.store.outbox import stale_unsettled

PUT_OFF_MS = 60_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
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
class LeaseWork:
    """Takes work of one account that is due: one piece for each holder named, at most."""

    account: str
    kind: Kind
    holders: list[str]
    due: list[int] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """One for each piece of work."""
        return 1 + len(self.holders)

    async def required(self, transaction: Transaction) -> Required:
        """Want the users whose work is due."""
        self.due = await transaction.due(self.account, self.kind, len(self.holders))
        return Required(ids=self.due)

    def apply(self, uow: UnitOfWork) -> list[Lease]:
        """Lease what is still to be done; the policy is asked once more where it was scheduled."""
        pairs = zip(self.due, self.holders, strict=False)
        leased = [self._lease(uow, uow.find_by_id(user_id), holder) for user_id, holder in pairs]
        return [task for task in leased if task is not None]

    def _lease(self, uow: UnitOfWork, user: User | None, holder: str) -> Lease | None:
        if user is None:
            return None
        try:
            return self._take(uow, user, holder)
        except Exception:
            log.exception("the rules failed on leased work", account=self.account, kind=self.kind)
            _put_off(user, self.kind, uow.now + PUT_OFF_MS)
            return None

    def _take(self, uow: UnitOfWork, user: User, holder: str) -> Lease | None:
        """Lease it, if it is still due: an entry before in the batch may have changed that."""
        work = _work(user, self.kind)
        if work is None or work.due_at > uow.now or work.under_way(uow.now):
            return None
        if self.kind is Kind.ACKNOWLEDGE:
            if not come_due(user, uow.context(self.account)):
                user.identity.work = None
                return None
            work = user.identity.work
        if work is None:
            return None
        task = _task(user, work, holder)
        work.begun = work.begun or self.kind is Kind.ACKNOWLEDGE
        work.holder, work.lease_until = holder, uow.now + LEASE_MS
        return task

    def fallback(self, _: Exception) -> None:
        """Pass the fault to the worker."""


def _work(user: User, kind: Kind) -> Work | None:
    return user.identity.ask if kind is Kind.ASK else user.identity.work


def _put_off(user: User, kind: Kind, due_at: int) -> None:
    """Let work that the rules fail on wait, so that it does not keep others from being done."""
    work = _work(user, kind)
    if work is not None:
        work.due_at = due_at


def _task(user: User, work: Work, holder: str) -> Lease:
    return Lease(
        user.account,
        user.alias,
        user.id,
        work.kind,
        holder,
        user.identity.version,
        work.hash,
        work.begun,
        work.reason,
        work.request_id,
    )


@dataclass(frozen=True, slots=True)
class RecordOutcome:
    """What a piece of leased work came to; counted only while the lease lasts."""

    task: Lease
    outcome: PutOutcome | GetOutcome
    weight: int = 1

    async def required(self, _: Transaction) -> Required:
        """Want the user."""
        return Required(ids=[self.task.user_id])

    def apply(self, uow: UnitOfWork) -> Settled:
        """Let the rules settle it."""
        task, outcome = self.task, self.outcome
        user = uow.find_by_id(task.user_id)
        if user is None:
            return Settled.NOT_OURS
        context = uow.context(task.account)
        if task.kind is Kind.ASK:
            if isinstance(outcome, Accepted | NoEffect):
                raise TypeError("a question is not answered like a PUT")
            return settle_get(user, task.holder, task.version, outcome, context)
        return settle_put(user, task.holder, task.hash or "", outcome, context)

    def fallback(self, _: Exception) -> None:
        """Pass the fault to the worker."""


@dataclass(frozen=True, slots=True)
class RenewLeases:
    """Prolongs the leases that their holders still have; answered with those."""

    tasks: tuple[Lease, ...]

    @property
    def weight(self) -> int:
        """One for each lease."""
        return 1 + len(self.tasks)

    async def required(self, _: Transaction) -> Required:
        """Want the users."""
        return Required(ids=[task.user_id for task in self.tasks])

    def apply(self, uow: UnitOfWork) -> list[Lease]:
        """Prolong."""
        return [task for task in self.tasks if _prolong(uow, task)]

    def fallback(self, _: Exception) -> None:
        """Pass the fault to the worker."""


def _prolong(uow: UnitOfWork, task: Lease) -> bool:
    user = uow.find_by_id(task.user_id)
    work = None if user is None else _work(user, task.kind)
    if user is None or work is None or not work.held_by(task.holder, uow.now):
        return False
    work.lease_until = uow.now + LEASE_MS
    return True


@dataclass(slots=True)
class SweepIdentities:
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

    async def required(self, transaction: Transaction) -> Required:
        """Want those users."""
        self.ids = await transaction.run(
            partial(stale_unsettled, account=self.account, before=self.before, limit=self.limit)
        )
        return Required(ids=self.ids)

    def apply(self, uow: UnitOfWork) -> int:
        """Put a GET for each into the outbox."""
        for user_id in self.ids:
            user = uow.find_by_id(user_id)
            if user is not None:
                user.identity.checked_at = uow.now
                ask_client(user, "sweep", uow.context(self.account))
        return len(self.ids)

    def fallback(self, _: Exception) -> None:
        """Pass the fault to the worker."""
