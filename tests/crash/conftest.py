"""The service as a process that is killed, the load on it, and what must hold afterwards."""

import asyncio
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from service.simulator import Options, Simulator
from service.simulator.options import Number
from service.simulator.users import CloudUser
from service.store.database import wall_clock
from service.store.opening import is_postgres
from tests.acceptance.conftest import (
    certificates,
    http,
    impatient,
    install,
    notice,
    prepare,
    simulate,
    spawn,
    stack,
    wrote,
)
from tests.acceptance.sinks import Delivery, Sink, sink
from tests.postgres import fetch, run
from tools import webhooks
from tools.processes import free_port
from tools.webhooks import signature

__all__ = ["certificates", "http", "impatient", "install", "prepare", "simulate", "spawn", "stack"]

SEED = os.environ.get("ACKGATE_TEST_SEED", "480")
SENDERS = 12
UNHURRIED = 240
ANSWER_SECONDS = 20
"""The client's own time-out."""
MANY = 10_000_000
"""More users than any test has: from here on they are those of large webhooks."""
"""After so many users the senders slow down, so that what is left to do stays little."""
TOKEN = "crash-webhook-token"
CONFIG = """
[server]
port = {port}
drain_seconds = {drain_seconds}
[database]
url = "{database}"
[log]
level = "warning"
[reconciler]
sweep_after_seconds = {sweep_after}
sweep_per_second = 20
[accounts.main]
base_url = "{base_url}"
username = "ackgate"
password = "development-only"
ca_file = "{ca_file}"
webhook_token = "{token}"
timeout_seconds = 5
[accounts.main.contacts]
answer_seconds = 0.5
[accounts.main.policy]
mode = "auto"
[[accounts.main.policy.rules]]
name = "people"
wa_id_prefixes = ["1632"]
mode = "manual"
[apps.meta]
app_secret = "{secret}"
verify_token = "crash-verify-token"
[accounts.shop]
kind = "cloud"
app = "meta"
phone_number_id = "{shop}"
base_url = "http://127.0.0.1:9"
access_token = "crash-access-token"
[accounts.shop.policy]
mode = "manual"
[[accounts.shop.policy.rules]]
name = "later"
wa_id_prefixes = ["1643"]
mode = "auto"
delay_seconds = 0.2
[accounts.outlet]
kind = "cloud"
app = "meta"
phone_number_id = "{outlet}"
base_url = "http://127.0.0.1:9"
access_token = "crash-access-token"
"""
SECRET = "0123456789abcdef" * 2
COMMITS_AT_START = 4
"""Two accounts of the Cloud API look whether they were On-Premises before; checks that are due."""
SHOP, OUTLET = Number(), Number(phone_number_id="106540352242923")


@pytest.fixture
async def simulator(certificates: Path) -> AsyncIterator[Simulator]:
    options = Options(
        port=0,
        var=certificates,
        show_security_notifications=True,
        health_per_minute=100_000,
    )
    async with Simulator(options) as running:
        yield running


