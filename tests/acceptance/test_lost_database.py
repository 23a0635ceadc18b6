"""The database file is deleted, moved or replaced while the service runs on it."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.store import maintenance
from tests.acceptance.conftest import (
    HASH_A,
    OTHER_ID,
    TOKEN,
    WA_ID,
    Install,
    Installation,
    blocked,
    hour_ago,
    notice,
)

pytestmark = pytest.mark.sqlite

Loss = Callable[[Path], None]


def delete(path: Path) -> None:
    path.unlink()


def delete_all(path: Path) -> None:
    for file in path.parent.glob("ackgate.db*"):
        file.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def replace(path: Path) -> None:
    """Put another database in its place, as a copy of a backup does."""
    other = path.with_name("other.db")
    maintenance.upgrade(other)
    other.rename(path)


def query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as raw:
        return raw.execute(sql).fetchall()


def callbacks_in(path: Path) -> int:
    [(count,)] = query(path, "SELECT count(*) FROM journal")
    return int(count)


def rescued(made: Installation) -> list[Path]:
    return list(made.folder.glob("ackgate.db.rescued-*"))


async def assert_not_taken(made: Installation) -> None:
    """A callback is refused, to be delivered again."""
    url = f"{made.base}/webhooks/main/{TOKEN}"
    async with made.http.post(url, json=blocked("16315554002")) as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0


@pytest.fixture
async def made(install: Install) -> Installation:
    """An installation that has taken two callbacks."""
    made = await install()
    await made.deliver(notice(WA_ID, HASH_A, hour_ago()), notice(OTHER_ID, HASH_A, hour_ago()))
    return made


@pytest.mark.parametrize("lose", [delete, delete_all, move, replace])
async def test_nothing_more_is_taken_and_the_stop_writes_all_that_was(
    made: Installation, lose: Loss, capsys: pytest.CaptureFixture[str]
) -> None:
    lose(made.database)
    for path in ("ready", "status"):
        status, answer = await made.api("GET", f"/health/{path}")
        assert status == (503 if path == "ready" else 200)
        assert answer["status"] == "fail"
        check = answer["checks"]["database"]
        assert check["status"] == "fail"
        assert "deleted, moved or replaced" in check["detail"]
    for _ in range(3):
        await assert_not_taken(made)
    status, answer = await made.api("GET", f"/accounts/main/recipients/{WA_ID}")
    assert (status, answer["code"]) == (503, "database_lost")
    assert not rescued(made)
    await made.stop()
    [file] = rescued(made)
    assert callbacks_in(file) == 2
    assert maintenance.check(file).faults == ()
    assert file.stat().st_mode & 0o777 == 0o600
    said = capsys.readouterr().out
    assert said.count("deleted, moved or replaced") == 1
    assert said.count("the database can't be written") == 0
    assert file.name in said


async def test_the_rescued_file_goes_on_in_its_place(made: Installation) -> None:
    move(made.database)
    await assert_not_taken(made)
    await made.stop()
    rescued(made)[0].rename(made.database)
    await made.start()
    assert await made.reasons() == ["identity_pending"]
    await made.deliver(blocked("16315554002"))
    await made.stop()
    assert callbacks_in(made.database) == 3
    assert len(rescued(made)) == 0


async def test_the_file_that_took_its_place_gets_nothing_of_it(made: Installation) -> None:
    replace(made.database)
    await made.stop()
    assert not made.database.with_name("ackgate.db-wal").exists()
    assert callbacks_in(made.database) == 0
    assert maintenance.check(made.database).faults == ()


async def test_a_file_that_comes_back_goes_on(made: Installation) -> None:
    move(made.database)
    await assert_not_taken(made)
    made.database.with_name("moved.db").rename(made.database)
    assert (await made.api("GET", "/health/ready"))[0] == 200
    await made.deliver(blocked("16315554002"))
    await made.stop()
    assert callbacks_in(made.database) == 3
    assert not rescued(made)


async def test_a_file_whose_folder_is_gone_is_told(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    made = await install(database={"url": f"sqlite:///{folder / 'ackgate.db'}"})
    shutil.rmtree(folder)
    await assert_not_taken(made)
    assert (await made.api("GET", "/metrics"))[0] == 200
    status, answer = await made.api("GET", "/health/status")
    assert (status, answer["checks"]["disk"]["status"]) == (200, "warn")
    await made.stop()
    assert "the open database could not be rescued" in capsys.readouterr().out
