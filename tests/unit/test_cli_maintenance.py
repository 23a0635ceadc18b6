"""The care of a SQLite file: what upgrade, check, backup and restore promise."""

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from service.store import maintenance, upgrades
from service.store.database import StoreError
from service.store.restore import count_unverified, unverified_accounts
from service.store.sqlite_files import FileLock, connect
from service.store.users import list_audit

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
STAMP = "20260131T120000Z"


def silent(_done: int, _total: int) -> None:
    """Show no progress."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of this release."""
    file = tmp_path / "var/ackgate.db"
    file.parent.mkdir()
    maintenance.upgrade(file)
    return file


@pytest.fixture
def locked(path: Path) -> Iterator[Path]:
    """The same, as while a service runs on it."""
    lock = FileLock(path)
    lock.take()
    yield path
    lock.release()


def note(raw: sqlite3.Connection, key: str) -> None:
    raw.execute("INSERT INTO installation (key, value) VALUES (?, '')", (key,))


def notes(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as raw:
        return {key for (key,) in raw.execute("SELECT key FROM installation")}


def known(
    raw: sqlite3.Connection, wa_id: str, account: str = "main", state: str | None = None
) -> int:
    """Write a user; give the id."""
    raw.execute("INSERT OR IGNORE INTO accounts (name) VALUES (?)", (account,))
    row = raw.execute(
        "INSERT INTO users (account, wa_id, created_at, hash, changed_at, changed_precision, "
        "received_at, seen, state, version, attempts, after_hold, disputed, history_count, "
        "has_work, has_ask) "
        "VALUES (?, ?, 0, 'A', 0, 0, 0, '[[0, 0]]', ?, 0, 0, 0, 0, 0, 0, 0) RETURNING id",
        (account, wa_id, state),
    ).fetchone()
    raw.execute("INSERT INTO aliases VALUES (?, ?, ?)", (account, wa_id, row[0]))
    return int(row[0])


def count_of(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as raw:
        return int(raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def spoil(path: Path) -> None:
    """Overwrite what lies behind the first page."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


def spoil_page_of(path: Path, name: str) -> None:
    """Overwrite the first page of a table or an index."""
    with closing(connect(path)) as raw:
        sql = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (page,) = raw.execute(sql, (name,)).fetchone()
        (size,) = raw.execute("PRAGMA page_size").fetchone()
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def at_migration(path: Path, number: str, oldest: str) -> None:
    with closing(connect(path)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = ?", (number,))
        raw.execute(
            "UPDATE installation SET value = ? WHERE key = ?", (oldest, upgrades.OLDEST_KEY)
        )


class TestUpgrade:
    def test_makes_a_database_for_its_owner_alone_and_then_has_nothing_to_do(
        self, tmp_path: Path
    ) -> None:
        file, latest = tmp_path / "ackgate.db", upgrades.latest()
        assert maintenance.upgrade(file) == upgrades.Opened(None, latest)
        assert file.stat().st_mode & 0o777 == 0o600
        assert maintenance.upgrade(file) == upgrades.Opened(latest, latest)

    def test_refuses_while_a_service_runs(self, locked: Path) -> None:
        with pytest.raises(StoreError, match="in use by another process"):
            maintenance.upgrade(locked)

    def test_refuses_a_newer_database(self, path: Path) -> None:
        at_migration(path, "9999", "9998")
        with pytest.raises(StoreError, match="newer database"):
            maintenance.upgrade(path)

    def test_refuses_a_file_that_is_no_database(self, path: Path) -> None:
        path.write_bytes(b"no database" * 1000)
        with pytest.raises(StoreError, match=r"ackgate\.db: file is not a database"):
            maintenance.upgrade(path)

    def test_makes_no_database_where_there_was_one_before_or_none_is_wanted(
        self, path: Path, tmp_path: Path
    ) -> None:
        path.unlink()
        with pytest.raises(StoreError, match=r"missing.*ackgate db create"):
            maintenance.upgrade(path)
        with pytest.raises(StoreError, match="never"):
            maintenance.upgrade(tmp_path / "ackgate.db", create=False)
        assert not path.exists()


class TestCreate:
    def test_makes_the_first_one_and_one_after_the_first_is_gone(self, tmp_path: Path) -> None:
        file = tmp_path / "ackgate.db"
        for _ in range(2):
            maintenance.create(file)
            assert maintenance.check(file).faults == ()
            assert maintenance.upgrade(file, create=False).before == upgrades.latest()
            file.unlink()

    def test_leaves_what_is_there_as_it_is(self, path: Path, tmp_path: Path) -> None:
        with closing(connect(path)) as raw:
            note(raw, "kept")
        with pytest.raises(StoreError, match="exists already; move it away first"):
            maintenance.create(path)
        assert "kept" in notes(path)
        with pytest.raises(StoreError, match="no such folder"):
            maintenance.create(tmp_path / "no folder/ackgate.db")

    def test_refuses_while_a_service_runs(self, locked: Path) -> None:
        locked.unlink()
        with pytest.raises(StoreError, match="in use by another process"):
            maintenance.create(locked)


class TestCheck:
    def test_finds_nothing_wrong_while_a_service_runs(self, locked: Path) -> None:
        with closing(connect(locked)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            report = maintenance.check(locked)
        assert report.faults == ()
        assert report.schema == report.latest
        assert report.size == locked.stat().st_size

    def test_finds_damage(self, path: Path) -> None:
        spoil(path)
        with pytest.raises(StoreError, match=r"ackgate\.db: .*(malformed|not a database)"):
            maintenance.check(path)

    def test_finds_rows_that_refer_to_nothing(self, path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as raw:
            raw.execute("INSERT INTO aliases VALUES ('main', '1', 7)")
        assert "refers to a row of users" in maintenance.check(path).faults[0]

    def test_names_a_torn_index(self, path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as raw:
            raw.execute("PRAGMA writable_schema = ON")
            raw.execute("DELETE FROM sqlite_schema WHERE name = 'ix_audit_user_id'")
        assert maintenance.check(path).faults[0].startswith("damaged: ")

    @pytest.mark.parametrize(
        ("number", "oldest", "fault"),
        [
            ("0000", "0000", "run 'ackgate db upgrade'"),
            ("9999", "9998", "newer database: it is at migration 9999"),
            ("9999", "0001", None),
        ],
    )
    def test_tells_whether_this_release_can_run_on_it(
        self, path: Path, number: str, oldest: str, fault: str | None
    ) -> None:
        at_migration(path, number, oldest)
        faults = maintenance.check(path).faults
        assert (fault in faults[0]) if fault else not faults

    def test_tells_another_programs_database(self, path: Path) -> None:
        path.unlink()
        with closing(sqlite3.connect(path)) as raw:
            raw.execute("CREATE TABLE other (x)")
        assert maintenance.check(path).faults == ("not a database of Ackgate",)

    def test_does_not_create_what_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="no such file"):
            maintenance.check(tmp_path / "ackgate.db")
        assert not list(tmp_path.iterdir())


class TestBackup:
    def test_is_one_whole_file_for_its_owner_alone(self, path: Path, tmp_path: Path) -> None:
        folder = tmp_path / "backups"
        folder.mkdir()
        maintenance.back_up(path, folder / "copy", silent)
        assert [file.name for file in folder.iterdir()] == ["copy"]
        assert (folder / "copy").stat().st_mode & 0o777 == 0o600
        assert maintenance.check(folder / "copy").faults == ()
        assert [file.name for file in folder.iterdir()] == ["copy"], "it needs no WAL to be read"

    def test_holds_one_moment_of_a_service_that_goes_on_writing(
        self, locked: Path, tmp_path: Path
    ) -> None:
        with closing(connect(locked)) as raw:
            raw.execute("CREATE TABLE one (x)")
            raw.execute("CREATE TABLE two (x)")
            raw.execute("INSERT INTO one VALUES (zeroblob(20000000))")
            raw.execute("INSERT INTO two VALUES (0)")
        steps: list[tuple[int, int]] = []
        begun, ended = threading.Event(), threading.Event()

        def write() -> None:
            with closing(connect(locked)) as raw:
                while not ended.is_set():
                    raw.execute("BEGIN IMMEDIATE")
                    raw.execute("INSERT INTO one VALUES (1)")
                    raw.execute("INSERT INTO two VALUES (1)")
                    raw.execute("COMMIT")
                    begun.set()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            assert begun.wait(10)
            maintenance.back_up(locked, tmp_path / "copy", lambda *step: steps.append(step))
        finally:
            ended.set()
            writer.join()
        with closing(sqlite3.connect(tmp_path / "copy")) as raw:
            counts = [raw.execute(f"SELECT count(*) FROM {t}").fetchone() for t in ("one", "two")]
        assert counts[0] == counts[1]
        assert [done for done, _ in steps] == sorted({done for done, _ in steps}), "never anew"
        assert len(steps) > 3

    def test_never_overwrites(self, path: Path, tmp_path: Path) -> None:
        target = tmp_path / "copy"
        target.write_text("precious")
        with pytest.raises(StoreError, match="exists already"):
            maintenance.back_up(path, target, silent)
        assert target.read_text() == "precious"

    def test_leaves_nothing_behind_when_it_fails(self, path: Path, tmp_path: Path) -> None:
        folder = tmp_path / "backups"
        folder.mkdir()

        def full(_done: int, _total: int) -> None:
            raise OSError(28, "No space left on device")

        with pytest.raises(StoreError, match="copy: No space left on device"):
            maintenance.back_up(path, folder / "copy", full)
        assert not list(folder.iterdir())

    def test_names_the_folder_that_is_missing(self, path: Path, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"nowhere.*No such file or directory"):
            maintenance.back_up(path, tmp_path / "nowhere/copy", silent)


class TestVerify:
    @pytest.fixture
    def backup(self, path: Path, tmp_path: Path) -> Path:
        file = tmp_path / "backup"
        with closing(connect(path)) as raw:
            known(raw, "16315550001")
            raw.execute("UPDATE accounts SET last_callback_at = 1600000000000")
        maintenance.back_up(path, file, silent)
        return file

    def test_a_good_backup_tells_what_is_in_it(self, backup: Path) -> None:
        report, contents = maintenance.verify(backup)
        assert (report.faults, report.schema) == ((), upgrades.latest())
        assert report.size == backup.stat().st_size
        assert contents is not None
        assert contents.last_callback_at == 1_600_000_000_000
        assert {name: rows for name, rows in contents.rows.items() if rows} == {"users": 1}
        assert {"journal", "audit"} <= contents.rows.keys()

    def test_it_is_only_read(self, backup: Path) -> None:
        before = backup.read_bytes()
        backup.chmod(0o400)
        maintenance.verify(backup)
        assert backup.read_bytes() == before
        assert not list(backup.parent.glob("backup-*"))

    def test_damage_is_found(self, backup: Path) -> None:
        spoil(backup)
        with pytest.raises(StoreError, match=r"backup: .*(malformed|not a database)"):
            maintenance.verify(backup)

    def test_rows_that_refer_to_nothing_are_found(self, backup: Path) -> None:
        with closing(sqlite3.connect(backup, isolation_level=None)) as raw:
            raw.execute("DELETE FROM users")
        report, contents = maintenance.verify(backup)
        assert "refers to a row of users" in report.faults[0]
        assert contents is None

    @pytest.mark.parametrize(
        ("number", "oldest", "fault"),
        [("0000", "0000", None), ("9999", "9998", "newer database"), ("9999", "0001", None)],
    )
    def test_a_backup_is_good_where_a_restore_would_take_it(
        self, backup: Path, number: str, oldest: str, fault: str | None
    ) -> None:
        at_migration(backup, number, oldest)
        report, _ = maintenance.verify(backup)
        assert (fault in report.faults[0]) if fault else not report.faults

    def test_what_is_missing_or_no_database_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="nothing: no such file"):
            maintenance.verify(tmp_path / "nothing")
        (tmp_path / "text").write_text("no database" * 1000)
        with pytest.raises(StoreError, match="text: file is not a database"):
            maintenance.verify(tmp_path / "text")


class TestBeforeAMigration:
    @pytest.fixture
    def ahead(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A release whose migrations go further than the database."""
        monkeypatch.setattr(upgrades, "latest", lambda: "9000")
        monkeypatch.setattr(upgrades, "_run", lambda *_: None)
        return path.with_name("ackgate.db.before-9000")

    def test_a_backup_is_made_whole_for_its_owner_alone(self, path: Path, ahead: Path) -> None:
        with closing(connect(path)) as raw:
            note(raw, "in the log alone")
            maintenance.upgrade(path)
        assert "in the log alone" in notes(ahead)
        assert ahead.stat().st_mode & 0o777 == 0o600
        assert not maintenance.verify(ahead)[0].faults
        assert not list(path.parent.glob("*.part*"))

    def test_it_is_on_disk_before_the_migration_begins(
        self, path: Path, ahead: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done: list[str] = []
        real = os.fsync

        def fsync(descriptor: int) -> None:
            done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(upgrades, "_run", lambda _, head, __: done.append(head))
        maintenance.upgrade(path)
        assert len(done) == 3
        assert done[0].startswith(f".{ahead.name}.")
        assert done[1:] == [path.parent.name, "9000"]

    def test_one_of_an_earlier_try_is_replaced_and_made_private(
        self, path: Path, ahead: Path
    ) -> None:
        ahead.write_text("half of it")
        ahead.chmod(0o644)
        maintenance.upgrade(path)
        assert ahead.stat().st_mode & 0o777 == 0o600
        assert not maintenance.verify(ahead)[0].faults

    def test_without_it_nothing_is_migrated(
        self, path: Path, ahead: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        migrated: list[str] = []
        monkeypatch.setattr(upgrades, "_run", lambda _, head, __: migrated.append(head))
        monkeypatch.setattr(upgrades, "copy_to", full)
        with pytest.raises(StoreError, match=r"before-9000: No space left on device"):
            maintenance.upgrade(path)
        assert (migrated, ahead.exists()) == ([], False)
        assert not list(path.parent.glob("*.part*"))

    def test_it_can_be_restored(self, path: Path, ahead: Path) -> None:
        maintenance.upgrade(path)
        assert maintenance.restore(path, ahead, NOW, silent) is not None
        assert maintenance.verify(path)[0].faults == ()


class TestBackupOfADamagedDatabase:
    @pytest.fixture
    def damaged(self, path: Path) -> Path:
        """A database with a page that SQLite copies without a word."""
        spoil_page_of(path, "ix_audit_user_id")
        return path

    def test_is_refused_and_leaves_no_file(self, damaged: Path, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"ackgate\.db: damaged.*ackgate db restore"):
            maintenance.back_up(damaged, tmp_path / "copy", silent)
        assert not list(tmp_path.glob("*copy*"))

    def test_is_written_where_it_is_not_to_be_verified(self, damaged: Path, tmp_path: Path) -> None:
        maintenance.back_up(damaged, tmp_path / "copy", silent, verify=False)
        with pytest.raises(maintenance.DamagedError, match="malformed"):
            maintenance.verify(tmp_path / "copy")


class TestRestore:
    @pytest.fixture
    def backup(self, path: Path, tmp_path: Path) -> Path:
        """A backup, since which a row has come in."""
        file = tmp_path / "backup"
        maintenance.back_up(path, file, silent)
        with closing(connect(path)) as raw:
            note(raw, "came later")
        return file

    def test_brings_the_backup_back_and_keeps_what_it_replaces(
        self, path: Path, backup: Path
    ) -> None:
        kept = maintenance.restore(path, backup, NOW, silent)
        assert kept == path.with_name(f"ackgate.db.replaced-{STAMP}")
        assert "came later" in notes(kept)
        assert "came later" not in notes(path)
        assert path.stat().st_mode & 0o777 == 0o600
        names = {file.name for file in path.parent.iterdir()}
        assert names == {"ackgate.db", "ackgate.db.lock", "ackgate.db.backed-up", kept.name}
        assert maintenance.upgrade(path).before == upgrades.latest()

    def test_keeps_what_a_killed_service_had_only_in_its_log(
        self, path: Path, backup: Path
    ) -> None:
        with closing(connect(path)) as raw:
            note(raw, "in the log alone")
            for side in ("", "-wal"):
                shutil.copy(f"{path}{side}", f"{path}.killed{side}")
        for side in ("", "-wal"):
            Path(f"{path}.killed{side}").rename(f"{path}{side}")
        kept = maintenance.restore(path, backup, NOW, silent)
        assert kept is not None
        assert "in the log alone" in notes(kept)
        assert "in the log alone" not in notes(path)

    def test_replaces_a_damaged_database_and_keeps_its_log_with_it(
        self, path: Path, backup: Path
    ) -> None:
        path.write_bytes(b"no database" * 1000)
        path.with_name("ackgate.db-wal").write_bytes(b"what was left")
        kept = maintenance.restore(path, backup, NOW, silent)
        assert kept is not None
        assert kept.with_name(kept.name + "-wal").read_bytes() == b"what was left"
        assert not path.with_name("ackgate.db-wal").exists()
        assert maintenance.check(path).faults == ()

    def test_leaves_every_user_unverified_and_says_so_in_the_audit_trail(
        self, path: Path, tmp_path: Path
    ) -> None:
        with closing(connect(path)) as raw:
            known(raw, "16315550001")
            known(raw, "16315550002", account="removed")
        file = tmp_path / "backup"
        maintenance.back_up(path, file, silent)
        maintenance.restore(path, file, NOW, silent)
        at = round(NOW.timestamp() * 1000)
        with maintenance.reading(path) as connection:
            assert unverified_accounts(connection) == {"main": at, "removed": at}
            assert count_unverified(connection) == {"main": 1, "removed": 1}
            entries = list_audit(connection, None, "restored", 0, 10)
        assert [(entry.account, entry.at) for entry in entries] == [("main", at), ("removed", at)]
        assert count_of(file, "unverified") == 0, "the backup stays as it was"

    def test_asks_before_each_put_and_lets_a_person_decide_what_was_scheduled(
        self, path: Path, tmp_path: Path
    ) -> None:
        with closing(connect(path)) as raw:
            for wa_id, state in (("1", "acknowledging"), ("2", "scheduled"), ("3", "held")):
                user_id = known(raw, wa_id, state=state)
                raw.execute(
                    "INSERT INTO outbox (account, user_id, kind, due_at, reason, attempts, "
                    "refusals, begun) VALUES ('main', ?, ?, 0, '', 0, 0, 0)",
                    (user_id, "ask" if state == "held" else "acknowledge"),
                )
        file = tmp_path / "backup"
        maintenance.back_up(path, file, silent)
        maintenance.restore(path, file, NOW, silent)
        with closing(sqlite3.connect(path)) as raw:
            states = raw.execute("SELECT state FROM users ORDER BY id").fetchall()
            work = raw.execute("SELECT kind, begun FROM outbox ORDER BY user_id").fetchall()
        assert [state for (state,) in states] == ["acknowledging", "pending", "held"]
        assert work == [("acknowledge", 1), ("ask", 0)]

    def test_tells_whose_schedule_it_ended_and_begins_an_epoch(
        self, path: Path, tmp_path: Path
    ) -> None:
        with closing(connect(path)) as raw:
            known(raw, "1", state="acknowledged")
            known(raw, "2", state="scheduled")
            raw.execute("INSERT INTO events VALUES (7, 0, 'main', 'x', '[]', '{}')")
        file = tmp_path / "backup"
        maintenance.back_up(path, file, silent)
        maintenance.restore(path, file, NOW, silent)
        query = "SELECT value FROM installation WHERE key = 'epoch'"
        with closing(sqlite3.connect(path)) as raw, closing(sqlite3.connect(file)) as before:
            told = raw.execute("SELECT id, type, names, data FROM events WHERE id > 7").fetchall()
            assert raw.execute(query).fetchone() != before.execute(query).fetchone()
        [(event_id, type_, names, data)] = told
        assert (event_id, type_, names) == (8, "identity.pending", '["2"]')
        assert json.loads(data)["state"] == "pending"

    def test_does_the_same_to_a_backup_that_is_in_its_place_already(self, path: Path) -> None:
        with closing(connect(path)) as raw:
            known(raw, "16315550001")
        maintenance.mark_restored(path, NOW)
        with maintenance.reading(path) as connection:
            assert count_unverified(connection) == {"main": 1}
            assert [entry.event for entry in list_audit(connection, None, None, 0, 10)] == [
                "restored"
            ]
        assert maintenance.upgrade(path).before == upgrades.latest(), "it belongs here"

    def test_marks_nothing_that_is_damaged_or_in_use(self, path: Path) -> None:
        lock = FileLock(path)
        lock.take()
        with pytest.raises(StoreError, match="in use by another process"):
            maintenance.mark_restored(path, NOW)
        lock.release()
        spoil_page_of(path, "ix_audit_user_id")
        with pytest.raises(StoreError, match="malformed"):
            maintenance.mark_restored(path, NOW)

    def test_takes_a_backup_from_before_there_was_an_event_log(
        self, path: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "backup"
        engine = create_engine(f"sqlite:///{file}")
        with engine.begin() as connection:
            upgrades.migrate(connection, "0012")
        engine.dispose()
        with closing(connect(file)) as raw:
            known(raw, "2", state="scheduled")
        maintenance.restore(path, file, NOW, silent)
        with closing(sqlite3.connect(path)) as raw:
            query = "SELECT value FROM installation WHERE key = 'epoch'"
            (epoch,) = raw.execute(query).fetchone()
        maintenance.upgrade(path)
        with closing(sqlite3.connect(path)) as raw:
            assert raw.execute(query).fetchone() == (epoch,)
            assert raw.execute("SELECT * FROM events").fetchall() == []

    def test_makes_the_backup_of_another_installation_the_database_that_belongs_here(
        self, backup: Path, tmp_path: Path
    ) -> None:
        other = tmp_path / "other.db"
        maintenance.create(other)
        maintenance.restore(other, backup, NOW, silent)
        assert maintenance.upgrade(other).before == upgrades.latest()
        shutil.copy(other, tmp_path / "kept")
        other.unlink()
        with pytest.raises(StoreError, match="missing"):
            maintenance.upgrade(other)
        (tmp_path / "kept").rename(other)
        assert maintenance.upgrade(other).before == upgrades.latest()

    def test_needs_no_database_to_be_there(self, backup: Path, tmp_path: Path) -> None:
        file = tmp_path / "elsewhere/ackgate.db"
        assert maintenance.restore(file, backup, NOW, silent) is None
        assert maintenance.check(file).faults == ()

    def test_refuses_while_a_service_runs(self, locked: Path, backup: Path) -> None:
        with pytest.raises(StoreError, match="in use by another process"):
            maintenance.restore(locked, backup, NOW, silent)
        assert "came later" in notes(locked)

    def test_refuses_while_somebody_reads(
        self, path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("service.store.sqlite_files.BUSY_TIMEOUT_SECONDS", 0.05)
        with closing(connect(path, read_only=True)) as reader, closing(connect(path)) as writer:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM installation").fetchall()
            note(writer, "more")
            with pytest.raises(StoreError, match="another process reads it"):
                maintenance.restore(path, backup, NOW, silent)
        assert "came later" in notes(path)

    def test_refuses_while_another_program_has_the_file_for_itself(
        self, path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("service.store.sqlite_files.BUSY_TIMEOUT_SECONDS", 0.05)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            note(other, "more")
            with pytest.raises(StoreError, match=r"ackgate\.db: database is locked"):
                maintenance.restore(path, backup, NOW, silent)
        assert "came later" in notes(path)

    def test_refuses_a_damaged_backup(self, path: Path, backup: Path) -> None:
        spoil(backup)
        with pytest.raises(StoreError, match=r"backup: .*(malformed|not a database|damaged)"):
            maintenance.restore(path, backup, NOW, silent)
        assert "came later" in notes(path)

    @pytest.mark.parametrize("fault", ["newer database", "not a database of Ackgate"])
    def test_refuses_what_this_release_can_not_run_on(
        self, path: Path, backup: Path, fault: str
    ) -> None:
        if fault == "newer database":
            at_migration(backup, "9999", "9998")
        else:
            with closing(sqlite3.connect(backup, isolation_level=None)) as raw:
                raw.execute("DROP TABLE alembic_version")
        with pytest.raises(StoreError, match=fault):
            maintenance.restore(path, backup, NOW, silent)
        assert "came later" in notes(path)

    def test_refuses_the_database_itself_and_what_is_missing(
        self, path: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(StoreError, match="is the database itself"):
            maintenance.restore(path, path, NOW, silent)
        with pytest.raises(StoreError, match="nothing: no such file"):
            maintenance.restore(path, tmp_path / "nothing", NOW, silent)

    def test_never_overwrites_what_it_kept_before(self, path: Path, backup: Path) -> None:
        kept = path.with_name(f"ackgate.db.replaced-{STAMP}")
        kept.write_text("kept")
        with pytest.raises(StoreError, match=r"replaced-.*exists already"):
            maintenance.restore(path, backup, NOW, silent)
        assert kept.read_text() == "kept"
        assert "came later" in notes(path)
