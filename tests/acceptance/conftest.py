"""A whole installation on real sockets: the service, its database, and a simulated client."""

import asyncio
import base64
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool
from yarl import URL

from service.api.context import Leading
from service.app import Service, running
from service.model.users import Kind
from service.settings import load
from service.simulator import CloudOptions, Options, Simulator
from service.simulator.cloud import bodies as cloud_bodies
from service.simulator.cloud.cloud import Cloud, CloudMessage
from service.simulator.onprem import bodies as callback_bodies
from service.simulator.options import Number
from service.simulator.users import User
from service.store import maintenance, postgres, sqlite
from service.store.database import ChangeSet, wall_clock
from service.store.opening import is_postgres
from service.store.operating import operated
from service.store.schema import metadata
from tests import answers
from tests.postgres import copy_of, put_back
from tests.storing import open_transactions, restore_once_unread, until_settled

TOKEN = "a-token-that-only-tests-know"
WA_ID = "16315553601"
OTHER_ID = "16315553602"

HASH_A, HASH_B, HASH_C = "Rc/eg9Rl0JA=", "Sjvjlx8G6Z0=", "UKD6Y/5SqDU="

NUMBER, OTHER_NUMBER, STRANGE_NUMBER = "106540352242922", "106540352242923", "999999999999999"
"""Business numbers of the Cloud API: one of each account, and one that no account has."""
SHEENA, USER_ID = "16505551234", "US.13491208655302741918"
APP_SECRET, ACCESS_TOKEN = "0123456789abcdef" * 2, "EAAG-a-token"
APP_ENDPOINT = "/webhooks/meta"

LOGS = ("/journal", "/audit", "/events", "/identities", "/api/v1/journal", "/api/v1/audit")
"""What is listed as far as it is settled."""

Json = dict[str, Any]
Answer = tuple[int, Any]
Backup = Path | Mapping[str, bytes]


HOUR_AGO = (int(time.time()) - 3600) * 1000


def hour_ago(seconds: float = 0) -> int:
    """Give a time in Unix milliseconds, so many seconds after a whole second an hour ago."""
    return HOUR_AGO + round(seconds * 1000)


def rfc3339(at_ms: int) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000))
    return f"{whole}.{at_ms % 1000:03d}Z"


def digest_of(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def toml(tree: Mapping[str, Any], path: str = "") -> str:
    """Write a tree of tables as TOML."""
    lines = [f"[{path}]"] if path else []
    lines += [f"{_key(k)} = {_value(v)}" for k, v in tree.items() if not isinstance(v, dict)]
    below = [toml(v, f"{path}.{k}" if path else k) for k, v in tree.items() if isinstance(v, dict)]
    return "\n".join([*lines, *below]) + "\n"


def _key(name: str) -> str:
    return json.dumps(name) if "@" in name else name


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k} = {_value(v)}' for k, v in value.items())}}}"
    return json.dumps(str(value) if isinstance(value, Path) else value)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Json:
    """Put one tree over another; None takes a key away."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[key] = merge(below, value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def notice(wa_id: str, hash_: str, at_ms: int) -> Json:
    """Write the notification of an identity change, its time to the millisecond."""
    return callback_bodies.identity_changed(User(wa_id, hash_, at_ms, acknowledged=False))


def vague_notice(wa_id: str, hash_: str, at_ms: int | None) -> Json:
    """Write a notification whose id tells no time: the timestamp is of whole seconds, or none."""
    message = notice(wa_id, hash_, at_ms or 0)["messages"][0]
    message["id"] = callback_bodies.inbound_id(wa_id)
    if at_ms is None:
        del message["timestamp"]
    return {"messages": [message]}


def wrote(
    wa_id: str,
    hash_: str,
    created_ms: int,
    *,
    acknowledged: bool | None = None,
    said_ms: int | None = None,
) -> Json:
    """Write a message of a user that tells the identity."""
    user = User(wa_id, hash_, created_ms, acknowledged=bool(acknowledged))
    said = wall_clock() if said_ms is None else said_ms
    body = callback_bodies.text_message(user, "Hello", "A user", said, with_identity=True)
    if acknowledged is None:
        del body["messages"][0]["identity"]["acknowledged"]
    return body


def blocked(wa_id: str, message_id: str | None = None) -> Json:
    """Write the status of a message that failed with 480."""
    return callback_bodies.blocked(
        message_id or callback_bodies.outbound_id(wa_id), wa_id, wall_clock()
    )


async def until(
    true: Callable[[], Awaitable[Any] | Any], seconds: float = 15, what: str = ""
) -> Any:
    """Wait until something is true, and give it; fail when the time is up."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while True:
        found = true()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not so within {seconds} s: {what or true}")
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.05)


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


