"""SIGKILL at every point between the steps of a write, under load, and what must hold afterwards.

`MATRIX` maps each point to when the process is killed there: the first time, and a later one drawn
from this range; three of them for the ledger, whose batches are of many kinds. The tests by point:

| points | test |
|---|---|
| `start.*` | test_a_kill_while_it_starts |
| `stop.*` | test_a_kill_while_it_stops |
| `notice.*` | test_a_kill_while_it_tells_what_it_has_noticed |
| `check.*`, `recheck.*`, `messages.*` | those of `test_contact_checks.py` |
| `restore.*` | test_a_kill_while_a_backup_is_restored, of `test_restore.py` |
| `copy.*` | those of `tests/contract/test_copy.py` |
| all others | test_a_kill_under_load |
| `ledger.after_commit` | test_a_kill_between_two_slices_of_a_large_callback, too |
| `ledger.after_commit` | those of `test_cloud.py`, which cut a webhook for two accounts |
| none | test_every_point_of_the_code_is_in_the_matrix |
"""

import ast
import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import service
from service.ledger.callbacks import MAX_SLICE
from service.model.users import Kind
from service.store.database import wall_clock
from service.workers.noticing import EVERY_SECONDS
from tests.acceptance.conftest import notice
from tests.acceptance.sinks import Sink
from tests.crash.conftest import COMMITS_AT_START, SEED, Callback, Forked, Load, Start

LEDGER = range(4, 40)
WORK = range(3, 20)
GETS = range(2, 8)
FEW = range(2, 4)
SLOW = range(2, 3)

MATRIX = {
    "start.before_migration": (),
    "start.after_migration": (),
    "start.before_leases_cleared": (),
    "start.after_leases_cleared": (),
    "ledger.before_begin": LEDGER,
    "ledger.after_begin": LEDGER,
    "ledger.after_load": LEDGER,
    "ledger.after_rules": LEDGER,
    "ledger.before_commit": LEDGER,
    "store.before_commit": LEDGER,
    "store.after_commit": LEDGER,
    "ledger.after_commit": LEDGER,
    "ledger.before_answer": LEDGER,
    "ledger.after_answer": LEDGER,
    "acknowledge.before_lease": WORK,
    "acknowledge.after_lease": WORK,
    "acknowledge.before_begin": WORK,
    "acknowledge.before_put": WORK,
    "acknowledge.after_put": WORK,
    "acknowledge.before_get": GETS,
    "acknowledge.after_get": GETS,
    "acknowledge.before_renew": FEW,
    "acknowledge.after_renew": FEW,
    "acknowledge.before_outcome": WORK,
    "acknowledge.after_outcome": WORK,
    "ask.before_lease": GETS,
    "ask.after_lease": GETS,
    "ask.before_get": GETS,
    "ask.after_get": GETS,
    "ask.before_renew": FEW,
    "ask.after_renew": FEW,
    "ask.before_outcome": GETS,
    "ask.after_outcome": GETS,
    "sweep.before_write": SLOW,
    "sweep.after_write": SLOW,
    "check.before_plan": (),
    "check.after_plan": (),
    "check.before_post": (),
    "check.after_post": (),
    "check.after_answer": (),
    "recheck.before_due": (),
    "recheck.after_due": (),
    "messages.before_write": (),
    "messages.after_write": (),
    "notice.before_blocks": (),
    "notice.after_blocks": (),
    "notice.before_issues": (),
    "notice.after_issues": (),
    "relay.before_save": FEW,
    "relay.after_save": FEW,
    "copy.after_part_of_log": (),
    "copy.after_table": (),
    "copy.before_final": (),
    "restore.after_copy": (),
    "restore.before_aside": (),
    "restore.after_aside": (),
    "restore.before_id": (),
    "restore.after_id": (),
    "stop.before_close": (),
    "stop.after_close": (),
}
ELSEWHERE = ("check.", "recheck.", "messages.", "copy.", "restore.")
"""Points that the tests of other files come to."""
BROAD = {
    "start.after_leases_cleared",
    "stop.after_close",
    "ledger.after_commit",
    "ask.after_get",
    "check.after_answer",
    "messages.after_write",
    "notice.after_blocks",
    "restore.before_id",
}
"""Points that `make test` comes to; the others are left to `make test-all`."""


def points_where(chosen: Callable[[str], bool]) -> list[Any]:
    return [
        pytest.param(name, marks=() if name in BROAD else pytest.mark.slow)
        for name in MATRIX
        if chosen(name)
    ]


UNDER_LOAD = points_where(
    lambda name: not name.startswith(("start.", "stop.", "notice.", *ELSEWHERE))
)
NOTICING = points_where(lambda name: name.startswith("notice."))
STARTING = points_where(lambda name: name.startswith("start."))
STOPPING = points_where(lambda name: name.startswith("stop."))


def points_of_the_code() -> Iterator[str]:
    """Find every call of `failpoints.reached` in the service, and the names that it stands for."""
    for file in Path(service.__file__).parent.rglob("*.py"):
        if file.name == "postgres.py":
            continue  # it has those of sqlite.py, in the place of which it stands
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoints.reached":
                assert isinstance(node.args[0], ast.Constant), f"{file}: not a literal name"
                name = str(node.args[0].value)
                shared = len(node.args) > 1
                yield from (f"{kind}.{name}" for kind in Kind) if shared else (name,)


def test_every_point_of_the_code_is_in_the_matrix() -> None:
    found = list(points_of_the_code())
    assert sorted(found) == sorted(set(found)), "a name stands for one place"
    assert set(found) == MATRIX.keys()


