"""The servers under load: Ackgate, and the no-op that it is measured by."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import SERVER_CORE, BenchmarkError, Process, free_port, python

TOKEN = "benchmarks-webhook-token"
KEY = "benchmarks-key"
DOOR = f"/webhooks/main/{TOKEN}"
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
    """A folder with Ackgate's configuration and database."""

    folder: Path
    base_url: str = STALE_URL
    mode: str = "manual"
    ca_file: Path | None = None

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
        file.write_text(text)
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
    process = Process(python("benchmarks.noop", str(port)), core=core, name="no-op")
    try:
        process.wait_for(f"http://127.0.0.1:{port}/")
        yield Server("no-op", port, "/", process)
    finally:
        process.stop()
