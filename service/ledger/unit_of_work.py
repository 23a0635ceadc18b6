"""What a batch works on: the users and contacts that its entries concern, loaded once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from service.model.aliases import AliasOwners, AliasResolver, inherit_moves
from service.model.contacts import Contact
from service.model.decisions import Block, copy_block, stricter
from service.model.events import AliasesSeen, NumberChanged
from service.model.merges import OWNERS, are_linked, has_hash, link_users, merge_users
from service.model.policy import Policies, Policy
from service.model.timeline import date_event
from service.model.users import AuditEntry, Context, Kind, User, is_user_id
from service.store.blocks import find_block, put_block
from service.store.database import Alias, JournalRow, Transaction

T_co = TypeVar("T_co", covariant=True)

NO_POLICY = Policies((), Policy("default"))
"""For an account that was removed from the configuration: everything waits for a person."""


class Required(NamedTuple):
    """What an entry wants to be loaded for it."""

    aliases: Sequence[Alias] = ()
    ids: Sequence[int] = ()
    inputs: Sequence[Alias] = ()


NOTHING = Required()


class Command(Protocol[T_co]):
    """One thing to be written: a callback, a decision, a lease, an outcome."""

    @property
    def weight(self) -> int:
        """About how many events' worth of work it is."""

    def required(self, transaction: Transaction) -> Required:
        """Say what to load."""

    def apply(self, uow: "UnitOfWork") -> T_co:
        """Let the rules decide, in memory; the book is saved afterwards."""

    def fallback(self, error: Exception) -> "Command[T_co] | None":
        """Give what to write instead when the rules fail on this entry; None to pass the fault."""


@dataclass(slots=True)
class ChangeSet:
    """What a committed batch changed, for those who wait for it.

    `checks` are the accounts with contact checks to be asked at once.
    """

    users: set[int] = field(default_factory=set)
    work: set[tuple[str, Kind]] = field(default_factory=set)
    checks: set[str] = field(default_factory=set)


