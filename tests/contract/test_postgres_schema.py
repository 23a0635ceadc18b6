"""The schema on PostgreSQL: made and migrated by one replica of many, or refused."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, make_url

from service.store import upgrades
from service.store.database import NoRoomError, StoreError
from service.store.postgres_upgrades import MIGRATION_KEY, bring_up
from service.store.schema import metadata
from service.store.upgrades import Opened
from tests.postgres import Databases, engine_of, execute, fetch, with_database
from tools.postgres import PASSWORD

pytestmark = pytest.mark.postgres

T = TypeVar("T")
INDEXES = (
    "SELECT indexname, indexdef FROM pg_indexes "
    "WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1"
)
COLUMNS = (
    "SELECT table_name, column_name, data_type, is_nullable, column_default "
    "FROM information_schema.columns "
    "WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY 1, 2"
)
SEQUENCES = "SELECT sequencename, data_type::text, increment_by FROM pg_sequences ORDER BY 1"
NEWER = "UPDATE alembic_version SET version_num = '9999'"


async def open_one(url: str, *, migrate: bool = True, create: bool = True) -> Opened:
    async with engine_of(url) as engine:
        return await bring_up(engine, migrate=migrate, create=create, created_at=1_700_000_000_000)


async def refusal(url: str, *, migrate: bool = True, create: bool = True) -> str:
    with pytest.raises(StoreError) as caught:
        await open_one(url, migrate=migrate, create=create)
    text = str(caught.value)
    assert text.startswith("database.url: ")
    assert text.isprintable(), "one line"
    assert PASSWORD not in text
    return text


async def asked(url: str, query: Callable[[Connection], T]) -> T:
    async with engine_of(url) as engine, engine.connect() as connection:
        return await connection.run_sync(query)


async def migrate_to(url: str, migration: str) -> None:
    """Make a database as an older release left it."""
    async with engine_of(url) as engine, engine.connect() as connection:
        await connection.execution_options(isolation_level="READ COMMITTED")
        async with connection.begin():
            await connection.run_sync(upgrades.migrate, migration)


async def notes(url: str) -> dict[Any, Any]:
    return dict(await fetch(url, "SELECT key, value FROM installation"))


class TestTheMigrations:
    async def test_make_exactly_the_tables_of_this_release(self, postgres_url: str) -> None:
        def compare(connection: Connection) -> Any:
            options = {"compare_type": True, "compare_server_default": True}
            context = MigrationContext.configure(connection, opts=options)
            return compare_metadata(context, metadata)

        assert await asked(postgres_url, compare) == []

    async def test_make_what_the_tables_of_this_release_make(
        self, postgres_url: str, empty_postgres_url: str
    ) -> None:
        """Every column and index, with what Alembic looks away from, and the sequences."""
        await asked(empty_postgres_url, metadata.create_all)
        # The one default that is not the same: SQLite gives the ids of the audit trail.
        await execute(empty_postgres_url, "ALTER TABLE audit ALTER COLUMN id DROP DEFAULT")
        await execute(empty_postgres_url, "DROP SEQUENCE audit_id_seq")
        for query in (INDEXES, COLUMNS, SEQUENCES):
            migrated = await fetch(postgres_url, query)
            assert migrated
            assert migrated == await fetch(empty_postgres_url, query)

    async def test_let_the_writer_give_the_ids_of_logs_and_users(self, postgres_url: str) -> None:
        query = (
            "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' "
            "AND column_name = 'id' AND column_default LIKE 'nextval%' ORDER BY 1"
        )
        counted = [("changes",), ("contacts",), ("outbox",), ("relay_replays",)]
        assert await fetch(postgres_url, query) == counted
        assert await fetch(postgres_url, "SELECT nextval('user_ids')") == [(1,)]

    async def test_lead_from_an_older_release_to_the_same_tables(
        self, postgres_url: str, empty_postgres_url: str
    ) -> None:
        await migrate_to(empty_postgres_url, "0005")
        await execute(
            empty_postgres_url,
            "INSERT INTO contacts (account, input, status, checked_at, digests) "
            "VALUES ('main', '+49', 'valid', 7, '')",
        )
        opened = await open_one(empty_postgres_url, create=False)
        assert (opened.before, opened.after) == ("0005", upgrades.latest())
        assert await fetch(empty_postgres_url, "SELECT id, answered_at FROM contacts") == [(1, 7)]
        for query in (INDEXES, COLUMNS, SEQUENCES):
            assert await fetch(empty_postgres_url, query) == await fetch(postgres_url, query)


class TestANewDatabase:
    async def test_is_made_and_notes_what_it_is(self, empty_postgres_url: str) -> None:
        assert await open_one(empty_postgres_url) == Opened(None, upgrades.latest())
        found = await notes(empty_postgres_url)
        assert found["log_offset"] == "0"
        assert found["created_at"] == "1700000000000"
        assert len(found["database_id"]) == 32
        assert len(found["epoch"]) == 8
        head = upgrades.latest()
        assert await open_one(empty_postgres_url, migrate=False) == Opened(head, head)
        assert await notes(empty_postgres_url) == found

    async def test_is_made_once_by_replicas_that_start_together(
        self, empty_postgres_url: str
    ) -> None:
        opened = await asyncio.gather(*(open_one(empty_postgres_url) for _ in range(5)))
        assert sorted(one.before or "" for one in opened) == ["", *[upgrades.latest()] * 4]

    async def test_is_not_made_where_none_may_be(self, empty_postgres_url: str) -> None:
        text = await refusal(empty_postgres_url, create=False)
        assert 'no database, and database.create is "never"' in text
        assert "'ackgate db create'" in text
        assert await asked(empty_postgres_url, lambda c: inspect(c).get_table_names()) == []

    async def test_is_not_made_where_nothing_may_be_migrated(self, empty_postgres_url: str) -> None:
        assert "the schema is at nothing" in await refusal(empty_postgres_url, migrate=False)
        assert await asked(empty_postgres_url, lambda c: inspect(c).get_table_names()) == []

    async def test_is_made_as_a_whole_or_not_at_all(
        self, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        notes_of_new = upgrades.notes_of_new
        monkeypatch.setattr(upgrades, "notes_of_new", lambda _: {"epoch": "given already"})
        assert "duplicate key" in await refusal(empty_postgres_url)
        assert await asked(empty_postgres_url, lambda c: inspect(c).get_table_names()) == []
        monkeypatch.setattr(upgrades, "notes_of_new", notes_of_new)
        assert (await open_one(empty_postgres_url)).before is None

    async def test_is_made_in_the_first_schema_of_the_search_path(
        self, empty_postgres_url: str
    ) -> None:
        await execute(
            empty_postgres_url, "CREATE TABLE other_program (id int)", "CREATE SCHEMA own"
        )
        url = f"{empty_postgres_url}?search_path=own"
        assert (await open_one(url)).before is None
        tables = await fetch(url, "SELECT 1 FROM pg_tables WHERE schemaname = 'own'")
        assert len(tables) == len(metadata.tables) + 1


class TestReplicas:
    async def test_wait_for_the_one_that_migrates(self, empty_postgres_url: str) -> None:
        """Limits for the usual statements don't end the wait: the migration may take longer."""
        other = await asyncpg.connect(empty_postgres_url)
        url = f"{empty_postgres_url}?lock_timeout=1"
        try:
            await other.execute(f"SELECT pg_advisory_lock({MIGRATION_KEY})")
            waiting = asyncio.create_task(open_one(url))
            held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            async with asyncio.timeout(30):
                while not await other.fetch(held):
                    assert not waiting.done()
            await other.execute(f"SELECT pg_advisory_unlock({MIGRATION_KEY})")
            assert (await waiting).before is None
        finally:
            await other.close()

    async def test_migrate_once_where_they_start_together(self, empty_postgres_url: str) -> None:
        await migrate_to(empty_postgres_url, "0016")
        opened = await asyncio.gather(*(open_one(empty_postgres_url) for _ in range(5)))
        assert sorted(one.before or "" for one in opened) == ["0016", *[upgrades.latest()] * 4]