class Launcher:
    """The process that the services of a test are forked from, one at a time."""

    def __init__(self, *options: str) -> None:
        script = Path(__file__).with_name("launcher.py")
        environ = {k: v for k, v in os.environ.items() if not k.startswith("ACKGATE_")}
        self._process = subprocess.Popen(
            [sys.executable, str(script), *options],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def order(self, **what: str | None) -> int:
        """Start a service; give its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def ended(self) -> int:
        """Wait for its end; give its exit code, negative for a signal."""
        return self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    launched = Launcher("--alone")
    yield launched
    launched.close()


class Command:
    """The service, started again and again on the same database.

    `reached_at` is the URL of a PostgreSQL database as the service is to reach it, where that is
    another one. `drain_seconds` is how long it says that it stops before it does.
    """

    def __init__(
        self,
        folder: Path,
        simulator: Simulator,
        database_url: str,
        *,
        reached_at: str | None = None,
        drain_seconds: float = 0,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = folder / "ackgate.db"
        self.postgres_url = database_url if is_postgres(database_url) else None
        self.log = folder / "ackgate.log"
        self.config = folder / "ackgate.toml"
        self.sweeping = folder / "sweeping.toml"
        for file, sweep_after in ((self.config, 3600), (self.sweeping, 0.5)):
            file.write_text(
                CONFIG.format(
                    port=self.port,
                    drain_seconds=drain_seconds,
                    database=reached_at or database_url,
                    base_url=simulator.base_url,
                    ca_file=simulator.ca_file,
                    token=TOKEN,
                    sweep_after=sweep_after,
                    secret=SECRET,
                    shop=SHOP.phone_number_id,
                    outlet=OUTLET.phone_number_id,
                )
            )

    def relay_to(self, url: str, name: str = "crm", source: str = "callbacks") -> None:
        """Let all that arrives, or all events, go on to a sink."""
        table = f'[relays.{name}]\nurl = "{url}"\nsource = "{source}"\n'
        for file in (self.config, self.sweeping):
            file.write_text(file.read_text() + table)

    async def until_relayed(self, name: str = "crm", seconds: float = 60) -> None:
        """Wait until a relay has delivered everything."""
        url = f"{self.url}/api/v1/relays/{name}"
        async with asyncio.timeout(seconds), aiohttp.ClientSession() as http:
            while True:
                async with http.get(url) as response:
                    found = await response.json()
                assert not found["retrying"] + found["dead"] + found["skipped"], found
                if found["behind"] == 0:
                    return
                await asyncio.sleep(0.05)

    async def start(self, *before: str) -> asyncio.subprocess.Process:
        """Run the real command, behind another command if one is given."""
        return await asyncio.create_subprocess_exec(
            *before, sys.executable, "-m", "service", "serve", "--config", str(self.config)
        )

    async def ready(self, process: "asyncio.subprocess.Process | Forked") -> bool:
        """Wait until it takes callbacks; False when it ended before."""
        async with asyncio.timeout(30), aiohttp.ClientSession() as http:
            while process.returncode is None:
                with suppress(aiohttp.ClientError, OSError):
                    async with http.get(f"{self.url}/health/ready") as response:
                        if response.status == 200:
                            return True
                await asyncio.sleep(0.005)
        return False

    def left_behind(self, query: str) -> list[tuple[Any, ...]]:
        """Ask a copy of what a killed process left, so that it stays as it is."""
        if self.postgres_url is not None:
            return self.rows(query)
        folder = self.database.with_name("copy")
        folder.mkdir(exist_ok=True)
        for file in self.database.parent.glob("ackgate.db*"):
            shutil.copy(file, folder)
        with closing(sqlite3.connect(folder / self.database.name)) as connection:
            return connection.execute(query).fetchall()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the database of the service that runs."""
        if self.postgres_url is not None:
            return run(fetch(self.postgres_url, query))
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    async def until_idle(self, seconds: float = 60) -> None:
        """Wait until nothing is left to be done, and so nothing leased."""
        async with asyncio.timeout(seconds):
            while self.rows("SELECT 1 FROM outbox LIMIT 1"):
                await asyncio.sleep(0.05)


class Forked:
    """A service that the launcher forked."""

    def __init__(self, launcher: Launcher, command: Command, kill_at: str | None) -> None:
        config = command.config if kill_at is None else command.sweeping
        self.pid = launcher.order(config=str(config), kill_at=kill_at, log=str(command.log))
        self._ending = asyncio.create_task(asyncio.to_thread(launcher.ended))

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._ending.result() if self._ending.done() else None

    async def wait(self, seconds: float = 30) -> int:
        """Wait for its end; give its exit code, negative for a signal."""
        async with asyncio.timeout(seconds):
            return await asyncio.shield(self._ending)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def end(self) -> None:
        """End it, whatever became of the test."""
        self.send_signal(signal.SIGKILL)
        await self._ending


Start = Callable[..., Awaitable[Forked]]


@pytest.fixture
def command(database_url: str, tmp_path: Path, simulator: Simulator) -> Command:
    return Command(tmp_path, simulator, database_url)


@pytest.fixture
async def crm(command: Command) -> AsyncIterator[Sink]:
    """A sink to which the service relays everything; there is always some under way."""
    chance = random.Random(SEED)

    async def late(_: Delivery) -> web.Response:
        await asyncio.sleep(chance.random() / 10)
        return web.Response()

    async with sink(late) as made:
        command.relay_to(made.url)
        yield made


@pytest.fixture
async def start(command: Command, launcher: Launcher) -> AsyncIterator[Start]:
    """Start the service, to be killed at a point if one is named; it ends with the test."""
    started: list[Forked] = []

    async def start(kill_at: str | None = None) -> Forked:
        started.append(Forked(launcher, command, kill_at))
        return started[-1]

    yield start
    for process in started:
        await process.end()


@dataclass
class Person:
    """A user, with what the rules are to make of it."""

    wa_id: str
    automatic: bool
    hash: str = ""
    asked: str | None = None
    """The decision that was sent."""
    answered: bool = False
    """Whether it was answered with 2xx."""

    @property
    def states(self) -> set[str]:
        """The states that are right once nothing is left to be done."""
        decided = {"acknowledge": "acknowledged", "hold": "held"}.get(self.asked or "", "pending")
        if self.automatic:
            return {"acknowledged"}
        return {decided} if self.answered else {decided, "pending"}


@dataclass
class CloudPerson:
    """A user of the shop on the Cloud API, by all names that were told, and what is right."""

    names: set[str]
    right: set[tuple[str | None, str]] = field(default_factory=set)
    """Hash and state: one of them, or nothing at all where it is empty."""


@dataclass(frozen=True)
class Callback:
    """A callback that says which hash a user has; those of the Cloud API say it of more users."""

    wa_id: str
    hash: str
    body: bytes
    cloud: bool = False
    told: frozenset[tuple[str, str, str]] = frozenset()
    """Account, name and hash."""

    @property
    def says(self) -> set[tuple[str, str, str]]:
        return set(self.told) if self.cloud else {("main", self.wa_id, self.hash)}

    @property
    def concerns(self) -> set[tuple[str, str]]:
        """Account and name of each user."""
        return {(account, name) for account, name, _ in self.says}


@dataclass
class Load:
    """Sends callbacks and decisions as twelve senders, and remembers what was answered."""

    command: Command
    simulator: Simulator
    people: dict[str, Person] = field(default_factory=dict)
    customers: list[CloudPerson] = field(default_factory=list)
    """The users of the Cloud API."""
    accepted: list[Callback] = field(default_factory=list)
    owed: list[Callback] = field(default_factory=list)
    """What got no 200: the client delivers it again."""
    keeps_connections: bool = True
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def connections(self) -> aiohttp.ClientSession:
        """Return a session to send with."""
        connector = aiohttp.TCPConnector(force_close=not self.keeps_connections)
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        return aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def send_until(self, stop: asyncio.Event) -> None:
        async with self.connections() as http:
            await asyncio.gather(*(self._send(http, stop) for _ in range(SENDERS)))

    async def deliver_again(self) -> None:
        """Deliver what got no 200, in whatever order; now all of it is taken."""
        again, self.owed = self.owed, []
        random.Random(SEED).shuffle(again)
        async with self.connections() as http:
            await asyncio.gather(*(self.deliver(http, callback) for callback in again))
        assert not self.owed

    async def deliver(self, http: aiohttp.ClientSession, callback: Callback) -> bool:
        """Deliver one callback; tell whether it was answered with 200."""
        endpoint = "meta" if callback.cloud else f"main/{TOKEN}"
        url = f"{self.command.url}/webhooks/{endpoint}"
        with suppress(aiohttp.ClientError, OSError):
            headers = {"Content-Type": "application/json"}
            if callback.cloud:
                headers |= signature(SECRET, callback.body)
            async with http.post(url, data=callback.body, headers=headers) as response:
                if response.status == 200:
                    self.accepted.append(callback)
                    return True
        self.owed.append(callback)
        return False

    async def _send(self, http: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        while not stop.is_set():
            number = next(self._numbers)
            await FLAVOURS[number % len(FLAVOURS)](self, http, number)
            await asyncio.sleep(0.002 if number < UNHURRIED else 0.05)

    def _person(self, number: int, *, automatic: bool = True) -> Person:
        wa_id = f"{'1631' if automatic else '1632'}{number:07}"
        return self.people.setdefault(wa_id, Person(wa_id, automatic))

    def _changed(self, person: Person, at_ms: int | None = None) -> Callback:
        """Let the identity change, and give the notification of it."""
        person.hash = self.simulator.change_identity(person.wa_id, at_ms=at_ms, notify=False)
        at_ms = self.simulator.users[person.wa_id].created_timestamp
        body = json.dumps(notice(person.wa_id, person.hash, at_ms)).encode()
        return Callback(person.wa_id, person.hash, body)

    async def once(self, http: aiohttp.ClientSession, number: int) -> None:
        await self.deliver(http, self._changed(self._person(number)))

    async def twice_at_once(self, http: aiohttp.ClientSession, number: int) -> None:
        changed = self._changed(self._person(number))
        await asyncio.gather(self.deliver(http, changed), self.deliver(http, changed))

    async def again_twice_at_once(self, http: aiohttp.ClientSession, number: int) -> None:
        await self.once(http, number)
        await self.twice_at_once(http, number)

    async def two_changes(self, http: aiohttp.ClientSession, number: int) -> None:
        await self.once(http, number)
        await self.once(http, number)

    async def the_later_change_first(self, http: aiohttp.ClientSession, number: int) -> None:
        person, now = self._person(number), wall_clock()
        earlier, later = (self._changed(person, at_ms) for at_ms in (now - 2000, now))
        await self.deliver(http, later)
        await self.deliver(http, earlier)

    async def the_answer_is_lost(self, http: aiohttp.ClientSession, number: int) -> None:
        wa_id = self._person(number).wa_id
        self.simulator.fault("identity_put", wa_id=wa_id, times=1, drop="after")
        await self.once(http, number)

    async def the_answer_never_comes(self, http: aiohttp.ClientSession, number: int) -> None:
        wa_id = self._person(number).wa_id
        self.simulator.fault("identity_put", wa_id=wa_id, times=1, hang=0.2, effect=True)
        await self.once(http, number)

    async def the_client_fails(self, http: aiohttp.ClientSession, number: int) -> None:
        if number % 5 == 0:
            wa_id = self._person(number).wa_id
            self.simulator.fault("identity_put", wa_id=wa_id, times=1, status=500)
        await self.once(http, number)

    async def waits_for_a_person(self, http: aiohttp.ClientSession, number: int) -> None:
        await self.deliver(http, self._changed(self._person(number, automatic=False)))

    async def a_person_acknowledges(self, http: aiohttp.ClientSession, number: int) -> None:
        await self._decided(http, number, "acknowledge")

    async def a_person_holds(self, http: aiohttp.ClientSession, number: int) -> None:
        await self._decided(http, number, "hold")

    async def a_message_claims(self, http: aiohttp.ClientSession, number: int) -> None:
        """Claim what isn't so: the client is asked, and the identity stays pending."""
        person = self._person(number, automatic=False)
        self.simulator.fault("identity_get", wa_id=person.wa_id, times=1, latency=0.1)
        await self.deliver(http, self._changed(person))
        at_ms = self.simulator.users[person.wa_id].created_timestamp
        body = json.dumps(wrote(person.wa_id, person.hash, at_ms, acknowledged=True)).encode()
        await self.deliver(http, Callback(person.wa_id, person.hash, body))

    async def _decided(self, http: aiohttp.ClientSession, number: int, verb: str) -> None:
        person = self._person(number, automatic=False)
        if not await self.deliver(http, self._changed(person)):
            return
        person.asked = verb
        url = f"{self.command.url}/api/v1/accounts/main/identities/{person.wa_id}/{verb}"
        with suppress(aiohttp.ClientError, OSError):
            async with http.post(url, json={"hash": person.hash}) as response:
                person.answered = response.status in {200, 202}

    def _customer(self, number: int, prefix: str = "1641") -> tuple[CloudPerson, CloudUser]:
        user = CloudUser(wa_id=f"{prefix}{number:07}", user_id=f"US.{number:016}")
        self.customers.append(CloudPerson(user.aliases))
        return self.customers[-1], user

    async def _told(self, http: aiohttp.ClientSession, *updates: webhooks.Update) -> bool:
        """Deliver one webhook; tell whether it was answered with 200."""
        told = {said for update in updates for said in _said_by(update)}
        callback = Callback("", "", webhooks.webhook(*updates), cloud=True, told=frozenset(told))
        return await self.deliver(http, callback)

    async def _decide_locally(
        self, http: aiohttp.ClientSession, user: CloudUser, hash_: str | None
    ) -> bool:
        """Acknowledge on the Cloud API; tell whether it was answered."""
        url = f"{self.command.url}/api/v1/accounts/shop/identities/{user.wa_id}/acknowledge"
        with suppress(aiohttp.ClientError, OSError):
            async with http.post(url, json={"hash": hash_}) as response:
                return response.status == 200
        return False

    async def a_customer_writes(self, http: aiohttp.ClientSession, number: int) -> None:
        """Trust the first hash, delivered twice at once."""
        person, user = self._customer(number)
        person.right = {(user.hash, "acknowledged")}
        wrote = webhooks.wrote(SHOP, user, _ago(100))
        body = Callback("", "", webhooks.webhook(wrote), cloud=True, told=_said_by(wrote))
        await asyncio.gather(self.deliver(http, body), self.deliver(http, body))

    async def a_status_tells_another_hash(self, http: aiohttp.ClientSession, number: int) -> None:
        """Let a status tell of a change, in any order: it waits for a person."""
        person, user = self._customer(number)
        wrote = webhooks.wrote(SHOP, user, _ago(100))
        user.hash = f"another{number}="
        person.right = {(user.hash, "pending")}
        told = webhooks.delivered(SHOP, user, _ago(50))
        await asyncio.gather(self._told(http, told), self._told(http, wrote))

    async def a_message_is_refused(self, http: aiohttp.ClientSession, number: int) -> None:
        """Let a hash become unknown; approve a message without one; take the hash that follows."""
        person, user = self._customer(number)
        person.right = {(user.hash, "acknowledged")}
        if not await self._told(http, webhooks.wrote(SHOP, user, _ago(100))):
            return
        person.right = {(None, "pending")}
        if not await self._told(http, webhooks.refused(SHOP, user.wa_id or "", _ago(0))):
            return
        person.right.add((None, "awaiting_hash"))
        if not await self._decide_locally(http, user, None):
            return
        user.hash = f"another{number}="
        person.right = {(user.hash, "acknowledged")}
        await self._told(http, webhooks.delivered(SHOP, user, _ago(0)))

    async def a_person_trusts(self, http: aiohttp.ClientSession, number: int) -> None:
        """Let a person acknowledge another hash."""
        person, user = self._customer(number)
        person.right = {(user.hash, "acknowledged")}
        if not await self._told(http, webhooks.wrote(SHOP, user, _ago(100))):
            return
        user.hash = f"another{number}="
        person.right = {(user.hash, "pending")}
        if not await self._told(http, webhooks.wrote(SHOP, user, _ago(50))):
            return
        person.right.add((user.hash, "acknowledged"))
        if await self._decide_locally(http, user, user.hash):
            person.right.remove((user.hash, "pending"))

    async def trust_comes_due(self, http: aiohttp.ClientSession, number: int) -> None:
        """Let another hash be trusted by policy, a moment later."""
        person, user = self._customer(number, "1643")
        person.right = {(user.hash, "acknowledged")}
        if await self._told(http, webhooks.wrote(SHOP, user, _ago(100))):
            user.hash = f"another{number}="
            person.right = {(user.hash, "acknowledged")}
            await self._told(http, webhooks.delivered(SHOP, user, _ago(50)))

    async def two_turn_out_to_be_one(self, http: aiohttp.ClientSession, number: int) -> None:
        """Tell of one user by number, by user id, and by both, in any order."""
        person, user = self._customer(number)
        person.right = {(f"another{number}=", "pending")}
        by_number = webhooks.wrote(SHOP, user, _ago(100), webhooks.BY_NUMBER)
        user.hash, user.hidden = f"another{number}=", True
        by_id = webhooks.wrote(SHOP, user, _ago(60))
        user.hidden = False
        both = webhooks.wrote(SHOP, user, _ago(30))
        await asyncio.gather(*(self._told(http, one) for one in (by_number, by_id, both)))

    async def many_of_two_accounts(self, http: aiohttp.ClientSession, number: int) -> None:
        """Tell of several users of two accounts in one webhook, which is cut by account."""
        updates = []
        for n in range(4):
            person, user = self._customer(MANY * number + n)
            person.right = {(user.hash, "acknowledged")}
            updates += [webhooks.wrote(line, user, _ago(100)) for line in (SHOP, OUTLET)]
        await self._told(http, *updates)

    def assert_relayed(self, taken: Sequence[Delivery]) -> None:
        """Every callback came to the sink as it is, and those of a user in order the first time."""
        bodies = dict(self.command.rows("SELECT id, body FROM journal"))
        first = list(dict.fromkeys(int(delivery.id.partition(".")[2]) for delivery in taken))
        assert not [d for d in taken if bodies[int(d.id.partition(".")[2])] != d.body]
        assert set(first) == set(bodies), "each callback of the journal at least once"
        assert not Counter(c.body for c in self.accepted) - Counter(bodies[id_] for id_ in first)
        concerned = {callback.body: callback.concerns for callback in self.accepted}
        by_user: dict[tuple[str, str], list[int]] = {}
        for id_ in first:
            for user in concerned.get(bodies[id_], ()):
                by_user.setdefault(user, []).append(id_)
        assert not {user: ids for user, ids in by_user.items() if ids != sorted(ids)}

    def assert_in_effect(self) -> None:
        """Every 200 is kept as it came, and is the latest of its user or in the history."""
        rows = self.command.rows
        bodies = Counter(body for (body,) in rows("SELECT body FROM journal"))
        assert not Counter(c.body for c in self.accepted) - bodies
        assert not rows("SELECT reason FROM journal WHERE state != 'applied'")
        of = "FROM aliases a JOIN users u ON u.id = a.user_id"
        known = set(rows(f"SELECT a.account, a.alias, u.hash {of}"))
        known |= set(
            rows(f"SELECT a.account, a.alias, c.hash {of} JOIN changes c ON c.user_id = u.id")
        )
        assert not {said for callback in self.accepted for said in callback.says} - known
        if self.command.postgres_url is None:
            assert rows("PRAGMA integrity_check") == [("ok",)]
            assert not rows("PRAGMA foreign_key_check")

    def assert_as_the_rules_give(self) -> None:
        """Each identity is in its state, here and at the client, and nothing happened twice."""
        self.assert_in_effect()
        self._assert_states()
        self._assert_states_of_the_shop()
        self._assert_nothing_twice()
        self._assert_told()

    def _assert_states(self) -> None:
        rows = self.command.rows("SELECT wa_id, hash, state FROM users WHERE account = 'main'")
        found = {wa_id: (hash_, state) for wa_id, hash_, state in rows}
        at_the_client = self.simulator.users
        for person in self.people.values():
            hash_, state = found[person.wa_id]
            assert hash_ == person.hash == at_the_client[person.wa_id].hash, person
            assert state in person.states, (person, state)
            acknowledged = at_the_client[person.wa_id].acknowledged
            assert acknowledged is (state == "acknowledged"), person
        assert found.keys() == self.people.keys()

    def _assert_states_of_the_shop(self) -> None:
        rows = self.command.rows(
            "SELECT a.alias, u.id, u.hash, u.state FROM aliases a JOIN users u ON u.id = a.user_id "
            "WHERE a.account = 'shop'"
        )
        found = {alias: (id_, hash_, state) for alias, id_, hash_, state in rows}
        for person in self.customers:
            known = {found[name] for name in person.names if name in found}
            assert {(hash_, state) for _, hash_, state in known} <= person.right, person
            assert len(known) == bool(person.right), person
        names = {name for person in self.customers for name in person.names}
        assert found.keys() <= names

    def _assert_told(self) -> None:
        """The last event of each identity tells the state that it has."""
        rows = self.command.rows
        query = "SELECT type, names, data FROM events WHERE type LIKE 'identity.%' ORDER BY id"
        told = {
            name: (type_, json.loads(data)["hash"])
            for type_, names, data in rows(query)
            for name in json.loads(names)
        }
        of_main = "SELECT wa_id, state, hash FROM users WHERE account = 'main'"
        for wa_id, state, hash_ in rows(of_main):
            assert told[wa_id] == (f"identity.{state}", hash_)
        # Once until it is cleared. Where whoever looks at an account is killed, or the database is
        # away, one may well be cleared and raised again.
        standing: set[tuple[str, ...]] = set()
        of_issues = "SELECT type, account, data FROM events WHERE type LIKE 'issue.%' ORDER BY id"
        for type_, account, data in rows(of_issues):
            issue = json.loads(data)
            key = account, issue["code"], issue["subject"]
            assert (key in standing) is (type_ == "issue.cleared"), (type_, key)
            standing ^= {key}

    def _assert_nothing_twice(self) -> None:
        rows = self.command.rows
        twice = "SELECT event FROM audit GROUP BY user_id, hash, event HAVING count(*) > 1"
        assert set(rows(twice)) <= {("send_blocked",)}
        # A hash is acknowledged once: what a PUT came to that was cut off, a GET tells.
        came_to = Counter(
            (call.wa_id, call.hash)
            for call in self.simulator.puts
            if call.outcome in {"acknowledged", "already"}
        )
        assert set(came_to.values()) <= {1}
        waiting = {p.wa_id for p in self.people.values() if not p.automatic and p.asked is None}
        assert not waiting & {call.wa_id for call in self.simulator.puts}


def _ago(seconds: int) -> int:
    """Give a Unix second so long ago."""
    return wall_clock() // 1000 - seconds


def _said_by(update: webhooks.Update) -> frozenset[tuple[str, str, str]]:
    """Tell account, name and hash of all that an update says of identities."""
    account = "shop" if update.number == SHOP else "outlet"
    found = {
        (account, element[name], element[hash_])
        for key, names, hash_ in (
            ("contacts", ("wa_id", "user_id"), "identity_key_hash"),
            ("statuses", ("recipient_id", "recipient_user_id"), "recipient_identity_key_hash"),
        )
        for element in update.lists.get(key, ())
        for name in names
        if name in element and hash_ in element
    }
    return frozenset(found)


FLAVOURS = (
    Load.once,
    Load.a_customer_writes,
    Load.a_message_is_refused,
    Load.a_person_trusts,
    Load.trust_comes_due,
    Load.many_of_two_accounts,
    Load.waits_for_a_person,
    Load.twice_at_once,
    Load.again_twice_at_once,
    Load.a_person_acknowledges,
    Load.two_changes,
    Load.a_message_claims,
    Load.the_later_change_first,
    Load.the_answer_is_lost,
    Load.a_person_holds,
    Load.a_status_tells_another_hash,
    Load.two_turn_out_to_be_one,
    Load.the_answer_never_comes,
    Load.the_client_fails,
)
"""What the senders do, in turns."""


@pytest.fixture
def load(command: Command, simulator: Simulator) -> Load:
    return Load(command, simulator)
