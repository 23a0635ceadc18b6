"""A person blocks a user, or ends the block, as entries of the ledger."""

from dataclasses import dataclass

from service.ledger.book import Book
from service.ledger.decisions import OneUser
from service.model.blocks import Block, block, unblock
from service.model.users import By


@dataclass(frozen=True)
class BlockEntry(OneUser):
    """Blocks a user, also one never heard of, until a time (Unix ms) or for good.

    `note` goes to the audit trail. Answered with the block as it is then.
    """

    account: str
    alias: str
    reason: str
    by: By
    until: int | None = None
    note: str | None = None

    def apply(self, book: Book) -> Block:
        """Let the rules decide what is kept."""
        user = book.user(self.account, self.alias)
        wanted = Block(self.reason, book.now, self.by, self.until)
        kept = block(user, book.block_of(user), wanted, book.context(self.account), self.note)
        book.put_block(user, kept)
        moved = user.moved_to
        other = None if moved is None else book.fetch(self.account, moved.alias)
        if moved is not None and other is not None:
            # As far as anybody knows, it is the same person who has the other number now.
            book.copy_block(user, other, moved.since.at)
        return kept


@dataclass(frozen=True)
class UnblockEntry(OneUser):
    """Ends a block; answers whether there was one in force."""

    account: str
    alias: str
    by: By

    def apply(self, book: Book) -> bool:
        """Let the rules decide whether there is one to end."""
        user = book.find(self.account, self.alias)
        if user is None:
            return False
        ended = unblock(user, book.block_of(user), self.by, book.context(self.account))
        if ended:
            book.put_block(user, None)
        return ended