async def send(load: Load, process: Forked, seconds: float = 20) -> int:
    """Send until the process ends; give its exit code."""
    stop = asyncio.Event()
    sending = asyncio.create_task(load.send_until(stop))
    try:
        return await process.wait(seconds)
    except TimeoutError:
        pytest.fail("the point was not reached")
    finally:
        stop.set()
        await sending


async def killed(load: Load, start: Start, name: str, times: int = 1) -> None:
    """Let the service be killed under load when it comes to a point for the n-th time."""
    process = await start(f"{name}:{times}")
    if await load.command.ready(process):
        assert await send(load, process) == -signal.SIGKILL
    else:
        assert await process.wait() == -signal.SIGKILL


async def assert_nothing_lost(load: Load, start: Start, crm: Sink) -> None:
    """Start again, deliver again what got no 200, and look at everything."""
    process = await start()
    assert await load.command.ready(process), load.command.log.read_text()
    load.assert_in_effect()
    await load.deliver_again()
    await load.command.until_idle(30)
    load.assert_as_the_rules_give()
    await load.command.until_relayed()
    load.assert_relayed(crm.taken)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0, load.command.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", UNDER_LOAD)
async def test_a_kill_under_load(load: Load, start: Start, crm: Sink, name: str) -> None:
    await killed(load, start, name)
    often = 3 if MATRIX[name] is LEDGER else 1
    for times in random.Random(f"{SEED} {name}").sample(MATRIX[name], often):
        await killed(load, start, name, times)
    assert load.accepted
    await assert_nothing_lost(load, start, crm)


@pytest.mark.parametrize("name", STARTING)
async def test_a_kill_while_it_starts(load: Load, start: Start, crm: Sink, name: str) -> None:
    if load.command.postgres_url is not None and name.endswith("leases_cleared"):
        pytest.skip("on PostgreSQL leases end by themselves: a holder may be alive elsewhere")
    await killed(load, start, name)
    await killed(load, start, "acknowledge.before_put", 20)
    await killed(load, start, name)
    assert load.accepted
    ((leased,),) = load.command.left_behind("SELECT count(*) FROM outbox WHERE holder IS NOT NULL")
    assert (leased == 0) is name.endswith("after_leases_cleared")
    await assert_nothing_lost(load, start, crm)


@pytest.mark.slow
@pytest.mark.parametrize("name", STOPPING)
async def test_a_kill_while_it_stops(load: Load, start: Start, crm: Sink, name: str) -> None:
    for _ in range(2):
        process = await start(f"{name}:1")
        assert await load.command.ready(process)
        asyncio.get_running_loop().call_later(0.2, process.send_signal, signal.SIGTERM)
        assert await send(load, process) == -signal.SIGKILL
    assert load.accepted
    await assert_nothing_lost(load, start, crm)


def told(load: Load) -> Counter[tuple[str, str, str | None]]:
    """Count the events by type, account, and the code of an issue."""
    rows = load.command.rows("SELECT type, account, data FROM events")
    return Counter((type_, account, json.loads(data).get("code")) for type_, account, data in rows)


@pytest.mark.parametrize("name", NOTICING)
async def test_a_kill_while_it_tells_what_it_has_noticed(
    load: Load, start: Start, name: str
) -> None:
    """The end of a block, and issues of accounts that don't answer, are told once all the same."""
    expected = {"issue.raised"}
    if name.endswith("_blocks"):
        process = await start()
        assert await load.command.ready(process)
        await block_for(load, seconds=5)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        expected |= {"recipient.blocked", "recipient.resumed"}
    process = await start(f"{name}:1")
    assert await process.wait(20) == -signal.SIGKILL

    process = await start()
    assert await load.command.ready(process)
    async with asyncio.timeout(20):
        while not expected <= {type_ for type_, *_ in told(load)}:
            await asyncio.sleep(0.05)
    await asyncio.sleep(2 * EVERY_SECONDS)  # it looks again
    assert set(told(load).values()) == {1}
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0, load.command.log.read_text()


async def block_for(load: Load, seconds: int) -> None:
    url = f"{load.command.url}/api/v1/accounts/main/recipients/16315550001/block"
    until = datetime.fromtimestamp(wall_clock() // 1000 + seconds, UTC).isoformat()
    block = {"reason": "asked", "until": until}
    async with aiohttp.ClientSession() as http, http.put(url, json=block) as response:
        assert response.status == 200


async def test_a_kill_between_two_slices_of_a_large_callback(load: Load, start: Start) -> None:
    """No 200 was given; what is in effect already is not in effect twice once it comes again."""
    now = wall_clock()
    users = [f"1632{number:07}" for number in range(4 * MAX_SLICE)]
    messages = [message for wa_id in users for message in notice(wa_id, "hash", now)["messages"]]
    large = Callback(users[0], "hash", json.dumps({"messages": messages}).encode())
    process = await start(f"ledger.after_commit:{COMMITS_AT_START + 2}")
    assert await load.command.ready(process)
    async with aiohttp.ClientSession() as http:
        assert not await load.deliver(http, large)
    assert await process.wait() == -signal.SIGKILL
    ((written,),) = load.command.left_behind("SELECT count(*) FROM users")
    # What else is committed at a start may come before the first one or after the last.
    assert written in {MAX_SLICE, 2 * MAX_SLICE, 3 * MAX_SLICE}

    process = await start()
    assert await load.command.ready(process)
    await load.deliver_again()
    load.assert_in_effect()
    rows = load.command.rows
    assert rows("SELECT state, count(*) FROM users GROUP BY 1") == [("pending", len(users))]
    assert rows("SELECT count(*) FROM audit WHERE event = 'changed'") == [(len(users),)]
    assert rows("SELECT count(*) FROM journal") == [(2,)]
