"""Queries of the alerts: which issues each destination was told of."""

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, delete, insert, select

from service.model.account_checks import Issue
from service.store.events import IssueKey, issue_row, issues_of
from service.store.schema import alerted_issues


def issues_alerted(connection: Connection, destination: str) -> dict[IssueKey, Issue]:
    """Return the issues that a destination was told of, and not yet that they are gone."""
    query = select(alerted_issues).where(alerted_issues.c.destination == destination)
    return issues_of(connection.execute(query))


def keep_alerted(
    connection: Connection, destination: str, issues: Mapping[IssueKey, Issue]
) -> None:
    """Keep that these are the issues that a destination was told of, and no others."""
    mine = alerted_issues.c.destination == destination
    connection.execute(delete(alerted_issues).where(mine))
    rows = [{"destination": destination, **issue_row(*one)} for one in issues.items()]
    if rows:
        connection.execute(insert(alerted_issues), rows)


def forget_destinations(connection: Connection, kept: Collection[str]) -> None:
    """Forget what was told to destinations other than these."""
    others = alerted_issues.c.destination.not_in(kept)
    connection.execute(delete(alerted_issues).where(others))
