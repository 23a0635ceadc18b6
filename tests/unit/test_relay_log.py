"""The log that relays read: which of the newest rows are handed out from memory, in which order."""

from pathlib import Path

import pytest

from service.dialects.routing import Routing
from service.store.database import ChangeSet, JournalRow
from service.store.sqlite import SQLiteDatabase
from service.workers.relay_log import READ_ROWS, TAIL_ROWS, Log

pytestmark = pytest.mark.sqlite
"""On PostgreSQL none is handed out from memory; see `tests/contract/test_logs.py`."""

NEWEST = TAIL_ROWS + 300


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """A log whose rows were committed one by one; the database, never opened, has none of them."""
    database = SQLiteDatabase(tmp_path / "ackgate.db")
    made = Log("callbacks", database, lambda _: Routing(), lambda *_: {}, "epoch.")
    for id_ in range(1, NEWEST + 1):
        row = JournalRow("main", 0, "applied", "application/json", "", "[]", b"{}", id=id_)
        made.note(ChangeSet(journal=[row]))
    return made


@pytest.mark.parametrize(
    ("after", "first", "count"),
    [
        (NEWEST - TAIL_ROWS, NEWEST - TAIL_ROWS + 1, READ_ROWS),
        (NEWEST - READ_ROWS - 1, NEWEST - READ_ROWS, READ_ROWS),
        (NEWEST - READ_ROWS, NEWEST - READ_ROWS + 1, READ_ROWS),
        (NEWEST - 3, NEWEST - 2, 3),
        (NEWEST - 1, NEWEST, 1),
        (NEWEST, NEWEST + 1, 0),
    ],
)
async def test_the_next_rows_after_an_id_come_in_order(
    log: Log, after: int, first: int, count: int
) -> None:
    read = await log.read(after)
    assert [routed.row.id for routed in read] == [*range(first, first + count)]
