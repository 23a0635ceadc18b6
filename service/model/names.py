"""What can name a user, and what can be an identity hash."""

import re

MAX_ALIAS_CHARACTERS = 140
ALIAS_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_ALIAS_CHARACTERS - 1}}}$"
MAX_HASH_CHARACTERS = 1024

_USER_ID = re.compile(r"[A-Z]{2}\.[A-Za-z0-9.]{1,128}")
_ALIAS = re.compile(ALIAS_PATTERN.removesuffix("$") + r"\Z")


def usable_alias(text: str) -> bool:
    """Tell whether the text can name a user: a wa_id, or on the Cloud API a user id."""
    if text.isalnum() and text.isascii() and len(text) <= MAX_ALIAS_CHARACTERS:
        return True  # as nearly all are, at a third of the time
    return _ALIAS.match(text) is not None


def is_user_id(alias: str) -> bool:
    """Tell a user id of the Cloud API from a wa_id by its form, such as `US.1349`."""
    return _USER_ID.fullmatch(alias) is not None


def usable_hash(text: str) -> bool:
    """Tell whether the text can be an identity hash: opaque, printable, of bounded length."""
    return 0 < len(text) <= MAX_HASH_CHARACTERS and text.isprintable()


def storable(text: str) -> bool:
    """Tell whether a database can hold the text: a lone surrogate or NUL matches nothing."""
    if "\0" in text:
        return False
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)
