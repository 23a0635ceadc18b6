"""What the steps ask of a database, whichever it is."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection

from service.model.contacts import Contact
from service.model.recipients import LatestCheck, Recipient, RecipientData
from service.model.users import AuditEntry, Kind, User

T = TypeVar("T")

SYNTHETIC = "synthetic"
"""The journal state of what `ackgate doctor` sent: kept, and no sign of life of the client."""

APP_MARK = "@"
"""Before the name of an app, where the journal can name no single account: no name begins so."""

Alias = tuple[str, str]
"""An account, and what a user of it is called."""


class StoreError(Exception):
    """The database can't be used; the text is one line for the operator."""


class UnavailableError(StoreError):
    """The database did not do what was asked, and nothing of it is in effect."""


class JournalRow(NamedTuple):
    """A callback as it came over the wire. `headers` is a JSON list of pairs."""

    account: str
    received_at: int
    state: str
    content_type: str
    content_encoding: str
    headers: str
    body: bytes
    reason: str | None = None


class Transaction(Protocol):
    """The statements of the hot path, within one transaction; others go to `connection`."""

    @property
    def connection(self) -> Connection:
        """The same transaction, for queries that need not be fast."""

    def load_users(self, aliases: Iterable[Alias], ids: Iterable[int]) -> dict[Alias, User]:
        """Load users with their history and work, under each alias asked for and their own."""

    def load_contacts(self, inputs: Iterable[Alias]) -> dict[Alias, Contact]:
        """Load contacts by account and literal input."""

    def new_user_id(self) -> int:
        """Give an id for a new user."""

    def save_users(self, users: Iterable[User]) -> None:
        """Write what the rules changed: users, history, audit trail, outbox."""

    def save_aliases(self, owned: Mapping[Alias, int]) -> None:
        """Let aliases lead to these users from now on, wherever they led before."""

    def merge_users(self, merged: Sequence[tuple[int, int]]) -> None:
        """Move the history and the names of users, given first, to those that they are.

        A user that one of these turned out to be may be given later as one of the first.
        """

    def recipients_of(self, message_ids: Iterable[Alias]) -> dict[Alias, str]:
        """Tell by account and message id for whom messages were, as far as it was noted."""

    def save_recipients(self, recipients: Mapping[Alias, str], now: int) -> None:
        """Note by account and message id for whom messages were."""

    def save_contacts(self, contacts: Iterable[Contact]) -> None:
        """Write contacts, new or known."""

    def add_journal(self, rows: Sequence[JournalRow]) -> None:
        """Append callbacks, and note when each account had its last."""

    def note_callbacks(self, heard: Mapping[str, int]) -> None:
        """Note when (Unix ms) accounts were spoken of in a callback of several."""

    def add_audit(self, account: str | None, entries: Sequence[AuditEntry]) -> None:
        """Append audit entries that are of no user."""

    def due(self, account: str, kind: Kind, now: int, limit: int) -> list[int]:
        """Give the users whose work is due and in nobody's hands, the longest due first."""


class RecipientQuery(NamedTuple):
    """What the gate is asked: may these recipients of an account be written to?

    `country_of` is a number whose country holds for those that name none.
    """

    account: str
    country_of: str | None
    asked: Sequence[str]


class Reads(Protocol):
    """The statements of the gate, each for many recipients of an account at once."""

    def users(self, account: str, aliases: Collection[str]) -> Mapping[str, Recipient]:
        """Return the users by what they are called."""

    def checks(
        self,
        account: str,
        inputs: Collection[str] = (),
        forms: Collection[str] = (),
        wa_ids: Collection[str] = (),
    ) -> Iterable[LatestCheck]:
        """Return what the client last said of numbers; one of many may come more than once.

        Numbers are known by the literal text that was asked about, by their canonical form, or by
        the wa_id that was told.
        """


class Database(Protocol):
    """One database: transactions that write, one after another, and readers beside them."""

    async def write(self, work: Callable[[Transaction], T], *, light: bool = False) -> T:
        """Run the work in one transaction, one after another.

        `light` work takes some milliseconds at most, so that it need not leave the event loop.
        Raises UnavailableError where the database fails; whatever the work itself raises passes
        through. In both cases nothing of it is in effect.
        """

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run the work on a snapshot of the database; raises like `write`."""

    async def look_up(self, query: RecipientQuery, then: Callable[[RecipientData], T]) -> T:
        """Find what is known of recipients, and answer from it; raises like `write`.

        Out of the way of slower queries; those that wait are asked together.
        """

    async def close(self) -> None:
        """Finish what was begun, and let go of the database."""
