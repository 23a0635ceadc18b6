"""How deep the property tests look, and which programs of the system the tests may use."""

import shutil
import sqlite3
from collections.abc import Mapping
from functools import cache, partial

import pytest
from hypothesis import settings

from service.store import upgrades
from tests.postgres import empty_postgres_url, postgres_databases, postgres_url, which_server
from tests.storing import MakeDatabase, database_at, url_on

__all__ = ["empty_postgres_url", "postgres_databases", "postgres_url"]

settings.register_profile("broad", max_examples=60, deadline=None)
# Each run looks at others, and CI has twenty minutes for all that it does.
settings.register_profile("deep", max_examples=150, deadline=None)
settings.load_profile("broad")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="on which the tests run that do not choose it themselves",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run again on another database only what uses the one that `--database` names."""
    if config.getoption("database") == "sqlite":
        return
    again = [item for item in items if uses_named_database(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in again])
    items[:] = again


def uses_named_database(item: pytest.Item) -> bool:
    """Return whether a test runs on whichever database is named."""
    chosen = item.get_closest_marker("sqlite") or item.get_closest_marker("postgres")
    return chosen is None and "database_url" in getattr(item, "fixturenames", ())


def pytest_report_header() -> str:
    """Say which PostgreSQL the tests use."""
    return f"postgres: {which_server()}"


def installed(program: str) -> str:
    """Return the path of a program that a test with the mark `tools` needs; fail without it."""
    found = shutil.which(program)
    if found is None:
        pytest.fail(f"{program} is not installed, and `make test-all` needs it; see .ci/run")
    return found


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of the database of a test, on whichever `--database` names.

    A test that takes it, or a fixture that does, runs on each of them.
    """
    return url_on(request.config.getoption("database"), request)


@pytest.fixture
def make_database(database_url: str) -> MakeDatabase:
    """A way to that database, again and again, before it is opened."""
    return partial(database_at, database_url)


run_migrations = upgrades._run


@cache
def migrated(head: str) -> sqlite3.Connection:
    """Return a database that all migrations were run on, once for all tests of this process."""
    made = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    made.execute("PRAGMA auto_vacuum = INCREMENTAL")
    run_migrations(made, head, {})
    return made


@pytest.fixture(autouse=True)
def new_databases_are_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare each test the migrations of its new database, a third of the time of most.

    They are run for real where there is something to migrate, by the tests of migrations, and in
    every process that a test starts.
    """

    def run(raw: sqlite3.Connection, head: str, notes: Mapping[str, str]) -> None:
        if upgrades.current(raw) is not None or head != upgrades.latest():
            run_migrations(raw, head, notes)
            return
        migrated(head).backup(raw)
        raw.execute("UPDATE installation SET value = hex(randomblob(4)) WHERE key = 'epoch'")
        for note in notes.items():
            raw.execute("INSERT INTO installation (key, value) VALUES (?, ?)", note)

    monkeypatch.setattr(upgrades, "_run", run)
