"""What a batch works on: the users and contacts that its commands concern, loaded once."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from sqlalchemy import Connection

from service.model.aliases import AliasOwners, AliasResolver, inherit_moves
from service.model.contacts import Contact, is_about
from service.model.decisions import Block, copy_block, stricter, tell_blocked
from service.model.erasure import begin_anew, take_name
from service.model.event_log import LoggedEvent
from service.model.events import AliasesSeen, NumberChanged
from service.model.merges import OWNERS, are_linked, has_hash, link_users, merge_users
from service.model.policy import Policies, Policy
from service.model.telling import contact_event
from service.model.timeline import date_event
from service.model.users import AuditEntry, Context, User, id_of_mark, is_user_id
from service.store.database import Alias, ChangeSet, JournalRow, Transaction
from service.store.erasing import forget_names
from service.store.users import delete_history, find_block, put_block

T = TypeVar("T")

NO_POLICY = Policies((), Policy("default"))
"""For an account that was removed from the configuration: everything waits for a person."""


class Required(NamedTuple):
    """What a command requires to be loaded: users by alias or id, and contacts by input.

    What it reads and writes itself, by `UnitOfWork.connection`, it gives a name in `names`: nobody
    else who names it works on that meanwhile.
    """

    aliases: Sequence[Alias] = ()
    ids: Sequence[int] = ()
    inputs: Sequence[Alias] = ()
    names: Sequence[str] = ()


NOTHING = Required()


class Command(Generic[T]):
    """One thing to be written: a callback, a decision, a lease, an outcome.

    A command may be applied again in a new transaction, where the one before was rolled back. One
    that is `led` is for the leader to write: where another replica leads by then, nobody does.
    """

    led: ClassVar[bool] = False

    @property
    def weight(self) -> int:
        """About how many events' worth of work it is."""
        return 1

    async def required(self, _transaction: Transaction, /) -> Required:
        """Return what to load."""
        return NOTHING

    async def claim(self, _transaction: Transaction, /) -> Sequence[int]:
        """Return users to load last: those whose work this takes, if nobody else does just now."""
        return ()

    def apply(self, uow: "UnitOfWork") -> T:
        """Let the rules decide, in memory, and return the result; what changed is saved later."""
        raise NotImplementedError

    def fallback(self, _error: Exception, /) -> "Command[T] | None":
        """Return what to write instead if the rules fail on this; None to pass the error on."""
        return None


