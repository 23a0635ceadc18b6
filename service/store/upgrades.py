"""Bringing a database up to date, and refusing one that is too new for this release."""

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import StaticPool

from service.store.database import StoreError
from service.store.sqlite_files import beside, connect, copy_to, sync

OLDEST_KEY = "oldest_migration"


def bring_up(path: Path, *, migrate: bool) -> None:
    """Migrate a SQLite file to this release, after a backup; or only check it.

    Raises StoreError where the file needs a newer release, or a migration that is not wanted.
    """
    raw = connect(path)
    try:
        found, head = current(raw), latest()
        why_not = unfit(raw)
        if why_not is not None:
            raise StoreError(f"{path}: {why_not}")
        if found is not None and found >= head:
            return
        if not migrate:
            raise StoreError(
                f"{path}: the schema is at {found or 'nothing'}, this release needs {head}: "
                "run 'ackgate db upgrade'"
            )
        if found is not None:
            back_up(raw, path.with_name(f"{path.name}.before-{head}"))
        _run(raw, head)
    finally:
        raw.close()


def latest() -> str:
    """Return the newest migration that this release knows."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
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
    found, head = current(raw), latest()
    if found is None:
        return "not a database of Ackgate" if _has_table(raw, "%") else None
    if found <= head:
        return None
    row = raw.execute("SELECT value FROM installation WHERE key = ?", (OLDEST_KEY,)).fetchone()
    if row is not None and row[0] <= head:
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
        raise StoreError(f"{target}: {error.strerror}") from None


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _run(raw: sqlite3.Connection, head: str) -> None:
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, head)
