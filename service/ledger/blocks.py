"""A person blocks a user, or ends the block, as entries of the ledger."""

from dataclasses import dataclass

from service.ledger.decisions import OneUserCommand
from service.ledger.unit_of_work import UnitOfWork
from service.model.decisions import Block, block_user, unblock_user
from service.model.users import By


@dataclass(frozen=True)
class BlockUser(OneUserCommand):
    """Blocks a user, also one never heard of, until a time (Unix ms) or for good.

    `note` goes to the audit trail. Answered with the block as it is then.
    """

    account: str
    alias: str
    reason: str
    by: By
    until: int | None = None
    note: str | None = None

    def apply(self, uow: UnitOfWork) -> Block:
        """Let the rules decide what is kept."""
        user = uow.user(self.account, self.alias)
        wanted = Block(self.reason, uow.now, self.by, self.until)
        kept = block_user(user, uow.block_of(user), wanted, uow.context(self.account), self.note)
        uow.put_block(user, kept)
        moved = user.moved_to
        other = None if moved is None else uow.fetch(self.account, moved.alias)
        if moved is not None and other is not None:
            # As far as anybody knows, it is the same person who has the other number now.
            uow.copy_block(user, other, moved.since.at)
        return kept


@dataclass(frozen=True)
class UnblockUser(OneUserCommand):
    """Ends a block; answers whether there was one in force."""

    account: str
    alias: str
    by: By

    def apply(self, uow: UnitOfWork) -> bool:
        """Let the rules decide whether there is one to end."""
        user = uow.find(self.account, self.alias)
        if user is None:
            return False
        ended = unblock_user(user, uow.block_of(user), self.by, uow.context(self.account))
        if ended:
            uow.put_block(user, None)
        return ended
