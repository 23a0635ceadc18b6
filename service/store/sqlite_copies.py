"""Copies of a SQLite file, as it stands at one moment: whole and on disk, or not there at all."""

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

PAGES_A_STEP = 1000

Progress = Callable[[int, int], None]
"""Told how many pages are copied, and how many there are in all."""


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Make an empty file for the owner alone in the same folder, gone again unless renamed."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def copy_to(raw: sqlite3.Connection, target: Path, progress: Progress | None = None) -> None:
    """Copy to an empty file, a single one without WAL that any folder can hold, and sync it."""
    # Within one snapshot: a copy in steps would begin anew whenever the service writes.
    raw.execute("BEGIN")
    try:
        raw.execute("SELECT 1 FROM sqlite_master").fetchone()
        with closing(sqlite3.connect(target, isolation_level=None)) as copy:
            copy.execute("PRAGMA synchronous = OFF")
            raw.backup(copy, pages=PAGES_A_STEP, progress=_told(progress))
            copy.execute("PRAGMA journal_mode = DELETE")
    finally:
        raw.execute("ROLLBACK")
    sync(target)


def _told(progress: Progress | None) -> Callable[[int, int, int], None] | None:
    if progress is None:
        return None
    return lambda _, left, total: progress(total - left, total)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
