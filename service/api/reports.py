"""What a replica tells the others of what only it knows, once a second, through the database.

Each tells what the callbacks that came to it have shown. The leader tells besides whatever another
replica has to answer that only the leader sees: how the clients do, what is wrong, how relays fare.
Nothing in it is about a user. It is kept in the table `replicas`, as JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from service.api import schemas
from service.model.account_checks import Issue


@dataclass(frozen=True, slots=True)
class AccountReport:
    """How an account's client, or the Cloud API, does; `unreachable_since` is Unix milliseconds."""

    login: schemas.Login | None = None
    health: schemas.Health | None = None
    settings: schemas.ClientSettings | None = None
    unreachable_since: int | None = None


@dataclass(frozen=True, slots=True)
class RelayReport:
    """How a relay fares, besides what is in the database."""

    is_backing_off: bool = False
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class LeaderReport:
    """What the leader alone sees. Issues have the name of an account or app in the journal."""

    accounts: Mapping[str, AccountReport] = field(default_factory=dict)
    relays: Mapping[str, RelayReport] = field(default_factory=dict)
    issues: Sequence[tuple[str, Issue]] = ()
    checks: Mapping[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """What one replica tells.

    `noticed` are issues that the callbacks it took have shown; `hashes_at` is when (Unix ms) the
    last identity hash of an account came to it; `leading` is set where it leads.
    """

    noticed: Sequence[Issue] = ()
    hashes_at: Mapping[str, int] = field(default_factory=dict)
    leading: LeaderReport | None = None


_REPORTS = TypeAdapter(Report)


def written(report: Report) -> str:
    """Write a report, to be stored."""
    return _REPORTS.dump_json(report).decode()


def read(text: str) -> Report:
    """Read a report; one of another release that can't be read says nothing."""
    try:
        return _REPORTS.validate_json(text)
    except ValidationError:
        return Report()


@dataclass(slots=True)
class Elsewhere:
    """What the other replicas have told.

    `leading` is what the leader told last; `is_led` whether any replica has led lately.
    """

    reports: Sequence[Report] = ()
    leading: LeaderReport = field(default_factory=LeaderReport)
    is_led: bool = True

    def noticed(self, own: Sequence[Issue], hashes_at: Mapping[str, int]) -> list[Issue]:
        """Return what was noticed at any replica, once each: as the first of them noticed it.

        Messages without an identity hash show nothing any more once one came with it, wherever.
        """
        newest = dict(hashes_at)
        for report in self.reports:
            for account, at in report.hashes_at.items():
                newest[account] = max(at, newest.get(account, at))
        issues = [*own, *(issue for report in self.reports for issue in report.noticed)]
        found: dict[tuple[str, str | None, str | None], Issue] = {}
        for issue in sorted(issues, key=lambda one: one.since):
            is_over = (
                issue.code == "identity_check_off"
                and newest.get(issue.account or "", issue.since) > issue.since
            )
            if not is_over:
                found.setdefault((issue.code, issue.account, issue.subject), issue)
        return [*found.values()]
