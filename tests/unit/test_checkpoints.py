"""The write-ahead log is copied back once it has grown large, and begins anew."""

from pathlib import Path

import pytest

from service.store.database import JournalRow, UnavailableError
from service.store.sqlite import SQLiteDatabase
from service.store.sqlite_checkpoints import FEW_PAGES, LOG_BYTES, MAX_PASSES, Checkpoints
from tests.storing import opening, within


class Copier:
    """Stands for a database that is copied: how many pages the log has, at each look."""

    def __init__(self, pages: list[int] | None = None, error: Exception | None = None) -> None:
        self.pages = pages or []
        self.error = error
        self.asked: list[str] = []

    async def beside(self) -> tuple[int, int]:
        self.asked.append("beside")
        if self.error is not None:
            raise self.error
        pages = self.pages.pop(0) if self.pages else 0
        return pages, pages

    async def within(self) -> tuple[int, int]:
        self.asked.append("within")
        return 0, 0


def log_of(folder: Path, size: int) -> Path:
    """Make a log of this size; it takes no room on the disk."""
    log = folder / "ackgate.db-wal"
    with log.open("wb") as file:
        file.truncate(size)
    return folder / "ackgate.db"


async def run(path: Path, copier: Copier) -> None:
    checkpoints = Checkpoints(path, copier.beside, copier.within)
    checkpoints.note()
    await checkpoints.close()


@pytest.mark.parametrize("size", [0, LOG_BYTES - 1])
async def test_a_small_log_is_left_alone(tmp_path: Path, size: int) -> None:
    copier = Copier()
    await run(log_of(tmp_path, size), copier)
    assert copier.asked == []


async def test_no_log_at_all_is_left_alone(tmp_path: Path) -> None:
    copier = Copier()
    await run(tmp_path / "ackgate.db", copier)
    assert copier.asked == []


async def test_a_large_one_is_copied_beside_the_writer_until_little_is_left(tmp_path: Path) -> None:
    copier = Copier([16_000, 24_000, 26_500, 26_500 + FEW_PAGES])
    await run(log_of(tmp_path, LOG_BYTES), copier)
    assert copier.asked == ["beside"] * 4 + ["within"]


async def test_a_writer_that_is_faster_than_the_copy_waits_for_it_in_the_end(
    tmp_path: Path,
) -> None:
    copier = Copier([n * (FEW_PAGES + 1) for n in range(100)])
    await run(log_of(tmp_path, LOG_BYTES), copier)
    assert copier.asked == ["beside"] * (1 + MAX_PASSES) + ["within"]


async def test_one_that_fails_is_logged_and_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copier = Copier(error=UnavailableError("disk I/O error"))
    path = log_of(tmp_path, LOG_BYTES)
    checkpoints = Checkpoints(path, copier.beside, copier.within)
    for _ in range(2):
        checkpoints.note()
        await checkpoints.close()
        copier.error = None
    assert copier.asked == ["beside", "beside", "beside", "within"]
    assert "disk I/O error" in capsys.readouterr().out


@pytest.mark.slow
async def test_a_real_log_begins_anew(tmp_path: Path) -> None:
    rows = [JournalRow("main", 1, "applied", "", "", "[]", b"x" * 500) for _ in range(1000)]
    log, sizes = tmp_path / "ackgate.db-wal", []
    async with opening(SQLiteDatabase(tmp_path / "ackgate.db")) as database:
        for _ in range(250):
            await within(database, lambda transaction: transaction.add_journal(rows))
            await database._checkpoints.close()
            sizes.append(log.stat().st_size)
    # Without a checkpoint the log would hold 170 MB.
    assert max(sizes) < 1.25 * LOG_BYTES
    # And each commit after the first checkpoint would begin one, did the file not shrink.
    assert sizes[sizes.index(max(sizes)) + 1] <= LOG_BYTES // 2
