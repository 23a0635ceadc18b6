"""Message ids as the client makes them: base64url without padding of a self-describing text.

The decoded bytes, as in Meta's examples: a byte of direction (0x00 in, 0x80 out), 0x11, 0x80 plus
the count of the bytes that follow with the number in BCD, 0x02 or 0x03, one length byte, then
random bytes, or for a system message `sys-<wa_id>@s.whatsapp.net-<milliseconds>-<kind>`.
"""

import base64
import secrets
from typing import Literal

INBOUND, OUTBOUND = 0x00, 0x80
RANDOM, SYSTEM = 0x02, 0x03
INBOUND_RANDOM_BYTES, OUTBOUND_RANDOM_BYTES = 10, 9


def system_id(wa_id: str, at_ms: int, kind: Literal["identity", "change"]) -> str:
    """Return the id of a system message about a user: its kind and its time in milliseconds."""
    text = f"sys-{wa_id}@s.whatsapp.net-{at_ms}-{kind}".encode()
    return _encoded(INBOUND, wa_id, SYSTEM, text)


def inbound_id(wa_id: str) -> str:
    """Return the id of a message that a user wrote."""
    return _encoded(INBOUND, wa_id, RANDOM, secrets.token_bytes(INBOUND_RANDOM_BYTES))


def outbound_id(wa_id: str) -> str:
    """Return the id of a message to a user."""
    return _encoded(OUTBOUND, wa_id, RANDOM, secrets.token_bytes(OUTBOUND_RANDOM_BYTES))


def _encoded(direction: int, wa_id: str, kind: int, content: bytes) -> str:
    number = _bcd(wa_id)
    head = bytes([direction, 0x11, 0x80 | len(number) & 0x7F])
    raw = head + number + bytes([kind, len(content) & 0xFF]) + content
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bcd(wa_id: str) -> bytes:
    digits = "".join(digit for digit in wa_id if digit.isascii() and digit.isdigit())
    return bytes.fromhex(digits + "f" * (len(digits) % 2))
