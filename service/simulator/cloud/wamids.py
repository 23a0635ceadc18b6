"""Message ids as the Cloud API makes them: `wamid.` and base64 of a self-describing text.

The decoded bytes, as in Meta's examples: 0x1c 0x18, a length and the user's alias, 0x15 0x02 0x00,
0x12 for a message from a user or 0x11 for one to a user, 0x18, a length and so many digits in
hexadecimal, 0x00.
"""

import base64
import secrets

INBOUND, OUTBOUND = b"\x12", b"\x11"
DIGITS = 20
LONGEST_ALIAS = 127


def inbound_id(alias: str) -> str:
    """Return the id of a message from a user."""
    return _encoded(alias, INBOUND)


def outbound_id(alias: str) -> str:
    """Return the id of a message to a user."""
    return _encoded(alias, OUTBOUND)


def _encoded(alias: str, direction: bytes) -> str:
    name = alias.encode()[:LONGEST_ALIAS]
    digits = secrets.token_hex(DIGITS // 2).upper().encode()
    head = b"\x1c\x18" + bytes([len(name)]) + name
    raw = head + b"\x15\x02\x00" + direction + b"\x18" + bytes([len(digits)]) + digits + b"\x00"
    return "wamid." + base64.b64encode(raw).decode()
