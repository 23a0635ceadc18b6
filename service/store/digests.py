"""Digests of the audit trail: of what an entry says of persons, and of a range of entries.

What is erased of an entry leaves its digest, so the range stays whole; and without the salt, which
goes too, nobody can find out by trying what the digest is of.
"""

import secrets
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

import orjson

SALT_BYTES = 16

PERSONAL = ("hash", "decided_by", "reason", "note", "evidence", "request_id")
"""The columns of an entry that may say something of a person, in the order of the digest."""


def new_salt() -> bytes:
    """Return the salt of an entry."""
    return secrets.token_bytes(SALT_BYTES)


def digest_of(salt: bytes, personal: Sequence[str | None]) -> bytes:
    """Return SHA-256 of the salt and of these columns, as they are stored, as a JSON list."""
    return sha256(salt + orjson.dumps(personal)).digest()


class SealedEntry(NamedTuple):
    """What of an entry a seal is made of: all but what its digest stands for."""

    id: int
    at: int
    event: str
    account: str | None
    user_id: int | None
    digest: bytes


def seal_of(number: int, previous: bytes, entries: Sequence[SealedEntry]) -> bytes:
    """Return SHA-256 of the seal before, of what the range is, and of each entry of it.

    The range is a JSON list of its number, the id of its last entry and how many there are; each
    entry is a JSON list as well, with its digest as hex.
    """
    last_id = entries[-1].id if entries else 0
    chain = sha256(previous)
    chain.update(orjson.dumps((number, last_id, len(entries))))
    for entry in entries:
        chain.update(orjson.dumps((*entry[:-1], entry.digest.hex())))
    return chain.digest()
