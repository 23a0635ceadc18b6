"""The JSON in which identities, contacts, issues and the gate's reasons are shown.

The API shows what is, the event log what was, both in the same shape; `service.api.schemas` has
the types, and the acceptance tests hold the shapes against them.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from service.model.account_checks import Issue
from service.model.contacts import Contact
from service.model.gate import Reason
from service.model.users import OPEN_STATES, Link, User, is_user_id, shown

Shape = dict[str, Any]


def rfc3339(at: int | None) -> str | None:
    """Return Unix milliseconds as RFC 3339 in UTC with milliseconds."""
    return None if at is None else time_of(at)


def time_of(at: int) -> str:
    """Return Unix milliseconds, that are there, as `rfc3339` does."""
    return f"{_second(at // 1000)}.{at % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _second(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}"


def identity(user: User) -> Shape:
    """Return the Identity of a user; without a state where none is known, which blocks nothing."""
    known = user.identity
    latest = known.latest
    return {
        "account": user.account,
        "wa_id": user.wa_id,
        "user_id": user.user_id,
        "hash": user.hash,
        "state": known.state,
        "blocking": latest is not None and known.state not in OPEN_STATES,
        "changed_at": rfc3339(latest.changed.at if latest else None),
        "received_at": rfc3339(latest.received_at if latest else None),
        "updated_at": rfc3339(known.updated_at),
        "due_at": rfc3339(known.due_at),
        "decided_by": latest.decided_by if latest else None,
        "decided_at": rfc3339(latest.decided_at if latest else None),
        "acknowledged_at": rfc3339(latest.acknowledged_at if latest else None),
        "attempts": known.attempts,
        "last_error": known.last_error,
        "linked": [_linked(link) for link in user.links],
    }


def _linked(link: Link) -> Shape:
    is_id = is_user_id(link.alias)
    return {
        "wa_id": None if is_id else shown(link.alias),
        "user_id": link.alias if is_id else None,
        "relation": link.relation,
        "since": time_of(link.since.at),
    }


def contact(known: Contact) -> Shape:
    """Return a Contact; an invalid number has no wa_id to write to."""
    return {
        "account": known.account,
        "input": known.input,
        "wa_id": None if known.status == "invalid" else known.wa_id,
        "status": known.status,
        "checked_at": time_of(known.checked_at),
        "expires_at": time_of(known.expires_at),
        "checking": known.check is not None,
        "canonical": known.canonical or None,
        "opt_in": known.opt_in and {"at": time_of(known.opt_in.at), "how": known.opt_in.how},
    }


def issue(found: Issue) -> Shape:
    """Return an Issue, with its cure."""
    return {
        "code": found.code,
        "account": found.account,
        "subject": found.subject,
        "severity": "notice" if found.is_notice else "warning",
        "since": rfc3339(found.since),
        "detail": found.detail,
        "cure": found.cure,
    }


def reason(why: Reason) -> Shape:
    """Return why the gate is closed, or what it warns of."""
    shape = {
        "code": why.code,
        "since": rfc3339(why.since),
        "of": why.of,
        "clears_when": why.clears_when,
    }
    if why.alias is not None:
        shape["user_id" if is_user_id(why.alias) else "wa_id"] = shown(why.alias)
    if why.until is not None:
        shape["until"] = time_of(why.until)
    if why.detail is not None:
        shape["detail"] = why.detail
    return shape
