"""SIGKILL while a backup is restored, and what a relay delivers from the database that is there."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import aiohttp
import pytest

from service.observability import failpoints
from service.store import maintenance
from tests.acceptance.conftest import until
from tests.acceptance.sinks import Sink
from tests.crash.conftest import Command, Forked, Load, Start
from tests.crash.test_matrix import points_where

DELIVERED, MISSED, NOT_IN_BACKUP = range(1, 21), range(21, 41), range(41, 61)
RESTORED = {"restore.before_id", "restore.after_id"}
"""Points at which the backup is in the place of the database already."""


async def arrive(load: Load, numbers: Iterable[int]) -> None:
    async with aiohttp.ClientSession() as http:
        for number in numbers:
            await load.once(http, number)
    assert not load.owed


async def back_up(command: Command) -> Path:
    file = command.database.with_name("backup.db")
    await asyncio.to_thread(maintenance.back_up, command.database, file, lambda *_: None)
    return file


async def restore(command: Command, backup: Path, kill_at: str | None = None) -> int:
    """Run the real command; give its exit code, negative for a signal."""
    environ = {**os.environ, **({failpoints.VARIABLE: kill_at} if kill_at else {})}
    arguments = ("db", "restore", str(backup), "--yes", "--config", str(command.config))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", *arguments, env=environ
    )
    return await process.wait()


async def killed(process: Forked) -> None:
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL


def epoch_of(command: Command) -> str:
    [(epoch,)] = command.rows("SELECT value FROM installation WHERE key = 'epoch'")
    return str(epoch)


def came(crm: Sink, epoch: str) -> dict[int, bytes]:
    """Give what came with ids of an epoch; no id ever stands for two callbacks."""
    bodies: dict[str, bytes] = {}
    for delivery in crm.taken:
        assert bodies.setdefault(delivery.id, delivery.body) == delivery.body, delivery.id
    split = ((*id_.split("."), body) for id_, body in bodies.items())
    return {int(number): body for of, number, body in split if of == epoch}


def kept(command: Command) -> dict[int, bytes]:
    return dict(command.rows("SELECT id, body FROM journal"))


@pytest.mark.sqlite
@pytest.mark.parametrize("name", points_where(lambda n: n.startswith("restore.")))
async def test_a_kill_while_a_backup_is_restored(
    load: Load, command: Command, start: Start, crm: Sink, name: str
) -> None:
    """It is the database of before or the backup, and whole; a relay goes on from there."""
    process = await start()
    assert await command.ready(process)
    first, port = epoch_of(command), crm.port
    await arrive(load, DELIVERED)
    saved = [(len(DELIVERED),)]
    await until(lambda: command.rows("SELECT position FROM relays") == saved)
    await crm.close()
    await arrive(load, MISSED)
    backup = await back_up(command)
    await crm.open(port)
    await arrive(load, NOT_IN_BACKUP)
    await command.until_relayed()
    assert came(crm, first) == kept(command)
    await killed(process)

    assert await restore(command, backup, name) == -signal.SIGKILL
    process = await start()
    assert await command.ready(process)
    await arrive(load, range(61, 71))
    await command.until_relayed()
    second = epoch_of(command)
    assert (second != first) is (name in RESTORED)
    new = kept(command)
    assert len(new) == (50 if name in RESTORED else 70)
    if name in RESTORED:
        assert came(crm, second) == {id_: new[id_] for id_ in new if id_ not in DELIVERED}
    else:
        assert came(crm, first) == new
    await killed(process)

    assert await restore(command, backup) == 0
    process = await start()
    assert await command.ready(process)
    await arrive(load, range(71, 91))
    await command.until_relayed()
    third, new = epoch_of(command), kept(command)
    assert third not in {first, second}
    assert len(new) == 60
    assert came(crm, third) == {id_: new[id_] for id_ in new if id_ not in DELIVERED}
    before = came(crm, first)
    assert all(before[id_] != new[id_] for id_ in NOT_IN_BACKUP), "a number stands for another one"
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0, command.log.read_text()
