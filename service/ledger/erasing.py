"""Erasing a user, as commands: the user's own row, and who is linked with the user."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from sqlalchemy import Connection

from service.ledger.identities import OneUserCommand
from service.ledger.unit_of_work import Command, Required, UnitOfWork
from service.model.erasure import ERASED_ALIAS, erase_links, erase_user
from service.model.merges import MOVES
from service.model.users import By
from service.store.accounts import ERASURE_MIGRATION, need_release
from service.store.database import Transaction
from service.store.erased import keep_erased
from service.store.erasing import aliases_of, begin, inputs_of, names_of


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
    names: set[str] = field(default_factory=set)
    linked: Sequence[str] = ()

    async def required(self, transaction: Transaction, /) -> Required:
        """Require the user by all names, and the contacts about the user."""
        self.names, inputs = await transaction.run(self._named)
        account = self.account
        return Required([(account, n) for n in self.names], (), [(account, i) for i in inputs])

    def _named(self, connection: Connection) -> tuple[set[str], Sequence[str]]:
        names = names_of(connection, self.account, self.alias)
        return names, inputs_of(connection, self.account, sorted(names))

    def apply(self, uow: UnitOfWork) -> int:
        """Take everything from the user, and note what the logs are to be searched for."""
        connection, account = uow.connection, self.account
        context = uow.context(account, request_id=self.request_id)
        user = uow.find(account, self.alias) or uow.add_nameless(account)
        called = {*self.names, *aliases_of(connection, user.id)}
        if (block := uow.block_of(user)) is not None:
            uow.put_block(user, replace(block, reason=ERASED_ALIAS))
        moves = (link.alias for link in user.links if link.relation in MOVES)
        self.linked = sorted({alias for alias in moves if alias != ERASED_ALIAS})
        erase_user(user, self.by, context, closed=self.closed)
        uow.erase(user, partial(self._erase_names, called))
        return user.id

    def _erase_names(
        self, called: set[str], connection: Connection, user_id: int, now: int
    ) -> None:
        """Run once the user has a row: what leads to it is written then."""
        names = {*called, *inputs_of(connection, self.account, sorted(called))}
        begin(connection, self.account, user_id, sorted(names), now)
        keep_erased(connection, self.account, called, user_id)
        need_release(connection, ERASURE_MIGRATION)


@dataclass(frozen=True, slots=True)
class EraseLinks(Command[None]):
    """Has the links of users call somebody who was erased by no name."""

    user_ids: Sequence[int]
    names: frozenset[str]

    async def required(self, _: Transaction, /) -> Required:
        """Require those users."""
        return Required(ids=self.user_ids)

    def apply(self, uow: UnitOfWork) -> None:
        """Rename them."""
        for user_id in self.user_ids:
            if (user := uow.find_by_id(user_id)) is not None:
                erase_links(user, self.names)


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
