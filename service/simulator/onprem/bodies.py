"""The bodies of callbacks in the exact JSON of Meta's pages, and the ids of messages.

An id is base64url without padding of a self-describing text. The decoded bytes, as in Meta's
examples: a byte of direction (0x00 in, 0x80 out), 0x11, 0x80 plus the count of the bytes that
follow with the number in BCD, 0x02 or 0x03, one length byte, then random bytes, or for a system
message `sys-<wa_id>@s.whatsapp.net-<milliseconds>-<kind>`.
"""

import base64
import secrets
from typing import Any, Literal

from service.simulator.users import User

Body = dict[str, Any]

BLOCKED_CODE = 480
BLOCKED_TITLE = "Failed to send message since we detect an identity change of the contact"

INBOUND, OUTBOUND = 0x00, 0x80
RANDOM, SYSTEM = 0x02, 0x03
INBOUND_RANDOM_BYTES, OUTBOUND_RANDOM_BYTES = 10, 9


def system_id(wa_id: str, at_ms: int, kind: Literal["identity", "change"]) -> str:
    """Return the id of a system message about a user: its kind and its time in milliseconds."""
    text = f"sys-{wa_id}@s.whatsapp.net-{at_ms}-{kind}".encode()
    return _message_id(INBOUND, wa_id, SYSTEM, text)


def inbound_id(wa_id: str) -> str:
    """Return the id of a message that a user wrote."""
    return _message_id(INBOUND, wa_id, RANDOM, secrets.token_bytes(INBOUND_RANDOM_BYTES))


def outbound_id(wa_id: str) -> str:
    """Return the id of a message to a user."""
    return _message_id(OUTBOUND, wa_id, RANDOM, secrets.token_bytes(OUTBOUND_RANDOM_BYTES))


def _message_id(direction: int, wa_id: str, kind: int, content: bytes) -> str:
    digits = "".join(digit for digit in wa_id if digit.isascii() and digit.isdigit())
    number = bytes.fromhex(digits + "f" * (len(digits) % 2))
    head = bytes([direction, 0x11, 0x80 | len(number) & 0x7F])
    raw = head + number + bytes([kind, len(content) & 0xFF]) + content
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def seconds(at_ms: int) -> str:
    """Write a time in milliseconds as the wire has it: Unix seconds, a string."""
    return str(at_ms // 1000)


def identity_changed(user: User) -> Body:
    """Return the notification of a changed identity: Meta's page on `user_identity_changed`."""
    system = {"identity": user.hash, "type": "user_identity_changed", "user": user.wa_id}
    return _system(user.wa_id, user.created_timestamp, "identity", system)


def number_changed(old: str, new: str, at_ms: int) -> Body:
    """Return the notification that a user took another number: `from` is the old wa_id."""
    system = {
        "body": f"User A changed from +{old} to +{new}",
        "new_wa_id": new,
        "type": "user_changed_number",
    }
    return _system(old, at_ms, "change", system)


def _system(wa_id: str, at_ms: int, kind: Literal["identity", "change"], system: Body) -> Body:
    message = {
        "from": wa_id,
        "id": system_id(wa_id, at_ms, kind),
        "system": system,
        "timestamp": seconds(at_ms),
        "type": "system",
    }
    return {"messages": [message]}


def text_message(user: User, text: str, name: str, at_ms: int, *, with_identity: bool) -> Body:
    """Return what a user wrote, with the latest identity when security notifications are on."""
    message: Body = {"from": user.wa_id, "id": inbound_id(user.wa_id)}
    if with_identity:
        message["identity"] = {
            "acknowledged": user.acknowledged,
            "created_timestamp": user.created_timestamp,
            "hash": user.hash,
        }
    message |= {"text": {"body": text}, "timestamp": seconds(at_ms), "type": "text"}
    return {"contacts": [{"profile": {"name": name}, "wa_id": user.wa_id}], "messages": [message]}


def status(message_id: str, wa_id: str, state: str, at_ms: int) -> Body:
    """Return the status of a message to a user: sent, delivered, read, …."""
    found = {"id": message_id, "recipient_id": wa_id, "status": state, "timestamp": seconds(at_ms)}
    return {"statuses": [found]}


def blocked(message_id: str, wa_id: str, at_ms: int) -> Body:
    """Return the status of a message that failed with 480: the identity is unacknowledged."""
    (failed,) = status(message_id, wa_id, "failed", at_ms)["statuses"]
    return {"statuses": [{"errors": [{"code": BLOCKED_CODE, "title": BLOCKED_TITLE}], **failed}]}


def error(code: int, title: str, details: str | None = None) -> Body:
    """Return the report of an error that belongs to no call."""
    found: Body = {"code": code, "title": title}
    if details is not None:
        found["details"] = details
    return {"errors": [found]}
