"""A database of an earlier release is brought along with all that it holds.

`releases/VERSION.sql` is what SQLite's dump gives of a database that the release itself has filled,
by the simulator's demo and some decisions. `releases/VERSION.statements.txt` are the statements
that the release ran in its acceptance tests, one a line; a list of parameters is cut short. Such
files never change; each release adds two.

An earlier release also runs on a database of this one, as its migrations promise. So its statements
must be understood there, and what it writes must be read as what it is.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service import __version__
from service.model.users import State
from service.store import maintenance, upgrades
from service.store.contacts import find_contacts
from service.store.database import RecipientQuery
from service.store.sqlite import SQLiteDatabase
from service.store.sqlite_files import connect, prepare_file
from service.store.upgrades import OLDEST_KEY
from service.store.users import IdentityFilter, audit_of, find_block, list_identities
from tests.storing import opening

RELEASES = sorted((Path(__file__).parent / "releases").glob("*.sql"))


def restore(dump: Path, path: Path) -> None:
    """Make a file of what a release wrote."""
    prepare_file(path)
    with closing(connect(path)) as raw:
        raw.execute("PRAGMA foreign_keys = OFF")  # a dump has the tables by name
        raw.executescript(dump.read_text())


async def write_again(dump: Path, path: Path) -> None:
    """Write what a release wrote into a database of this one, with the columns that it knows."""
    async with opening(SQLiteDatabase(path)):
        pass
    before = path.with_name("before.db")
    restore(dump, before)
    with closing(connect(path)) as raw:
        raw.execute("ATTACH ? AS before", (str(before),))
        raw.execute("PRAGMA foreign_keys = OFF")
        query = "SELECT name FROM before.sqlite_master WHERE type = 'table'"
        for (table,) in raw.execute(query).fetchall():
            if table in {"alembic_version", "installation"} or table.startswith("sqlite_"):
                continue  # this release's own
            known = [row[1] for row in raw.execute(f"PRAGMA before.table_info({table})")]
            names = ", ".join(f'"{name}"' for name in known)
            raw.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM before.{table}")
        assert not raw.execute("PRAGMA main.foreign_key_check").fetchall()
    before.unlink()


@pytest.fixture(params=["migrated", "written again"])
async def database(
    request: pytest.FixtureRequest, release: Path, tmp_path: Path
) -> AsyncIterator[SQLiteDatabase]:
    """A database with what a release wrote: before the upgrade, or on the schema of this one."""
    path = tmp_path / "ackgate.db"
    if request.param == "migrated":
        restore(release, path)
    else:
        await write_again(release, path)
    async with opening(SQLiteDatabase(path)) as opened:
        yield opened


@pytest.fixture(params=RELEASES, ids=lambda path: path.stem)
def release(request: pytest.FixtureRequest) -> Path:
    dump: Path = request.param
    return dump


def objects(path: Path) -> list[tuple[Any, ...]]:
    """Give the tables with their columns, and the indexes with theirs."""
    with closing(sqlite3.connect(path)) as raw:
        names = raw.execute(
            "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
        ).fetchall()
        return [
            (kind, name, raw.execute(f"PRAGMA {about}({name})").fetchall())
            for kind, name in names
            for about in (
                ("table_info", "foreign_key_list") if kind == "table" else ("index_info",)
            )
        ]


async def test_its_schema_is_that_of_a_new_database(
    database: SQLiteDatabase, tmp_path: Path
) -> None:
    new = tmp_path / "new.db"
    async with opening(SQLiteDatabase(new)):
        pass
    await database.close()
    path = tmp_path / "ackgate.db"
    assert objects(path) == objects(new)
    assert not maintenance.check(path).faults
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT * FROM alembic_version").fetchone() == (upgrades.latest(),)


async def test_who_was_closed_stays_closed_and_who_was_open_stays_open(
    database: SQLiteDatabase,
) -> None:
    wanted = IdentityFilter()
    users = await database.read(lambda c: list_identities(c, wanted, None, 100))
    assert users
    for user in users:
        query = RecipientQuery(user.account, None, [user.alias])
        found = (await database.find_recipients(query)).users[user.alias]
        assert (found.id, found.state, found.hash) == (user.id, user.identity.state, user.hash)
        assert await database.read(lambda c, of=user.id: audit_of(c, of))  # type: ignore[misc] # likewise
    assert {user.identity.state for user in users} >= {State.ACKNOWLEDGED}


async def test_what_was_decided_by_hand_and_told_by_the_client_is_kept(
    database: SQLiteDatabase,
) -> None:
    query = RecipientQuery("main", None, ["16315557009", "16315567001"])
    data = await database.find_recipients(query)
    block = await database.read(lambda c: find_block(c, data.users["16315557009"].id))
    assert block is not None
    assert block.reason == "asked us to stop"
    moved = data.users["16315567001"].moved_to
    assert (moved and moved.alias) == "16315567002"
    contacts = await database.read(lambda c: find_contacts(c, "main", ["+1 631 555 1001"]))
    assert contacts["+1 631 555 1001"].wa_id == "16315551001"


async def test_its_statements_are_understood_on_the_schema_of_this_one(
    release: Path, tmp_path: Path
) -> None:
    statements = release.with_suffix(".statements.txt").read_text().splitlines()
    assert len(statements) > 50
    path = tmp_path / "ackgate.db"
    async with opening(SQLiteDatabase(path)):
        pass
    with closing(connect(path)) as raw:
        for statement in statements:
            raw.execute(f"EXPLAIN {statement}", [None] * statement.count("?"))


async def test_it_may_run_on_a_database_of_this_one(release: Path, tmp_path: Path) -> None:
    """That is, as long as there is nothing in it that it would not understand."""
    before, now = tmp_path / "before.db", tmp_path / "ackgate.db"
    restore(release, before)
    async with opening(SQLiteDatabase(now)):
        pass
    oldest = f"SELECT value FROM installation WHERE key = '{OLDEST_KEY}'"
    assert value_of(now, oldest) <= value_of(before, "SELECT version_num FROM alembic_version")


def value_of(path: Path, query: str) -> str:
    with closing(connect(path)) as raw:
        return str(raw.execute(query).fetchone()[0])


def test_a_database_of_this_release_is_kept() -> None:
    assert __version__ in [path.stem for path in RELEASES]
