"""What a client was still to be asked or told of an account that moved to the Cloud API."""

from dataclasses import dataclass, field
from functools import partial

from service.ledger.unit_of_work import Required, UnitOfWork
from service.model.outcomes import migrate_to_cloud
from service.store.contact_checks import end_checks
from service.store.database import Transaction
from service.store.queries import left_to_client
from service.store.unverified import forgo_asking

BATCH = 500


@dataclass(slots=True)
class MoveToCloud:
    """Settles some users of an account; answers with the last of them, None where there is none."""

    account: str
    after: int = 0
    ids: list[int] = field(default_factory=list)
    weight: int = 1 + BATCH

    async def required(self, transaction: Transaction) -> Required:
        """Want those whom a client was still to be asked or told about."""
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

    def fallback(self, _: Exception) -> None:
        """Pass the fault to the start."""
