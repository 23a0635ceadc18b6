"""What an operator does with the configured database, whichever it is.

Everything raises StoreError, one line, where it can't be done.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from sqlalchemy import Connection

from service.store import maintenance
from service.store.database import StoreError
from service.store.maintenance import Contents, Finding, Report
from service.store.opening import is_postgres, needing_driver
from service.store.sqlite_files import Progress, path_of
from service.store.upgrades import Opened

if TYPE_CHECKING:
    from service.store.postgres_copy import Outcome

T = TypeVar("T")


class Operated(Protocol):
    """A database, as commands work on it."""

    place: dict[str, str]
    """Where it is, under the name that documents give it."""

    def create(self) -> None:
        """Make it, new and empty."""

    def upgrade(self, *, create: bool) -> Opened:
        """Bring it to this release, or make it where there is none and `create` says so."""

    def check(self) -> tuple[Report, Contents | None]:
        """Look at all of it; return what it holds, too, but of a file, whose backups tell that."""

    def examine(self, low_disk_bytes: int) -> list[Finding]:
        """Look at what can be wrong with it, quickly."""

    def mark_restored(self, now: datetime) -> None:
        """Make every user unverified: other programs have restored it, or moved it here."""

    async def look(self, query: Callable[[Connection], T]) -> T:
        """Run queries that only read; a service may run on it."""


def operated(url: str) -> Operated:
    """Return the database that a URL names."""
    if is_postgres(url):
        with needing_driver():
            from service.store.postgres_maintenance import OperatedPostgres  # noqa: PLC0415
        return OperatedPostgres(url)
    return _File(path_of(url))


def file_of(url: str) -> Path:
    """Return the file that backups are made of, and restored to.

    Raises StoreError on PostgreSQL, whose own programs do both.
    """
    if is_postgres(url):
        raise StoreError(NO_FILE)
    return path_of(url)


NO_FILE = (
    "database.url: PostgreSQL's own programs back up and restore its databases, such as pg_dump "
    "and pg_restore; after a restore run 'ackgate db restored'"
)


def copy(path: Path, url: str, progress: Progress) -> "Outcome":
    """Bring a PostgreSQL database to what a SQLite file holds; see `store/postgres_copy.py`."""
    with needing_driver():
        from service.store import postgres_copy  # noqa: PLC0415
    return postgres_copy.copy(path, url, progress)


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.place = {"file": str(path)}

    def create(self) -> None:
        maintenance.create(self._path)

    def upgrade(self, *, create: bool) -> Opened:
        return maintenance.upgrade(self._path, create=create)

    def check(self) -> tuple[Report, Contents | None]:
        return maintenance.check(self._path), None

    def examine(self, low_disk_bytes: int) -> list[Finding]:
        return [*maintenance.examine(self._path, low_disk_bytes)]

    def mark_restored(self, now: datetime) -> None:
        maintenance.mark_restored(self._path, now)

    async def look(self, query: Callable[[Connection], T]) -> T:
        with maintenance.reading(self._path) as connection:
            return query(connection)
