"""SIGKILL at random moments under load: a 200 means on disk and in effect."""

import asyncio
import os
import random
import signal

import pytest

from tests.crash.conftest import SEED, Command, Load, Start

PARTS = 4
"""So many processes of pytest-xdist can share the kills."""
KILLS = int(os.environ.get("ACKGATE_TEST_KILLS", "100")) // PARTS


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.timeout(900)
async def test_nothing_that_got_a_200_is_lost_by_a_kill_at_any_moment(
    command: Command, load: Load, start: Start, part: int
) -> None:
    chance = random.Random(f"{SEED} {part}")
    for _ in range(KILLS):
        process = await start()
        assert await command.ready(process), "the service did not start again"
        stop = asyncio.Event()
        sending = asyncio.create_task(load.send_until(stop))
        await asyncio.sleep(chance.uniform(0.01, 0.35))
        process.send_signal(signal.SIGKILL)
        await process.wait()
        stop.set()
        await sending
    process = await start()
    assert await command.ready(process), "the service did not start again"
    load.assert_in_effect()
    await load.deliver_again()
    await command.until_idle()
    load.assert_as_the_rules_give()
    assert len(load.accepted) > KILLS
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