class UnitOfWork:
    """The users, contacts and journal rows of one transaction. Times are Unix milliseconds."""

    def __init__(
        self, transaction: Transaction, policies: Mapping[str, Policies], now: int, chance: float
    ) -> None:
        self.transaction = transaction
        self.now = now
        self._policies = policies
        self._chance = chance
        self._users: dict[Alias, User] = {}
        self._by_id: dict[int, User] = {}
        self._contacts: dict[Alias, Contact] = {}
        self._changed_contacts: dict[Alias, Contact] = {}
        self._journal: list[JournalRow] = []
        self._blocks: dict[int, Block | None] = {}
        self._owned: dict[Alias, int] = {}
        self._merged: list[tuple[int, int]] = []
        self._recipients: dict[Alias, str] = {}
        self._heard: dict[str, int] = {}
        self.checks: set[str] = set()

    def load(self, wanted: Iterable[Required]) -> None:
        """Load what the entries of a batch want."""
        aliases: set[Alias] = set()
        ids: set[int] = set()
        inputs: set[Alias] = set()
        for want in wanted:
            aliases.update(want.aliases)
            ids.update(want.ids)
            inputs.update(want.inputs)
        if aliases or ids:
            self._users = self.transaction.load_users(aliases, ids)
            self._by_id = {user.id: user for user in self._users.values()}
        if inputs:
            self._contacts = self.transaction.load_contacts(inputs)

    def context(
        self, account: str, arrived: int | None = None, request_id: str | None = None
    ) -> Context:
        """Give what the rules need besides a user of this account."""
        policies = self._policies.get(account, NO_POLICY)
        came = self.now if arrived is None else arrived
        return Context(self.now, policies, came, self._chance, request_id)

    def find(self, account: str, alias: str) -> User | None:
        """Give a user that is known, and loaded."""
        user = self._users.get((account, alias))
        while user is not None and user.merged_into is not None:
            user = self._by_id.get(user.merged_into)
        return user

    def fetch(self, account: str, alias: str) -> User | None:
        """Give a user that is known, and load it if need be: for what is rarely needed."""
        if (account, alias) not in self._users:
            user = self.transaction.load_users([(account, alias)], ()).get((account, alias))
            if user is None:
                return None
            self._users[account, alias] = self._by_id.setdefault(user.id, user)
        return self.find(account, alias)

    def find_by_id(self, user_id: int) -> User | None:
        """Give a user that was loaded by its id."""
        return self._by_id.get(user_id)

    def user(self, account: str, alias: str) -> User:
        """Give a user, a new one if need be."""
        known = self.find(account, alias)
        if known is None:
            id_ = self.transaction.new_user_id()
            if is_user_id(alias):
                known = User(id_, account, None, self.now, user_id=alias, is_new=True, changed=True)
                self._owned[account, alias] = id_
            else:
                known = User(id_, account, alias, self.now, is_new=True, changed=True)
            self._users[account, alias] = self._by_id[known.id] = known
        return known

    def resolve_aliases(
        self, account: str, seen: AliasesSeen, hash_: str | None, context: Context
    ) -> None:
        """Decide who has these aliases; `hash_` is what is said of the identity beside them."""
        owners = AliasOwners(
            self.find(account, seen.user_id),
            self.find(account, seen.wa_id) if seen.wa_id else None,
            self.find(account, seen.parent) if seen.parent else None,
        )
        resolver = AliasResolver(seen, hash_, partial(self.fetch, account), context)
        resolution = resolver.resolve_aliases(owners, lambda alias: self.user(account, alias))
        if resolution is None:
            return
        user = resolution.user
        for alias in resolution.owned:
            if self._users.get((account, alias)) is not user or user.is_new:
                self._users[account, alias] = user
                self._owned[account, alias] = user.id
        for other in resolution.merged:
            self._keep_merged(user, other)
        for former, owner, since in resolution.handovers:
            self.copy_block(former, owner, since.at)

    def unite_by(self, hash_: str, user: User, context: Context) -> None:
        """Make one person of a user who has this hash, and of who had the number or has it since.

        That is, where the other has the hash too, or had it.
        """
        if not user.links or has_hash(user, hash_):
            return
        for known in [one for one in user.links if one.relation in OWNERS]:
            other = self.fetch(user.account, known.alias)
            if other is not None and other is not user and has_hash(other, hash_):
                self._merge(user, other, context)

    def change_number(self, account: str, changed: NumberChanged, context: Context) -> None:
        """Link the two users of a number change; a block holds for the new one too.

        Where both have had the same number it is only the user id that changed: they are one.
        """
        new = self.user(account, changed.new_user)
        old = self.user(account, changed.user)
        if are_linked(old, new, OWNERS, partial(self.fetch, account)):
            self._merge(new, old, context)
        elif link_users(old, new, changed, context):
            since = date_event(changed.at, context.arrived).moment
            self.copy_block(old, new, since.at)
            for known in old.links:
                owner = self.fetch(account, known.alias) if known.relation == "next_owner" else None
                if owner is not None:
                    inherit_moves(owner, old, known.since, context)

    def copy_block(self, user: User, other: User, since: int) -> None:
        """Let a person's block of a user hold for another, who has to do with the user since then.

        And for those whom the other became later: whoever asked to stop stays blocked.
        """
        block = self.block_of(user)
        waiting = [] if block is None else [(other, since)]
        while block is not None and waiting:
            one, since = waiting.pop()
            if not copy_block(block, self.block_of(one), one, self.now):
                continue  # it has the block already, or one that ends no earlier
            self.put_block(one, block)
            for known_as in one.links:
                if known_as.relation == "successor" and known_as.since.at > since:
                    later = self.fetch(one.account, known_as.alias)
                    if later is not None:
                        waiting.append((later, known_as.since.at))

    def _merge(self, user: User, other: User, context: Context) -> None:
        merge_users(user, other, partial(self.fetch, user.account), context)
        self._keep_merged(user, other)

    def _keep_merged(self, user: User, other: User) -> None:
        """Note that another turned out to be this user: the names of both, and the block."""
        self._merged.append((other.id, user.id))
        kept = stricter(self.block_of(user), self.block_of(other), self.now)
        if kept is not None:
            self.put_block(user, kept)
            self.put_block(other, None)

    def note_recipient(self, account: str, message_id: str, alias: str) -> None:
        """Note for whom a message was."""
        self._recipients[account, message_id] = alias

    def recipient_of(self, account: str, message_id: str) -> str | None:
        """Tell for whom a message was that an entry of this very batch tells of."""
        return self._recipients.get((account, message_id))

    def contact(self, account: str, input_: str) -> Contact | None:
        """Give a contact that is known."""
        return self._contacts.get((account, input_))

    def put_contact(self, contact: Contact) -> None:
        """Keep a contact."""
        key = contact.account, contact.input
        self._contacts[key] = self._changed_contacts[key] = contact

    def block_of(self, user: User) -> Block | None:
        """Give the block that a person has put on a user, in force or not."""
        if user.id in self._blocks or user.is_new:
            return self._blocks.get(user.id)
        return find_block(self.transaction.connection, user.id)

    def put_block(self, user: User, block: Block | None) -> None:
        """Keep a user's block, or none any more."""
        self._blocks[user.id] = block

    def add_journal(self, row: JournalRow) -> None:
        """Append a callback to the journal."""
        self._journal.append(row)

    def hear(self, account: str, at: int) -> None:
        """Note that an account was spoken of in a callback of several."""
        self._heard[account] = at

    def add_audit(self, account: str | None, entry: AuditEntry) -> None:
        """Append an audit entry that is of no user."""
        self.transaction.add_audit(account, [entry])

    def save(self) -> ChangeSet:
        """Write everything; give what changed."""
        users = self._by_id.values()
        if self._journal:
            self.transaction.add_journal(self._journal)
        if self._heard:
            self.transaction.note_callbacks(self._heard)
        self.transaction.save_users(users)
        if self._owned:
            self.transaction.save_aliases(self._owned)
        if self._merged:
            self.transaction.merge_users(self._merged)
        if self._recipients:
            self.transaction.save_recipients(self._recipients, self.now)
        if self._changed_contacts:
            self.transaction.save_contacts(self._changed_contacts.values())
        for user_id, block in self._blocks.items():
            put_block(self.transaction.connection, user_id, block)
        return self._changes()

    def _changes(self) -> ChangeSet:
        commit = ChangeSet(checks=self.checks)
        for user in self._by_id.values():
            if user.changed:
                commit.users.add(user.id)
                for work in (user.identity.work, user.identity.ask):
                    if work is not None and work.holder is None:
                        commit.work.add((user.account, work.kind))
        return commit
