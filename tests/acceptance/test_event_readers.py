"""Those who read events: the program on the page, and the command."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.acceptance.commands import parsed, refused, run
from tests.acceptance.conftest import OTHER_ID, WA_ID, Install, Installation, digest_of
from tests.docs.conftest import ROOT, blocks
from tools.processes import free_port

PENDING = ("events", "--type", "identity.pending")


@asynccontextmanager
async def program(*words: str, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return (await process.stdout.readline()).decode().strip()


async def test_the_reader_on_the_page_misses_nothing_over_a_restart(
    install: Install, tmp_path: Path
) -> None:
    keys = {"desk": {"role": "reader", "sha256": digest_of("desk")}}
    made = await install(api={"keys": keys}, server={"port": free_port()})
    [block] = [b for b in blocks("python") if b.page.name == "events.md"]
    assert len(block.text.splitlines()) <= 20
    file = tmp_path / "reader.py"
    file.write_text(block.text)
    await made.change("16315550001")
    environ = {"ACKGATE_URL": made.base, "ACKGATE_KEY": "desk", "LAST_ID": "first"}
    async with program(str(file), **environ) as reader:
        assert await line(reader) == "identity.pending 16315550001"
        await made.change("16315550002")
        assert await line(reader) == "identity.pending 16315550002"
        await made.stop()
        await made.start()
        await made.change("16315550003")
        assert await line(reader) == "identity.pending 16315550003"


async def test_the_command_lists_events_for_people_and_for_programs(manual: Installation) -> None:
    await manual.change()
    await manual.change(OTHER_ID)
    shown = await run(*PENDING, url=manual.base)
    assert WA_ID in shown.stdout
    assert "identity.pending" in shown.stdout
    page = parsed(await run(*PENDING, "--json", url=manual.base))
    assert [item["user"] for item in page["items"]] == [WA_ID, OTHER_ID]
    one = parsed(await run(*PENDING, "--json", "--limit", "1", url=manual.base))
    assert [item["user"] for item in one["items"]] == [WA_ID]
    more = await run(*PENDING, "--after", one["next_cursor"], "--all", url=manual.base)
    assert OTHER_ID in more.stdout
    assert WA_ID not in more.stdout
    limited = await run(*PENDING, "--limit", "1", url=manual.base)
    assert f"--after {one['next_cursor']}" in limited.stderr
    none = await run("events", "--type", "identity.failed", url=manual.base)
    assert "no event is like that" in none.stderr
    assert "after" in await refused("events", "--after", "x", url=manual.base)


async def test_the_command_follows_what_happens_over_a_restart(install: Install) -> None:
    made = await install(server={"port": free_port()})
    await made.change()
    words = ("-m", "service", *PENDING, "--follow", "--json", "--url", made.base)
    async with program(*words) as follower:
        assert json.loads(await line(follower))["user"] == WA_ID
        await made.change(OTHER_ID)
        assert json.loads(await line(follower))["user"] == OTHER_ID
        await made.stop()
        await made.start()
        await made.change("16315550003")
        assert json.loads(await line(follower))["user"] == "16315550003"
    words = ("-m", "service", *PENDING, "--follow", "--url", made.base)
    async with program(*words) as follower:
        told = await line(follower)
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  identity.pending  main  ", told)