class TestAFullDisk:
    async def test_is_told_apart_so_that_a_start_can_wait(self, empty_postgres_url: str) -> None:
        await migrate_to(empty_postgres_url, "0016")
        await execute(
            empty_postgres_url,
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE 'no room' USING ERRCODE = '53100', DETAIL = 'a secret'; END $$",
            "CREATE TRIGGER full_disk BEFORE INSERT ON installation EXECUTE FUNCTION full_disk()",
        )
        with pytest.raises(NoRoomError) as caught:
            await open_one(empty_postgres_url)
        assert str(caught.value) == "database.url: no room"
        await execute(empty_postgres_url, "DROP TRIGGER full_disk ON installation")
        assert (await open_one(empty_postgres_url)).before == "0016"


class TestWhatIsRefused:
    async def test_a_schema_that_is_too_old_where_nothing_may_be_migrated(
        self, empty_postgres_url: str
    ) -> None:
        await migrate_to(empty_postgres_url, "0016")
        text = await refusal(empty_postgres_url, migrate=False)
        assert f"the schema is at 0016, this release needs {upgrades.latest()}" in text
        assert "'ackgate db upgrade'" in text

    async def test_a_newer_database_that_needs_a_newer_release(self, postgres_url: str) -> None:
        oldest = "UPDATE installation SET value = '9998' WHERE key = 'oldest_migration'"
        await execute(postgres_url, NEWER, oldest)
        text = await refusal(postgres_url)
        assert (
            f"newer database: it is at migration 9999, this release knows up to {upgrades.latest()}"
            in text
        )

    async def test_not_a_newer_database_that_this_release_can_run_on(
        self, postgres_url: str
    ) -> None:
        await execute(postgres_url, NEWER)
        assert await open_one(postgres_url) == Opened("9999", "9999")

    @pytest.mark.parametrize(
        "made",
        [
            ["CREATE TABLE mine (id int)"],
            ["CREATE TABLE alembic_version (version_num text)"],
            ["CREATE TABLE alembic_version AS SELECT 'a1b2c3' AS version_num"],
            ["CREATE TABLE alembic_version (n int)", "CREATE TABLE installation (n int)"],
        ],
    )
    async def test_another_programs_database(
        self, empty_postgres_url: str, made: list[str]
    ) -> None:
        await execute(empty_postgres_url, *made)
        before = await asked(empty_postgres_url, lambda c: inspect(c).get_table_names())
        assert await refusal(empty_postgres_url)
        assert await asked(empty_postgres_url, lambda c: inspect(c).get_table_names()) == before

    async def test_a_database_in_another_encoding(self, postgres_databases: Databases) -> None:
        options = "ENCODING 'LATIN1' LOCALE 'C'"
        with postgres_databases.empty(options=options) as url:
            text = await refusal(url)
        assert "its encoding is LATIN1" in text
        assert "--encoding=UTF8" in text

    async def test_a_server_that_commits_before_it_is_on_disk(
        self, postgres_databases: Databases
    ) -> None:
        with postgres_databases.empty() as url:
            off = f"ALTER DATABASE {make_url(url).database} SET synchronous_commit = off"
            await execute(url, off)
            assert "synchronous_commit is off" in await refusal(url)

    @pytest.mark.parametrize(
        ("taken", "said"),
        [("CREATE", "permission denied for schema public"), ("ALL", "the user may not use it")],
    )
    async def test_a_user_who_may_not_make_tables(
        self, empty_postgres_url: str, taken: str, said: str
    ) -> None:
        revoke = f"REVOKE {taken} ON SCHEMA public FROM pg_database_owner, PUBLIC"
        await execute(empty_postgres_url, revoke)
        assert said in await refusal(empty_postgres_url)

    async def test_a_database_that_is_not_there(self, empty_postgres_url: str) -> None:
        url = with_database(empty_postgres_url, "no_such_database")
        assert 'database "no_such_database" does not exist' in await refusal(url)

    async def test_a_wrong_password(self, empty_postgres_url: str) -> None:
        text = await refusal(empty_postgres_url.replace(PASSWORD, "a-wrong-one"))
        assert "password authentication failed" in text
        assert "a-wrong-one" not in text

    async def test_a_server_that_does_not_listen(self) -> None:
        text = await refusal(f"postgresql://ackgate:{PASSWORD}@127.0.0.1:1/ackgate")
        assert "127.0.0.1" in text
