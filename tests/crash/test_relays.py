"""Relays under load, with destinations that fail in every way, and SIGKILL in the midst."""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from sqlalchemy import text

from service.store.database import wall_clock
from tests.acceptance.conftest import Child, Install, Spawn, opened_beside, until
from tests.acceptance.sinks import Delivery, Sink, sink

CALLBACKS = int(os.environ.get("ACKGATE_TEST_CALLBACKS", "2000"))
KILLS = int(os.environ.get("ACKGATE_TEST_RELAY_KILLS", "3"))
USERS = 200
SENDERS = 16
SEED = os.environ.get("ACKGATE_TEST_SEED", "480")


def body(number: int) -> bytes:
    user = f"1631555{number % USERS:04}"
    message = {"from": user, "id": f"m{number}", "timestamp": "1749416383", "type": "text"}
    return json.dumps({"messages": [message | {"text": {"body": str(number)}}]}).encode()


class Flaky:
    """Answers 500, 429 and 404, does not answer in time, and cuts connections, at random."""

    def __init__(self) -> None:
        self.chance = random.Random(SEED)

    def __call__(self, _: Delivery) -> Awaitable[web.Response] | int:
        drawn = self.chance.random()
        if drawn < 0.05:
            return self.chance.choice((500, 429, 404))
        if drawn < 0.051:
            return self.late()
        if drawn < 0.06:
            return self.cut()
        return 200

    async def late(self) -> web.Response:
        await asyncio.sleep(3)
        return web.Response()

    async def cut(self) -> web.Response:
        raise ConnectionResetError


def numbers(some: Sink) -> list[int]:
    return [int(json.loads(d.body)["messages"][0]["text"]["body"]) for d in some.taken]


def assert_all_and_in_order(some: Sink, sent: set[int], *, ordered: bool) -> None:
    """Check that each callback came, as it was, and first came in order for each user."""
    came = numbers(some)
    assert set(came) >= sent, f"{len(sent - set(came))} did not come"
    assert {d.body for d in some.taken} <= {body(n) for n in range(CALLBACKS)}
    if ordered:
        of_user: dict[int, int] = {}
        for number in dict.fromkeys(came):
            user = number % USERS
            assert of_user.get(user, -1) < number, f"{number} came after {of_user.get(user)}"
            of_user[user] = number


async def send(service: Child, taken: set[int], queue: "asyncio.Queue[int]") -> None:
    """Deliver callbacks, each until it is taken, one user's one after another."""
    while not queue.empty():
        number = queue.get_nowait()
        while number not in taken:
            try:
                if await service.post(body(number)) == 200:
                    taken.add(number)
            except aiohttp.ClientError:  # it was killed
                await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_each_relay_gets_all_it_asked_for_over_kills_and_whatever_its_destination_does(
    prepare: Install, spawn: Spawn
) -> None:
    async with sink() as healthy, sink(Flaky()) as flaky, sink() as down:
        relays: dict[str, Any] = {
            "healthy": {"url": healthy.url},
            "flaky": {"url": flaky.url, "timeout_seconds": 1},
            "down": {"url": down.url, "ordered": False},
        }
        installation = await prepare(relays=relays)
        service = await spawn(installation.tree)
        taken: set[int] = set()
        queues: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(SENDERS)]
        for number in range(CALLBACKS):
            queues[number % USERS % SENDERS].put_nowait(number)
        sending = asyncio.gather(*(send(service, taken, queue) for queue in queues))
        chance = random.Random(SEED)
        marks = sorted(chance.randrange(CALLBACKS) for _ in range(KILLS))
        port, is_down = down.port, False
        while not sending.done():
            await asyncio.sleep(0.02)
            # Down from a third of the way to two thirds.
            third = CALLBACKS / 3
            wants_down = third < len(taken) < 2 * third
            if wants_down and not is_down:
                await down.close()
            elif is_down and not wants_down:
                await down.open(port)
            is_down = wants_down
            if marks and len(taken) >= marks[0]:
                marks.pop(0)
                await service.kill()
                await service.start()
        await sending
        if is_down:
            await down.open(port)
        began = time.monotonic()
        for some in (healthy, flaky, down):
            await until(
                lambda some=some: len({d.body for d in some.taken}) >= CALLBACKS,  # type: ignore[misc]
                120 + CALLBACKS / 50,
            )
        some = {"healthy": healthy, "flaky": flaky, "down": down}
        seconds = time.monotonic() - began
        print(f"{seconds:.1f} s after the last 200, requests: {len(flaky.hits)} to the flaky one")  # noqa: T201
        for name, one in some.items():
            print(name, "times: callbacks", Counter(Counter(numbers(one)).values()))  # noqa: T201
        assert_all_and_in_order(healthy, set(range(CALLBACKS)), ordered=True)
        assert_all_and_in_order(flaky, set(range(CALLBACKS)), ordered=True)
        assert_all_and_in_order(down, set(range(CALLBACKS)), ordered=False)


async def keep_many(url: str, count: int) -> None:
    """Keep callbacks of three days, as if they had arrived while nothing was relayed."""
    began = wall_clock() - 3 * 86_400_000
    columns = "id, account, received_at, state, content_type, content_encoding, headers, body"
    values = ":id, 'main', :at, 'applied', 'application/json', '', '[]', :body"
    rows = [
        {"id": n + 1, "at": began + n * 259_200_000 // count, "body": body(n)} for n in range(count)
    ]
    async with opened_beside(url) as connection:
        await connection.exec_driver_sql("BEGIN")
        await connection.execute(text(f"INSERT INTO journal ({columns}) VALUES ({values})"), rows)
        await connection.exec_driver_sql("COMMIT")


def rss_megabytes(process: asyncio.subprocess.Process) -> float:
    [line] = [
        line
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    ]
    return int(line.split()[1]) / 1024


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_a_destination_down_for_days_costs_no_memory_and_no_rows_and_gets_all_in_order(
    prepare: Install, spawn: Spawn
) -> None:
    async with sink() as crm:
        port = crm.port
        installation = await prepare(relays={"crm": {"url": crm.url, "max_in_flight": 64}})
        service = await spawn(installation.tree)  # the relay begins at an empty journal
        await service.kill()
        await crm.close()
        await keep_many(installation.database_url, CALLBACKS)
        await service.start()
        assert service.process is not None
        before = rss_megabytes(service.process)

        async def relay() -> dict[str, Any]:
            status, found = await service.api("GET", "/relays/crm")
            assert status == 200
            return dict(found)

        async def is_backing_off() -> bool:
            return bool((await relay())["state"] == "backing_off")

        await until(is_backing_off)
        await asyncio.sleep(5)
        found = await relay()
        assert (found["position"], found["retrying"]) == (0, 0)
        assert found["behind"] == CALLBACKS
        assert found["behind_seconds"] > 2.9 * 86_400
        print(f"{before:.0f} MB, while it is down {rss_megabytes(service.process):.0f} MB")  # noqa: T201
        assert rss_megabytes(service.process) < before + 30
        began = time.monotonic()
        await crm.open(port)
        await until(lambda: len(crm.taken) >= CALLBACKS, 120 + CALLBACKS / 100)
        print(f"drained {CALLBACKS / (time.monotonic() - began):,.0f} a second")  # noqa: T201
        assert len(crm.taken) == CALLBACKS
        assert_all_and_in_order(crm, set(range(CALLBACKS)), ordered=True)
        print(f"drained: {rss_megabytes(service.process):.0f} MB")  # noqa: T201
        assert rss_megabytes(service.process) < before + 60
