"""Finding in the journal what was just sent to the door, from another process."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, literal, select

from service.store.database import SYNTHETIC
from service.store.tables import journal

LOOKED_AT = 50_000
"""Rows of the journal that are looked at for the newest callbacks."""


def newest_entry(connection: Connection) -> int:
    """Give the id of the newest callback, 0 where there is none."""
    return connection.execute(select(func.max(journal.c.id))).scalar() or 0


def is_kept(connection: Connection, account: str, body: bytes, after: int) -> bool:
    """Tell whether this synthetic callback is among those after an id."""
    query = (
        select(literal(1))
        .where(journal.c.id > after, journal.c.account == account)
        .where(journal.c.state == SYNTHETIC, journal.c.body == body)
        .limit(1)
    )
    return connection.execute(query).first() is not None


def newest_callbacks(
    connection: Connection, names: Sequence[str], limit: int
) -> Sequence[Row[Any]]:
    """Give the newest callbacks that the journal has under some names, the newest first.

    Where others have far more of them than these, none is found: so many rows are looked at, and no
    more, for the journal has no index by account.
    """
    rows = journal.c
    query = (
        select(rows.received_at, rows.content_type, rows.content_encoding, rows.body)
        .where(rows.id > newest_entry(connection) - LOOKED_AT, rows.account.in_(names))
        .order_by(rows.id.desc())
        .limit(limit)
    )
    return [*connection.execute(query)]