@dataclass
class Caller:
    """Calls a service at its address, as the WhatsApp client does and as the business does."""

    http: aiohttp.ClientSession
    base: str = ""
    inside: str = ""
    """The address of the API, where it is not that of the endpoint."""
    key: str | None = None
    tls: ssl.SSLContext | bool = True
    account: str = "main"
    """The account that is asked about."""

    async def api(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call a route, below /api/v1 where it names no other; give status and JSON."""
        status, answer, _ = await self.call(method, path, body, key=key, headers=headers)
        return status, answer

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any, Mapping[str, str]]:
        if method == "GET" and path.startswith(LOGS):
            await self.settled()
        whole = (
            path if path.startswith(("/api", "/health", "/openapi", "/metrics", "/docs")) else None
        )
        url = URL(f"{self.inside or self.base}{whole or '/api/v1' + path}", encoded=True)
        sent = dict(headers or {})
        if chosen := key or self.key:
            sent["Authorization"] = f"Bearer {chosen}"
        data = None if body is None else BytesIO(_bytes(body))
        async with self.http.request(
            method, url, data=data, headers=sent, ssl=self.tls
        ) as response:
            raw = await response.read()
            answers.check(method, url.raw_path, response.status, response.content_type, raw)
            is_json = response.content_type.endswith("json")
            return response.status, json.loads(raw) if is_json else raw.decode(), response.headers

    async def settled(self) -> None:
        """Wait until lists show all that is stored by now: on PostgreSQL a moment later."""

    async def post(
        self,
        body: Any,
        *,
        path: str = f"/webhooks/main/{TOKEN}",
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Deliver a callback as the client does; give the status."""
        sent = {"Content-Type": "application/json", **(headers or {})}
        url = URL(self.base + path, encoded=True)
        data = BytesIO(_bytes(body))
        async with self.http.post(url, data=data, headers=sent, ssl=self.tls) as response:
            answered = await response.read()
            if response.status == 200:
                assert answered == b"{}"
            return response.status

    async def deliver(self, *bodies: Any) -> None:
        """Deliver callbacks, one after another; each is taken."""
        for body in bodies:
            assert await self.post(body) == 200

    def of(self, account: str) -> Self:
        """Ask about another account."""
        return replace(self, account=account)

    async def identity(self, wa_id: str = WA_ID, account: str | None = None) -> Json:
        """Give an identity with its history and audit; empty where there is none."""
        path = f"/accounts/{account or self.account}/identities/{wa_id}"
        status, found = await self.api("GET", path)
        assert status in {200, 404}, found
        return dict(found) if status == 200 else {}

    async def state(self, wa_id: str = WA_ID) -> str | None:
        return (await self.identity(wa_id)).get("state")

    async def becomes(self, state: str, wa_id: str = WA_ID, hash_: str | None = None) -> Json:
        """Wait until an identity is in a state."""

        async def found() -> Json | None:
            shown = await self.identity(wa_id)
            is_it = shown.get("state") == state and hash_ in (None, shown["hash"])
            return shown if is_it else None

        return dict(await until(found, what=f"{state} of {wa_id}"))

    async def audit(self, wa_id: str = WA_ID, event: str | None = None) -> list[Json]:
        entries = (await self.identity(wa_id)).get("audit", [])
        return [entry for entry in entries if event in (None, entry["event"])]

    async def gate(self, wa_id: str = WA_ID) -> Json:
        status, answer = await self.api("GET", f"/accounts/{self.account}/recipients/{wa_id}")
        assert status == 200, answer
        return dict(answer)

    async def reasons(self, wa_id: str = WA_ID) -> list[str]:
        """Give the codes of the gate's reasons against writing to a user."""
        answer = await self.gate(wa_id)
        codes = [reason["code"] for reason in answer["reasons"]]
        assert answer["sendable"] is not bool(codes)
        return codes

    async def decide(
        self, verb: str, hash_: str | None, wa_id: str = WA_ID, *, query: str = "", **more: Any
    ) -> Answer:
        path = f"/accounts/{self.account}/identities/{wa_id}/{verb}{query}"
        return await self.api("POST", path, {"hash": hash_, **more})

    async def acknowledge(
        self, hash_: str | None, wa_id: str = WA_ID, *, query: str = "", **more: Any
    ) -> Answer:
        return await self.decide("acknowledge", hash_, wa_id, query=query, **more)

    async def hold(self, hash_: str | None, wa_id: str = WA_ID, **more: Any) -> Answer:
        return await self.decide("hold", hash_, wa_id, **more)

    async def refresh(self, wa_id: str = WA_ID) -> Answer:
        return await self.api("POST", f"/accounts/{self.account}/identities/{wa_id}/refresh")

    async def journal(self) -> list[Json]:
        status, listed = await self.api("GET", "/journal?limit=1000")
        assert status == 200, listed
        return list(listed["items"])

    async def entry(self, number: int = 0) -> str:
        """Give the path of a callback in the journal; the first one has the number 0."""
        return f"/journal/{(await self.journal())[number]['id']}"

    async def quarantined(self) -> list[Json]:
        status, listed = await self.api("GET", "/journal?state=quarantined&limit=1000")
        assert status == 200, listed
        return list(listed["items"])


@asynccontextmanager
async def opened_beside(url: str) -> AsyncIterator[AsyncConnection]:
    """Open a database beside a service; each statement is a transaction of its own."""
    options: Json = {"isolation_level": "AUTOCOMMIT", "poolclass": NullPool}
    if url.startswith("postgresql"):
        engine = create_async_engine("postgresql+asyncpg://", connect_args={"dsn": url}, **options)
    else:
        file = url.replace("sqlite:", "sqlite+aiosqlite:", 1)
        engine = create_async_engine(file, connect_args={"timeout": 30}, **options)
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


async def rows_of(url: str, query: str, **values: Any) -> list[tuple[Any, ...]]:
    """Give the rows of a query, whatever a service does meanwhile."""
    async with opened_beside(url) as connection:
        return [tuple(row) for row in await connection.execute(text(query), values)]


async def settled(url: str) -> None:
    """Wait until every transaction that has begun by now has ended."""
    if not url.startswith("postgresql"):
        return
    async with opened_beside(url) as connection:
        await until_settled(lambda: connection.run_sync(open_transactions))


@dataclass
class Installation(Caller):
    """A service in this event loop, with its simulated client."""

    sim: Simulator = field(kw_only=True)
    tree: Json = field(kw_only=True)
    folder: Path = field(kw_only=True)
    service: Service | None = None
    _running: AsyncExitStack = field(default_factory=AsyncExitStack)
    _ahead_ms: int = 0

    @property
    def database(self) -> Path:
        """The file of SQLite, for tests with the mark `sqlite`."""
        return self.folder / "ackgate.db"

    @property
    def database_url(self) -> str:
        return str(self.tree["database"]["url"])

    @property
    def leading(self) -> Leading:
        """The parts of the leader, where that is this service."""
        assert self.service is not None
        assert self.service.context is not None
        assert self.service.context.leading is not None
        return self.service.context.leading

    async def settled(self) -> None:
        await settled(self.database_url)

    @property
    def is_on_a_file(self) -> bool:
        return self.database_url.startswith("sqlite")

    async def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        """Give the rows of a query, whatever the service does meanwhile."""
        return await rows_of(self.database_url, query, **values)

    async def write(self, statement: str, **values: Any) -> int:
        """Change rows beside the service; give how many."""
        async with opened_beside(self.database_url) as connection:
            return int((await connection.execute(text(statement), values)).rowcount)

    async def back_up(self) -> Backup:
        """Make a backup, as is done with such a database."""
        if not self.is_on_a_file:
            return await copy_of(self.database_url)
        file = self.folder / f"backup-{time.monotonic_ns()}"
        maintenance.back_up(self.database, file, lambda *_: None)
        return file

    async def restore(self, backup: Backup) -> None:
        """Restore a backup, as is done with such a database, and start again."""
        await self.stop()
        if isinstance(backup, Path):
            times = len(list(self.folder.glob("*.replaced-*")))
            now = datetime.now(UTC) - timedelta(minutes=times)  # each has a name of its own
            await restore_once_unread(self.database, backup, now)
        else:
            await put_back(self.database_url, backup)
            database = operated(self.database_url)
            await asyncio.to_thread(database.mark_restored, datetime.now(UTC))
        await self.start()

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Let nobody else write to the database, once each transaction that does so has ended.

        On PostgreSQL the service leads on meanwhile: its lease is not locked.
        """
        async with opened_beside(self.database_url) as connection:
            if connection.dialect.name == "sqlite":
                begin = ["BEGIN IMMEDIATE"]
            else:
                tables = ", ".join(metadata.tables.keys() - {"leadership", "replicas"})
                begin = ["BEGIN", f"LOCK TABLE {tables} IN EXCLUSIVE MODE"]
            for statement in begin:
                await connection.exec_driver_sql(statement)
            yield
            await connection.exec_driver_sql("COMMIT")

    def written(self) -> Path:
        """Write the configuration file; with a public URL it needs a key, where it has none yet."""
        if "public_url" in self.tree["server"] and "api" not in self.tree:
            self.key = "key-of-the-tests"
            keys = {"local": {"role": "admin", "sha256": digest_of(self.key)}}
            self.tree = merge(self.tree, {"api": {"keys": keys}})
        file = self.folder / "ackgate.toml"
        file.write_text(toml(self.tree))
        return file

    async def start(self, **over: Any) -> None:
        """Start the service; `over` is put over the configuration."""
        self.tree = merge(self.tree, over)
        settings = load(self.written(), {})
        self.service = await self._running.enter_async_context(running(settings))
        assert self.service.context is not None
        self.service.context.database.clock = self._now
        outside, *inside = self.service.urls
        self.base = outside.replace("0.0.0.0", "127.0.0.1")
        self.inside = inside[0] if inside else ""
        self.sim.webhook_url = f"{self.base}/webhooks/main/{TOKEN}"

    async def stop(self) -> None:
        """Stop the service as a signal would, but at once."""
        await self._running.aclose()
        self.service = None

    def _now(self) -> int:
        return wall_clock() + self._ahead_ms

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the service: what becomes due meanwhile is done now."""
        self._ahead_ms += round(1000 * seconds)
        assert self.service is not None
        assert self.service.context is not None
        context = self.service.context
        woken = ChangeSet(
            work={(name, kind) for name in context.settings.accounts for kind in Kind},
            checks=set(context.clients),
        )
        for listener in context.ledger.listeners:
            listener(woken)

    async def change(
        self, wa_id: str = WA_ID, hash_: str | None = None, at_ms: int | None = None
    ) -> str:
        """Let a user's identity change, and the notification arrive."""
        changed = self.sim.change_identity(wa_id, hash_, at_ms, notify=False)
        user = self.sim.users[wa_id]
        await self.deliver(notice(wa_id, user.hash, user.created_timestamp))
        return changed

    async def acknowledged(self, wa_id: str = WA_ID, hash_: str | None = None) -> str:
        """Let a user's identity have changed, and been acknowledged by a person."""
        changed = await self.change(wa_id, hash_, hour_ago(-60) if hash_ else None)
        status, answer = await self.acknowledge(changed, wa_id, query="?wait=10")
        assert (status, answer["state"]) == (200, "acknowledged")
        return changed

    def puts(self, wa_id: str = WA_ID) -> list[str]:
        """Give what each PUT for a user came to at the client."""
        return [call.outcome for call in self.sim.puts if call.wa_id == wa_id]

    def gets(self, wa_id: str = WA_ID) -> int:
        """Count the GETs of a user's identity."""
        return len(self.sim.calls.of("identity_get", wa_id))

    async def put_under_way(self, count: int = 1) -> None:
        """Wait until so many PUTs are open at the client."""
        await until(lambda: self.sim.calls.in_flight["identity_put"] >= count)

    async def send(self, to: str = WA_ID) -> int | None:
        """Send a message as the business does; give the error that refused it, None if none."""
        tls = ssl.create_default_context(cafile=self.sim.ca_file)
        basic = base64.b64encode(b"ackgate:development-only").decode()
        headers = {"Authorization": f"Basic {basic}"}
        login = f"{self.sim.base_url}/v1/users/login"
        async with self.http.post(login, headers=headers, ssl=tls) as response:
            token = (await response.json())["users"][0]["token"]
        message = {"to": to, "type": "text", "text": {"body": "Hello"}}
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self.sim.base_url}/v1/messages"
        async with self.http.post(url, headers=headers, json=message, ssl=tls) as response:
            answer = await response.json()
            return None if response.status == 200 else int(answer["errors"][0]["code"])


