"""A service whose PostgreSQL server dies: it says so, takes nothing, and goes on by itself."""

from collections.abc import Iterator
from signal import SIGQUIT

import pytest

from tests.acceptance.conftest import (
    HASH_A,
    HASH_B,
    OTHER_ID,
    WA_ID,
    Child,
    Install,
    Spawn,
    hour_ago,
    notice,
    until,
)
from tests.postgres import fetch
from tools.postgres import LocalServer, local_server

pytestmark = pytest.mark.postgres


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """A server of the test's own, which it may kill; what it has committed is on disk."""
    with local_server(durable=True) as started:
        yield started


async def gate(service: Child) -> tuple[int, bool | None]:
    status, found = await service.api("GET", f"/accounts/main/recipients/{WA_ID}")
    return status, found.get("sendable")


async def test_it_answers_503_while_the_server_is_gone_and_200_as_soon_as_it_is_back(
    server: LocalServer, prepare: Install, spawn: Spawn
) -> None:
    url = server.create_database("crash")
    made = await prepare()
    service = await spawn(made.tree | {"database": {"url": url}})
    assert await service.post(notice(WA_ID, HASH_A, hour_ago())) == 200
    assert await gate(service) == (200, False)

    server.stop(SIGQUIT)
    other = notice(OTHER_ID, HASH_B, hour_ago())
    assert await service.post(other) == 503
    assert (await gate(service))[0] == 503
    status, _ = await service.api("GET", "/health/ready")
    assert status == 503

    server.start()

    async def is_taken() -> bool:
        return await service.post(other) == 200

    await until(is_taken, 30)
    assert await gate(service) == (200, False)
    users = await fetch(url, "SELECT wa_id, hash, state FROM users ORDER BY id")
    assert users == [(WA_ID, HASH_A, "pending"), (OTHER_ID, HASH_B, "pending")]
    service.signal(15)
    assert await service.ended() == 0


async def test_it_does_not_start_where_the_server_can_not_be_reached(
    server: LocalServer, prepare: Install, spawn: Spawn
) -> None:
    url = server.create_database("crash")
    server.stop()
    made = await prepare()
    service = await spawn(made.tree | {"database": {"url": url}}, start=False)
    await service.spawn()
    assert await service.ended() != 0
    (line,) = [line for line in service.lines if "database.url" in line]
    assert "Connect call failed" in line or "Connection refused" in line
    assert "password" not in line
