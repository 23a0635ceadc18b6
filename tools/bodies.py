"""Callbacks of the On-Premises API, in the JSON of Meta's pages; times are Unix milliseconds."""

import base64
import json
from typing import Any

IDENTITY_BYTES = 433
"""The length of the notification of an identity change of a user with an 11-digit wa_id."""
FIRST_SEEN_MS = 1_700_000_000_000
"""When the identity of user 0 was made; of each further user one millisecond later."""
NAMES, SPREAD = 10**10, 6_180_339_887
"""The number of names, and a number that has no factor in common with it."""
BLOCKED = {"code": 480, "title": "Failed to send message since we detect an identity change"}


def wa_id(user: int) -> str:
    """Return the wa_id of a numbered user; neighbours get names far apart, as on a real day."""
    return f"1{user * SPREAD % NAMES:010}"


def hash_of(user: int, nth: int = 0) -> str:
    """Return the hash of a numbered user's n-th identity: 12 characters of base64."""
    return base64.b64encode((user << 16 | nth).to_bytes(8, "big")).decode()


def system_id(name: str, at_ms: int, kind: str = "identity") -> str:
    """Return the self-describing id of a system message about a wa_id."""
    content = f"sys-{name}@s.whatsapp.net-{at_ms}-{kind}".encode()
    number = bytes.fromhex(name + "f" * (len(name) % 2))
    head = bytes([0, 0x11, 0x80 | len(number), *number, 3, len(content)])
    return base64.urlsafe_b64encode(head + content).rstrip(b"=").decode()


def identity_change(name: str, hash_: str, at_ms: int) -> bytes:
    """Return the notification that a user's identity has changed."""
    written = name.encode()
    id_ = system_id(name, at_ms).encode()
    body = _CHANGE % (written, id_, hash_.encode(), written, at_ms // 1000)
    return body.ljust(IDENTITY_BYTES)  # JSON may end in spaces


def message(
    name: str, hash_: str, created_ms: int, *, acknowledged: bool, number: int, at_ms: int
) -> bytes:
    """Return what a user wrote, with the identity; `number` makes the message a distinct one."""
    written, known = name.encode(), b"true" if acknowledged else b"false"
    values = (written, written, number, known, created_ms, hash_.encode(), number, at_ms // 1000)
    return _MESSAGE % values


def status(name: str, number: int) -> bytes:
    """Return the status of the message `number` to a user: sent, delivered or read."""
    state = (b"sent", b"delivered", b"read")[number % 3]
    return _STATUS % (number, name.encode(), state, (FIRST_SEEN_MS + number) // 1000)


def blocked(name: str, number: int, at_ms: int) -> bytes:
    """Return the status of a message that was not sent since the identity had changed: 480."""
    return _BLOCKED % (number, name.encode(), at_ms // 1000)


def number_change(old: str, new: str, at_ms: int) -> bytes:
    """Return the notification that a user has taken another number."""
    before, now = old.encode(), new.encode()
    id_ = system_id(old, at_ms, "change").encode()
    return _MOVE % (before, id_, before, now, now, at_ms // 1000)


def contact_check(number: str, name: str | None) -> bytes:
    """Return the result of a contact check: the wa_id of a number, or None for an invalid one."""
    if name is None:
        return _INVALID % number.encode()
    return _VALID % (number.encode(), name.encode())


def _template(value: dict[str, Any], indent: int | None = None) -> bytes:
    """Write JSON, with places for texts and numbers to be filled in by `%`."""
    text = json.dumps(value, indent=indent, separators=None if indent else (",", ":"))
    return text.replace('"<%d>"', "%d").replace('"<%s>"', "%s").encode()


def _system(system: dict[str, str], indent: int | None = None) -> bytes:
    message = {"from": "%s", "id": "%s", "system": system, "timestamp": "%d", "type": "system"}
    return _template({"messages": [message]}, indent)


def _status(state: str, **more: Any) -> bytes:
    id_ = "ABGGFlA5FpafAgo-%012d"
    status = {"id": id_, "recipient_id": "%s", "status": state, "timestamp": "%d", **more}
    return _template({"statuses": [status]})


_CHANGE = _system({"identity": "%s", "type": "user_identity_changed", "user": "%s"}, indent=4)
_MOVE = _system(
    {
        "body": "User A changed from +%s to +%s",
        "new_wa_id": "%s",
        "type": "user_changed_number",
    }
)
_MESSAGE = _template(
    {
        "contacts": [{"profile": {"name": "A user"}, "wa_id": "%s"}],
        "messages": [
            {
                "from": "%s",
                "id": "ABGGFjFVU2AfAgo-%012d",
                "identity": {"acknowledged": "<%s>", "created_timestamp": "<%d>", "hash": "%s"},
                "text": {"body": "Hello, this is message %012d of a conversation"},
                "timestamp": "%d",
                "type": "text",
            }
        ],
    }
)
_STATUS, _BLOCKED = _status("%s"), _status("failed", errors=[BLOCKED])
_VALID = _template({"contacts": [{"input": "%s", "status": "valid", "wa_id": "%s"}]})
_INVALID = _template({"contacts": [{"input": "%s", "status": "invalid"}]})