@dataclass
class CloudInstallation(Installation):
    """A service with accounts of both kinds: the simulator is the client of one, and Meta."""

    account: str = "shop"

    async def start(self, **over: Any) -> None:
        """Start the service, and register its endpoint with the app."""
        await super().start(**over)
        self.meta.webhook_url = self.base + APP_ENDPOINT

    @property
    def meta(self) -> Cloud:
        return self.sim.cloud

    async def come(self, *webhooks: Any) -> None:
        """Let webhooks come, one after another, signed by the app; each is taken."""
        for webhook in webhooks:
            self.meta.send_callback(webhook)
            await self.meta.settled()

    async def deliver_signed(self, raw: bytes, secret: str = APP_SECRET) -> int:
        """Deliver a webhook once, and give the status."""
        return await self.post(raw, path=APP_ENDPOINT, headers=signed(raw, secret))

    async def send_along(self, hash_: str | None = None, to: str = SHEENA) -> CloudMessage:
        """Send a message as the business does, with a hash if one is given; all statuses come."""
        tls = ssl.create_default_context(cafile=self.sim.ca_file)
        message: Json = {"messaging_product": "whatsapp", "type": "text", "text": {"body": "Hello"}}
        message["recipient" if "." in to else "to"] = to
        if hash_ is not None:
            message["recipient_identity_key_hash"] = hash_
        url = f"{self.sim.graph_url}/{NUMBER}/messages"
        headers = {"Authorization": f"Bearer {ACCESS_TOKEN}"}
        async with self.http.post(url, headers=headers, json=message, ssl=tls) as response:
            assert response.status == 200, await response.text()
        await self.meta.settled()
        return self.meta.messages[-1]


