"""Finding in the journal what was just sent to the door, from another process."""

from sqlalchemy import Connection, func, literal, select

from service.store.database import SYNTHETIC
from service.store.tables import journal


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
