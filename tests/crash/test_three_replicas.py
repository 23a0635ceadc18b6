"""Three replicas on one PostgreSQL database: what one process promises, whatever dies.

`ACKGATE_TEST_ROUNDS` is how often everything that can happen happens, in an order of chance.
"""

import asyncio
import itertools
import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from service.simulator import Simulator
from tests.acceptance.conftest import hour_ago, notice
from tests.acceptance.sinks import Delivery, Sink, sink
from tests.crash.conftest import SEED, TOKEN, Callback, Launcher, Load
from tests.crash.replicas import Replica, Replicas, behind_a_balancer
from tools.postgres import LocalServer, local_server

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

ROUNDS = int(os.environ.get("ACKGATE_TEST_ROUNDS", "1"))
COUNT = 3
SENDERS = 16


@pytest.fixture(scope="module")
def launchers() -> Iterator[Sequence[Launcher]]:
    """A process to fork services from for each replica: it waits for the one that it forked."""
    launched = [Launcher() for _ in range(COUNT)]
    yield launched
    for each in launched:
        each.close()


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """A server of the test's own, which it may kill; what it has committed is on disk."""
    with local_server(durable=True) as started:
        yield started


@pytest.fixture
async def replicas(
    postgres_url: str, tmp_path: Path, simulator: Simulator, launchers: Sequence[Launcher]
) -> AsyncIterator[Replicas]:
    """Replicas on the server of the tests, all started."""
    async with behind_a_balancer(postgres_url, tmp_path, simulator, launchers) as made:
        await made.start()
        yield made


class Trouble:
    """All that can happen to replicas and to their database."""

    def __init__(self, replicas: Replicas, server: LocalServer, chance: random.Random) -> None:
        self._replicas = replicas
        self._server = server
        self._chance = chance
        self.takeovers: list[float] = []

    async def happens(self) -> None:
        """Let everything happen, one after another, with time to work in between."""
        steps = [
            *[self.the_leader_is_killed] * 3,
            *[self.another_is_killed] * 3,
            self.the_server_is_restarted,
            self.connections_are_reset,
            self.connections_fall_silent,
        ]
        self._chance.shuffle(steps)
        for step in steps:
            await asyncio.sleep(self._chance.uniform(1, 3))
            await step()
            await self._replicas.until_well()

    async def the_leader_is_killed(self) -> None:
        leader = await self._replicas.until_led()
        began = time.monotonic()
        await leader.kill()
        await self._replicas.until_led(besides=leader)
        self.takeovers.append(time.monotonic() - began)
        await self._start_later(leader)

    async def another_is_killed(self) -> None:
        leader = await self._replicas.until_led()
        other = self._chance.choice([one for one in self._replicas.each if one is not leader])
        await other.kill()
        await self._start_later(other)

    async def _start_later(self, replica: Replica) -> None:
        await asyncio.sleep(self._chance.uniform(0, 2))
        await replica.start()

    async def the_server_is_restarted(self) -> None:
        """End it as if the machine had failed, so that it has to recover."""
        await asyncio.to_thread(self._server.stop, signal.SIGQUIT)
        await asyncio.sleep(self._chance.uniform(0, 1))
        await asyncio.to_thread(self._server.start)

    async def connections_are_reset(self) -> None:
        for replica in self._replicas.each:
            replica.proxy.reset()

    async def connections_fall_silent(self) -> None:
        for replica in self._replicas.each:
            replica.proxy.fall_silent()


async def deliver_again(load: Load, stop: asyncio.Event) -> None:
    """Deliver what got no 200 again and again, as the client does."""
    async with load.connections() as http:
        while not stop.is_set():
            again, load.owed = load.owed, []
            await asyncio.gather(*(load.deliver(http, callback) for callback in again))
            await asyncio.sleep(0.5)


async def late(_: Delivery) -> web.Response:
    """Take it a moment later, so that there is always some under way."""
    await asyncio.sleep(random.random() / 10)
    return web.Response()


def log_id(delivery: Delivery) -> int:
    """Return the id of the row of a log that was delivered."""
    return int(re.split(r"[.-]", delivery.id)[1])


async def until_taken(replicas: Replicas, table: str, taken: Sequence[Delivery]) -> None:
    """Wait until the sink has what is in a log now.

    What a follower says of a relay is as of a second ago, so its 0 may be of before the last row.
    """
    logged = {id_ for (id_,) in replicas.front.rows(f"SELECT id FROM {table}")}
    async with asyncio.timeout(60):
        while logged - {log_id(delivery) for delivery in taken}:
            await asyncio.sleep(0.05)