def signed(raw: bytes, secret: str = APP_SECRET) -> dict[str, str]:
    """Sign a webhook as Meta does."""
    return {"X-Hub-Signature-256": cloud_bodies.signature(secret, raw)}


@dataclass
class Child(Caller):
    """The real command in a process of its own."""

    config: Path = field(kw_only=True)
    database_url: str = field(kw_only=True)
    env: Mapping[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    lines: list[str] = field(default_factory=list)
    _reader: asyncio.Task[None] | None = None

    async def settled(self) -> None:
        await settled(self.database_url)

    def write(self, tree: Json) -> None:
        """Write the configuration file; the database stays the same one."""
        self.config.write_text(toml(merge(tree, {"database": {"url": self.database_url}})))

    async def start(self) -> None:
        """Start the command, and wait until it listens."""
        await self.spawn()
        assert self.process is not None

        def listens() -> bool:
            assert self.process is not None
            assert self.process.returncode is None, self.lines
            return self.base != ""

        await until(listens, 30, "it listens")

    async def spawn(self, stderr: int = asyncio.subprocess.PIPE) -> None:
        self.base = ""
        self.lines.clear()
        environ = {k: v for k, v in os.environ.items() if not k.startswith("ACKGATE_")}
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", "serve", "--config", str(self.config)),
            env={**environ, **self.env},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=stderr,
        )
        if stderr == asyncio.subprocess.PIPE:
            self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process is not None
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            line = raw.decode().rstrip("\n")
            self.lines.append(line)
            if '"listening"' in line:
                self.base = self.base or json.loads(line)["address"]

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self, seconds: float = 30) -> int:
        """Wait for the end of the process; give its exit code."""
        assert self.process is not None
        code = await asyncio.wait_for(self.process.wait(), seconds)
        if self._reader is not None:
            await self._reader
        return code

    async def kill(self) -> None:
        """End the process as a power cut would."""
        if self.process is not None and self.process.returncode is None:
            self.signal(signal.SIGKILL)
        if self.process is not None:
            await self.ended()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the simulated client's certificate, made once."""
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def http(stack: AsyncExitStack) -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=60),
    )
    return await stack.enter_async_context(session)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a service that starts from now on give up soon on a database that is locked."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setitem(postgres.HOT_SETTINGS, "lock_timeout", "100")


