"""The servers under load: Ackgate, and the no-op that it is measured by."""

import hashlib
import hmac
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tools.bench.cloud_bodies import NUMBER_ID
from tools.bench.processes import SERVER_CORE, BenchmarkError, Process, free_port, python

TOKEN = "benchmarks-webhook-token"
KEY = "benchmarks-key"
DOOR = f"/webhooks/main/{TOKEN}"
CLOUD_DOOR = "/webhooks/meta"
APP_SECRET = "0123456789abcdef" * 2
AUTHORIZATION = (("Authorization", f"Bearer {KEY}"),)
READY = frozenset({200})
STALE_URL = "http://127.0.0.1:9"
"""A client's address where nobody listens: the discard port."""

_CONFIG = """
[server]
port = {port}
drain_seconds = 0
[database]
url = "sqlite:///{database}"
[log]
level = "warning"
[accounts.main]
base_url = "{base_url}"
username = "ackgate"
password = "development-only"
webhook_token = "{token}"
{more}
[accounts.main.policy]
mode = "{mode}"
[api.keys.benchmarks]
role = "admin"
sha256 = "{sha256}"
"""
_CLOUD = f"""
[apps.meta]
app_secret = "{APP_SECRET}"
verify_token = "benchmarks-verify-token"
[accounts.shop]
kind = "cloud"
app = "meta"
phone_number_id = "{NUMBER_ID}"
base_url = "{STALE_URL}"
access_token = "benchmarks-access-token"
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs: where callbacks go to, and how it is named in tables."""

    name: str
    port: int
    path: str
    process: Process

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Installation:
    """A folder with Ackgate's configuration and database; `cloud` adds a Cloud API account."""

    folder: Path
    base_url: str = STALE_URL
    mode: str = "manual"
    ca_file: Path | None = None
    cloud: bool = False

    @property
    def database(self) -> Path:
        """The database's file."""
        return self.folder / "ackgate.db"

    def configure(self, port: int) -> Path:
        """Write the configuration."""
        more = "" if self.ca_file is None else f'ca_file = "{self.ca_file}"'
        file = self.folder / "ackgate.toml"
        text = _CONFIG.format(
            port=port,
            database=self.database,
            base_url=self.base_url,
            token=TOKEN,
            more=more,
            mode=self.mode,
            sha256=hashlib.sha256(KEY.encode()).hexdigest(),
        )
        file.write_text(f"{text}{_CLOUD}" if self.cloud else text)
        return file

    def start(self, *, core: int | None = SERVER_CORE) -> tuple[Server, float]:
        """Start Ackgate; give it, and the seconds until it was ready."""
        port = free_port()
        command = python("service", "serve", "--config", str(self.configure(port)))
        process = Process(command, core=core, name="Ackgate")
        try:
            seconds = process.wait_for(f"http://127.0.0.1:{port}/health/ready", accepted=READY)
        except BenchmarkError:
            process.stop()
            raise
        return Server("Ackgate", port, DOOR, process), seconds


@contextmanager
def ackgate(installation: Installation, *, core: int | None = SERVER_CORE) -> Iterator[Server]:
    """Run Ackgate."""
    server, _ = installation.start(core=core)
    try:
        yield server
    finally:
        server.process.stop()


@contextmanager
def noop(*, core: int | None = SERVER_CORE) -> Iterator[Server]:
    """Run the no-op."""
    port = free_port()
    process = Process(python("tools.bench.noop", str(port)), core=core, name="no-op")
    try:
        process.wait_for(f"http://127.0.0.1:{port}/")
        yield Server("no-op", port, "/", process)
    finally:
        process.stop()


def at_cloud_door(server: Server, name: str) -> Server:
    """Give a server by its door for the callbacks of the Cloud API."""
    return replace(server, name=name, path=CLOUD_DOOR)


def tell(server: Server, webhooks: Iterable[bytes]) -> None:
    """Deliver signed webhooks, one after another; BenchmarkError where one is not taken."""
    for body in webhooks:
        signature = hmac.new(APP_SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "X-Hub-Signature-256": f"sha256={signature}",
        }
        request = urllib.request.Request(server.url + server.path, body, headers)
        with urllib.request.urlopen(request) as response:
            if response.status != 200:  # noqa: PLR2004  the one answer that counts
                raise BenchmarkError("a webhook was not taken")
