"""The disk is full when the service starts: it says so, and heals once there is room."""

import resource
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.store import maintenance
from tests.acceptance.conftest import (
    HASH_A,
    TOKEN,
    WA_ID,
    Child,
    Spawn,
    Start,
    hour_ago,
    notice,
    tree_for,
    until,
)

pytestmark = pytest.mark.sqlite

Limits = tuple[int, int]
Make = Callable[[Path], Awaitable[Child]]


@contextmanager
def nothing_written() -> Iterator[Limits]:
    """Let processes that are started meanwhile write to no file, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this user may mount no file system")
    yield folder
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


async def assert_waits_for_room(child: Child) -> None:
    """The service is up, not ready, and refuses what comes, to be delivered again."""
    assert (await child.api("GET", "/health/live"))[0] == 200
    for path, expected in (("ready", 503), ("status", 200)):
        status, answer = await child.api("GET", f"/health/{path}")
        assert (status, answer["status"]) == (expected, "fail")
        assert "no room" in answer["checks"]["database"]["detail"]
    async with child.http.post(f"{child.base}/webhooks/main/{TOKEN}", json={}) as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
    assert (await child.api("GET", f"/accounts/main/recipients/{WA_ID}"))[0] == 503
    assert sum("no room on the disk" in line for line in child.lines) == 1


async def assert_heals(child: Child) -> None:
    async def is_ready() -> bool:
        return (await child.api("GET", "/health/ready"))[0] == 200

    await until(is_ready, 30)
    await child.deliver(notice(WA_ID, HASH_A, hour_ago()))
    assert await child.reasons() == ["identity_pending"]
    child.signal(signal.SIGTERM)
    assert await child.ended() == 0


@pytest.fixture
async def stopped(simulate: Start, spawn: Spawn) -> Make:
    """Make the command ready to start on a database that is there, in a folder."""
    sim = await simulate()

    async def make(folder: Path) -> Child:
        maintenance.create(folder / "ackgate.db")
        return await spawn(tree_for(sim, folder), start=False)

    return make


@pytest.mark.slow
async def test_on_a_full_file_system_it_waits_and_heals(stopped: Make, small_disk: Path) -> None:
    child = await stopped(small_disk)
    filler = fill(small_disk)
    await child.start()
    await assert_waits_for_room(child)
    filler.unlink()
    await assert_heals(child)


@pytest.mark.slow
async def test_where_nothing_can_be_written_it_waits_and_heals(
    stopped: Make, tmp_path: Path
) -> None:
    child = await stopped(tmp_path)
    with nothing_written() as before:
        await child.spawn()
    await until(lambda: child.base, 30)
    await assert_waits_for_room(child)
    assert child.process is not None
    resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE, before)
    await assert_heals(child)


async def test_it_can_be_stopped_while_it_waits(stopped: Make, tmp_path: Path) -> None:
    child = await stopped(tmp_path)
    with nothing_written():
        await child.spawn()
    await until(lambda: child.base, 30)
    child.signal(signal.SIGTERM)
    assert await child.ended() == 0
    assert maintenance.check(tmp_path / "ackgate.db").faults == ()


@pytest.mark.slow
async def test_the_first_start_on_a_full_disk_makes_the_database_once_there_is_room(
    simulate: Start, spawn: Spawn, tmp_path: Path
) -> None:
    child = await spawn(tree_for(await simulate(), tmp_path), start=False)
    with nothing_written() as before:
        await child.spawn()
    await until(lambda: child.base, 30)
    await assert_waits_for_room(child)
    assert child.process is not None
    resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE, before)
    await assert_heals(child)
