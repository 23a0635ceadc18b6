"""The JSON of the API: identities, contacts, audit entries, and the gate's answers."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import orjson

from service.model.contacts import Contact
from service.model.gate import Reason, Verdict
from service.model.timeline import Change
from service.model.users import AuditEntry, State, User, is_user_id


def rfc3339(at: int | None) -> str | None:
    """Return Unix milliseconds as RFC 3339 in UTC with milliseconds."""
    return None if at is None else f"{_second(at // 1000)}.{at % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _second(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}"


def identity(user: User) -> dict[str, Any]:
    """Return the Identity of a user who has one."""
    latest = user.identity.latest
    return {
        "account": user.account,
        "wa_id": user.wa_id,
        "user_id": user.user_id,
        "hash": user.hash,
        "state": user.identity.state,
        "blocking": user.identity.state is not State.ACKNOWLEDGED,
        "changed_at": rfc3339(latest.changed.at if latest else None),
        "received_at": rfc3339(latest.received_at if latest else None),
        "updated_at": rfc3339(user.identity.updated_at),
        "due_at": rfc3339(user.identity.due_at),
        "decided_by": latest.decided_by if latest else None,
        "decided_at": rfc3339(latest.decided_at if latest else None),
        "acknowledged_at": rfc3339(latest.acknowledged_at if latest else None),
        "attempts": user.identity.attempts,
        "last_error": user.identity.last_error,
        "linked": [
            {**_named(link.alias), "relation": link.relation, "since": rfc3339(link.since.at)}
            for link in user.links
        ],
    }


def _named(alias: str) -> dict[str, str | None]:
    """Return an alias under the name of its kind."""
    if is_user_id(alias):
        return {"wa_id": None, "user_id": alias}
    return {"wa_id": alias, "user_id": None}


def change(entry: Change) -> dict[str, Any]:
    """Return an entry of the history."""
    return {
        "hash": entry.hash,
        "outcome": entry.outcome,
        "changed_at": rfc3339(entry.changed.at),
        "received_at": rfc3339(entry.received_at),
        "decided_by": entry.decided_by,
        "decided_at": rfc3339(entry.decided_at),
        "acknowledged_at": rfc3339(entry.acknowledged_at),
    }


def audit_entry(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry of the audit trail."""
    return {
        "at": rfc3339(entry.at),
        "event": entry.event,
        "hash": entry.hash,
        "by": entry.by,
        "reason": entry.reason,
        "note": entry.note,
        "evidence": entry.evidence,
        "request_id": entry.request_id,
    }


def contact(known: Contact) -> dict[str, Any]:
    """Return a Contact; an invalid number has no wa_id to write to."""
    return {
        "account": known.account,
        "input": known.input,
        "wa_id": None if known.status == "invalid" else known.wa_id,
        "status": known.status,
        "checked_at": rfc3339(known.checked_at),
        "expires_at": rfc3339(known.expires_at),
        "checking": known.check is not None,
        "canonical": known.canonical or None,
        "opt_in": known.opt_in and {"at": rfc3339(known.opt_in.at), "how": known.opt_in.how},
    }


_UNUSABLE = {
    "type": "about:blank",
    "title": HTTPStatus.UNPROCESSABLE_ENTITY.phrase,
    "status": HTTPStatus.UNPROCESSABLE_ENTITY.value,
    "detail": "neither a usable alias nor a phone number",
}


def gate_answer(account: str, verdict: Verdict, now: int, *, cloud: bool) -> bytes:
    """Return the gate's answer about one user; `now` is when it was so, in Unix milliseconds.

    On an account of the Cloud API it also says by which user id the user is called, and which hash
    to send along.
    """
    return orjson.dumps(_verdict(account, verdict, rfc3339(now), cloud))


def gate_answers(
    account: str, verdicts: Iterable[tuple[str, Verdict | None]], now: int, *, cloud: bool
) -> bytes:
    """Return the gate's answers about many, each with the text that was asked about."""
    as_of = rfc3339(now)
    items = [
        {"input": text}
        | ({"error": _UNUSABLE} if found is None else _verdict(account, found, as_of, cloud))
        for text, found in verdicts
    ]
    return orjson.dumps({"items": items})


def _verdict(account: str, verdict: Verdict, as_of: str | None, cloud: bool) -> dict[str, Any]:
    written: dict[str, Any] = {
        "account": account,
        "wa_id": verdict.wa_id,
        "known": verdict.known,
        "sendable": verdict.sendable,
        "reasons": [_reason(reason) for reason in verdict.reasons],
        "warnings": [_reason(warning) for warning in verdict.warnings],
        "as_of": as_of,
    }
    if cloud:
        written |= {"user_id": verdict.user_id, "identity_key_hash": verdict.hash}
    return written


def _reason(reason: Reason) -> dict[str, Any]:
    written: dict[str, Any] = {
        "code": reason.code,
        "since": rfc3339(reason.since),
        "of": reason.of,
        "clears_when": reason.clears_when,
    }
    if reason.alias is not None:
        written["user_id" if is_user_id(reason.alias) else "wa_id"] = reason.alias
    if reason.until is not None:
        written["until"] = rfc3339(reason.until)
    if reason.detail is not None:
        written["detail"] = reason.detail
    return written
