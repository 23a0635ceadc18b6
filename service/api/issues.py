"""Issues: what is wrong with the accounts, and how to cure it."""

from typing import Any

import structlog
from aiohttp import web

from service.api.auth import CALLER
from service.api.context import AppContext, app_context
from service.api.params import listed
from service.api.problems import ProblemError, field_problem
from service.api.serializers import rfc3339
from service.ledger.identities import DismissIssue
from service.model.account_checks import Issue
from service.model.users import by_key
from service.store.accounts import CREATED
from service.webhooks.request_ids import REQUEST_ID
from service.workers.monitoring import AppSubject

log = structlog.get_logger(__name__)

FILTERS = ("account", "subject")


async def list_(request: web.Request) -> web.Response:
    """List what is wrong with the accounts, each with its cure."""
    context = app_context(request)
    await _look_at_journal(context)
    return listed([_serialize(issue) for _, issue in context.issues()])


async def dismiss(request: web.Request) -> web.Response:
    """Dismiss issues whose cause is past, until it comes again; `items` are those dismissed.

    A 409 where the cause is there now, for then they pass by themselves once it is gone.
    """
    code, asked = request.match_info["code"], request.query
    # A misspelt filter, if it were ignored, would dismiss more than was meant.
    if unknown := sorted(set(asked) - set(FILTERS)):
        raise field_problem(*((name, "no parameter of this route") for name in unknown))
    context = app_context(request)
    await _look_at_journal(context)
    found = [
        (name, issue)
        for name, issue in context.issues()
        if issue.code == code
        and asked.get("account", issue.account or "") == (issue.account or "")
        and asked.get("subject", issue.subject or "") == (issue.subject or "")
    ]
    if not found:
        raise ProblemError(404, "there is no such issue")
    if not all(issue.is_past for _, issue in found):
        raise ProblemError(409, "its cause is there now: it passes by itself once that is cured")
    for name, issue in found:
        await context.ledger.submit(
            DismissIssue(name, code, issue.subject, by_key(request[CALLER]), request[REQUEST_ID])
        )
        log.info("decision", account=name, decision="dismiss", code=code, caller=request[CALLER])
    for name in {name for name, _ in found}:
        if code == CREATED:
            context.created_at = None
        elif (check := context.identity_checks.get(name)) is not None:
            check.dismissed = True
        else:
            await context.inspectors[name].look()
    return listed([_serialize(issue) for _, issue in found])


async def _look_at_journal(context: AppContext) -> None:
    """Look for unknown numbers now, which are found in the journal, without asking anybody."""
    for inspector in context.inspectors.values():
        if isinstance(inspector.subject, AppSubject):
            await inspector.look()


def _serialize(issue: Issue) -> dict[str, Any]:
    return {
        "code": issue.code,
        "account": issue.account,
        "subject": issue.subject,
        "severity": "notice" if issue.is_notice else "warning",
        "since": rfc3339(issue.since),
        "detail": issue.detail,
        "cure": issue.cure,
    }
