"""The JSON of the API: identities, contacts, audit entries, and the gate's answers.

What the event log shows too is made in `service.model.shapes`.
"""

from collections.abc import Iterable
from typing import cast

import orjson

from service.api import schemas
from service.api.problems import document
from service.model import shapes
from service.model.account_checks import Issue
from service.model.contacts import Contact
from service.model.gate import Reason, Verdict
from service.model.shapes import rfc3339, time_of
from service.model.timeline import Change
from service.model.users import AuditEntry, By, User


def identity(user: User) -> schemas.Identity:
    """Return the Identity of a user who has one."""
    return cast("schemas.Identity", shapes.identity(user))


def _by(by: By | None) -> schemas.By | None:
    """Return who decided, which is stored as it is shown."""
    return cast("schemas.By | None", by)


def change(entry: Change) -> schemas.Change:
    """Return an entry of the history."""
    return {
        "hash": entry.hash,
        "outcome": entry.outcome,
        "changed_at": rfc3339(entry.changed.at),
        "received_at": rfc3339(entry.received_at),
        "decided_by": _by(entry.decided_by),
        "decided_at": rfc3339(entry.decided_at),
        "acknowledged_at": rfc3339(entry.acknowledged_at),
    }


def audit_entry(entry: AuditEntry) -> schemas.AuditEntry:
    """Return an entry of the audit trail."""
    return {
        "at": time_of(entry.at),
        "event": entry.event,
        "hash": entry.hash,
        "by": _by(entry.by),
        "reason": entry.reason,
        "note": entry.note,
        "evidence": cast("schemas.RecordedEvidence | None", entry.evidence),
        "request_id": entry.request_id,
    }


def contact(known: Contact) -> schemas.Contact:
    """Return a Contact."""
    return cast("schemas.Contact", shapes.contact(known))


def issue(found: Issue) -> schemas.Issue:
    """Return an Issue."""
    return cast("schemas.Issue", shapes.issue(found))


_UNUSABLE = document(422, "neither a usable alias nor a phone number")


def gate_answer(account: str, verdict: Verdict, now: int, *, cloud: bool) -> bytes:
    """Return the gate's answer about one user; `now` is when it was so, in Unix milliseconds.

    On an account of the Cloud API it also says by which user id the user is called, and which hash
    to send along.
    """
    return orjson.dumps(_verdict(account, verdict, time_of(now), cloud))


def gate_answers(
    account: str, verdicts: Iterable[tuple[str, Verdict | None]], now: int, *, cloud: bool
) -> bytes:
    """Return the gate's answers about many, each with the text that was asked about."""
    as_of = time_of(now)
    items: list[schemas.LookupAnswer | schemas.LookupProblem] = [
        {"input": text, "error": _UNUSABLE}
        if found is None
        else {"input": text, **_verdict(account, found, as_of, cloud)}
        for text, found in verdicts
    ]
    return orjson.dumps({"items": items})


def _verdict(account: str, verdict: Verdict, as_of: str, cloud: bool) -> schemas.GateAnswer:
    written: schemas.GateAnswer = {
        "account": account,
        "wa_id": verdict.wa_id,
        "known": verdict.known,
        "sendable": verdict.sendable,
        "reasons": [gate_reason(reason) for reason in verdict.reasons],
        "warnings": [gate_reason(warning) for warning in verdict.warnings],
        "as_of": as_of,
    }
    if cloud:
        written["user_id"] = verdict.user_id
        written["identity_key_hash"] = verdict.hash
    return written


def gate_reason(reason: Reason) -> schemas.Reason:
    """Return a reason of the gate, or a warning."""
    return cast("schemas.Reason", shapes.reason(reason))
