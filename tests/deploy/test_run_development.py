"""What `make run` starts: all three programs or none, and all are stopped with it.

The programs are stand-ins here, so that each way of failing can be had.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.processes import free_port

DEVELOPMENT = Path(__file__).parents[2] / "config/development.toml"
SCRIPT = Path(__file__).parents[2] / "deploy/run-development.sh"
STAND_IN = f"""#!{sys.executable}
import http.server, os, pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
role = "receive" if sys.argv[2] == "receive" else sys.argv[1]
if os.environ.get("DIES") == role:
    sys.exit("stand-in dies")
var = pathlib.Path("var")
class Endpoint(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
names = {{
    "simulate": "ACKGATE_SIMULATOR_PORT",
    "receive": "ACKGATE_RECEIVER_PORT",
    "serve": "ACKGATE_SERVER__PORT",
}}
name = names[role]
server = http.server.HTTPServer(("127.0.0.1", int(os.environ[name])), Endpoint)
(var / "simulator-ca.pem").write_text("a certificate")
(var / f"{{role}}.args").write_text(" ".join(sys.argv[1:]))
(var / f"{{role}}.relay").write_text(os.environ.get("ACKGATE_RELAYS__RECEIVER__URL", ""))
(var / f"{{role}}.pid").write_text(str(os.getpid()))
server.serve_forever()
"""
# A shell can't trap a signal that was ignored when it began, as in a test run in the background.
AS_IN_A_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp("sh", ["sh", sys.argv[1]])
"""


class Checkout:
    """A folder with the script's surroundings, in which it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.service_port, self.simulator_port, self.receiver_port = (free_port() for _ in range(3))
        (folder / ".venv/bin").mkdir(parents=True)
        (folder / ".venv/bin/python").symlink_to(sys.executable)
        command = folder / ".venv/bin/ackgate"
        command.write_text(STAND_IN)
        command.chmod(0o755)
        self.started: list[subprocess.Popen[str]] = []

    def run(self, **environ: str) -> subprocess.Popen[str]:
        ports = {
            "ACKGATE_SERVER__PORT": str(self.service_port),
            "ACKGATE_SIMULATOR_PORT": str(self.simulator_port),
            "ACKGATE_RECEIVER_PORT": str(self.receiver_port),
        }
        with (self.folder / "out").open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", AS_IN_A_TERMINAL, str(SCRIPT)],
                cwd=self.folder,
                env={**os.environ, **ports, **environ},
                stdout=out,
                stderr=out,
                text=True,
            )
        self.started.append(process)
        return process

    def output(self) -> str:
        return (self.folder / "out").read_text()

    def pid(self, role: str) -> int:
        return int((self.folder / f"var/{role}.pid").read_text())

    def wait_until_announced(self) -> None:
        deadline = time.monotonic() + 60
        while "simulate demo" not in self.output():
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.05)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path)
    yield made
    for process in made.started:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_the_addresses_and_stops_all_when_told_to(
    checkout: Checkout, ending: signal.Signals
) -> None:
    process = checkout.run()
    checkout.wait_until_announced()
    assert f"http://127.0.0.1:{checkout.service_port}/metrics" in checkout.output()
    assert f"https://127.0.0.1:{checkout.simulator_port}" in checkout.output()
    assert f"http://127.0.0.1:{checkout.receiver_port}" in checkout.output()
    pids = [checkout.pid(role) for role in ("simulate", "receive", "serve")]
    process.send_signal(ending)
    assert process.wait(30) == 0
    assert not [pid for pid in pids if lives(pid)]


def test_each_is_told_about_the_others(checkout: Checkout) -> None:
    checkout.run()
    checkout.wait_until_announced()
    simulator = (checkout.folder / "var/simulate.args").read_text()
    endpoint = f"http://127.0.0.1:{checkout.service_port}/webhooks/main/development-webhook-token"
    assert simulator.startswith(f"simulate serve --webhook {endpoint} --username ackgate")
    app = f"http://127.0.0.1:{checkout.service_port}/webhooks/meta"
    assert f"--cloud-webhook {app} --cloud-identity-check" in simulator
    service = (checkout.folder / "var/serve.args").read_text()
    assert service == "serve --config config/development.toml"
    relay = (checkout.folder / "var/serve.relay").read_text()
    assert relay == f"http://127.0.0.1:{checkout.receiver_port}/"
    receiver = (checkout.folder / "var/receive.args").read_text()
    assert receiver.startswith(f"simulate receive --port {checkout.receiver_port} --secret ")
    secret = tomllib.loads(DEVELOPMENT.read_text())["relays"]["receiver"]["secret"]
    assert receiver.endswith(f" {secret}")


@pytest.mark.slow
@pytest.mark.parametrize("dies", ["serve", "receive", "simulate"])
def test_when_one_dies_the_others_are_stopped(checkout: Checkout, dies: str) -> None:
    process = checkout.run()
    checkout.wait_until_announced()
    os.kill(checkout.pid(dies), signal.SIGKILL)
    assert process.wait(30) != 0
    assert not [role for role in ("serve", "receive", "simulate") if lives(checkout.pid(role))]
    assert "stopped" in checkout.output().splitlines()[-1]


def test_a_simulator_that_does_not_start_is_one_clear_line(checkout: Checkout) -> None:
    assert checkout.run(DIES="simulate").wait(30) != 0
    said = "the simulator stopped before it was ready; see var/simulator.log\n"
    assert checkout.output() == said
    assert "stand-in dies" in (checkout.folder / "var/simulator.log").read_text()


def test_a_service_that_does_not_start_stops_the_others(checkout: Checkout) -> None:
    assert checkout.run(DIES="serve").wait(30) != 0
    assert "the service stopped before it was ready" in checkout.output()
    assert not lives(checkout.pid("simulate"))
    assert not lives(checkout.pid("receive"))


def test_a_taken_port_is_named_and_nothing_is_started(checkout: Checkout) -> None:
    with socket.create_server(("127.0.0.1", checkout.service_port)):
        assert checkout.run().wait(30) != 0
    assert f"port {checkout.service_port} of 127.0.0.1 is taken" in checkout.output()
    assert not (checkout.folder / "var").exists()
