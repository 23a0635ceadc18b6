"""Bringing a database up to date, and refusing one that is not to be used.

That is one that is too new for this release, another one than was here before, and a new one where
there was one before.
"""

import secrets
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import StaticPool

from service.store.database import StoreError
from service.store.sqlite_files import (
    FileLock,
    beside,
    connect,
    copy_to,
    prepare_file,
    sync,
    system_error,
)

OLDEST_KEY = "oldest_migration"
ID_KEY = "database_id"
CREATED_KEY = "created_at"
"""Keys of the table `installation`."""

_GONE = (
    "put it back, restore a backup with 'ackgate db restore', "
    "or begin anew with 'ackgate db create'"
)
_ANOTHER = (
    "another database than the one that was here: put that one back; or move this one away, and "
    "restore from it with 'ackgate db restore', or begin anew with 'ackgate db create'"
)


@dataclass(frozen=True, slots=True)
class Opened:
    """What was done to a file: its schema before, None where it is new, and now.

    Where it was migrated there is a `backup` of before; `seconds` is what both took.
    """

    before: str | None
    after: str
    backup: Path | None = None
    seconds: float = field(default=0.0, compare=False)


def bring_up(
    path: Path, lock: FileLock, *, migrate: bool, create: bool, created_at: int | None = None
) -> Opened:
    """Migrate a SQLite file to this release, after a backup; or only check it.

    Where there is no file, or an empty one, it is made if `create` says so, and notes `created_at`
    (Unix ms), so that a person is told. `lock` is the lock of the file, taken, and is told which
    database belongs here.

    Raises StoreError where the file needs a newer release, or a migration that is not wanted; where
    it is not the one that was here; and where there is none, and none may be made.
    """
    started = time.perf_counter()
    backup = None
    known = lock.database_id
    if _has_no_bytes(path):
        _need_new(path, known, create=create)
    prepare_file(path)
    with closing(connect(path)) as raw:
        found, head = current(raw), latest()
        why_not = unfit(raw)
        if why_not is not None:
            raise StoreError(f"{path}: {why_not}")
        if found is None:
            _need_new(path, known, create=create)
        elif known not in (None, _id_of(raw)):
            raise StoreError(f"{path}: {_ANOTHER}")
        if not migrate and (found is None or found < head):
            raise StoreError(f"{path}: {outdated(found)}")
        if found is None:
            _run(raw, head, notes_of_new(created_at))
        else:
            give_id(raw)  # before the backup, which then is known as the same database
            if found < head:
                backup = path.with_name(f"{path.name}.before-{head}")
                back_up(raw, backup)
                _run(raw, head, {})
        if known is None:
            lock.note_id(_id_of(raw))
        seconds = time.perf_counter() - started
        return Opened(found, max(found or head, head), backup, seconds)


def _need_new(path: Path, known: str | None, *, create: bool) -> None:
    """Raise StoreError where there is no database, and no new one is to be made."""
    if known is not None:
        state = "empty" if path.exists() else "missing"
        raise StoreError(f"{path}: the database that was here is {state}: {_GONE}")
    if not create:
        raise StoreError(f'{path}: no database, and database.create is "never": {_GONE}')


def outdated(found: str | None) -> str:
    """Return what is said of a schema that is too old, and is not to be migrated now."""
    return (
        f"the schema is at {found or 'nothing'}, this release needs {latest()}: "
        "run 'ackgate db upgrade'"
    )


def is_empty(path: Path) -> bool:
    """Return whether there is no database: no file, or one without any table."""
    if _has_no_bytes(path):
        return True
    with closing(connect(path)) as raw:
        return not _has_table(raw, "%")


def _has_no_bytes(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def notes_of_new(created_at: int | None) -> dict[str, str]:
    """Return what a new database notes of itself."""
    notes = {ID_KEY: _new_id()}
    return notes if created_at is None else notes | {CREATED_KEY: str(created_at)}


def _new_id() -> str:
    return secrets.token_hex(16)


def _id_of(raw: sqlite3.Connection) -> str | None:
    """Return the id of a database; None for a new one, and for one of a release before 0.3.0."""
    if not _has_table(raw, "installation"):
        return None
    row = raw.execute("SELECT value FROM installation WHERE key = ?", (ID_KEY,)).fetchone()
    return None if row is None else str(row[0])


def give_id(raw: sqlite3.Connection) -> str:
    """Return the id of a database, which gets one where it has none."""
    found = _id_of(raw)
    if found is None:
        found = _new_id()
        raw.execute(_NOTE, (ID_KEY, found))
    return found


_NOTE = "INSERT INTO installation (key, value) VALUES (?, ?)"


def latest() -> str:
    """Return the newest migration that this release knows."""
    head = _scripts().get_current_head()
    if head is None:
        raise StoreError("this installation has no migrations: install it again")
    return head


def current(raw: sqlite3.Connection) -> str | None:
    """Return the migration that a SQLite file is at; None for a new file."""
    if not _has_table(raw, "alembic_version"):
        return None
    row = raw.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def unfit(raw: sqlite3.Connection) -> str | None:
    """Return why this release can't run on a file, even after a migration; None if it can."""
    found = current(raw)
    if found is None:
        return FOREIGN if _has_table(raw, "%") else None
    row = raw.execute("SELECT value FROM installation WHERE key = ?", (OLDEST_KEY,)).fetchone()
    return too_new(found, None if row is None else row[0])


FOREIGN = "not a database of Ackgate"


def too_new(found: str, oldest: str | None) -> str | None:
    """Return why this release can't run on a schema that is at a migration; None if it can.

    `oldest` is the migration that a release must know, as the database says; None where it doesn't.
    """
    head = latest()
    if found <= head or (oldest is not None and oldest <= head):
        return None
    return f"newer database: it is at migration {found}, this release knows up to {head}"


def _has_table(raw: sqlite3.Connection, name: str) -> bool:
    sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name LIKE ?"
    return raw.execute(sql, (name,)).fetchone() is not None


def back_up(raw: sqlite3.Connection, target: Path) -> None:
    """Copy a SQLite file, as it stands at one moment, to a file that its owner alone can read.

    It appears under its name when it is whole and on disk, in the place of one from an earlier try.
    """
    try:
        with beside(target) as copy:
            copy_to(raw, copy)
            copy.rename(target)
            sync(target.parent)
    except OSError as error:
        raise system_error(target, error) from None


@cache
def _scripts() -> ScriptDirectory:
    """Return the migrations, read once."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return ScriptDirectory.from_config(config)


def _run(raw: sqlite3.Connection, head: str, notes: Mapping[str, str]) -> None:
    """Run the migrations, and note something of a new database, in one transaction."""
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.begin() as connection:
        migrate(connection, head)
        for note in notes.items():
            connection.exec_driver_sql(_NOTE, note)


def migrate(connection: Connection, head: str) -> None:
    """Run the migrations that are still to be run, up to one."""
    context = MigrationContext.configure(connection)
    before = context.get_current_revision() or "base"
    with Operations.context(context):
        for script in reversed([*_scripts().iterate_revisions(head, before)]):
            script.module.upgrade()
    context.stamp(_scripts(), head)
