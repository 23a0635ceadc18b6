"""A person's decision, and a question to the client, as entries of the ledger."""

from dataclasses import dataclass

from service.ledger.unit_of_work import NOTHING, Required, UnitOfWork
from service.model.decisions import Decision, Result, decide
from service.model.outcomes import Answer, apply_client_answer, apply_not_found
from service.model.users import User
from service.store.database import Transaction
from service.store.unverified import verify_account, verify_user


class OneUserCommand:
    """An entry that concerns one user, and is of one event's weight."""

    account: str
    alias: str
    weight = 1

    async def required(self, _: Transaction) -> Required:
        """Want that user."""
        return Required(aliases=[(self.account, self.alias)])

    def fallback(self, _: Exception) -> None:
        """Pass the fault to who asked."""


@dataclass(frozen=True)
class TakeDecision(OneUserCommand):
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
class RecordAnswer(OneUserCommand):
    """What the client answered to a question asked now; `version` as it was when asked.

    `answer` is None where the client knows no identity of the user.
    """

    account: str
    alias: str
    version: int
    answer: Answer | None

    def apply(self, uow: UnitOfWork) -> Refreshed:
        """Heed the answer; whoever was unverified since a restore is verified by it."""
        known = uow.find(self.account, self.alias)
        if (known.identity.version if known is not None else 0) != self.version:
            return Refreshed(known, changed=True)
        context = uow.context(self.account)
        if self.answer is not None:
            known = uow.user(self.account, self.alias)
            apply_client_answer(known, self.answer, context)
        elif known is not None:
            apply_not_found(known, context)
        if known is not None:
            verify_user(uow.connection, known.account, known.id)
        return Refreshed(known)


@dataclass(frozen=True)
class CompleteVerification:
    """Makes an account verified again once nobody is left to be asked about; answers whether."""

    account: str
    weight: int = 1

    async def required(self, _: Transaction) -> Required:
        """Want nobody."""
        return NOTHING

    def apply(self, uow: UnitOfWork) -> bool:
        """Look whether somebody is left."""
        return verify_account(uow.connection, self.account, uow.now)

    def fallback(self, _: Exception) -> None:
        """Pass the fault to the verifier."""
