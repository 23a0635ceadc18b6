"""A page of the database is damaged: nothing half true is answered, and nothing more is taken."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from service.store import maintenance
from service.store.database import StoreError
from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    OTHER_ID,
    WA_ID,
    Install,
    Installation,
    hour_ago,
    notice,
)
from tests.acceptance.test_lost_database import assert_not_taken
from tests.storing import restore_once_unread
from tests.unit.test_cli_maintenance import spoil_page_of

pytestmark = pytest.mark.sqlite

Touch = Callable[[Installation], Awaitable[object]]


@pytest.fixture
async def made(install: Install) -> Installation:
    """An installation that has taken a callback, and was started on a file damaged since."""
    made = await install()
    await made.deliver(notice(WA_ID, HASH_A, hour_ago()))
    await made.stop()
    spoil_page_of(made.database, "aliases")
    await made.start()
    return made


async def asked(made: Installation) -> None:
    assert (await made.api("GET", f"/accounts/main/recipients/{WA_ID}"))[0] == 503


async def delivered(made: Installation) -> None:
    assert await made.post(notice(WA_ID, HASH_B, hour_ago(9))) == 503


@pytest.mark.parametrize("touch", [asked, delivered])
async def test_whoever_meets_it_first_nothing_is_answered_or_taken_from_then_on(
    made: Installation, touch: Touch, capsys: pytest.CaptureFixture[str]
) -> None:
    await touch(made)
    for wa_id in (WA_ID, OTHER_ID):
        status, answer = await made.api("GET", f"/accounts/main/recipients/{wa_id}")
        assert (status, answer["code"]) == (503, "database_damaged")
        assert "ackgate db check" in answer["detail"]
        assert "ackgate db restore" in answer["detail"]
    assert (await made.api("GET", "/identities"))[1]["code"] == "database_damaged"
    for _ in range(5):
        await assert_not_taken(made)
    status, ready = await made.api("GET", "/health/ready")
    assert status == 503
    assert "ackgate db restore" in ready["checks"]["database"]["detail"]
    assert (await made.api("GET", "/health/status"))[1]["status"] == "fail"
    assert (await made.api("GET", "/metrics"))[0] == 200
    made.pass_time(60)
    await made.stop()
    said = capsys.readouterr().out
    assert said.count("the database is damaged") == 1
    assert said.count("[error") == 1
    assert "Traceback" not in said


async def test_a_restored_backup_goes_on(install: Install) -> None:
    made = await install()
    await made.deliver(notice(WA_ID, HASH_A, hour_ago()))
    backup = made.folder / "backup"
    maintenance.back_up(made.database, backup, lambda *_: None)
    await made.stop()
    spoil_page_of(made.database, "aliases")
    await made.start()
    await delivered(made)
    await made.stop()
    await restore_once_unread(made.database, backup, datetime.now(UTC))
    await made.start()
    await made.deliver(notice(WA_ID, HASH_B, hour_ago(9)))
    assert (await made.api("GET", "/health/ready"))[0] == 200


async def test_a_file_that_can_not_even_be_opened_stops_the_start_and_names_the_cure(
    made: Installation,
) -> None:
    await made.stop()
    made.database.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"ackgate db check.*ackgate db restore"):
        await made.start()