def assert_events_in_order(replicas: Replicas, taken: Sequence[Delivery]) -> None:
    """What came is in the event log, and what is of a user came in order the first time."""
    bodies = {log_id(delivery): delivery.body for delivery in reversed(taken)}
    assert not bodies.keys() - {id_ for (id_,) in replicas.front.rows("SELECT id FROM events")}
    newest: dict[tuple[str, str], int] = {}
    for id_ in dict.fromkeys(map(log_id, taken)):
        event = json.loads(bodies[id_])
        user = event["account"], event["user"]
        assert user[1] is None or newest.get(user, 0) < id_, event
        newest[user] = id_


async def assert_nothing_lost_and_nothing_twice(
    load: Load, replicas: Replicas, crm: Sink, feed: Sink
) -> None:
    load.assert_in_effect()
    await load.deliver_again()
    await load.command.until_idle()
    load.assert_as_the_rules_give()
    await until_taken(replicas, "journal", crm.taken)
    await until_taken(replicas, "events", feed.taken)
    for name in ("crm", "feed"):
        await load.command.until_relayed(name)
    load.assert_relayed(crm.taken)
    assert_events_in_order(replicas, feed.taken)


@asynccontextmanager
async def under_load(
    replicas: Replicas, simulator: Simulator
) -> AsyncIterator[tuple[Load, Sequence[Delivery]]]:
    """Load the replicas while something happens, and look in the end at all that came of it.

    Gives the load, and what is relayed.
    """
    async with sink(late) as crm, sink(late) as feed:
        for replica in replicas.each:
            replica.command.relay_to(crm.url)
            replica.command.relay_to(feed.url, "feed", "events")
        await replicas.start()
        load = Load(replicas.front, simulator, keeps_connections=False)
        stop = asyncio.Event()
        sending = asyncio.gather(load.send_until(stop), deliver_again(load, stop))
        try:
            yield load, crm.taken
        finally:
            stop.set()
            await sending
        await replicas.until_well()
        await assert_nothing_lost_and_nothing_twice(load, replicas, crm, feed)
        assert [await replica.stop() for replica in replicas.each] == [0] * COUNT


@pytest.mark.timeout(600 * ROUNDS)
async def test_nothing_is_lost_and_nothing_done_twice_whatever_dies(
    server: LocalServer, tmp_path: Path, simulator: Simulator, launchers: Sequence[Launcher]
) -> None:
    url = server.create_database("trial")
    async with behind_a_balancer(url, tmp_path, simulator, launchers) as replicas:
        trouble = Trouble(replicas, server, random.Random(SEED))
        async with under_load(replicas, simulator) as (load, _):
            for _ in range(ROUNDS):
                await trouble.happens()
        takeovers = ", ".join(f"{seconds:.1f}" for seconds in sorted(trouble.takeovers))
        print(f"{len(load.accepted)} callbacks; others led after {takeovers} s")  # noqa: T201
        assert len(load.accepted) > 100 * ROUNDS
    assert "deadlock detected" not in (server.folder / "log").read_text()


@pytest.mark.timeout(300)
async def test_a_leader_that_hangs_is_followed_and_does_nothing_more_once_it_goes_on(
    postgres_url: str, tmp_path: Path, simulator: Simulator, launchers: Sequence[Launcher]
) -> None:
    async with (
        behind_a_balancer(postgres_url, tmp_path, simulator, launchers) as replicas,
        under_load(replicas, simulator) as (_, taken),
    ):
        for _ in range(2):
            leader = await replicas.until_led()
            await asyncio.sleep(1)
            leader.send_signal(signal.SIGSTOP)
            try:
                await replicas.until_led(besides=leader)
                await asyncio.sleep(1)
            finally:
                leader.send_signal(signal.SIGCONT)
            await replicas.until_well()
            assert len(await replicas.leaders()) == 1
        await asyncio.sleep(1)
        before = {delivery.id for delivery in taken}
        await asyncio.sleep(2)
    since = Counter(delivery.id for delivery in taken if delivery.id not in before)
    assert set(since.values()) == {1}, "the former leader relays no more"


