"""A person dismisses an issue whose cause is past, as an entry of the ledger."""

from dataclasses import dataclass

from service.ledger.book import NOTHING, Book, Wanted
from service.model.users import AuditEntry, By
from service.store.database import Transaction
from service.store.strangers import dismiss


@dataclass(frozen=True, slots=True)
class DismissEntry:
    """Dismisses an issue of an account, or of an app, as the journal calls it."""

    account: str
    code: str
    subject: str | None
    by: By
    weight: int = 1

    def wants(self, _: Transaction) -> Wanted:
        """Want nobody."""
        return NOTHING

    def apply(self, book: Book) -> None:
        """Keep it, and who did so."""
        connection = book.transaction.connection
        dismiss(connection, self.account, self.code, self.subject, book.now)
        reason = f"{self.code} {self.subject}" if self.subject else self.code
        entry = AuditEntry(book.now, "issue_dismissed", by=self.by, reason=reason)
        book.add_audit(self.account, entry)

    def poisoned(self, _: Exception) -> None:
        """Pass the fault to who asked."""