Start = Callable[..., Awaitable[Simulator]]
Install = Callable[..., Awaitable[Installation]]
Spawn = Callable[..., Awaitable[Child]]


@pytest.fixture
def simulate(stack: AsyncExitStack, certificates: Path) -> Start:
    """Start a simulated client; its options may be given."""

    async def start(**others: Any) -> Simulator:
        chosen = {
            "port": 0,
            "var": certificates,
            "show_security_notifications": True,
            "health_per_minute": 10_000,
            "retry_base_seconds": 0.05,
            "contact_check_seconds": 0.01,
        }
        return await stack.enter_async_context(Simulator(Options(**(chosen | others))))

    return start


def tree_for(sim: Simulator, folder: Path) -> Json:
    """Give a configuration: one account with the simulated client, everything by hand."""
    return {
        "server": {"port": 0, "drain_seconds": 0, "shutdown_seconds": 5},
        "database": {"url": f"sqlite:///{folder / 'ackgate.db'}"},
        "log": {"format": "json"},
        "accounts": {
            "main": {
                "base_url": sim.base_url,
                "username": "ackgate",
                "password": "development-only",
                "ca_file": str(sim.ca_file),
                "webhook_token": TOKEN,
                "timeout_seconds": 10,
            }
        },
    }


async def make_file(url: str) -> None:
    """Make the file of a database, as a deployment does; one on a server is there already."""
    if not is_postgres(url):
        await asyncio.to_thread(operated(url).create)


