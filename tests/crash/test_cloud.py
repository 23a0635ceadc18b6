"""SIGKILL while a large webhook of the Cloud API is written, slice by slice, for two accounts.

The other points, under a load that has webhooks in it too, are those of `test_matrix.py`.
"""

import signal

import aiohttp
import pytest

from service.simulator.users import CloudUser
from service.store.database import wall_clock
from tests.crash.conftest import COMMITS_AT_START, OUTLET, SHOP, Callback, Load, Start
from tools import webhooks

USERS = 900
"""Of each account: each has three events, so that each account has three slices."""
STATES = "SELECT account, hash, state, count(*) FROM users GROUP BY 1, 2, 3"
EVENTS = "SELECT account, event, count(*) FROM audit WHERE user_id IS NOT NULL GROUP BY 1, 2"


def large() -> Callback:
    """Write a webhook in which the accounts take turns."""
    at = wall_clock() // 1000 - 100
    users = [
        CloudUser(wa_id=f"1641{n:07}", user_id=f"US.{n:016}", hash="aHash=") for n in range(USERS)
    ]
    updates = [webhooks.wrote(line, user, at) for user in users for line in (SHOP, OUTLET)]
    return Callback("", "", webhooks.webhook(*updates), cloud=True)


@pytest.mark.parametrize(
    "slices", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 4))]
)
async def test_a_webhook_that_was_cut_off_between_its_slices_is_in_effect_once_it_comes_again(
    load: Load, start: Start, slices: int
) -> None:
    """No 200 was given; what the first delivery came to is not in effect twice."""
    webhook = large()
    process = await start(f"ledger.after_commit:{COMMITS_AT_START + slices}")
    assert await load.command.ready(process)
    async with aiohttp.ClientSession() as http:
        assert not await load.deliver(http, webhook)
    assert await process.wait() == -signal.SIGKILL
    ((written,),) = load.command.left_behind("SELECT count(*) FROM users")
    assert 0 < written < 2 * USERS
    assert load.command.left_behind("SELECT count(*) FROM journal") == [(1,)]

    process = await start()
    assert await load.command.ready(process)
    await load.deliver_again()
    load.assert_in_effect()
    rows = load.command.rows
    assert sorted(rows(STATES)) == [
        ("outlet", "aHash=", "acknowledged", USERS),
        ("shop", "aHash=", "acknowledged", USERS),
    ]
    assert sorted(rows(EVENTS)) == [
        ("outlet", "first_use", USERS),
        ("shop", "first_use", USERS),
    ]
    assert rows("SELECT count(*) FROM journal") == [(2,)]
    assert not rows("SELECT 1 FROM outbox")
