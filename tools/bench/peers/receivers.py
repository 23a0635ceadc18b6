"""The peers as servers: how each is started, and where its callbacks go to."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.bench.peers.installing import HERE, node_of, program, python_of
from tools.bench.processes import SERVER_CORE, Process, free_port
from tools.bench.servers import Server

FASTAPI, FASTIFY = "FastAPI + SQLAlchemy", "fastify + better-sqlite3"
HOOKSPOOL, WEBHOOK = "hookspool", "webhook + script"
THREADS = 128
"""hookspool gives a thread to every open connection."""
TOKEN = "benchmarks-token-of-the-door"

Start = Callable[[Path, int], tuple[Process, str, str]]
"""Starts a peer with a folder and a port; gives path for callbacks and path to wait for."""


def _fastapi(folder: Path, port: int) -> tuple[Process, str, str]:
    python = python_of("fastapi_sqlalchemy")
    receiver = HERE / "fastapi_sqlalchemy" / "receiver.py"
    database = {"DATABASE": str(folder / "callbacks.db")}
    command = [str(python), str(receiver), str(port)]
    return Process(command, core=SERVER_CORE, environ=database, name=FASTAPI), "/", "/"


def _fastify(folder: Path, port: int) -> tuple[Process, str, str]:
    receiver = node_of("fastify") / "receiver.js"
    command = [program("node"), str(receiver), str(port), str(folder / "callbacks.db")]
    environ = {"NODE_ENV": "production"}
    return Process(command, core=SERVER_CORE, environ=environ, name=FASTIFY), "/", "/"


_HOOKSPOOL = """
[intake]
listen = "127.0.0.1:{port}"
threads = {threads}
[sources.main]
module = "hookspool.sources.template"
scheme = "url-token"
key = "messages.0.from"
dedup = "messages.0.id"
action = "script:nothing"
secrets.secret = {{ file = "{secret}" }}
[destinations."script:nothing"]
type = "script"
argv = ["true"]
"""


def _hookspool(folder: Path, port: int) -> tuple[Process, str, str]:
    command = [str(python_of("hookspool").parent / "hookspool"), "--home", str(folder)]
    secret = folder / "secret"
    secret.write_text(TOKEN)
    secret.chmod(0o600)
    (folder / "config.toml").write_text(
        _HOOKSPOOL.format(port=port, secret=secret, threads=THREADS)
    )
    migrating = Process([*command, "migrate"], name=HOOKSPOOL)
    migrating.finish()
    process = Process([*command, "intake"], core=SERVER_CORE, name=HOOKSPOOL)
    return process, f"/hooks/main?token={TOKEN}", "/metrics"


def _webhook(folder: Path, port: int) -> tuple[Process, str, str]:
    file = folder / "callbacks.db"
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE callbacks (id INTEGER PRIMARY KEY, received_at, body)")
    program("sqlite3")
    hook = {
        "id": "main",
        "execute-command": str(HERE / "webhook" / "insert.sh"),
        "include-command-output-in-response": True,
        "pass-arguments-to-command": [
            {"source": "string", "name": str(file)},
            {"source": "entire-payload"},
        ],
    }
    hooks = folder / "hooks.json"
    hooks.write_text(json.dumps([hook]))
    listen = ["-ip", "127.0.0.1", "-port", str(port), "-hooks", str(hooks)]
    process = Process([program("webhook"), *listen], core=SERVER_CORE, name=WEBHOOK)
    process.keeps = database  # else every script would take the WAL down, and the next fail
    return process, "/hooks/main", "/"


STARTS: dict[str, Start] = {
    FASTIFY: _fastify,
    FASTAPI: _fastapi,
    HOOKSPOOL: _hookspool,
    WEBHOOK: _webhook,
}


@contextmanager
def peer(name: str, folder: Path) -> Iterator[Server]:
    """Run a peer, installed where it is not. Raises NotInstalledError, BenchmarkError."""
    folder.mkdir()
    port = free_port()
    process, path, ready = STARTS[name](folder, port)
    try:
        process.wait_for(f"http://127.0.0.1:{port}{ready}")
        yield Server(name, port, path, process)
    finally:
        process.stop()
