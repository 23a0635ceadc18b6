"""What an operator does with a PostgreSQL database: each command, and what it refuses."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import Result

from service.model.timeline import Change, Moment
from service.model.users import Identity, Kind, State, User, Work
from service.store import restore, upgrades
from service.store.database import JournalRow, StoreError, Transaction
from service.store.events import span_of
from service.store.journal import newest_entry
from service.store.maintenance import Finding
from service.store.opening import NO_DRIVER
from service.store.postgres import PostgresDatabase
from service.store.postgres_maintenance import OperatedPostgres
from service.store.restore import HALF_MARKED, UNMARKED, count_unverified
from service.store.schema import audit, journal
from service.store.users import count_states
from tests.acceptance.commands import parsed, refused, run
from tests.postgres import execute, fetch, with_database
from tests.storing import opening, within
from tools.postgres import PASSWORD, USER, local_server, programs

pytestmark = pytest.mark.postgres

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
AT = round(NOW.timestamp() * 1000)
SCHEDULED = 5

MOVED = (
    # As where the transactions of the cluster that it came from had far higher ids.
    "UPDATE journal SET id = id + (1::bigint << 50)",
    "UPDATE installation SET value = '16384' WHERE key = 'log_offset'",
)

TRANSACTIONS = """
DO $$ BEGIN
    FOR number IN 1..9999 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP;
END $$
"""

Command = Callable[..., list[str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Give a command's words with a configuration for a database."""

    def words(url: str, *given: str) -> list[str]:
        file = tmp_path / "ackgate.toml"
        file.write_text(f'[database]\nurl = "{url}"\n')
        return [*given, "--config", str(file)]

    return words


@pytest.fixture
async def known(postgres_url: str) -> str:
    """A database with some users whom policy has scheduled, and a callback."""

    async def fill(transaction: Transaction) -> None:
        moment = Moment(AT - 9)
        scheduled = [
            User(
                transaction.new_user_id(),
                "main",
                str(number),
                AT - 9,
                Identity(
                    Change("A", moment, AT - 9, [moment]),
                    State.SCHEDULED,
                    work=Work(Kind.ACKNOWLEDGE, AT, "A", "policy"),
                ),
            )
            for number in range(SCHEDULED)
        ]
        await transaction.save_users(scheduled)
        await transaction.add_journal([callback()])

    async with opening(PostgresDatabase(postgres_url)) as database:
        await within(database, fill)
    return postgres_url


def callback() -> JournalRow:
    return JournalRow("main", AT - 9, "applied", "application/json", "", "[]", b"{}")


def pg(program: str, url: str, *options: str, given: bytes = b"") -> bytes:
    """Run a program of PostgreSQL's on a database; give what it prints."""
    folder = programs()
    assert folder is not None
    command = [folder / program, "--no-password", f"--dbname={url}", *options]
    return subprocess.run(command, input=given, check=True, capture_output=True).stdout


async def refusal(url: str) -> str:
    with pytest.raises(StoreError) as caught:
        await PostgresDatabase(url).open()
    return str(caught.value)


def without_password(url: str) -> str:
    return url.replace(f":{PASSWORD}", "")


class TestCreate:
    async def test_makes_the_tables_once(self, empty_postgres_url: str, command: Command) -> None:
        made = await run(*command(empty_postgres_url, "db", "create", "--json"))
        assert parsed(made) == {"database": without_password(empty_postgres_url)}
        notes = dict(await fetch(empty_postgres_url, "SELECT key, value FROM installation"))
        assert "created_at" not in notes, "a person made it: no issue tells of it"
        line = await refused(*command(empty_postgres_url, "db", "create"))
        assert f"has Ackgate's tables already, at {upgrades.latest()}" in line

    async def test_refuses_another_programs_database(
        self, empty_postgres_url: str, command: Command
    ) -> None:
        await execute(empty_postgres_url, "CREATE TABLE mine (id int)")
        line = await refused(*command(empty_postgres_url, "db", "create"))
        assert "not a database of Ackgate" in line

    async def test_a_server_that_does_not_answer_is_one_line_without_the_password(
        self, command: Command
    ) -> None:
        url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:1/ackgate"
        for words in (["create"], ["upgrade"], ["check"], ["restored", "--yes"]):
            line = await refused(*command(url, "db", *words))
            assert line.startswith("database.url: ")
            assert PASSWORD not in line


class TestUpgrade:
    async def test_makes_or_upgrades_the_schema_and_then_has_nothing_to_do(
        self, empty_postgres_url: str, command: Command
    ) -> None:
        words = command(empty_postgres_url, "db", "upgrade", "--json")
        place = {"database": without_password(empty_postgres_url)}
        latest = upgrades.latest()
        assert parsed(await run(*words)) == {**place, "before": None, "after": latest}
        assert parsed(await run(*words)) == {**place, "before": latest, "after": latest}


