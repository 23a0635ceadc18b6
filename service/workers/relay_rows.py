"""Rows of deliveries, and the entries that they are: times of one clock, and of the other."""

import time

from service.model.relays import Entry, RowState
from service.store.relays import DeliveryRow


def entry_of(row: DeliveryRow, now: int) -> Entry:
    """Return the entry of a stored row; `now` is the time of the wall clock (Unix ms)."""
    ahead = time.monotonic() - now / 1000
    return Entry(
        row.log_id,
        frozenset(row.kinds),
        frozenset(row.names),
        row.is_of_one,
        row.replay,
        row.id,
        RowState(row.state),
        row.attempts,
        row.due_at / 1000 + ahead,
        None if row.gives_up_at is None else row.gives_up_at / 1000 + ahead,
        row.last_status,
        row.last_error,
        row.answer,
    )


def row_of(relay: str, entry: Entry, now: int) -> DeliveryRow:
    """Return the row of a relay's entry, to be stored; `now` is as above."""
    ahead = now / 1000 - time.monotonic()
    gives_up = entry.gives_up_at
    return DeliveryRow(
        relay,
        entry.delivery or 0,
        entry.log_id,
        entry.replay,
        str(entry.state),
        entry.attempts,
        round((entry.due_at + ahead) * 1000),
        None if gives_up is None else round((gives_up + ahead) * 1000),
        sorted(entry.kinds),
        sorted(entry.names),
        entry.is_of_one,
        entry.last_status,
        entry.last_error,
        entry.answer,
    )
