"""What an operator does with a SQLite file: upgrade, check, back up, restore, look into it."""

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from service.store import schema
from service.store.database import StoreError
from service.store.sqlite_files import FileLock, connect, prepare_file

PAGES_A_STEP = 1000
MAX_FAULTS = 20

Progress = Callable[[int, int], None]
"""Told how many pages are copied, and how many there are in all."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found. `size` is in bytes; without `faults` the file is good."""

    size: int
    schema: str | None
    latest: str
    faults: tuple[str, ...]


def upgrade(path: Path) -> tuple[str | None, str | None]:
    """Bring a file to this release, made where there is none; give its schema before and after."""
    prepare_file(path)
    with _explained(path), _locked(path):
        before = _schema_of(path)
        schema.bring_up(path, migrate=True)
        return before, _schema_of(path)


def check(path: Path) -> Report:
    """Look at every page and every reference of a file, and at its schema; a service may run."""
    with _explained(path), closing(_open(path)) as raw:
        found, latest = schema.current(raw), schema.latest()
        faults = [*_damage(raw), *_unfit(raw)]
        if not faults and found is not None and found < latest:
            faults.append(
                f"the schema is at {found}, this release needs {latest}: run 'ackgate db upgrade'"
            )
        return Report(path.stat().st_size, found, latest, tuple(faults))


def back_up(path: Path, target: Path, progress: Progress) -> None:
    """Copy a file, as it stands at one moment, to a new one; a service may run meanwhile.

    The new file appears under its name when it is whole and on disk.
    """
    with _explained(path):
        raw = _open(path)
    with closing(raw), _explained(target):
        if os.path.lexists(target):
            raise StoreError(f"{target}: exists already; name a new file")
        with _beside(target) as copy:
            _copy(raw, copy, progress)
            copy.rename(target)
            _sync(target.parent)


def restore(path: Path, backup: Path, now: datetime, progress: Progress) -> Path | None:
    """Put a backup in the place of a file, once it is found to be whole.

    Gives the name under which the file as it was is kept beside; None where there was none.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and backup.exists() and path.samefile(backup):
            raise StoreError(f"{backup}: is the database itself; name a backup")
        with _locked(path), _beside(path) as fresh:
            _take_over(backup, fresh, progress)
            kept = _set_aside(path, now)
            fresh.rename(path)
            _sync(path.parent)
            return kept


@contextmanager
def reading(path: Path) -> Iterator[Connection]:
    """Open a file for queries that only read; a service may run on it."""
    with _explained(path), closing(_open(path)) as raw:
        engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
        with engine.connect() as connection:
            yield connection


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the driver or the system says into one line that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from None
    except DBAPIError as error:  # its own text would hold statement and parameters
        raise StoreError(f"{path}: {error.orig}") from None
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror}") from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    lock.take()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Make an empty file for the owner alone in the same folder, gone again unless renamed."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _open(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise StoreError(f"{path}: no such file")
    return connect(path, read_only=True)


def _schema_of(path: Path) -> str | None:
    with closing(connect(path)) as raw:
        return schema.current(raw)


def _copy(raw: sqlite3.Connection, target: Path, progress: Progress) -> None:
    """Copy to an empty file, a single one without WAL that any folder can hold, and sync it."""
    # Within one snapshot: a copy in steps would begin anew whenever the service writes.
    raw.execute("BEGIN")
    raw.execute("SELECT 1 FROM sqlite_master").fetchone()
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        copy.execute("PRAGMA synchronous = OFF")
        raw.backup(
            copy,
            pages=PAGES_A_STEP,
            progress=lambda _, left, total: progress(total - left, total),
        )
        copy.execute("PRAGMA journal_mode = DELETE")
    raw.execute("ROLLBACK")
    _sync(target)


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take_over(backup: Path, fresh: Path, progress: Progress) -> None:
    """Copy a backup, and refuse it where the copy is damaged or of no use to this release."""
    with _explained(backup):
        with closing(_open(backup)) as raw:
            _copy(raw, fresh, progress)
        with closing(connect(fresh, read_only=True)) as raw:
            faults = [*_damage(raw), *_unfit(raw)]
    if faults:
        raise StoreError(f"{backup}: {faults[0]}")


def _damage(raw: sqlite3.Connection) -> Iterator[str]:
    for (said,) in raw.execute(f"PRAGMA integrity_check({MAX_FAULTS})"):
        if said != "ok":
            yield f"damaged: {said}"
    dangling = raw.execute("PRAGMA foreign_key_check")
    for table, row, parent, _ in dangling.fetchmany(MAX_FAULTS):
        yield f"damaged: row {row} of {table} refers to a row of {parent} that is not there"


def _unfit(raw: sqlite3.Connection) -> Iterator[str]:
    if schema.current(raw) is None:
        yield "not a database of Ackgate"
    elif why_not := schema.unfit(raw):
        yield why_not


def _set_aside(path: Path, now: datetime) -> Path | None:
    """Give a file a second name beside, and take away what belongs to it and not to the next."""
    kept = path.with_name(f"{path.name}.replaced-{now:%Y%m%dT%H%M%SZ}")
    existed = path.exists()
    if existed and os.path.lexists(kept):
        raise StoreError(f"{kept}: exists already; try again")
    if existed:
        _write_back(path)
        os.link(path, kept)
    for side in ("-wal", "-journal"):
        left = path.with_name(path.name + side)
        if left.exists():
            left.rename(kept.with_name(kept.name + side))
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    return kept if existed else None


def _write_back(path: Path) -> None:
    """Bring the write-ahead log into the file, unless the file is beyond that."""
    try:
        with closing(connect(path)) as raw:
            busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return  # damaged: kept as it is, with its log
    if busy:
        raise StoreError(f"{path}: another process reads it; try again when it has finished")
