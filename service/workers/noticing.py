"""Notices what happens by itself, and has it told: blocks that end by time, and issues.

What was told is kept in the database: nothing is told twice, over a restart neither.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

import structlog

from service.ledger.ledger import Ledger
from service.ledger.noticed import BATCH, EndBlocks, RecordIssues
from service.model.account_checks import Issue
from service.observability import failpoints
from service.store.database import APP_MARK, Database, UnavailableError
from service.store.events import IssueKey, ended_blocks, issues_raised

EVERY_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Noticer:
    """Looks again and again for blocks that have ended, and for issues that are new or gone.

    `issues` are all there are now, each with the name of its account or app in the journal;
    `is_settled` says whether an issue that is not among them is gone: after a start that is not
    known before somebody has looked.
    """

    def __init__(
        self,
        issues: Callable[[], Iterable[tuple[str, Issue]]],
        is_settled: Callable[[IssueKey], bool],
        ledger: Ledger,
        database: Database,
    ) -> None:
        self._issues = issues
        self._is_settled = is_settled
        self._ledger = ledger
        self._database = database
        self._raised: dict[IssueKey, Issue] | None = None

    async def run(self) -> None:
        """Look, again and again."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.look()
            except UnavailableError:
                self._raised = None  # nobody knows what of it was written
            except Exception:
                log.exception("noticing what is to be told failed")

    async def look(self) -> None:
        """Have everything told that is to be told now."""
        await self._end_blocks()
        await self._tell_issues()

    async def _end_blocks(self) -> None:
        ended = partial(ended_blocks, now=self._ledger.clock(), limit=1)
        count = BATCH if await self._database.read(ended) else 0
        while count == BATCH:
            failpoints.reached("notice.before_blocks")
            count = await self._ledger.submit(EndBlocks())
            failpoints.reached("notice.after_blocks")

    async def _tell_issues(self) -> None:
        if self._raised is None:
            self._raised = await self._database.read(issues_raised)
        found = {_key(name, issue): issue for name, issue in self._issues()}
        raised = {k: v for k, v in found.items() if k not in self._raised}
        gone = {k: v for k, v in self._raised.items() if k not in found}
        cleared = {k: v for k, v in gone.items() if self._is_settled(k)}
        if raised or cleared:
            failpoints.reached("notice.before_issues")
            await self._ledger.submit(RecordIssues(raised, cleared))
            failpoints.reached("notice.after_issues")
            kept = {k: v for k, v in self._raised.items() if k not in cleared}
            self._raised = kept | raised


def _key(name: str, issue: Issue) -> IssueKey:
    """Return what an issue is known by; one of neither an account nor an app has no owner."""
    owner = issue.account or (name if name.startswith(APP_MARK) else "")
    return owner, issue.code, issue.subject or ""
