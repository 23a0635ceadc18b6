"""What a message id of the Cloud API tells of its recipient; a hint, which no page promises."""

import binascii

from service.model.names import is_user_id

PREFIX = "wamid."
MAX_ALIAS_BYTES = 127
"""What one byte of length can say."""
MIN_PHONE_DIGITS, MAX_PHONE_DIGITS = 5, 15

_HEAD = b"\x1c\x18"
"""A structure whose first field is a text: what follows is its length, in one byte, and itself."""
_NEXT = b"\x15"
"""The field after it, a number."""
_ENCODED = 4 * (-(-(len(_HEAD) + 1 + MAX_ALIAS_BYTES + len(_NEXT)) // 3))
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def recipient(message_id: str) -> str | None:
    """Give the alias that the id of a message holds: a phone number, or a user id; else None.

    Decoded, ids begin with `1c 18`, a length, and for a message to a phone number its digits; for
    a message to a user id that id. The id of a group has more digits than any phone number.
    """
    if not message_id.startswith(PREFIX):
        return None
    try:
        encoded = message_id[len(PREFIX) : len(PREFIX) + _ENCODED].encode("ascii")
        decoded = binascii.a2b_base64(encoded.translate(_URL_SAFE) + b"==")
    except ValueError:
        return None
    begin = len(_HEAD) + 1
    if not decoded.startswith(_HEAD) or len(decoded) < begin:
        return None
    end = begin + decoded[begin - 1]
    return _alias(decoded[begin:end]) if decoded.startswith(_NEXT, end) else None


def _alias(told: bytes) -> str | None:
    if told.isdigit():
        return told.decode() if MIN_PHONE_DIGITS <= len(told) <= MAX_PHONE_DIGITS else None
    if not told.isascii():
        return None
    text = told.decode()
    return text if is_user_id(text) else None
