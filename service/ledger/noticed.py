"""Commands that tell of what happens by itself: blocks that end by time, and issues."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from service.ledger.unit_of_work import Command, Required, UnitOfWork
from service.model.account_checks import Issue
from service.model.decisions import end_block
from service.model.telling import issue_event
from service.store.database import Transaction
from service.store.events import IssueKey, ended_blocks, forget_raised, keep_raised

BATCH = 200
"""Blocks that one transaction ends."""


@dataclass(slots=True)
class EndBlocks(Command[int]):
    """Tells of blocks whose time is up, and forgets them; answered with how many there were."""

    led: ClassVar[bool] = True
    ids: list[int] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """One for each block."""
        return 1 + BATCH

    async def required(self, transaction: Transaction, /) -> Required:
        """Return what to load."""
        query = partial(ended_blocks, now=transaction.now, limit=BATCH)
        self.ids = await transaction.run(query)
        return Required(ids=self.ids)

    def apply(self, uow: UnitOfWork) -> int:
        """End those that have still ended: a command before in the batch may have renewed one."""
        for user_id in self.ids:
            user = uow.find_by_id(user_id)
            if user is not None and end_block(user, uow.block_of(user), uow.context(user.account)):
                uow.put_block(user, None)
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class RecordIssues(Command[None]):
    """Tells of issues that are new or gone, and keeps which ones were told of."""

    led: ClassVar[bool] = True
    raised: Mapping[IssueKey, Issue]
    cleared: Mapping[IssueKey, Issue]

    @property
    def weight(self) -> int:
        """One for each issue."""
        return 1 + len(self.raised) + len(self.cleared)

    async def required(self, _: Transaction, /) -> Required:
        """Return what to lock."""
        return Required(names=["issues"])

    def apply(self, uow: UnitOfWork) -> None:
        """Keep and tell."""
        for key, issue in self.cleared.items():
            forget_raised(uow.connection, key)
            uow.tell(issue_event(key[0], issue, uow.now, cleared=True))
        for key, issue in self.raised.items():
            keep_raised(uow.connection, key, issue)
            uow.tell(issue_event(key[0], issue, uow.now))
