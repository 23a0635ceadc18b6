"""Issues: what is wrong with the accounts, and how to cure it."""

from contextlib import suppress
from typing import Annotated

import structlog
from aiohttp import web
from pydantic import Field

from service.api.asked import heed
from service.api.auth import CALLER, CALLER_BY, visible
from service.api.context import AppContext, app_context
from service.api.params import FilterText, Query, listed, query_of
from service.api.problems import ProblemError
from service.api.reporting import leader_report
from service.api.serializers import issue as serialized
from service.ledger.identities import DismissIssue
from service.model.account_checks import Issue
from service.store.database import UnavailableError
from service.webhooks.request_ids import REQUEST_ID
from service.workers.monitoring import AppSubject

log = structlog.get_logger(__name__)


class DismissalQuery(Query):
    """Which of the issues with a code to dismiss; an empty text stands for null."""

    account: Annotated[FilterText | None, Field(description="Only of this account.")] = None
    subject: Annotated[FilterText | None, Field(description="Only with this subject.")] = None


async def list_(request: web.Request) -> web.Response:
    """List what is wrong with the accounts, each with its cure."""
    context = app_context(request)
    await _look_at_journal(context)
    return listed([serialized(issue) for _, issue in _all(request)])


async def dismiss(request: web.Request) -> web.Response:
    """Dismiss issues whose cause is past, until it comes again; `items` are those dismissed.

    A 409 where the cause is there now, for then they pass by themselves once it is gone.
    """
    code, asked = request.match_info["code"], query_of(request, DismissalQuery)
    return await dismiss_those(request, code, asked)


async def dismiss_those(request: web.Request, code: str, asked: DismissalQuery) -> web.Response:
    """Dismiss the issues with a code that the caller may see, as `dismiss` does."""
    context = app_context(request)
    await _look_at_journal(context)
    found = [
        (name, issue)
        for name, issue in _all(request)
        if issue.code == code
        and asked.account in {None, issue.account or ""}
        and asked.subject in {None, issue.subject or ""}
    ]
    if not found:
        raise ProblemError(404, "there is no such issue", kind="no_such_issue")
    if not all(issue.is_past for _, issue in found):
        detail = "its cause is there now: it passes by itself once that is cured"
        raise ProblemError(409, detail, kind="issue_stands")
    for name, issue in found:
        await context.ledger.submit(
            DismissIssue(name, code, issue.subject, request[CALLER_BY], request[REQUEST_ID])
        )
        log.info("decision", account=name, decision="dismiss", code=code, caller=request[CALLER])
    with suppress(UnavailableError):  # it is dismissed, and heeded a little later
        await heed(context)
    return listed([serialized(issue) for _, issue in found])


async def _look_at_journal(context: AppContext) -> None:
    """Look for unknown numbers now, which are found in the journal, without asking anybody."""
    inspectors = {} if context.leading is None else context.leading.inspectors
    for inspector in inspectors.values():
        if isinstance(inspector.subject, AppSubject):
            await inspector.look()


def _all(request: web.Request) -> list[tuple[str, Issue]]:
    """Return all issues that the caller may see, each with its account or app in the journal."""
    within = visible(request)
    issues = leader_report(app_context(request)).issues
    return [(name, issue) for name, issue in issues if within is None or name in within]
