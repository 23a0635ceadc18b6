"""What an operator does with a SQLite file: upgrade, check, back up, restore, look into it."""

import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, create_engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from service.observability import failpoints
from service.store import upgrades
from service.store.database import StoreError
from service.store.restore import mark
from service.store.schema import accounts, audit, changes, contacts, journal, outbox, users
from service.store.sqlite_faults import CURE, is_damage
from service.store.sqlite_files import (
    FileLock,
    Progress,
    beside,
    connect,
    copy_to,
    has_known_id,
    need_folder,
    note_backup,
    sync,
)

COUNTED = (users, changes, audit, contacts, journal, outbox)

MAX_FAULTS = 20
MEBIBYTE = 1_048_576


class DamagedError(StoreError):
    """SQLite can't read a file."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found. `size` is in bytes; without `faults` the file is good."""

    size: int
    schema: str | None
    latest: str
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds: the rows of each table, and when (Unix ms) its last callback came in."""

    rows: Mapping[str, int]
    last_callback_at: int | None


class Finding(NamedTuple):
    """What `ackgate doctor` is told, of the database or of its disk; and what to do about it."""

    name: str
    is_good: bool
    detail: str
    cure: str | None = None


def create(path: Path) -> None:
    """Make a new, empty database, also where there was one before that is gone."""
    need_folder(path)
    with _explained(path), _locked(path) as lock:
        if not upgrades.is_empty(path):
            raise StoreError(f"{path}: exists already; move it away first")
        lock.note_id(None)
        upgrades.bring_up(path, lock, migrate=True, create=True)


def upgrade(path: Path, *, create: bool = True) -> upgrades.Opened:
    """Bring a file to this release, or make it where there is none and `create` says so."""
    need_folder(path)
    with _explained(path), _locked(path) as lock:
        return upgrades.bring_up(path, lock, migrate=True, create=create)


def check(path: Path, *, quick: bool = False) -> Report:
    """Look at every page and every reference of a file, and at its schema; a service may run.

    A `quick` look takes a fraction of the time: it leaves out references, and whether the indexes
    agree with the tables.
    """
    with _explained(path), closing(_open(path)) as raw:
        found, latest = upgrades.current(raw), upgrades.latest()
        faults = [*(_quick_damage(raw) if quick else _damage(raw)), *_unfit(raw)]
        if not faults and found is not None and found < latest:
            faults.append(
                f"the schema is at {found}, this release needs {latest}: run 'ackgate db upgrade'"
            )
        return Report(path.stat().st_size, found, latest, tuple(faults))


def examine(path: Path, low_disk_bytes: int) -> Iterator[Finding]:
    """Look at a file, quickly, and at the disk that it is on."""
    yield _examine_file(path)
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        detail = f"{path.parent}: {error.strerror}"
        yield Finding("disk", is_good=False, detail=detail, cure="make the folder")
        return
    low = free < low_disk_bytes
    cure = "make room; soon callbacks can't be stored" if low else None
    yield Finding("disk", not low, f"{free // MEBIBYTE} MiB are free", cure)


def _examine_file(path: Path) -> Finding:
    try:
        report = check(path, quick=True)
    except StoreError as error:
        return Finding("database", is_good=False, detail=str(error), cure=_cure_of(error, path))
    if report.faults:
        is_damaged = report.faults[0].startswith("damaged")
        cure = CURE if is_damaged else "see 'ackgate db check'"
        return Finding("database", is_good=False, detail=report.faults[0], cure=cure)
    size = report.size // MEBIBYTE
    detail = f"whole, {size} MiB, its schema at {report.schema}"
    return Finding("database", is_good=True, detail=detail)


def _cure_of(error: StoreError, path: Path) -> str:
    """Return what to do about a file that can't be read."""
    if isinstance(error, DamagedError):
        return CURE
    if has_known_id(path) and not path.exists():
        return "put it back, or see 'ackgate db restore' and 'ackgate db create'"
    return "start the service, which makes it; or run this with its configuration, and as its user"


def verify(backup: Path) -> tuple[Report, Contents | None]:
    """Look at every page and every reference of a backup; return what is in it where it is good.

    A backup that a restore would have to upgrade is good.
    """
    with _explained(backup), closing(_open(backup)) as raw:
        faults = (*_damage(raw), *_unfit(raw))
        size, found = backup.stat().st_size, upgrades.current(raw)
        report = Report(size, found, upgrades.latest(), faults)
        return report, None if faults else _contents(raw)


def back_up(path: Path, target: Path, progress: Progress, *, verify: bool = True) -> None:
    """Copy a file, as it stands at one moment, to a new one; a service may run meanwhile.

    The new file appears under its name when it is whole and on disk; and not at all where it is
    damaged, if it is to be verified.
    """
    with _explained(path):
        raw = _open(path)
    with closing(raw), _explained(target):
        if os.path.lexists(target):
            raise StoreError(f"{target}: exists already; name a new file")
        with beside(target) as copy:
            copy_to(raw, copy, progress)
            if verify:
                _refuse_damaged(path, copy)
            copy.rename(target)
            sync(target.parent)
    note_backup(path)


