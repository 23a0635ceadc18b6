"""What keeps a SQLite file from being used until a person has seen to it.

SQLite itself goes on writing into a file that has no name any more: all of it would be lost with
the process. And of a damaged file it refuses only what touches the damaged pages: answers from the
others would be half of the truth.
"""

import errno
import sqlite3
from pathlib import Path

import structlog

from service.store.database import FaultError

LOST, DAMAGED = "database_lost", "database_damaged"

CURE = "look with 'ackgate db check', then stop, and restore a backup with 'ackgate db restore'"

_SAID = {
    LOST: "the database file was deleted, moved or replaced: nothing more is stored",
    DAMAGED: f"the database is damaged: {CURE}",
}
"""What is wrong, by its code."""

_DAMAGES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_NO_ROOM = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,  # beyond a quota, or a limit of the process
    sqlite3.SQLITE_IOERR_SHMOPEN,  # SQLite does not look why the log's index can't be made ...
    sqlite3.SQLITE_IOERR_SHMSIZE,  # ... or grow
}
_NO_ROOM_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_KIND = 0xFF
"""The part of SQLite's extended codes that tells the kind of a fault."""

log = structlog.get_logger(__name__)

_File = tuple[int, int]
"""Device and inode."""


class Faults:
    """Knows which file was opened, and what has been wrong with it since; the log says so once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: dict[Path, _File | None] = {}
        self._is_damaged = False
        self._said: str | None = None

    def begin(self) -> None:
        """Note which file is open, and which are its log and the log's index."""
        beside = (self._path.with_name(self._path.name + side) for side in ("-wal", "-shm"))
        self._opened = {path: _file_at(path) for path in (self._path, *beside)}

    @property
    def is_lost(self) -> bool:
        """Whether the open file is not the one that has its name."""
        return bool(self._opened) and _file_at(self._path) != self._opened[self._path]

    def found(self) -> FaultError | None:
        """Return what is wrong now; None where the file can be used."""
        code = DAMAGED if self._is_damaged else LOST if self.is_lost else None
        if code is not None and code != self._said:
            log.error(_SAID[code], file=str(self._path))
        elif code is None and self._said is not None:
            log.warning("the database file is in its place again", file=str(self._path))
        self._said = code
        return None if code is None else FaultError(code, _SAID[code])

    def note(self, error: BaseException) -> None:
        """Note what SQLite said: a file that it once found to be damaged is not used any more."""
        self._is_damaged = self._is_damaged or is_damage(error)

    def refuse(self) -> None:
        """Raise FaultError where the file can't be used."""
        fault = self.found()
        if fault is not None:
            raise fault

    def remove_left_log(self) -> None:
        """Remove the log of a file that is lost, which SQLite leaves behind.

        With the next file of that name it would be taken for that one's, and spoil it.
        """
        for path, opened in self._opened.items():
            if path != self._path and opened is not None and _file_at(path) == opened:
                path.unlink(missing_ok=True)


def is_damage(error: BaseException) -> bool:
    """Return whether SQLite says that a file is damaged, or that it is no database."""
    return getattr(error, "sqlite_errorcode", 0) & _KIND in _DAMAGES


def is_no_room(error: BaseException) -> bool:
    """Return whether SQLite or the system says that there is no room on the disk."""
    is_full = isinstance(error, OSError) and error.errno in _NO_ROOM_ERRNO
    return is_full or getattr(error, "sqlite_errorcode", None) in _NO_ROOM


def _file_at(path: Path) -> _File | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