class UnitOfWork:
    """The users, contacts and journal rows of one transaction. Times are Unix milliseconds.

    Use it in this order: `load`, `apply`, `save`. `connection` is for the queries that few commands
    need; it can be used within `apply` alone. `missed` takes users that nobody foresaw: should the
    batch run again, they are loaded from the beginning.
    """

    connection: Connection

    def __init__(
        self,
        transaction: Transaction,
        policies: Mapping[str, Policies],
        chance: float,
        missed: set[Alias],
    ) -> None:
        self.now = transaction.now
        self._missed = missed
        self.checks: set[str] = set()
        self._transaction = transaction
        self._policies = policies
        self._chance = chance
        self._users: dict[Alias, User] = {}
        self._erased: dict[Alias, User] = {}
        self._by_id: dict[int, User] = {}
        self._created: set[int] = set()
        self._contacts: dict[Alias, Contact] = {}
        self._changed_contacts: dict[Alias, Contact] = {}
        self._journal: list[JournalRow] = []
        self._audit: list[tuple[str | None, AuditEntry]] = []
        self._blocks: dict[int, Block | None] = {}
        self._owned: dict[Alias, int] = {}
        self._merged: list[tuple[int, int]] = []
        self._recipients: dict[Alias, str] = {}
        self._called_back: dict[str, int] = {}
        self._told: list[LoggedEvent] = []
        self._erasing: dict[int, Callable[[Connection, int, int], None]] = {}

    async def load(self, commands: Sequence[Command[Any]]) -> None:
        """Load what the commands of a batch require, and what an earlier try of it missed."""
        aliases: set[Alias] = set()
        ids: set[int] = set()
        inputs: set[Alias] = set()
        names: set[str] = set()
        for command in commands:
            required = await command.required(self._transaction)
            aliases.update(required.aliases)
            ids.update(required.ids)
            inputs.update(required.inputs)
            names.update(required.names)
        aliases |= self._missed
        if aliases or ids:
            self._users = await self._transaction.load_users(aliases, ids)
        unknown = aliases - self._users.keys()
        if unknown:
            self._erased = await self._transaction.load_erased(unknown)
        if inputs:
            self._contacts = await self._transaction.load_contacts(inputs)
        if names:
            await self._transaction.lock(names)
        claimed = {id_ for command in commands for id_ in await command.claim(self._transaction)}
        if claimed:
            self._users |= await self._transaction.load_users((), claimed)
        loaded = (*self._users.values(), *self._erased.values())
        self._by_id = {user.id: user for user in loaded}

    async def apply(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Apply the commands in their order; return what each came to."""

        def apply_all(connection: Connection) -> list[Any]:
            self.connection = connection
            return [command.apply(self) for command in commands]

        # The rules are plain functions. Where one of them needs a user that nobody foresaw, the
        # query is awaited behind its back: that is what `run` is for.
        return await self._transaction.run(apply_all)

    def context(
        self, account: str, arrived: int | None = None, request_id: str | None = None
    ) -> Context:
        """Return what the rules need besides a user of this account."""
        policies = self._policies.get(account, NO_POLICY)
        came = self.now if arrived is None else arrived
        return Context(self.now, policies, came, self._chance, request_id, self._told)

    def find(self, account: str, alias: str) -> User | None:
        """Return a user that is known, and loaded."""
        user = self._users.get((account, alias))
        while user is not None and user.merged_into is not None:
            user = self._by_id.get(user.merged_into)
        return user

    def find_erased(self, account: str, alias: str) -> User | None:
        """Return what is left of a user who was called so and was erased, if nobody is since."""
        key = account, alias
        return None if key in self._users else self._erased.get(key)

    def find_or_load(self, account: str, alias: str) -> User | None:
        """Return a user that is known, and load it if need be: for what is rarely needed.

        Links call somebody who was erased by a mark.
        """
        erased_id = id_of_mark(alias)
        if erased_id is not None:
            return self._find_or_load_erased(erased_id)
        key = account, alias
        if key not in self._users:
            self._missed.add(key)
            found = self._transaction.load_users_through(self.connection, [key], ()).get(key)
            if found is None:
                return None
            self._users[key] = self._by_id[found.id] = found
        return self.find(account, alias)

    def _find_or_load_erased(self, user_id: int) -> User | None:
        if user_id not in self._by_id:
            loaded = self._transaction.load_users_through(self.connection, (), [user_id])
            self._by_id |= {user.id: user for user in loaded.values()}
        return self._by_id.get(user_id)

    def find_by_id(self, user_id: int) -> User | None:
        """Return a user that was loaded by its id."""
        return self._by_id.get(user_id)

    def find_or_create(self, account: str, alias: str) -> User:
        """Return a user, a new one if need be: also where who was called so was erased."""
        known = self.find(account, alias)
        if known is None:
            erased = self.find_erased(account, alias)
            id_ = self._transaction.new_user_id()
            if is_user_id(alias):
                known = User(id_, account, None, self.now, user_id=alias)
                self._owned[account, alias] = id_
            else:
                known = User(id_, account, alias, self.now)
            self._created.add(id_)
            self._users[account, alias] = self._by_id[id_] = known
            if erased is not None:
                begin_anew(known, erased)
                self._inherit_block(known, erased)
        return known

    def find_or_begin_anew(self, account: str, alias: str) -> User | None:
        """Return a user that is known; a new one only where who was called so was erased."""
        if self.find_erased(account, alias) is not None:
            return self.find_or_create(account, alias)
        return self.find(account, alias)

    def pass_on(self, erased: User, name: str, context: Context) -> None:
        """Close the gate to who has a name by which somebody who is erased was found, if need be.

        A check of that number had found the erased one, who could not be written to.
        """
        user = self.find_or_load(erased.account, name)
        if user is None or not (erased.identity.after_hold or self.block_of(erased) is not None):
            return
        take_name(user, erased, context)
        self._inherit_block(user, erased)

    def _inherit_block(self, user: User, erased: User) -> None:
        """Let the block of somebody who was erased hold for whoever has a name of that one's."""
        kept = stricter(self.block_of(user), self.block_of(erased), self.now)
        if kept is not None:
            self.put_block(user, kept)

    def add_nameless(self, account: str) -> User:
        """Return a new user without any name, who leaves a tombstone."""
        user = User(self._transaction.new_user_id(), account, None, self.now)
        self._created.add(user.id)
        self._by_id[user.id] = user
        return user

    def erase(
        self, user: User, names: Collection[str], then: Callable[[Connection, int, int], None]
    ) -> None:
        """Have all of a user's history deleted, and the names, once all names are written.

        Whoever comes under one of the names from now on is somebody new. `then` is called with a
        connection, the user's id and the time (Unix ms).
        """
        self._erasing[user.id] = then
        for alias in names:
            key = user.account, alias
            if self.find(*key) in (None, user):
                self._users.pop(key, None)
                self._erased[key] = user

    def names_of(self, user: User) -> set[str]:
        """Return by which names, of those that are loaded or came since, a user is found."""
        keys = (key for key in self._users if key[0] == user.account)
        return {key[1] for key in keys if id_of_mark(key[1]) is None and self.find(*key) is user}

    def resolve_aliases(
        self, account: str, seen: AliasesSeen, hash_: str | None, context: Context
    ) -> None:
        """Decide who has these aliases; `hash_` is what is said of the identity beside them.

        A name of somebody who was erased is known: what is said of it counts.
        """
        names = [name for name in (seen.user_id, seen.wa_id, seen.parent) if name is not None]
        led = {name: self.find_erased(account, name) for name in names}
        erased = {one.id: one for one in led.values() if one is not None}
        # Who has these names alone, and nobody else's, may be the same person.
        is_new = len(erased) == 1 and None not in led.values()
        if erased and not seen.creates:
            seen = seen._replace(creates=True)
        owners = AliasOwners(
            self.find(account, seen.user_id),
            self.find(account, seen.wa_id) if seen.wa_id else None,
            self.find(account, seen.parent) if seen.parent else None,
        )
        resolver = AliasResolver(seen, hash_, partial(self.find_or_load, account), context)
        resolution = resolver.resolve_aliases(owners, partial(self.find_or_create, account))
        if resolution is None:
            return
        user = resolution.user
        for alias in resolution.owned:
            if self._users.get((account, alias)) is not user or user.id in self._created:
                self._users[account, alias] = user
                self._owned[account, alias] = user.id
        for one in erased.values():
            if not (is_new and user.id in self._created):
                take_name(user, one, context)
            self._inherit_block(user, one)
        for other in resolution.merged:
            self._keep_merged(user, other, context)
        for former, owner, since in resolution.handovers:
            self.copy_block(former, owner, since.at, context)

    def unite_by(self, hash_: str, user: User, context: Context) -> None:
        """Make one person of a user who has this hash, and of who had the number or has it since.

        That is, where the other has the hash too, or had it.
        """
        if not user.links or has_hash(user, hash_):
            return
        for known in [one for one in user.links if one.relation in OWNERS]:
            other = self.find_or_load(user.account, known.alias)
            if other is not None and other is not user and has_hash(other, hash_):
                self._merge(user, other, context)

    def change_number(self, account: str, changed: NumberChanged, context: Context) -> None:
        """Link the two users of a number change; a block holds for the new one too.

        Where both have had the same number it is only the user id that changed: they are one.
        """
        new = self.find_or_create(account, changed.new_user)
        old = self.find_or_create(account, changed.user)
        if are_linked(old, new, OWNERS, partial(self.find_or_load, account)):
            self._merge(new, old, context)
        elif link_users(old, new, changed, context):
            since = date_event(changed.at, context.arrived).moment
            self.copy_block(old, new, since.at, context)
            for known in old.links:
                is_owner = known.relation == "next_owner"
                owner = self.find_or_load(account, known.alias) if is_owner else None
                if owner is not None:
                    inherit_moves(owner, old, known.since, context)

    def copy_block(self, user: User, other: User, since: int, context: Context) -> None:
        """Let a person's block of a user hold for another, who has to do with the user since then.

        And for those whom the other became later: whoever asked to stop stays blocked.
        """
        block = self.block_of(user)
        waiting = [] if block is None else [(other, since)]
        while block is not None and waiting:
            one, since = waiting.pop()
            if not copy_block(block, self.block_of(one), one, context):
                continue  # it has the block already, or one that ends no earlier
            self.put_block(one, block)
            for known_as in one.links:
                if known_as.relation == "successor" and known_as.since.at > since:
                    later = self.find_or_load(one.account, known_as.alias)
                    if later is not None:
                        waiting.append((later, known_as.since.at))

    def _merge(self, user: User, other: User, context: Context) -> None:
        merge_users(user, other, partial(self.find_or_load, user.account), context)
        self._keep_merged(user, other, context)

    def _keep_merged(self, user: User, other: User, context: Context) -> None:
        """Note that another turned out to be this user: the names of both, and the block."""
        self._merged.append((other.id, user.id))
        known = self.block_of(user)
        kept = stricter(known, self.block_of(other), self.now)
        if kept is not None:
            if kept is not known and kept.in_force(self.now):
                tell_blocked(user, kept, context)
            self.put_block(user, kept)
            self.put_block(other, None)

    def note_recipient(self, account: str, message_id: str, alias: str) -> None:
        """Note for whom a message was."""
        self._recipients[account, message_id] = alias

    def recipient_of(self, account: str, message_id: str) -> str | None:
        """Return for whom a message was that an entry of this very batch tells of."""
        return self._recipients.get((account, message_id))

    def contact(self, account: str, input_: str) -> Contact | None:
        """Return a contact that is known."""
        return self._contacts.get((account, input_))

    def take_contacts(self, account: str, names: Collection[str]) -> list[Contact]:
        """Forget the contacts about somebody of these names, as far as they are loaded."""
        found = [
            contact
            for contact in self._contacts.values()
            if contact.account == account and is_about(contact, names)
        ]
        for contact in found:
            del self._contacts[account, contact.input]
            self._changed_contacts.pop((account, contact.input), None)
        return found

    def put_contact(self, contact: Contact) -> None:
        """Keep a contact, and tell where a check of it was resolved."""
        key = contact.account, contact.input
        event = contact_event(self._contacts.get(key), contact, self.now)
        if event is not None:
            self.tell(event)
        self._contacts[key] = self._changed_contacts[key] = contact

    def block_of(self, user: User) -> Block | None:
        """Return the block that a person has put on a user, in force or not."""
        if user.id in self._blocks or user.id in self._created:
            return self._blocks.get(user.id)
        return find_block(self.connection, user.id)

    def put_block(self, user: User, block: Block | None) -> None:
        """Keep a user's block, or none any more."""
        self._blocks[user.id] = block

    def add_journal(self, row: JournalRow) -> int:
        """Append a callback to the journal; return the id that it has there."""
        id_ = self._transaction.new_journal_id()
        self._journal.append(row._replace(id=id_))
        return id_

    def tell(self, event: LoggedEvent) -> None:
        """Append an event to the event log."""
        self._told.append(event)

    def note_callback(self, account: str, at: int) -> None:
        """Note that an account was named in a callback of several."""
        self._called_back[account] = at

    def add_audit(self, account: str | None, entry: AuditEntry) -> None:
        """Append an audit entry that concerns no user."""
        self._audit.append((account, entry))

    async def save(self) -> ChangeSet:
        """Write everything; return what changed."""
        transaction = self._transaction
        if self._erasing:
            # First, for somebody new may have one of the names already.
            await transaction.run(partial(forget_names, user_ids=[*self._erasing]))
        await transaction.add_journal(self._journal)
        await transaction.note_callbacks(self._called_back)
        changes = await transaction.save_users(self._by_id.values())
        await transaction.save_aliases(self._owned)
        await transaction.merge_users(self._merged)
        if self._erasing:
            await transaction.run(self._erase)  # there are all names by now
        await transaction.save_recipients(self._recipients)
        await transaction.save_contacts(self._changed_contacts.values())
        await transaction.add_audit(self._audit)
        changes.event_id = await transaction.add_events(self._told)
        if self._blocks:
            await transaction.run(self._put_blocks)
        changes.checks = self.checks
        changes.journal = self._journal
        changes.told = [event.type for event in self._told]
        changes.acknowledged = list(self._acknowledged())
        return changes

    def _acknowledged(self) -> Iterator[tuple[str, int]]:
        """Yield the account of each identity that was acknowledged, and its age then (ms)."""
        for user in self._by_id.values():
            latest = user.identity.latest
            for entry in user.audit:
                if (
                    entry.event == "acknowledged"
                    and latest is not None
                    and latest.hash == entry.hash
                ):
                    yield user.account, max(0, self.now - latest.received_at)

    def _erase(self, connection: Connection) -> None:
        delete_history(connection, [*self._erasing])
        for user_id, erase_names in self._erasing.items():
            erase_names(connection, user_id, self.now)

    def _put_blocks(self, connection: Connection) -> None:
        for user_id, block in self._blocks.items():
            put_block(connection, user_id, block)
