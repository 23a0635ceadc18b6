"""A start that finds no database: it makes one and says so, or it does not start."""

from pathlib import Path

import pytest

from service.store import maintenance
from tests.acceptance.conftest import (
    HASH_A,
    WA_ID,
    Install,
    Installation,
    Json,
    Spawn,
    Start,
    hour_ago,
    notice,
    tree_for,
)
from tests.acceptance.test_start_and_stop import refused

ISSUE = "database_created"


async def issues(made: Installation) -> list[Json]:
    status, answer = await made.api("GET", "/issues")
    assert status == 200
    return [issue for issue in answer["items"] if issue["code"] == ISSUE]


async def without_database(made: Installation) -> None:
    """Take away the database that the installation was prepared with."""
    if made.is_on_a_file:
        for file in made.folder.glob("ackgate.db*"):
            file.unlink()
    else:
        await made.write("DROP SCHEMA public CASCADE")
        await made.write("CREATE SCHEMA public")


async def test_a_start_that_makes_one_says_so_until_a_person_dismisses_it(
    prepare: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await prepare()
    await without_database(made)
    await made.start()
    for _ in range(2):
        [issue] = await issues(made)
        assert (issue["account"], issue["severity"]) == (None, "notice")
        assert "ackgate db restore" in issue["cure"]
        assert f"ackgate issues dismiss {ISSUE}" in issue["cure"]
        _, metrics = await made.api("GET", "/metrics")
        assert "# TYPE ackgate_issues gauge" in metrics
        assert ISSUE not in metrics  # a first start fires no alert
        await made.stop()
        await made.start()
    assert capsys.readouterr().out.count("made a new database") == 1
    status, dismissed = await made.api("DELETE", f"/issues/{ISSUE}")
    assert (status, len(dismissed["items"])) == (200, 1)
    assert (await made.api("DELETE", f"/issues/{ISSUE}"))[0] == 404
    for _ in range(2):
        assert await issues(made) == []
        await made.stop()
        await made.start()
    _, audit = await made.api("GET", "/audit?event=issue_dismissed")
    assert [(entry["account"], entry["reason"]) for entry in audit["items"]] == [(None, ISSUE)]


async def test_one_that_a_person_made_is_no_issue(install: Install) -> None:
    assert await issues(await install()) == []


@pytest.mark.slow
@pytest.mark.sqlite
async def test_a_database_that_is_gone_stops_the_start_and_names_the_cure(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    sim = await simulate()
    tree = tree_for(sim, tmp_path)
    child = await spawn(tree)
    await child.deliver(notice(WA_ID, HASH_A, hour_ago()))
    await child.kill()
    database = tmp_path / "ackgate.db"
    kept = database.rename(tmp_path / "kept.db")
    said = await refused(child)
    assert "is missing" in said
    assert "ackgate db create" in said
    assert not database.exists()
    kept.rename(database)
    await child.start()
    assert await child.reasons() == ["identity_pending"]
    await child.kill()
    for file in (database, tmp_path / "ackgate.db-wal"):
        file.unlink()
    maintenance.create(database)
    await child.start()
    assert await child.reasons() == []


@pytest.mark.slow
@pytest.mark.sqlite
async def test_none_is_made_where_the_configuration_says_never(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    tree = tree_for(await simulate(), tmp_path)
    tree["database"]["create"] = "never"
    child = await spawn(tree, start=False)
    assert "ackgate db create" in await refused(child)
    assert not (tmp_path / "ackgate.db").exists()
    maintenance.create(tmp_path / "ackgate.db")
    await child.start()


@pytest.mark.slow
async def test_a_missing_folder_stops_the_start(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    tree = tree_for(await simulate(), tmp_path / "not mounted")
    assert "no such folder" in await refused(await spawn(tree, start=False))
    assert not (tmp_path / "not mounted").exists()
