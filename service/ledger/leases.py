"""Commands about leased work: taken, begun, renewed, and settled."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import structlog

from service.ledger.unit_of_work import Command, Required, UnitOfWork
from service.model.identity import ask_client, come_due
from service.model.outcomes import (
    Accepted,
    GetOutcome,
    NoEffect,
    PutOutcome,
    Settled,
    begin_put,
    settle_get,
    settle_put,
)
from service.model.users import Kind, User, Work
from service.store.database import Transaction
from service.store.outbox import stale_unsettled

PUT_OFF_MS = 60_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """The right to do a piece of work, as its holder has it; no two are equal.

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
class LeaseWork(Command[list[Lease]]):
    """Takes work of one account that is due: one piece for each holder named, at most.

    `now` is the store's time (Unix ms) at which it was done.
    """

    led: ClassVar[bool] = True
    account: str
    kind: Kind
    holders: list[str]
    due: list[int] = field(default_factory=list)
    now: int = 0

    @property
    def weight(self) -> int:
        """One for each piece of work."""
        return 1 + len(self.holders)

    async def claim(self, transaction: Transaction, /) -> Sequence[int]:
        """Return whose work is due."""
        self.now = transaction.now
        self.due = await transaction.due(self.account, self.kind, len(self.holders))
        return self.due

    def apply(self, uow: UnitOfWork) -> list[Lease]:
        """Lease what is still to be done; the policy is asked once more where it was scheduled."""
        pairs = zip(self.due, self.holders, strict=False)
        leased = [self._lease(uow, uow.find_by_id(user_id), holder) for user_id, holder in pairs]
        return [lease for lease in leased if lease is not None]

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
        """Lease it, if it is still due: a command before it in the batch may have changed that."""
        work = _work(user, self.kind)
        if work is None or work.due_at > uow.now or work.is_leased(uow.now):
            return None
        if self.kind is Kind.ACKNOWLEDGE:
            if not come_due(user, uow.context(self.account, request_id=work.request_id)):
                user.identity.work = None
                return None
            work = user.identity.work
        if work is None:
            return None
        work.holder = holder
        work.prolong(uow.now)
        return _lease_of(user, work, holder)


def _work(user: User, kind: Kind) -> Work | None:
    return user.identity.ask if kind is Kind.ASK else user.identity.work


def _put_off(user: User, kind: Kind, due_at: int) -> None:
    """Let work that the rules fail on wait, so that it does not keep others from being done."""
    work = _work(user, kind)
    if work is not None:
        work.due_at = due_at


def _lease_of(user: User, work: Work, holder: str) -> Lease:
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
class BeginPut(Command[bool]):
    """Marks the PUT of leased work as begun; answered with whether it may be sent.

    It is written right before that: whatever takes the work away, a hold or a newer identity, stops
    a PUT that has not begun.
    """

    led: ClassVar[bool] = True
    lease: Lease

    async def required(self, _: Transaction, /) -> Required:
        """Return what to load."""
        return Required(ids=[self.lease.user_id])

    def apply(self, uow: UnitOfWork) -> bool:
        """Let the rules say."""
        lease, user = self.lease, uow.find_by_id(self.lease.user_id)
        return user is not None and begin_put(user, lease.holder, lease.hash or "", uow.now)


@dataclass(frozen=True, slots=True)
class RecordOutcome(Command[Settled]):
    """The outcome of a piece of leased work; it counts only while the lease lasts."""

    led: ClassVar[bool] = True
    lease: Lease
    outcome: PutOutcome | GetOutcome

    async def required(self, _: Transaction, /) -> Required:
        """Return what to load."""
        return Required(ids=[self.lease.user_id])

    def apply(self, uow: UnitOfWork) -> Settled:
        """Let the rules settle it."""
        lease, outcome = self.lease, self.outcome
        user = uow.find_by_id(lease.user_id)
        if user is None:
            return Settled.NOT_OURS
        context = uow.context(lease.account, request_id=lease.request_id)
        if lease.kind is Kind.ASK:
            if isinstance(outcome, Accepted | NoEffect):
                raise TypeError("a question is not answered like a PUT")
            return settle_get(user, lease.holder, lease.version, outcome, context)
        return settle_put(user, lease.holder, lease.hash or "", outcome, context)


@dataclass(frozen=True, slots=True)
class RenewLeases(Command[list[Lease]]):
    """Prolongs the leases that their holders still have; answered with those."""

    led: ClassVar[bool] = True
    leases: tuple[Lease, ...]

    @property
    def weight(self) -> int:
        """One for each lease."""
        return 1 + len(self.leases)

    async def required(self, _: Transaction, /) -> Required:
        """Return what to load."""
        return Required(ids=[lease.user_id for lease in self.leases])

    def apply(self, uow: UnitOfWork) -> list[Lease]:
        """Prolong."""
        return [lease for lease in self.leases if _prolong(uow, lease)]


def _prolong(uow: UnitOfWork, lease: Lease) -> bool:
    user = uow.find_by_id(lease.user_id)
    work = None if user is None else _work(user, lease.kind)
    if user is None or work is None or not work.held_by(lease.holder, uow.now):
        return False
    work.prolong(uow.now)
    return True


@dataclass(slots=True)
class SweepIdentities(Command[int]):
    """Wants an answer about identities that stay unacknowledged and were not asked about lately.

    Answered with how many there were. `before` is Unix milliseconds.
    """

    led: ClassVar[bool] = True
    account: str
    before: int
    limit: int
    ids: list[int] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """One for each identity."""
        return 1 + self.limit

    async def required(self, transaction: Transaction, /) -> Required:
        """Return what to load."""
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
