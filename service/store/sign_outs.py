"""Sessions of the console that were signed out before they ended by themselves.

They are rows of the table `installation`, so every replica refuses their cookies, and a start does
not forget them. The id of a session is kept as its SHA-256 alone.
"""

from hashlib import sha256

from sqlalchemy import Connection, delete, select

from service.store.schema import installation
from service.store.upserting import upsert

PREFIX = "signed_out:"
"""How keys of the table `installation` begin whose value is when (Unix ms) a session ends."""


def _key_of(session_id: str) -> str:
    return f"{PREFIX}{sha256(session_id.encode()).hexdigest()}"


def _written(at: int) -> str:
    """Return a time as text that is in the order of time."""
    return f"{at:015}"


def note_sign_out(connection: Connection, now: int, *, session_id: str, ends_at: int) -> None:
    """Note that a session was signed out, until it would have ended; forget those that have."""
    ours = installation.c.key.startswith(PREFIX, autoescape=True)
    connection.execute(delete(installation).where(ours, installation.c.value <= _written(now)))
    row = {"value": _written(ends_at)}
    key = _key_of(session_id)
    upsert(connection, installation, {"key": key, **row}, ["key"], row)


def is_signed_out(connection: Connection, session_id: str) -> bool:
    """Return whether a session was signed out."""
    query = select(installation.c.key).where(installation.c.key == _key_of(session_id))
    return connection.execute(query).first() is not None
