"""The write-ahead log is copied back beside the writer, and stays small."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.store.database import JournalRow, Transaction
from service.store.sqlite import SQLiteDatabase
from service.store.sqlite_checkpoints import (
    FEW_PAGES,
    MAX_PASSES,
    MOST_GUESSED,
    PAGES,
    SHARED_FROM,
    Checkpoints,
)
from service.store.sqlite_files import CHECKPOINT_PAGES

PAGE = 4096
ROWS = 2 * (PAGES - SHARED_FROM)
"""Rows of one commit that are enough."""


class Copier:
    """Stands for the two connections: tells what the log holds, and notes who was asked."""

    def __init__(self, pages: Sequence[int] = (PAGES,), error: Exception | None = None) -> None:
        self.pages = list(pages)
        self.error = error
        self.asked: list[str] = []
        self.done = asyncio.Event()

    async def beside(self) -> tuple[int, int]:
        self.asked.append("beside")
        if self.error is not None:
            self.done.set()
            raise self.error
        pages = self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]
        return pages, pages

    async def within(self) -> tuple[int, int]:
        self.asked.append("within")
        self.done.set()
        return 0, 0


async def run(copier: Copier, changes: int) -> Checkpoints:
    checkpoints = Checkpoints(copier.beside, copier.within)
    checkpoints.note(changes)
    await checkpoints.close()
    return checkpoints


async def test_nothing_is_copied_until_enough_rows_were_changed() -> None:
    copier = Copier()
    await run(copier, ROWS - 1)
    assert copier.asked == []


async def test_what_is_committed_row_by_row_is_copied_long_before_a_commit_would_copy_it() -> None:
    copier = Copier()
    checkpoints = Checkpoints(copier.beside, copier.within)
    rows = 0
    while not copier.asked:
        rows += 5
        checkpoints.note(rows)
        await asyncio.sleep(0)
    await checkpoints.close()
    pages_of_5_rows = 10.5  # as measured with one identity change in a commit
    assert rows / 5 * pages_of_5_rows < CHECKPOINT_PAGES / 2


async def test_the_writer_waits_only_for_what_came_while_the_rest_was_copied() -> None:
    copier = Copier()
    await run(copier, ROWS)
    assert copier.asked == ["beside", "beside", "within"]


async def test_as_long_as_much_comes_meanwhile_it_is_copied_beside() -> None:
    copier = Copier([5_000, 10_000, 15_000, 15_000 + FEW_PAGES])
    await run(copier, ROWS)
    assert copier.asked == ["beside"] * 4 + ["within"]


async def test_the_log_does_not_grow_for_ever_under_a_load_that_never_ends() -> None:
    copier = Copier([n * 10_000 for n in range(100)])
    await run(copier, ROWS)
    assert copier.asked == ["beside"] * (MAX_PASSES + 1) + ["within"]


async def test_a_second_one_begins_only_after_as_many_rows_again() -> None:
    copier = Copier()
    checkpoints = await run(copier, ROWS)
    checkpoints.note(2 * ROWS - 1)
    await checkpoints.close()
    assert copier.asked.count("within") == 1
    checkpoints.note(2 * ROWS)
    await checkpoints.close()
    assert copier.asked.count("within") == 2


async def test_where_the_log_held_less_than_was_guessed_more_is_waited_for() -> None:
    copier = Copier([PAGES // 2])
    checkpoints = await run(copier, ROWS)
    checkpoints.note(3 * ROWS - 1_000)
    await checkpoints.close()
    assert copier.asked.count("within") == 1
    checkpoints.note(3 * ROWS + 1_000)
    await checkpoints.close()
    assert copier.asked.count("within") == 2


async def test_where_the_log_held_more_than_was_guessed_the_next_one_comes_earlier() -> None:
    copier = Copier([2 * PAGES])
    checkpoints = await run(copier, ROWS)
    checkpoints.note(ROWS + ROWS // 2 - 1_000)
    await checkpoints.close()
    assert copier.asked.count("within") == 1
    checkpoints.note(ROWS + ROWS // 2 + 1_000)
    await checkpoints.close()
    assert copier.asked.count("within") == 2


async def test_however_little_the_log_held_the_next_one_comes_before_a_commit_copies_it() -> None:
    copier = Copier([1])
    checkpoints = await run(copier, ROWS)
    rows = ROWS + 2 * (MOST_GUESSED - SHARED_FROM)
    checkpoints.note(rows)
    await checkpoints.close()
    assert copier.asked.count("within") == 2
    rows_of_a_change, pages_of_a_change = 4, 117 / 64  # as measured with 64 of them in a commit
    assert (rows - ROWS) / rows_of_a_change * pages_of_a_change < CHECKPOINT_PAGES


async def test_where_load_ends_the_next_one_still_comes_before_a_commit_copies_the_log() -> None:
    copier = Copier([1])
    checkpoints = await run(copier, ROWS)
    copier.pages = [PAGES]
    rows, commits = ROWS, 0
    while copier.asked.count("within") == 1:
        rows += 6
        commits += 1
        checkpoints.note(rows)
        await checkpoints.close()
    # As measured of an identity change with 6 kB of body in a commit of its own.
    assert commits * 17.5 < CHECKPOINT_PAGES


@pytest.mark.parametrize("pages", [-1, 0])
async def test_nothing_is_learned_where_somebody_else_copies_or_has_copied(pages: int) -> None:
    copier = Copier([pages])
    checkpoints = await run(copier, ROWS)
    checkpoints.note(2 * ROWS)
    await checkpoints.close()
    assert copier.asked.count("within") == 2


async def test_it_goes_on_where_the_drivers_number_of_changes_begins_anew() -> None:
    copier = Copier()
    checkpoints = await run(copier, 2**31 - 1)
    checkpoints.note(2**31 - 1 + 2 * MOST_GUESSED - 2**32)
    await checkpoints.close()
    assert copier.asked.count("within") == 2


async def test_one_that_fails_is_told_and_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    copier = Copier(error=sqlite3.OperationalError("disk I/O error"))
    checkpoints = await run(copier, ROWS)
    copier.error = None
    checkpoints.note(2 * ROWS)
    await checkpoints.close()
    assert copier.asked[-1] == "within"
    assert "disk I/O error" in capsys.readouterr().out


async def test_a_real_log_begins_anew(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "ackgate.db")
    await database.open()
    body = b"x" * 500
    rows = [JournalRow("main", 1, "applied", "", "", "[]", body) for _ in range(1000)]

    def add(transaction: Transaction) -> None:
        transaction.add_journal(rows)

    log = tmp_path / "ackgate.db-wal"
    sizes = []
    for _ in range(8 * ROWS // len(rows)):
        await database.write(add)
        await database._checkpoints.close()
        sizes.append(log.stat().st_size)
    await database.close()
    # Without a checkpoint the log would hold 170 MB.
    assert max(sizes) < 1.25 * PAGES * PAGE