def _refuse_damaged(path: Path, copy: Path) -> None:
    """Raise StoreError where the copy of a file is damaged, as the file then is."""
    try:
        with closing(connect(copy, read_only=True)) as raw:
            fault = next(_damage(raw), None)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        fault = f"damaged: {error}"
    if fault is not None:
        raise StoreError(f"{path}: {fault}: no backup is written; {CURE}")


def restore(path: Path, backup: Path, now: datetime, progress: Progress) -> Path | None:
    """Put a backup in the place of a file, once it is found to be whole.

    What changed since the backup is unknown, so its accounts and users are unverified from then on.
    Returns the name under which the file as it was is kept beside; None where there was none.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and backup.exists() and path.samefile(backup):
            raise StoreError(f"{backup}: is the database itself; name a backup")
        with _locked(path) as lock, beside(path) as fresh:
            _take_over(backup, fresh, progress)
            failpoints.reached("restore.after_copy")
            database_id = _mark(fresh, now)
            failpoints.reached("restore.before_aside")
            kept = _set_aside(path, now)
            failpoints.reached("restore.after_aside")
            fresh.rename(path)
            sync(path.parent)
            failpoints.reached("restore.before_id")
            lock.note_id(database_id)
            failpoints.reached("restore.after_id")
            return kept


def mark_restored(path: Path, now: datetime) -> None:
    """Mark a backup that something else has put in the place of a file, as a restore does."""
    with _explained(path), _locked(path) as lock:
        with closing(_open(path)) as raw:
            faults = [*_damage(raw), *_unfit(raw)]
        if faults:
            raise StoreError(f"{path}: {faults[0]}")
        lock.note_id(_mark(path, now))


@contextmanager
def reading(path: Path) -> Iterator[Connection]:
    """Open a file for queries that only read; a service may run on it."""
    with _explained(path), closing(_open(path)) as raw, _speaking(raw) as connection:
        yield connection


@contextmanager
def _speaking(raw: sqlite3.Connection) -> Iterator[Connection]:
    """Let SQLAlchemy speak through a connection."""
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
    with engine.connect() as connection:
        yield connection


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the driver or the system says into one line that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        kind = DamagedError if is_damage(error) else StoreError
        raise kind(f"{path}: {error}") from None
    except DBAPIError as error:  # its own text would hold statement and parameters
        raise StoreError(f"{path}: {error.orig}") from None
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror}") from None


@contextmanager
def _locked(path: Path) -> Iterator[FileLock]:
    lock = FileLock(path)
    lock.take()
    try:
        yield lock
    finally:
        lock.release()


def _open(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise StoreError(f"{path}: no such file")
    return connect(path, read_only=True)


def _take_over(backup: Path, fresh: Path, progress: Progress) -> None:
    """Copy a backup, and refuse it where the copy is damaged or of no use to this release."""
    with _explained(backup):
        with closing(_open(backup)) as raw:
            copy_to(raw, fresh, progress)
        with closing(connect(fresh, read_only=True)) as raw:
            faults = [*_damage(raw), *_unfit(raw)]
    if faults:
        raise StoreError(f"{backup}: {faults[0]}")


def _mark(fresh: Path, now: datetime) -> str:
    """Make accounts and users unverified; return the id of the database."""
    raw = sqlite3.connect(fresh, isolation_level=None)
    with closing(raw), _speaking(raw) as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        mark(connection, round(now.timestamp() * 1000))
        connection.commit()
        database_id = upgrades.give_id(raw)
    sync(fresh)
    return database_id


def _contents(raw: sqlite3.Connection) -> Contents:
    with _speaking(raw) as connection:
        rows = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in COUNTED
        }
        last = connection.execute(select(func.max(accounts.c.last_callback_at))).scalar()
    return Contents(rows, last)


def _quick_damage(raw: sqlite3.Connection) -> Iterator[str]:
    for (said,) in raw.execute(f"PRAGMA quick_check({MAX_FAULTS})"):
        if said != "ok":
            yield f"damaged: {said}"


def _damage(raw: sqlite3.Connection) -> Iterator[str]:
    for (said,) in raw.execute(f"PRAGMA integrity_check({MAX_FAULTS})"):
        if said != "ok":
            yield f"damaged: {said}"
    dangling = raw.execute("PRAGMA foreign_key_check")
    for table, row, parent, _ in dangling.fetchmany(MAX_FAULTS):
        yield f"damaged: row {row} of {table} refers to a row of {parent} that is not there"


def _unfit(raw: sqlite3.Connection) -> Iterator[str]:
    if upgrades.current(raw) is None:
        yield "not a database of Ackgate"
    elif why_not := upgrades.unfit(raw):
        yield why_not


def _set_aside(path: Path, now: datetime) -> Path | None:
    """Return a file a second name beside, and take away what belongs to it and not to the next."""
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
        # Whoever may write takes a log that can't be read away when closing; a reader leaves it.
        with suppress(sqlite3.OperationalError), closing(_open(path)) as raw:
            raw.execute("SELECT 1 FROM sqlite_master").fetchone()
        with closing(connect(path)) as raw:
            busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return  # damaged: kept as it is, with its log
    if busy:
        raise StoreError(f"{path}: another process reads it; try again when it has finished")