async def test_of_idle_replicas_another_leads_within_ten_seconds_once_the_leader_has_died(
    replicas: Replicas,
) -> None:
    """Within the promised time: there is nothing that would wake them."""
    for _ in range(COUNT - 1):
        leader = await replicas.until_led()
        await asyncio.sleep(3)
        began = time.monotonic()
        await leader.kill()
        await replicas.until_led()
        print(f"another led after {time.monotonic() - began:.1f} s")  # noqa: T201


async def test_a_leader_that_is_cut_off_from_the_database_is_followed_and_says_so(
    replicas: Replicas,
) -> None:
    leader = await replicas.until_led()
    leader.proxy.is_deaf = True
    leader.proxy.fall_silent()
    await replicas.until_led(besides=leader)
    assert leader not in await replicas.leaders()
    leader.proxy.is_deaf = False
    leader.proxy.reset()
    await replicas.until_well()
    assert len(await replicas.leaders()) == 1


def body(wa_id: str, number: int) -> bytes:
    """Write the notification of a change, one second after the one before."""
    return json.dumps(notice(wa_id, f"hash {number}", hour_ago(number))).encode()


async def test_a_restart_of_the_leader_is_not_seen_by_a_sender(
    replicas: Replicas, simulator: Simulator
) -> None:
    load = Load(replicas.front, simulator, keeps_connections=False)
    stopping = asyncio.Event()

    async def send(sender: int) -> None:
        async with load.connections() as http:
            for number in itertools.count():
                if stopping.is_set():
                    return
                wa_id = f"1632{sender:07}"
                said = body(wa_id, number)
                await load.deliver(http, Callback(wa_id, f"hash {number}", said))
                assert not load.owed

    sending = asyncio.gather(*map(send, range(SENDERS)))
    try:
        for _ in range(COUNT):
            leader = await replicas.until_led()
            assert await leader.stop() == 0
            await replicas.until_led()
            await leader.start()
            await replicas.until_well()
    finally:
        stopping.set()
        await sending
    load.assert_in_effect()
    assert len(load.accepted) > 100


async def at_both(replicas: Replicas, http: aiohttp.ClientSession, *bodies: bytes) -> None:
    """Deliver to two replicas at once, to each one of the bodies; each answers 200."""

    async def post(replica: Replica, said: bytes) -> int:
        url = f"{replica.command.url}/webhooks/main/{TOKEN}"
        headers = {"Content-Type": "application/json"}
        async with http.post(url, data=said, headers=headers) as response:
            return response.status

    assert await asyncio.gather(*map(post, replicas.each, bodies)) == [200, 200]


async def test_the_same_callback_at_two_replicas_at_once_a_thousand_times_has_one_effect_each(
    replicas: Replicas, http: aiohttp.ClientSession
) -> None:
    async def change(user: int) -> None:
        for number in range(100):
            said = body(f"1632{user:07}", number)
            await at_both(replicas, http, said, said)

    await asyncio.gather(*map(change, range(10)))
    rows = replicas.front.rows
    assert rows("SELECT count(*) FROM journal") == [(2000,)]
    assert rows("SELECT hash, state, count(*) FROM users GROUP BY 1, 2") == [
        ("hash 99", "pending", 10)
    ]
    assert rows("SELECT count(*), count(DISTINCT (user_id, hash)) FROM changes") == [(990, 990)]
    told = rows("SELECT event, count(*) FROM audit WHERE user_id IS NOT NULL GROUP BY 1 ORDER BY 1")
    assert told == [("changed", 1000), ("superseded", 990)]
    events = "SELECT type, count(*) FROM events WHERE type LIKE 'identity%' GROUP BY 1 ORDER BY 1"
    assert rows(events) == [("identity.pending", 1000), ("identity.superseded", 990)]


async def test_of_two_first_callbacks_of_a_new_user_both_are_answered_200_and_there_is_one_user(
    replicas: Replicas, http: aiohttp.ClientSession
) -> None:
    async def come(users: range) -> None:
        for user in users:
            wa_id = f"1632{user:07}"
            await at_both(replicas, http, body(wa_id, 1), body(wa_id, 2))

    await asyncio.gather(*(come(range(n, 1000, 10)) for n in range(10)))
    rows = replicas.front.rows
    assert rows("SELECT count(*), count(DISTINCT user_id) FROM aliases") == [(1000, 1000)]
    assert rows("SELECT hash, count(*) FROM users GROUP BY 1") == [("hash 2", 1000)]
    assert rows("SELECT hash, count(*) FROM changes GROUP BY 1") == [("hash 1", 1000)]
