"""A person dismisses an issue whose cause is past, as an entry of the ledger."""

from dataclasses import dataclass

from service.ledger.unit_of_work import NOTHING, Required, UnitOfWork
from service.model.users import AuditEntry, By
from service.store.database import Transaction
from service.store.strangers import dismiss


@dataclass(frozen=True, slots=True)
class DismissIssue:
    """Dismisses an issue of an account, or of an app, as the journal calls it."""

    account: str
    code: str
    subject: str | None
    by: By
    weight: int = 1

    async def required(self, _: Transaction) -> Required:
        """Want nobody."""
        return NOTHING

    def apply(self, uow: UnitOfWork) -> None:
        """Keep it, and who did so."""
        connection = uow.connection
        dismiss(connection, self.account, self.code, self.subject, uow.now)
        reason = f"{self.code} {self.subject}" if self.subject else self.code
        entry = AuditEntry(uow.now, "issue_dismissed", by=self.by, reason=reason)
        uow.add_audit(self.account, entry)

    def fallback(self, _: Exception) -> None:
        """Pass the fault to who asked."""