class TestCheck:
    async def test_tells_what_the_database_holds_while_a_service_works_on_it(
        self, known: str, command: Command
    ) -> None:
        async with opening(PostgresDatabase(known)):
            found = parsed(await run(*command(known, "db", "check", "--json")))
        assert found["schema"] == found["latest_schema"] == upgrades.latest()
        assert found["bytes"] > 0
        assert found["faults"] == []
        assert (found["rows"]["users"], found["rows"]["journal"]) == (SCHEDULED, 1)
        assert found["last_callback_at"] == "2026-01-31T11:59:59Z"

    @pytest.mark.parametrize(
        ("done", "said"),
        [
            ("ALTER TABLE users DROP COLUMN links", "the table users has no column links"),
            ("DROP TABLE unverified", "the table unverified has no column account"),
            ("DROP INDEX ix_users_merged", "the table users has no index ix_users_merged"),
            (
                "ALTER TABLE changes DROP CONSTRAINT pk_changes",
                "the table changes has no index pk_changes",
            ),
            (
                "ALTER TABLE users ADD CONSTRAINT mine CHECK (id > 0) NOT VALID",
                "ALTER TABLE users VALIDATE CONSTRAINT mine",
            ),
            ("UPDATE alembic_version SET version_num = '0016'", "run 'ackgate db upgrade'"),
            ("INSERT INTO installation VALUES ('restoring', '')", "run it again"),
            ("SELECT setval('user_ids', 1, false)", "SELECT setval('user_ids', 5)"),
        ],
    )
    async def test_tells_what_is_missing_or_not_in_force(
        self, empty_postgres_url: str, command: Command, done: str, said: str
    ) -> None:
        await run(*command(empty_postgres_url, "db", "create"))
        users = (
            "INSERT INTO users (id, account, wa_id, created_at, version, attempts, after_hold, "
            "disputed, history_count, has_work, has_ask) "
            "VALUES (5, 'main', '1', 0, 0, 0, false, false, 0, false, false)"
        )
        await execute(empty_postgres_url, users, "SELECT nextval('user_ids')", done)
        result = await run(*command(empty_postgres_url, "db", "check"), expect=1)
        assert said in result.stderr
        assert PASSWORD not in result.output

    async def test_an_index_that_was_never_finished_is_told(
        self, empty_postgres_url: str, command: Command
    ) -> None:
        await run(*command(empty_postgres_url, "db", "create"))
        same = "INSERT INTO installation VALUES ('a', 'same'), ('b', 'same')"
        await execute(empty_postgres_url, same)
        unique = "CREATE UNIQUE INDEX CONCURRENTLY mine ON installation (value)"
        with pytest.raises(Exception, match="could not create unique index"):
            await execute(empty_postgres_url, unique)
        result = await run(*command(empty_postgres_url, "db", "check"), expect=1)
        assert "the index mine is not valid: REINDEX INDEX mine" in result.stderr


class TestBackupAndRestore:
    @pytest.mark.parametrize("verb", ["backup", "restore"])
    async def test_name_the_programs_that_do_so(
        self, postgres_url: str, command: Command, verb: str
    ) -> None:
        line = await refused(*command(postgres_url, "db", verb, "file.db"))
        assert "pg_dump" in line
        assert "'ackgate db restored'" in line
        assert PASSWORD not in line