@pytest.fixture
def prepare(
    stack: AsyncExitStack,
    simulate: Start,
    http: aiohttp.ClientSession,
    database_url: str,
    tmp_path: Path,
) -> Install:
    """Set up an installation without starting the service; tables go over the configuration.

    Its database is there already, so no issue tells of a new one.
    """

    async def set_up(*, sim_options: Json | None = None, **over: Any) -> Installation:
        sim = await simulate(**(sim_options or {}))
        tree = merge(tree_for(sim, tmp_path), {"database": {"url": database_url}})
        tree = merge(tree, over)
        await make_file(database_url)
        made = Installation(http, sim=sim, tree=tree, folder=tmp_path)
        stack.push_async_callback(made.stop)
        return made

    return set_up


@pytest.fixture
def install(prepare: Install) -> Install:
    """Set up an installation and start its service."""

    async def set_up(**over: Any) -> Installation:
        made = await prepare(**over)
        await made.start()
        return made

    return set_up


@pytest.fixture
async def manual(install: Install) -> Installation:
    """An installation where a person decides."""
    return await install()


@pytest.fixture
async def auto(install: Install) -> Installation:
    """An installation where policy acknowledges at once."""
    return await install(policy={"mode": "auto", "max_changes": 100})


OpenShop = Callable[..., Awaitable[CloudInstallation]]


