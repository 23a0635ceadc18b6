"""The bodies of callbacks, in the exact JSON of Meta's pages."""

from typing import Any

from service.simulator import message_ids
from service.simulator.users import User

Body = dict[str, Any]

BLOCKED_CODE = 480
BLOCKED_TITLE = "Failed to send message since we detect an identity change of the contact"


def seconds(at_ms: int) -> str:
    """Write a time in milliseconds as the wire has it: Unix seconds, a string."""
    return str(at_ms // 1000)


def identity_changed(user: User) -> Body:
    """Tell that a user's identity has changed: Meta's page on `user_identity_changed`."""
    at_ms = user.created_timestamp
    message = {
        "from": user.wa_id,
        "id": message_ids.system_id(user.wa_id, at_ms, "identity"),
        "system": {"identity": user.hash, "type": "user_identity_changed", "user": user.wa_id},
        "timestamp": seconds(at_ms),
        "type": "system",
    }
    return {"messages": [message]}


def number_changed(old: str, new: str, at_ms: int) -> Body:
    """Tell that a user took another number: `from` is the old wa_id."""
    system = {
        "body": f"User A changed from +{old} to +{new}",
        "new_wa_id": new,
        "type": "user_changed_number",
    }
    message = {
        "from": old,
        "id": message_ids.system_id(old, at_ms, "change"),
        "system": system,
        "timestamp": seconds(at_ms),
        "type": "system",
    }
    return {"messages": [message]}


def text_message(user: User, text: str, name: str, at_ms: int, *, with_identity: bool) -> Body:
    """Pass on what a user wrote, with the latest identity when security notifications are on."""
    message: Body = {"from": user.wa_id, "id": message_ids.inbound_id(user.wa_id)}
    if with_identity:
        message["identity"] = {
            "acknowledged": user.acknowledged,
            "created_timestamp": user.created_timestamp,
            "hash": user.hash,
        }
    message |= {"text": {"body": text}, "timestamp": seconds(at_ms), "type": "text"}
    return {"contacts": [{"profile": {"name": name}, "wa_id": user.wa_id}], "messages": [message]}


def status(message_id: str, wa_id: str, state: str, at_ms: int) -> Body:
    """Tell what became of a message to a user: sent, delivered, read, …."""
    return {"statuses": [_status(message_id, wa_id, state, at_ms)]}


def blocked(message_id: str, wa_id: str, at_ms: int) -> Body:
    """Tell that a message failed because the user's identity is unacknowledged: error 480."""
    errors = [{"code": BLOCKED_CODE, "title": BLOCKED_TITLE}]
    return {"statuses": [{"errors": errors, **_status(message_id, wa_id, "failed", at_ms)}]}


def _status(message_id: str, wa_id: str, state: str, at_ms: int) -> Body:
    return {"id": message_id, "recipient_id": wa_id, "status": state, "timestamp": seconds(at_ms)}


def error(code: int, title: str, details: str | None = None) -> Body:
    """Report an error that belongs to no call."""
    found: Body = {"code": code, "title": title}
    if details is not None:
        found["details"] = details
    return {"errors": [found]}
