"""The JSON of the API: identities, contacts, audit entries, and the gate's answers."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import cast

import orjson

from service.api import schemas
from service.api.problems import document
from service.model.contacts import Contact
from service.model.gate import Reason, Verdict
from service.model.timeline import Change
from service.model.users import OPEN_STATES, AuditEntry, By, User, is_user_id


def rfc3339(at: int | None) -> str | None:
    """Return Unix milliseconds as RFC 3339 in UTC with milliseconds."""
    return None if at is None else time_of(at)


def time_of(at: int) -> str:
    """Return Unix milliseconds, that are there, as `rfc3339` does."""
    return f"{_second(at // 1000)}.{at % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _second(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}"


def identity(user: User) -> schemas.Identity:
    """Return the Identity of a user who has one."""
    latest = user.identity.latest
    return {
        "account": user.account,
        "wa_id": user.wa_id,
        "user_id": user.user_id,
        "hash": user.hash,
        "state": user.identity.state,
        "blocking": user.identity.state not in OPEN_STATES,
        "changed_at": rfc3339(latest.changed.at if latest else None),
        "received_at": rfc3339(latest.received_at if latest else None),
        "updated_at": rfc3339(user.identity.updated_at),
        "due_at": rfc3339(user.identity.due_at),
        "decided_by": _by(latest.decided_by if latest else None),
        "decided_at": rfc3339(latest.decided_at if latest else None),
        "acknowledged_at": rfc3339(latest.acknowledged_at if latest else None),
        "attempts": user.identity.attempts,
        "last_error": user.identity.last_error,
        "linked": [
            {
                "wa_id": None if is_user_id(link.alias) else link.alias,
                "user_id": link.alias if is_user_id(link.alias) else None,
                "relation": link.relation,
                "since": time_of(link.since.at),
            }
            for link in user.links
        ],
    }


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
    written: schemas.Reason = {
        "code": reason.code,
        "since": rfc3339(reason.since),
        "of": reason.of,
        "clears_when": reason.clears_when,
    }
    if reason.alias is not None:
        written["user_id" if is_user_id(reason.alias) else "wa_id"] = reason.alias
    if reason.until is not None:
        written["until"] = time_of(reason.until)
    if reason.detail is not None:
        written["detail"] = reason.detail
    return written
