"""What the steps ask of a database, whichever it is."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection

from service.model.contacts import Contact
from service.model.event_log import EventType, LoggedEvent
from service.model.recipients import RecipientData
from service.model.users import AuditEntry, Kind, User

T = TypeVar("T")

SYNTHETIC = "synthetic"
"""The journal state of what `ackgate doctor` sent: kept, and no sign of life of the client."""

ERASED = "erased"
"""The journal state of a callback of which nothing is left: it was about erased users alone."""

APP_MARK = "@"
"""Before the name of an app, where the journal can name no single account: no name begins so."""

Alias = tuple[str, str]
"""An account, and what a user of it is called."""

Clock = Callable[[], int]
"""The time in Unix milliseconds."""


QUIET_TURNS = 3


async def let_others_join(waiting: Sized, at_most: int) -> None:
    """Let everybody who is about to ask join those who wait: one trip to the database for all.

    The answers to the batch before have to go out first, then those who asked again meanwhile are
    heard: hence a few turns of the event loop without news, and no timer.
    """
    quiet = 0
    while quiet < QUIET_TURNS and len(waiting) < at_most:
        seen = len(waiting)
        await asyncio.sleep(0)
        quiet = quiet + 1 if len(waiting) == seen else 0


def wall_clock() -> int:
    """Return the time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


class StoreError(Exception):
    """The database can't be used; the text is one line for the operator."""


class UnavailableError(StoreError):
    """The database did not do what was asked, and nothing of it is in effect."""


UNIQUE_VIOLATION = "23505"
"""The SQLSTATE of a row whose key is taken."""


class ConflictError(UnavailableError):
    """Another writer stored a row with the same key first: what was read is out of date.

    Nothing is in effect, and the same work, done again on what is stored now, may succeed. `why` is
    an SQLSTATE, or a word of the store's own.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"another transaction was first ({why})")
        self.why = why


class NotLeaderError(UnavailableError):
    """Another replica leads by now: nothing of this is in effect, and it is that one's to do."""

    def __init__(self) -> None:
        super().__init__("another replica leads")


class NoRoomError(UnavailableError):
    """The disk is full: the same may succeed once there is room."""


class FaultError(UnavailableError):
    """The database can't be used until a person has seen to it, and the store has logged so.

    `code` says for programs what is wrong.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class JournalRow(NamedTuple):
    """A callback as it came over the wire. `headers` is a JSON list of pairs.

    Without an `id` the database gives one when it is written.
    """

    account: str
    received_at: int
    state: str
    content_type: str
    content_encoding: str
    headers: str
    body: bytes
    reason: str | None = None
    request_id: str | None = None
    id: int | None = None


@dataclass(slots=True)
class ChangeSet:
    """What a transaction changed, for those who wait for it.

    `users` are ids, `work` what is to be done and leased to nobody, by account and kind; `checks`
    the accounts with contact checks to be asked for at once. `acknowledged` has, for each identity
    that was acknowledged, its account and how long (ms) it had been known. `journal` are the
    callbacks that were appended, and `told` the types of the events that were appended to the event
    log, each in their order; `event_id` is that of the last of these. Of what other replicas have
    committed, the ids of the newest event and the newest callback, `journal_id`, are known alone.
    """

    users: set[int] = field(default_factory=set)
    work: set[tuple[str, Kind]] = field(default_factory=set)
    checks: set[str] = field(default_factory=set)
    acknowledged: list[tuple[str, int]] = field(default_factory=list)
    journal: Sequence[JournalRow] = field(default_factory=list)
    told: list[EventType] = field(default_factory=list)
    event_id: int = 0
    journal_id: int = 0


class Transaction(Protocol):
    """One transaction: what is written within takes effect as a whole, or not at all.

    The methods are the statements that each batch of callbacks needs, written for one database;
    everything else is a query in SQLAlchemy Core, the same for all databases, that `run` runs.
    """

    @property
    def now(self) -> int:
        """The database's time (Unix ms): leases begin and end by it, whoever holds them."""

    async def run(self, query: Callable[[Connection], T]) -> T:
        """Run queries within the transaction; they may be called through its connection alone."""

    async def load_users(self, aliases: Iterable[Alias], ids: Iterable[int]) -> dict[Alias, User]:
        """Load users with their history and work, under each alias asked for and their own.

        One without a name is found by the mark that links call it by.

        Nobody else changes them until the transaction ends. Raises ConflictError where one of them
        was not to be had.
        """

    async def load_erased(self, aliases: Iterable[Alias]) -> dict[Alias, User]:
        """Load who was called so, and was erased: by the digests of these names."""

    def load_users_through(
        self, connection: Connection, aliases: Iterable[Alias], ids: Iterable[int]
    ) -> dict[Alias, User]:
        """Load users as `load_users` does, from within what `run` runs."""

    async def load_contacts(self, inputs: Iterable[Alias]) -> dict[Alias, Contact]:
        """Load contacts by account and literal input."""

    async def lock(self, names: Iterable[str]) -> None:
        """Let nobody else lock any of these names until the transaction ends."""

    async def recipients_of(self, message_ids: Iterable[Alias]) -> dict[Alias, str]:
        """Return by account and message id to whom messages were sent, as far as is known."""

    async def due(self, account: str, kind: Kind, limit: int) -> list[int]:
        """Return the users whose work is due and leased to nobody, the longest due first.

        Those whom another transaction has loaded are left out.
        """

    def new_user_id(self) -> int:
        """Return an id for a new user."""

    def new_journal_id(self) -> int:
        """Return an id for the next callback; they grow in the order in which they are taken."""

    async def save_users(self, users: Iterable[User]) -> ChangeSet:
        """Write what the rules changed, and return it: users, history, audit trail, outbox."""

    async def save_aliases(self, owned: Mapping[Alias, int]) -> None:
        """Let aliases lead to these users from now on, wherever they led before."""

    async def merge_users(self, merged: Sequence[tuple[int, int]]) -> None:
        """Move the history and the aliases of users, given first, to those that they are.

        A user that one of these turned out to be may be given later as one of the first.
        """

    async def save_recipients(self, recipients: Mapping[Alias, str]) -> None:
        """Note by account and message id to whom messages were sent."""

    async def save_contacts(self, contacts: Iterable[Contact]) -> None:
        """Write contacts: those that were loaded, and new ones."""

    async def add_journal(self, rows: Sequence[JournalRow]) -> None:
        """Append callbacks, and note when each account had its last."""

    async def note_callbacks(self, accounts: Mapping[str, int]) -> None:
        """Note when (Unix ms) accounts were named in a callback of several."""

    async def add_audit(self, entries: Sequence[tuple[str | None, AuditEntry]]) -> None:
        """Append audit entries that concern no user, each with its account."""

    async def add_events(self, events: Sequence[LoggedEvent]) -> int:
        """Append events to the event log; return the id of the last, 0 where there is none.

        Ids grow in the order of commits.
        """


