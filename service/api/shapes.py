"""The JSON of the API: identities, contacts, audit entries, gate answers."""

from typing import Any

from service.api.context import rfc3339
from service.model.contacts import Contact
from service.model.timeline import Change
from service.model.users import AuditEntry, State, User, is_user_id


def identity(user: User) -> dict[str, Any]:
    """Write the Identity of a user who has one."""
    known = user.identity
    latest = known.latest
    return {
        "account": user.account,
        "wa_id": user.wa_id,
        "user_id": user.user_id,
        "hash": user.hash,
        "state": known.state,
        "blocking": known.state is not State.ACKNOWLEDGED,
        "changed_at": rfc3339(latest.changed.at if latest else None),
        "received_at": rfc3339(latest.received_at if latest else None),
        "updated_at": rfc3339(known.updated_at),
        "due_at": rfc3339(known.due_at),
        "decided_by": latest.decided_by if latest else None,
        "decided_at": rfc3339(latest.decided_at if latest else None),
        "acknowledged_at": rfc3339(latest.acknowledged_at if latest else None),
        "attempts": known.attempts,
        "last_error": known.last_error,
        "linked": links(user),
    }


def links(user: User) -> list[dict[str, Any]]:
    """Write the other sides of a user's number changes."""
    return [
        {**named(x.alias), "relation": x.relation, "since": rfc3339(x.since.at)} for x in user.links
    ]


def named(alias: str) -> dict[str, str | None]:
    """Write an alias as what it is."""
    if is_user_id(alias):
        return {"wa_id": None, "user_id": alias}
    return {"wa_id": alias, "user_id": None}


def change(entry: Change) -> dict[str, Any]:
    """Write an entry of the history."""
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
    """Write an entry of the audit trail."""
    return {
        "at": rfc3339(entry.at),
        "event": entry.event,
        "hash": entry.hash,
        "by": entry.by,
        "reason": entry.reason,
        "note": entry.note,
        "evidence": entry.evidence,
    }


def contact(known: Contact) -> dict[str, Any]:
    """Write a Contact; an invalid number has no wa_id to write to."""
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