def cloud_options(**others: Any) -> CloudOptions:
    chosen = {
        "numbers": (Number(), Number(phone_number_id=OTHER_NUMBER)),
        "app_secret": APP_SECRET,
        "access_token": ACCESS_TOKEN,
        "identity_check": True,
        "retry_base_seconds": 0.05,
        "retry_cap_seconds": 0.2,
    }
    return CloudOptions(**(chosen | others))


def cloud_account(sim: Simulator, number: str = NUMBER) -> Json:
    return {
        "kind": "cloud",
        "app": "meta",
        "phone_number_id": number,
        "base_url": sim.graph_url,
        "access_token": ACCESS_TOKEN,
        "ca_file": str(sim.ca_file),
    }


def app_tree() -> Json:
    return {"meta": {"app_secret": APP_SECRET, "verify_token": "a-verify-token"}}


@pytest.fixture
def prepare_shop(
    stack: AsyncExitStack,
    simulate: Start,
    http: aiohttp.ClientSession,
    database_url: str,
    tmp_path: Path,
) -> OpenShop:
    """Set up two accounts of the Cloud API beside the one with a client, without starting."""

    async def set_up(*, meta: Json | None = None, **over: Any) -> CloudInstallation:
        sim = await simulate(cloud=cloud_options(**(meta or {})))
        shops = {"shop": cloud_account(sim), "outlet": cloud_account(sim, OTHER_NUMBER)}
        tree = merge(tree_for(sim, tmp_path), {"apps": app_tree(), "accounts": shops})
        tree = merge(merge(tree, {"database": {"url": database_url}}), over)
        await make_file(database_url)
        made = CloudInstallation(http, sim=sim, tree=tree, folder=tmp_path)
        stack.push_async_callback(made.stop)
        return made

    return set_up


@pytest.fixture
def open_shop(prepare_shop: OpenShop) -> OpenShop:
    """Set up accounts of both kinds and start the service; tables go over the configuration."""

    async def set_up(**over: Any) -> CloudInstallation:
        made = await prepare_shop(**over)
        await made.start()
        return made

    return set_up


@pytest.fixture
async def shop(open_shop: OpenShop) -> CloudInstallation:
    """Accounts of both kinds: the first hash of a user is trusted, then a person decides."""
    return await open_shop()


@pytest.fixture
def spawn(
    stack: AsyncExitStack, http: aiohttp.ClientSession, database_url: str, tmp_path: Path
) -> Spawn:
    """Make the real command ready, with a configuration; `env` goes on top."""
    count = 0
    file_url = f"sqlite:///{tmp_path / 'ackgate.db'}"

    async def make(tree: Json, *, start: bool = True, env: Json | None = None) -> Child:
        nonlocal count
        count += 1
        url = tree["database"]["url"]
        if url == file_url:
            url = database_url
        file = tmp_path / f"command{count}.toml"
        child = Child(http, config=file, env=env or {}, database_url=url)
        child.write(tree)
        stack.push_async_callback(child.kill)
        if start:
            await child.start()
        return child

    return make
