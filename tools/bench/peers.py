"""Other receivers on the same work: how they are installed and started, and what they do.

`make bench` installs them under `tools/bench/.peers`, from the locks in `tools/bench/receivers`.
"""

import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tools.bench.accept import plan
from tools.bench.measure import Effort, Series, interleaved, median, spread
from tools.bench.report import Section
from tools.bench.servers import ACKGATE, NOOP, Server, ackgate, noop, seed
from tools.installation import Installation
from tools.processes import SERVER_CORE, Process, RunError, free_port

CONNECTIONS = 64
RECEIVERS = Path(__file__).parent / "receivers"
INSTALLED = Path(__file__).parent / ".peers"
INSTALL_SECONDS = 600.0
STAMP = ".installed"
FASTAPI, FASTIFY = "FastAPI + SQLAlchemy", "fastify + better-sqlite3"
HOOKSPOOL, WEBHOOK = "hookspool", "webhook + script"
TOKEN = "token-of-the-webhook-endpoint"
HOOKSPOOL_CONFIG = """
[intake]
listen = "127.0.0.1:{port}"
threads = 128 # one for every open connection
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


def measure(effort: Effort) -> Section:
    """Let Ackgate, the no-op and all peers that can be installed take turns."""
    section = Section(
        "peers",
        f"Peers: identity changes at {CONNECTIONS} connections, durable, server on one core",
        ("receiver", "accepts/s", "spread", "by the no-op", "Ackgate by it", "spread of that",
         "CPU µs", "p50 ms", "p99 ms", "not 200"),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ours = Path(folder) / "ackgate"
        ours.mkdir()
        installation = Installation(ours)
        seed(installation, 0)
        servers = [stack.enter_context(noop()), stack.enter_context(ackgate(installation))]
        for index, name in enumerate(STARTS):
            try:
                servers.append(stack.enter_context(_peer(name, Path(folder) / str(index))))
            except RunError as error:
                section.notes.append(f"{name}: not measured: {error}")
        sys.stderr.write(f"identity changes, {CONNECTIONS} connections\n")
        series = interleaved(
            servers,
            lambda server: plan(server, "identities", CONNECTIONS, effort.seconds),
            rounds=effort.rounds,
        )
    section.rows += [_row(server.name, series) for server in servers]
    section.plot = {
        "kind": "bars",
        "x": "rate by the no-op's",
        "bars": [(str(row[0]), row[3]) for row in section.rows],
    }
    section.notes += [
        f"others used at most {series.others:.2f} cores in a round",
        "WAL and FULL everywhere; Ackgate decides and keeps an audit trail",
        "fastify and webhook only insert; hookspool's dispatcher is not running",
    ]
    return section


def _row(name: str, series: Series) -> tuple[str | float, ...]:
    ours = series.ratios(ACKGATE, name)
    return (
        name,
        series.median(name, "rate"),
        spread(series.values(name, "rate"), 0),
        median(series.ratios(name, NOOP)),
        median(ours),
        spread(ours),
        series.median(name, "cpu_us"),
        series.median(name, "p50_ms"),
        series.median(name, "p99_ms"),
        series.failures(name),
    )


@contextmanager
def _peer(name: str, folder: Path) -> Iterator[Server]:
    """Run a peer, installed where it is not; RunError where that can't be done here."""
    folder.mkdir()
    port = free_port()
    with ExitStack() as stack:
        peer = STARTS[name](folder, port, stack)
        process = Process(peer.command, name=name, core=SERVER_CORE, environ=peer.environ)
        stack.callback(process.end)
        process.wait_for(f"http://127.0.0.1:{port}{peer.ready}", accepted=(200, 404, 405))
        yield Server(name, port, peer.path, process)


class Peer(NamedTuple):
    """How a peer is started, the path for callbacks, and the path that shows it is ready."""

    command: list[str]
    path: str = "/"
    ready: str = "/"
    environ: Mapping[str, str] = {}


Start = Callable[[Path, int, ExitStack], Peer]
"""Prepares a peer in a folder, with a port, and with what lasts as long as it."""


