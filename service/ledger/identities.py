"""Commands about users: a person's decisions, a client's answers, and a move to the Cloud API."""

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, TypeVar

from service.ledger.ledger import MAX_WEIGHT
from service.ledger.unit_of_work import Command, Required, UnitOfWork
from service.model.decisions import Block, Decision, Result, block_user, decide, unblock_user
from service.model.outcomes import Answer, apply_client_answer, apply_not_found, migrate_to_cloud
from service.model.users import By, User
from service.store.contacts import end_checks
from service.store.database import Transaction
from service.store.journal import dismiss
from service.store.outbox import left_to_client
from service.store.relays import forget_skipped
from service.store.restore import forgo_asking, verify_account, verify_user

T = TypeVar("T")


class OneUserCommand(Command[T]):
    """A command that concerns one user."""

    account: str
    alias: str

    async def required(self, _: Transaction, /) -> Required:
        """Return that user."""
        return Required(aliases=[(self.account, self.alias)])


@dataclass(frozen=True)
class TakeDecision(OneUserCommand[tuple[Result, User | None]]):
    """A decision about a user; answered with its result and the user as it is then."""

    account: str
    alias: str
    decision: Decision
    request_id: str | None = None

    def apply(self, uow: UnitOfWork) -> tuple[Result, User | None]:
        """Let the table of decisions decide."""
        user = uow.find(self.account, self.alias)
        if user is None:
            return Result.NO_IDENTITY, None
        context = uow.context(self.account, request_id=self.request_id)
        return decide(user, self.decision, context), user


@dataclass(frozen=True)
class Refreshed:
    """The user after the answer; `changed` where the identity changed meanwhile: ask again."""

    user: User | None
    changed: bool = False


@dataclass(frozen=True)
class RecordAnswer(OneUserCommand[Refreshed]):
    """What the client answered to a question asked now; `version` as it was when asked.

    `answer` is None where the client knows no identity of the user.
    """

    account: str
    alias: str
    version: int
    answer: Answer | None
    request_id: str | None = None

    def apply(self, uow: UnitOfWork) -> Refreshed:
        """Apply the answer; a user who was unverified since a restore is verified by it."""
        known = uow.find(self.account, self.alias)
        if (known.identity.version if known is not None else 0) != self.version:
            return Refreshed(known, changed=True)
        context = uow.context(self.account, request_id=self.request_id)
        if self.answer is not None:
            known = uow.find_or_create(self.account, self.alias)
            apply_client_answer(known, self.answer, context)
        elif known is not None:
            apply_not_found(known, context)
        if known is not None:
            verify_user(uow.connection, known.account, known.id)
        return Refreshed(known)


@dataclass(frozen=True)
class CompleteVerification(Command[bool]):
    """Makes an account verified again once nobody is left to be asked about; answers whether."""

    led: ClassVar[bool] = True
    account: str

    @property
    def weight(self) -> int:
        """All there is: whoever writes an account's row before the end has a transaction alone."""
        return MAX_WEIGHT

    def apply(self, uow: UnitOfWork) -> bool:
        """Look whether somebody is left."""
        return verify_account(uow.connection, self.account, uow.now)


@dataclass(frozen=True)
class BlockUser(OneUserCommand[Block]):
    """Blocks a user, also one that is not known, until a time (Unix ms) or for good.

    `note` goes to the audit trail. Answered with the block as it is then.
    """

    account: str
    alias: str
    reason: str
    by: By
    until: int | None = None
    note: str | None = None
    request_id: str | None = None

    def apply(self, uow: UnitOfWork) -> Block:
        """Let the rules decide what is kept."""
        user = uow.find_or_create(self.account, self.alias)
        wanted = Block(self.reason, uow.now, self.by, self.until)
        context = uow.context(self.account, request_id=self.request_id)
        kept = block_user(user, uow.block_of(user), wanted, context, self.note)
        uow.put_block(user, kept)
        moved = user.moved_to
        other = None if moved is None else uow.find_or_load(self.account, moved.alias)
        if moved is not None and other is not None:
            # As far as anybody knows, it is the same person who has the other number now.
            uow.copy_block(user, other, moved.since.at, context)
        return kept


@dataclass(frozen=True)
class UnblockUser(OneUserCommand[bool]):
    """Ends a block; answers whether there was one in force."""

    account: str
    alias: str
    by: By
    request_id: str | None = None

    def apply(self, uow: UnitOfWork) -> bool:
        """Let the rules decide whether there is one to end."""
        account = self.account
        user = uow.find(account, self.alias) or uow.find_erased(account, self.alias)
        if user is None:
            return False
        context = uow.context(account, request_id=self.request_id)
        ended = unblock_user(user, uow.block_of(user), self.by, context)
        if ended:
            uow.put_block(user, None)
        return ended


BATCH = 500


@dataclass(slots=True)
class MoveToCloud(Command[int | None]):
    """Settles some users of an account; answers with the last of them, None where there is none."""

    account: str
    after: int = 0
    ids: list[int] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """All there is: whoever writes an account's row before the end has a transaction alone."""
        return MAX_WEIGHT

    async def required(self, transaction: Transaction, /) -> Required:
        """Return what to load."""
        self.ids = await transaction.run(
            partial(left_to_client, account=self.account, after=self.after, limit=BATCH)
        )
        return Required(ids=self.ids)

    def apply(self, uow: UnitOfWork) -> int | None:
        """Let the rules settle each; nobody is unverified where there is nobody to ask.

        Nor is a contact being checked.
        """
        context = uow.context(self.account)
        for user_id in self.ids:
            user = uow.find_by_id(user_id)
            if user is not None:
                migrate_to_cloud(user, context)
        connection = uow.connection
        forgo_asking(connection, self.account, uow.now)
        end_checks(connection, self.account)
        return self.ids[-1] if self.ids else None


@dataclass(frozen=True, slots=True)
class DismissIssue(Command[None]):
    """Dismisses an issue of an account, or of an app, as the journal calls it."""

    account: str
    code: str
    subject: str | None
    by: By
    request_id: str | None = None

    async def required(self, _: Transaction, /) -> Required:
        """Return what to lock."""
        return Required(names=[f"dismissals of {self.account}"])

    def apply(self, uow: UnitOfWork) -> None:
        """Keep it, and who did so."""
        connection = uow.connection
        dismiss(connection, self.account, self.code, self.subject, uow.now)
        if self.code == "relay_skipped":
            forget_skipped(connection, self.subject or "")
        reason = f"{self.code} {self.subject}" if self.subject else self.code
        context = uow.context(self.account, request_id=self.request_id)
        entry = context.entry("issue_dismissed", by=self.by, reason=reason)
        uow.add_audit(self.account or None, entry)
