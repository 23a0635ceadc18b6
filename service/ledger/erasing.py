"""Erasing a user, as commands: the user's own row, and who is linked with the user."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy import Connection

from service.ledger.identities import OneUserCommand
from service.ledger.unit_of_work import Command, Required, UnitOfWork
from service.model.contacts import INVALID, Contact, full_number
from service.model.erasure import erase_links, erase_user
from service.model.merges import MOVES
from service.model.users import ERASED_ALIAS, By, id_of_mark
from service.store.accounts import ERASURE_MIGRATION, need_release
from service.store.database import Transaction
from service.store.erased import keep_erased, keep_spelled
from service.store.erasing import aliases_of, begin, inputs_of, names_of, spellings_of


@dataclass(slots=True)
class EraseUser(Command[int]):
    """Leaves a tombstone of a user, also of one that is not known; answers with its id.

    `closed` keeps the gate closed. `linked` then has other numbers of the same person. The logs are
    still to be searched: see `service.workers.erasing`.
    """

    account: str
    alias: str
    by: By
    closed: bool
    request_id: str | None = None
    linked: Sequence[str] = ()

    async def required(self, transaction: Transaction, /) -> Required:
        """Require the user by all names, and the contacts about the user."""
        names, inputs = await transaction.run(self._named)
        account = self.account
        return Required([(account, n) for n in names], (), [(account, i) for i in inputs])

    def _named(self, connection: Connection) -> tuple[set[str], Sequence[str]]:
        names = names_of(connection, self.account, self.alias)
        return names, inputs_of(connection, self.account, sorted(names))

    def apply(self, uow: UnitOfWork) -> int:
        """Take everything from the user, and note what the logs are to be searched for."""
        connection, account = uow.connection, self.account
        context = uow.context(account, request_id=self.request_id)
        known = uow.find(account, self.alias) or uow.find_erased(account, self.alias)
        user = known or uow.add_nameless(account)
        # Some of the names may have gone to somebody else in this very batch.
        kept = {self.alias, *aliases_of(connection, user.id)}
        called = {name for name in kept if uow.find(account, name) is None} | uow.names_of(user)
        contacts = uow.take_contacts(account, called)
        closed = self.closed or any(_closes(contact, called) for contact in contacts)
        forms = (full_number(contact.input, contact.canonical) for contact in contacts)
        spelled = {form for form in forms if form is not None}
        if (block := uow.block_of(user)) is not None:
            uow.put_block(user, replace(block, reason=ERASED_ALIAS))
        moves = (link.alias for link in user.links if link.relation in MOVES)
        self.linked = sorted({alias for alias in moves if id_of_mark(alias) is None})
        erase_user(user, self.by, context, closed=closed)
        is_closed = user.identity.after_hold or block is not None
        erase_names = partial(self._erase_names, called, spelled, closed=is_closed)
        uow.erase(user, called | spelled, erase_names)
        for form in sorted(spelled - called):
            uow.pass_on(user, form, context)
        return user.id

    def _erase_names(
        self,
        called: set[str],
        spelled: set[str],
        connection: Connection,
        user_id: int,
        now: int,
        *,
        closed: bool,
    ) -> None:
        """Run once all names are written: also of those who were merged with the user by then."""
        called = {*called, *aliases_of(connection, user_id)}
        inputs = inputs_of(connection, self.account, sorted(called))
        forms = {*spelled, *spellings_of(connection, self.account, inputs)}
        begin(connection, self.account, user_id, sorted({*called, *inputs}), now)
        keep_erased(connection, self.account, called, user_id)
        keep_spelled(connection, self.account, forms - called, user_id, closed=closed)
        need_release(connection, ERASURE_MIGRATION)


def _closes(contact: Contact, called: set[str]) -> bool:
    """Return whether a check of a number closes the gate for who spells it so, or may do so."""
    return contact.status == INVALID or (contact.wa_id is not None and contact.wa_id not in called)


@dataclass(frozen=True, slots=True)
class EraseLinks(Command[None]):
    """Has the links of users call somebody who was erased by no name, but by a mark."""

    user_ids: Sequence[int]
    names: frozenset[str]
    erased_id: int

    async def required(self, _: Transaction, /) -> Required:
        """Require those users."""
        return Required(ids=self.user_ids)

    def apply(self, uow: UnitOfWork) -> None:
        """Rename them."""
        for user_id in self.user_ids:
            if (user := uow.find_by_id(user_id)) is not None:
                erase_links(user, self.names, self.erased_id)


@dataclass(frozen=True)
class NoteExport(OneUserCommand[None]):
    """Notes in the audit trail that all was exported that is kept of a user, known or not."""

    account: str
    alias: str
    by: By
    request_id: str | None = None

    def apply(self, uow: UnitOfWork) -> None:
        """Add the entry: the user's, or the account's where nobody is known."""
        context = uow.context(self.account, request_id=self.request_id)
        entry = context.entry("exported", by=self.by)
        if (user := uow.find(self.account, self.alias)) is not None:
            user.record(entry)
        else:
            uow.add_audit(self.account, entry)
