"""A 200 is given after the disk has said that it has it: the calls to the kernel are counted."""

import asyncio
import os
import re
import signal
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import Connection

from service.simulator import Simulator
from service.store.sqlite import SQLiteDatabase
from tests.acceptance.conftest import Install
from tests.conftest import installed
from tests.crash.conftest import Command, Load

CALLBACKS = 25
TRACED = "trace=fdatasync,fsync,write,writev,sendto,sendmsg"
SYNCED = re.compile(r"^\d+ +f(?:data)?sync\(\d+<(?P<file>[^>]*)>\) += 0$")
BEGUN = re.compile(r"^(?P<thread>\d+) +f(?:data)?sync\(\d+<(?P<file>[^>]*)> <unfinished")
RESUMED = re.compile(r"^(?P<thread>\d+) +<\.\.\. f(?:data)?sync resumed>\) += 0$")
ANSWERED = re.compile(r'^\d+ +(?:write|writev|sendto|sendmsg)\(.*"HTTP/1\.1 200')

pytestmark = pytest.mark.sqlite


async def traced(command: Command, trace: Path) -> asyncio.subprocess.Process:
    strace = installed("strace")
    service = await command.start(strace, "-f", "-y", "-s", "32", "-e", TRACED, "-o", str(trace))
    assert await command.ready(service)
    return service


def child_of(process: asyncio.subprocess.Process) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return int(children.split()[0])


def events_of(trace: Path) -> list[str]:
    """Give in their order `log`, for a sync of the write-ahead log that ended, and `200`."""
    events, begun = [], {}
    for line in trace.read_text().splitlines():
        if found := BEGUN.match(line):
            begun[found["thread"]] = found["file"]
        elif found := RESUMED.match(line):
            events += ["log"] * begun[found["thread"]].endswith(".db-wal")
        elif found := SYNCED.match(line):
            events += ["log"] * found["file"].endswith(".db-wal")
        elif ANSWERED.match(line):
            events.append("200")
    return events


async def commits_of(http: aiohttp.ClientSession, command: Command) -> int:
    async with http.get(f"{command.url}/metrics") as response:
        text = await response.text()
    found = re.search(r"^ackgate_commit_entries_count (\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


@pytest.mark.tools
async def test_every_200_comes_after_a_sync_of_the_log(
    command: Command, tmp_path: Path, simulator: Simulator
) -> None:
    trace = tmp_path / "trace"
    load = Load(command, simulator)
    service = await traced(command, trace)
    try:
        async with aiohttp.ClientSession() as http:
            for number in range(CALLBACKS):
                await load.waits_for_a_person(http, number)
            assert len(load.accepted) == CALLBACKS
            commits = await commits_of(http, command)
    finally:
        os.kill(child_of(service), signal.SIGTERM)
        assert await service.wait() == 0
    events = events_of(trace)
    assert events.count("log") >= commits >= CALLBACKS
    ready, *answers, _ = [n for n, event in enumerate(events) if event == "200"][-CALLBACKS - 2 :]
    for number, place in enumerate(answers, start=1):
        assert events[ready:place].count("log") >= number


async def test_the_connection_that_writes_waits_for_the_disk(install: Install) -> None:
    made = await install()
    assert made.service is not None
    assert made.service.context is not None
    database = made.service.context.database
    assert isinstance(database, SQLiteDatabase)

    def pragma(connection: Connection, name: str) -> Any:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()

    wanted = {"synchronous": 2, "journal_mode": "wal", "locking_mode": "normal"}
    for name, value in wanted.items():
        assert await database.write(partial(pragma, name=name)) == value