class RecipientQuery(NamedTuple):
    """What the gate is asked: may these recipients of an account be written to?

    `country_of` is a number whose country holds for those that name none.
    """

    account: str
    country_of: str | None
    asked: Sequence[str]


class Files(NamedTuple):
    """The size of the write-ahead log, and when (Unix ms) the last backup was made."""

    log_bytes: int
    backed_up_at: int | None


class Database(Protocol):
    """One database: transactions that write, and readers beside them."""

    @property
    def clock(self) -> Clock:
        """This process's own clock."""

    def transaction(self, *, led: bool = False) -> AbstractAsyncContextManager[Transaction]:
        """Begin a transaction; it is committed at the end, and rolled back where that raises.

        One that is `led` is the leader's: no other replica begins to lead before it has ended.

        Raises NotLeaderError where this one does not lead, ConflictError where another writer was
        first, and UnavailableError where the database fails; what the work itself raises passes
        through. In each case nothing is in effect.
        """

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run queries on a snapshot of the database. Raises UnavailableError."""

    async def write(self, query: Callable[[Connection], T], *, led: bool = False) -> T:
        """Run queries in a transaction of their own. Raises as `transaction` does."""

    async def write_dated(self, query: Callable[[Connection, int], T], *, led: bool = False) -> T:
        """Run queries as `write` does, given the database's time (Unix ms): no process's own."""

    async def find_recipients(self, query: RecipientQuery) -> RecipientData:
        """Find what is known of recipients; questions that wait are asked together.

        Raises UnavailableError.
        """

    @property
    def is_shared(self) -> bool:
        """Whether replicas of this service may work on it, too; else this one always leads."""

    @property
    def replica(self) -> str:
        """What this replica is called among those that work on it."""

    @property
    def replicas(self) -> int:
        """How many replicas work on it, this one included."""

    @property
    def leads(self) -> bool:
        """Whether this replica leads: no other one does at the same time."""

    async def lead(self, *, may_take: bool = True) -> bool:
        """Keep the lead, which has to be done every second; return whether this replica leads.

        Where it may, and nobody leads, it takes the lead. Raises UnavailableError.
        """

    async def resign(self) -> None:
        """Let another replica lead at once."""

    async def hear(self, seconds: float) -> None:
        """Wait until another replica has committed something, but no longer."""

    async def look(self, watched: Collection[int]) -> ChangeSet:
        """Return what other replicas have changed since the last look: of users those watched.

        What this one changed may be in it, too. Raises UnavailableError.
        """

    def fault(self) -> FaultError | None:
        """Return what keeps the database from being used until a person has seen to it, if any."""

    async def free_bytes(self) -> int | None:
        """Return what is free where the database lies, as far as this process may use it.

        None where that is not known here. Raises UnavailableError.
        """

    async def files(self) -> Files | None:
        """Return what is to be known of the database's files besides; None where it keeps them."""

    async def scrub(self) -> Sequence[str]:
        """Leave nothing of what was deleted in the database's own files, as far as it can.

        Returns the names of backups beside it, which have it still. Raises UnavailableError.
        """

    async def close(self) -> None:
        """Finish what was begun, and let go of the database."""


class Alone:
    """The part of a database that one process has for itself: that one always leads."""

    is_shared = False
    replica = ""
    replicas = 1
    leads = True

    async def lead(self, *, may_take: bool = True) -> bool:  # noqa: ARG002  none other does
        """Return True."""
        return True

    async def resign(self) -> None:
        """Do nothing: there is none other."""

    async def hear(self, seconds: float) -> None:
        """Wait: nobody else commits anything."""
        await asyncio.sleep(seconds)

    async def look(self, watched: Collection[int]) -> ChangeSet:  # noqa: ARG002  nobody changed any
        """Return nothing."""
        return ChangeSet()
