"""SQLite files: how they are created, locked, opened and copied."""

import fcntl
import glob
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from service.store.database import Files, NoRoomError, StoreError
from service.store.sqlite_checkpoints import LOG_BYTES
from service.store.sqlite_faults import is_no_room

BUSY_TIMEOUT_SECONDS = 5.0
"""How long a statement waits while another program holds the lock."""

CACHE_KIB = 65_536
READERS_CACHE_KIB = 8_192
"""Room for the upper pages of every tree; the leaves, asked for at random, the system keeps."""

CHECKPOINT_PAGES = 72_000
"""At so many pages in the log a commit copies them itself: only where `Checkpoints` lag behind."""


def path_of(url: str) -> Path:
    """Return the file that a URL names; a relative path counts from the working directory."""
    return Path(url.removeprefix("sqlite:///"))


DEFAULT_FOLDER = Path("var")
"""The only folder that is made: another one that is missing may be a volume that is not mounted."""


def need_folder(path: Path) -> None:
    """Make the default folder of the file; raise StoreError where any other one is missing."""
    folder = path.parent
    try:
        if folder == DEFAULT_FOLDER:
            folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"database.url: {folder}: {error.strerror}") from None
    if not folder.is_dir():
        raise StoreError(f"database.url: {folder}: no such folder: make it, or mount its volume")


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def has_known_id(path: Path) -> bool:
    """Return whether the lock file names a database that belongs here."""
    try:
        return _lock_of(path).stat().st_size > 0
    except OSError:
        return False


class InUseError(StoreError):
    """Another process has the lock of a file."""


class FileLock:
    """The lock that keeps a second process from the same file; it ends with the process.

    The lock file stays, and holds the id of the database that belongs beside it: where that one is
    missing, it is not silently replaced by a new one.
    """

    def __init__(self, path: Path) -> None:
        self._path = _lock_of(path)
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock; InUseError where another process has it."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise system_error(self._path, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise InUseError(
                f"{self._path.with_suffix('')}: in use by another process; "
                "one process only may run on a SQLite file"
            ) from None
        self._descriptor = descriptor

    @property
    def database_id(self) -> str | None:
        """The id of the database that belongs here; None where none is known."""
        return self._path.read_text(errors="replace").strip() or None

    def note_id(self, database_id: str | None) -> None:
        """Write the id to the lock file, and see to it that it is on disk."""
        with self._path.open("r+") as file:
            file.truncate()
            file.write(f"{database_id}\n" if database_id else "")
        sync(self._path)
        sync(self._path.parent)

    def release(self) -> None:
        """Let it go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def prepare_file(path: Path) -> None:
    """Create the file, where there is none, readable by its owner alone."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise system_error(f"database.url: {path}", error) from None


def readable_by_others(path: Path) -> list[Path]:
    """Return the database file and what lies beside it, as far as others than the owner may use it.

    That is its log, its lock, and the backups that the service makes: all have the same content.
    """
    beside_it = path.parent.glob(f"{glob.escape(path.name)}*")
    return sorted(file for file in beside_it if file.is_file() and file.stat().st_mode & 0o077)


def system_error(what: object, error: OSError) -> StoreError:
    """Return the store's error for one of the system's."""
    kind = NoRoomError if is_no_room(error) else StoreError
    return kind(f"{what}: {error.strerror}")


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the file, which must exist, in autocommit: whoever writes begins a transaction."""
    mode = "ro" if read_only else "rw"
    raw = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_SECONDS,
    )
    try:
        for pragma in pragmas(read_only=read_only):
            raw.execute(pragma)
    except BaseException:
        raw.close()
        raise
    return raw


def pragmas(*, read_only: bool = False) -> list[str]:
    """Return what every connection is set to; `auto_vacuum` counts only before the first table."""
    settings = [
        f"PRAGMA cache_size = -{READERS_CACHE_KIB if read_only else CACHE_KIB}",
        "PRAGMA foreign_keys = ON",
    ]
    if read_only:
        return [*settings, "PRAGMA query_only = ON"]
    return [
        *settings,
        "PRAGMA auto_vacuum = INCREMENTAL",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA secure_delete = ON",
        f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",
        f"PRAGMA journal_size_limit = {LOG_BYTES // 2}",
    ]


def backups_beside(path: Path) -> list[str]:
    """Return the files beside a database that are copies of it, or hold what was in it."""
    marks = ("before-", "replaced-", "rescued-")
    found = (one.name for one in path.parent.glob(f"{path.name}.*"))
    return sorted(name for name in found if name.removeprefix(f"{path.name}.").startswith(marks))


def look_at_files(path: Path) -> Files:
    """Return the size of the write-ahead log, and when the last backup was made."""
    log, backup = _stat(path.with_name(path.name + "-wal")), _stat(_backup_note(path))
    return Files(
        0 if log is None else log.st_size,
        None if backup is None else backup.st_mtime_ns // 1_000_000,
    )


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def note_backup(path: Path) -> None:
    """Note that a backup of the file was made just now: an empty file beside it is that old."""
    with suppress(OSError):  # the backup is good, wherever this can't be written
        _backup_note(path).touch(mode=0o600)


def _backup_note(path: Path) -> Path:
    return path.with_name(path.name + ".backed-up")


PAGES_A_STEP = 1000

Progress = Callable[[int, int], None]
"""Told how many pages, or rows, are copied, and how many there are in all."""


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
    """Write a file, or the names in a folder, through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