class TestRestored:
    async def test_makes_everybody_unverified_and_begins_a_new_epoch(
        self, known: str, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(restore, "UNSCHEDULED", 2)
        before = await OperatedPostgres(known).look(span_of)
        words = command(known, "db", "restored", "--yes", "--json")
        done = await run(*words)
        assert parsed(done) == {"database": without_password(known)}
        assert "users of a WhatsApp client are unverified" in done.stderr
        async with opening(PostgresDatabase(known)) as database:
            assert await database.read(count_unverified) == {"main": SCHEDULED}
            counted = await database.read(count_states)
            assert (counted[State.SCHEDULED], counted[State.PENDING]) == (0, SCHEDULED)
            assert (await database.read(span_of)).epoch != before.epoch
            trail = await database.read(lambda c: c.execute(select(audit.c.event)).scalars().all())
            assert trail.count("restored") == 1
        await run(*words)

    async def test_asks_first(self, known: str, command: Command) -> None:
        words = command(known, "db", "restored")
        result: Result = await run(*words, expect=1, typed="n\n")
        assert "nothing was changed" in result.stderr
        assert await OperatedPostgres(known).look(count_unverified) == {}

    async def test_refuses_while_a_service_works_on_it(self, known: str, command: Command) -> None:
        async with opening(PostgresDatabase(known)):
            line = await refused(*command(known, "db", "restored", "--yes"))
        assert "works on this database" in line
        assert await OperatedPostgres(known).look(count_unverified) == {}

    async def test_makes_no_tables(self, empty_postgres_url: str, command: Command) -> None:
        line = await refused(*command(empty_postgres_url, "db", "restored", "--yes"))
        assert "no database" in line


class TestADatabaseFromAnotherCluster:
    async def test_is_refused_until_it_is_marked_and_then_gives_no_id_again(
        self, known: str, command: Command
    ) -> None:
        await execute(known, *MOVED)
        newest = await OperatedPostgres(known).look(
            lambda c: c.execute(select(journal.c.id)).scalar()
        )
        assert await refusal(known) == f"database.url: {UNMARKED}"
        assert UNMARKED in (await run(*command(known, "db", "check"), expect=1)).stderr
        await run(*command(known, "db", "restored", "--yes"))
        await run(*command(known, "db", "check"))
        async with opening(PostgresDatabase(known)) as database:
            assert await database.read(newest_entry) == newest, "it is settled"
            await within(database, lambda t: t.add_journal([callback()]))
            later = await database.read(newest_entry)
        assert later > (newest or 0)
        [(offset,)] = await fetch(
            known, "SELECT value::bigint FROM installation WHERE key = 'log_offset'"
        )
        assert offset > 16_384
        assert offset % 16_384 == 0
        await run(*command(known, "db", "restored", "--yes"))
        [(again,)] = await fetch(
            known, "SELECT value::bigint FROM installation WHERE key = 'log_offset'"
        )
        assert again == offset, "its ids are beyond the others already"

    @pytest.mark.slow
    async def test_is_refused_and_then_whole_where_a_dump_was_restored(
        self, known: str, command: Command
    ) -> None:
        await execute(known, TRANSACTIONS)
        async with opening(PostgresDatabase(known)) as database:
            await within(database, lambda t: t.add_journal([callback()]))
        dump = await asyncio.to_thread(pg, "pg_dump", known)
        with local_server() as other:
            await execute(other.url, "CREATE DATABASE moved TEMPLATE template0")
            url = with_database(other.url, "moved")
            await asyncio.to_thread(pg, "psql", url, "--set=ON_ERROR_STOP=1", given=dump)
            assert await refusal(url) == f"database.url: {UNMARKED}"
            assert UNMARKED in (await run(*command(url, "db", "check"), expect=1)).stderr
            await run(*command(url, "db", "restored", "--yes"))
            found = parsed(await run(*command(url, "db", "check", "--json")))
            assert (found["rows"]["users"], found["rows"]["journal"]) == (SCHEDULED, 2)
            async with opening(PostgresDatabase(url)) as database:
                assert await database.read(count_unverified) == {"main": SCHEDULED}

    async def test_is_refused_where_the_marking_was_cut_short(
        self, known: str, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await execute(known, *MOVED)

        def fail(*_: object, **__: object) -> None:
            raise OSError(0, "cut short")

        with monkeypatch.context() as patched:
            patched.setattr("service.store.postgres_maintenance.end_marking", fail)
            assert "cut short" in await refused(*command(known, "db", "restored", "--yes"))
        assert await refusal(known) == f"database.url: {HALF_MARKED}"
        await run(*command(known, "db", "restored", "--yes"))
        async with opening(PostgresDatabase(known)) as database:
            assert await database.read(count_unverified) == {"main": SCHEDULED}


@pytest.mark.parametrize("words", [["db", "check"], ["db", "restored", "--yes"]], ids=" ".join)
async def test_without_its_driver_the_extra_is_named(
    command: Command, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "service.store.postgres_maintenance", None)
    assert await refused(*command("postgresql://me@db/ackgate", *words)) == NO_DRIVER


async def test_a_database_that_is_not_there_is_told(postgres_url: str, command: Command) -> None:
    url = with_database(postgres_url, "no_such_database")
    line = await refused(*command(url, "db", "check"))
    assert 'database "no_such_database" does not exist' in line


class TestDoctor:
    """What it is told of the database."""

    @staticmethod
    async def finding(url: str) -> Finding:
        [found] = await asyncio.to_thread(OperatedPostgres(url).examine, 0)
        return found

    async def test_whether_a_service_works_on_it(self, postgres_url: str) -> None:
        found = await self.finding(postgres_url)
        assert found.is_good
        schema = f"its schema at {upgrades.latest()}"
        assert found.detail == f"whole, {schema}; no service works on it"
        async with opening(PostgresDatabase(postgres_url)):
            found = await self.finding(postgres_url)
        assert found.detail == f"whole, {schema}; a service works on it"

    async def test_what_is_wrong_with_it(self, empty_postgres_url: str) -> None:
        found = await self.finding(empty_postgres_url)
        assert not found.is_good
        assert "no tables" in found.detail
        assert found.cure == "see 'ackgate db check'"

    async def test_why_it_can_not_be_reached(self, postgres_url: str) -> None:
        found = await self.finding(postgres_url.replace(PASSWORD, "wrong"))
        assert not found.is_good
        assert "password authentication failed" in found.detail
        assert found.cure is not None
