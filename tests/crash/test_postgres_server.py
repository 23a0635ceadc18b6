"""A service whose PostgreSQL server dies: it says so, takes nothing, and goes on by itself."""

import asyncio
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
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
from tests.postgres import execute, fetch, with_database
from tools.postgres import LocalServer, local_server, standby_of

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


@pytest.fixture
def small_disk(server: LocalServer) -> Iterator[Path]:
    """A file system of 64 MiB for a database of the server, where this user may mount one."""
    folder = server.folder / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this user may mount no file system")
    data = (server.folder / "data").stat()
    os.chown(folder, data.st_uid, data.st_gid)
    yield folder
    server.stop(SIGQUIT)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Fill a file system to the last byte; give the file that does so."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65_536, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


@pytest.mark.slow
async def test_it_answers_503_while_the_disk_of_the_server_is_full_and_200_once_there_is_room(
    server: LocalServer, small_disk: Path, prepare: Install, spawn: Spawn
) -> None:
    await execute(server.superuser_url, f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    await execute(server.superuser_url, "GRANT CREATE ON TABLESPACE small TO ackgate")
    await execute(server.url, "CREATE DATABASE crash TABLESPACE small")
    url = with_database(server.url, "crash")
    made = await prepare()
    service = await spawn(made.tree | {"database": {"url": url}})
    assert await service.post(notice(WA_ID, HASH_A, hour_ago())) == 200
    taken = [WA_ID]

    filler = fill(small_disk)
    for number in range(1_000):  # pages that were there before have room for a while
        name = f"1631555{number:04}"
        status = await service.post(notice(name, HASH_A, hour_ago()))
        if status == 503:
            break
        taken.append(name)
    assert status == 503
    assert (await service.api("GET", "/health/ready"))[0] == 503
    assert await gate(service) == (200, False), "what is read needs no room"

    filler.unlink()

    async def is_ready() -> bool:
        return (await service.api("GET", "/health/ready"))[0] == 200

    await until(is_ready, 30)
    assert await service.post(notice(OTHER_ID, HASH_B, hour_ago())) == 200
    users = await fetch(url, "SELECT wa_id FROM users ORDER BY id")
    assert [wa_id for (wa_id,) in users] == [*taken, OTHER_ID]
    service.signal(15)
    assert await service.ended() == 0


async def test_it_answers_503_while_the_server_only_reads_and_200_once_it_writes(
    server: LocalServer, prepare: Install, spawn: Spawn
) -> None:
    url = server.create_database("crash")
    made = await prepare()
    service = await spawn(made.tree | {"database": {"url": url}})
    assert await service.post(notice(WA_ID, HASH_A, hour_ago())) == 200

    only_reads, reload = "default_transaction_read_only", "SELECT pg_reload_conf()"
    await execute(server.superuser_url, f"ALTER SYSTEM SET {only_reads} = on", reload)
    other = notice(OTHER_ID, HASH_B, hour_ago())

    async def is_refused() -> bool:
        return await service.post(notice(WA_ID, HASH_A, hour_ago())) == 503

    await until(is_refused, 30)
    assert await service.post(other) == 503
    assert await gate(service) == (200, False)
    assert (await service.api("GET", "/health/ready"))[0] == 503

    await execute(server.superuser_url, f"ALTER SYSTEM RESET {only_reads}", reload)

    async def is_ready() -> bool:
        return (await service.api("GET", "/health/ready"))[0] == 200

    await until(is_ready, 30)
    assert await service.post(other) == 200
    service.signal(15)
    assert await service.ended() == 0


@pytest.mark.slow
async def test_nothing_that_was_answered_200_is_lost_where_a_synchronous_standby_takes_over(
    server: LocalServer, prepare: Install, spawn: Spawn
) -> None:
    url = server.create_database("crash")
    with standby_of(server, "second") as standby:
        await execute(
            server.superuser_url,
            "ALTER SYSTEM SET synchronous_standby_names = 'second'",
            "SELECT pg_reload_conf()",
        )
        made = await prepare()
        service = await spawn(made.tree | {"database": {"url": url}})
        assert await service.post(notice(WA_ID, HASH_A, hour_ago())) == 200
        taken: list[str] = []
        is_over = asyncio.Event()

        async def send(first: int) -> None:
            for number in itertools.count(first, 4):
                if is_over.is_set():
                    return
                name = f"1631555{number:05}"
                if await service.post(notice(name, HASH_A, hour_ago())) == 200:
                    taken.append(name)

        async def takes(more: int) -> None:
            count = len(taken)

            async def has_taken() -> bool:
                return len(taken) >= count + more

            await until(has_taken, 60)

        sending = [asyncio.create_task(send(first)) for first in range(4)]
        await takes(100)
        server.stop(SIGQUIT)
        standby.promote(server.port)
        await takes(100)
        is_over.set()
        await asyncio.gather(*sending)
        users = {name for (name,) in await fetch(url, "SELECT wa_id FROM users")}
        assert {WA_ID, *taken} <= users
        service.signal(15)
        assert await service.ended() == 0