def _fastapi(folder: Path, port: int, _: ExitStack) -> Peer:
    receiver = RECEIVERS / "fastapi_sqlalchemy" / "receiver.py"
    command = [str(_python_of("fastapi_sqlalchemy")), str(receiver), str(port)]
    return Peer(command, environ={"DATABASE": str(folder / "callbacks.db")})


def _fastify(folder: Path, port: int, _: ExitStack) -> Peer:
    receiver = _node_of("fastify") / "receiver.js"
    command = [_program("node"), str(receiver), str(port), str(folder / "callbacks.db")]
    return Peer(command, environ={"NODE_ENV": "production"})


def _hookspool(folder: Path, port: int, _: ExitStack) -> Peer:
    command = [str(_python_of("hookspool").parent / "hookspool"), "--home", str(folder)]
    secret = folder / "secret"
    secret.write_text(TOKEN)
    secret.chmod(0o600)
    (folder / "config.toml").write_text(HOOKSPOOL_CONFIG.format(port=port, secret=secret))
    migrating = Process([*command, "migrate"], name=HOOKSPOOL)
    if migrating.wait():
        raise RunError(f"it can't migrate its database: {migrating.printed()}")
    return Peer([*command, "intake"], f"/hooks/main?token={TOKEN}", "/metrics")


def _webhook(folder: Path, port: int, stack: ExitStack) -> Peer:
    file = folder / "callbacks.db"
    # While a connection is open no script takes the WAL down, on which the next would fail.
    database = sqlite3.connect(file)
    stack.callback(database.close)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE callbacks (id INTEGER PRIMARY KEY, received_at, body)")
    _program("sqlite3")
    hook = {
        "id": "main",
        "execute-command": str(RECEIVERS / "webhook" / "insert.sh"),
        "include-command-output-in-response": True,
        "pass-arguments-to-command": [
            {"source": "string", "name": str(file)},
            {"source": "entire-payload"},
        ],
    }
    hooks = folder / "hooks.json"
    hooks.write_text(json.dumps([hook]))
    listen = ["-ip", "127.0.0.1", "-port", str(port), "-hooks", str(hooks)]
    return Peer([_program("webhook"), *listen], "/hooks/main")


STARTS: dict[str, Start] = {
    FASTIFY: _fastify,
    FASTAPI: _fastapi,
    HOOKSPOOL: _hookspool,
    WEBHOOK: _webhook,
}


def _python_of(name: str) -> Path:
    """Return the Python of a peer's own environment, made where it is missing."""
    folder, locked = INSTALLED / name, RECEIVERS / name / "requirements.txt"
    python = folder / "bin" / "python"
    if not _is_fresh(folder, locked):
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        install = "-m pip install --quiet --disable-pip-version-check --no-deps --require-hashes"
        _run([str(python), *install.split(), "--requirement", str(locked)])
        _run([str(python), "-m", "pip", "check"])
        (folder / STAMP).write_text(_digest(locked))
    return python


def _node_of(name: str) -> Path:
    """Return the folder of a Node peer, with its modules."""
    _program("node")
    _program("npm")
    folder, locked = INSTALLED / name, RECEIVERS / name / "package-lock.json"
    if not _is_fresh(folder, locked):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(RECEIVERS / name, folder)
        _run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], folder)
        (folder / STAMP).write_text(_digest(locked))
    for file in (RECEIVERS / name).glob("*.js"):
        shutil.copy(file, folder)
    return folder


def _program(name: str) -> str:
    """Return the path of a program of the system, which we don't install."""
    found = shutil.which(name)
    if found is None:
        raise RunError(f"the program {name} is not installed")
    return found


def _digest(locked: Path) -> str:
    return hashlib.sha256(locked.read_bytes()).hexdigest()


def _is_fresh(folder: Path, locked: Path) -> bool:
    stamp = folder / STAMP
    return stamp.exists() and stamp.read_text() == _digest(locked)


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    """Run a step of an installation; RunError, in one line, where it fails."""
    try:
        subprocess.run(
            command,
            cwd=folder,
            check=True,
            timeout=INSTALL_SECONDS,
            capture_output=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        lines = [line for line in (error.stderr or error.stdout).splitlines() if line.strip()]
        last = lines[-1][:200] if lines else f"status {error.returncode}"
        raise RunError(f"it can't be installed: {last}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"it can't be installed: {type(error).__name__}") from None
