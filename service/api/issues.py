"""What is wrong with the accounts, and how to cure it."""

from typing import Any

from aiohttp import web

from service.api.queries import listed
from service.api.services import rfc3339, services
from service.model.issues import Issue


async def list_(request: web.Request) -> web.Response:
    """List what is wrong with the accounts, each with its cure."""
    inspectors = services(request).inspectors.values()
    return listed([_written(issue) for each in inspectors for issue in each.issues()], None)


def _written(issue: Issue) -> dict[str, Any]:
    return {
        "code": issue.code,
        "account": issue.account,
        "severity": "notice" if issue.is_notice else "warning",
        "since": rfc3339(issue.since),
        "detail": issue.detail,
        "cure": issue.cure,
    }
