"""The load balancer of the compose file, in a real nginx, before stand-ins of two replicas."""

import http.client
import http.server
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import installed
from tools.processes import free_port

pytestmark = pytest.mark.tools

CONFIG = Path(__file__).parents[2] / "deploy/nginx/replicas.conf"
ADDRESSES = ("172.30.17.11", "172.30.17.12")


@dataclass
class Replica:
    """Stands for a replica: notes what it is sent, and answers with `status`.

    For 0 it reads the request, and closes the connection without an answer.
    """

    status: int = 200
    passed: list[str] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    port: int = 0
    has_shown: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        handler = type("OfThisReplica", (Handler,), {"replica": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers for a replica."""

    protocol_version = "HTTP/1.1"
    replica: Replica

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.replica.passed.append(f"{self.command} {self.path}")
        self.replica.heads.append(dict(self.headers))
        if self.path == "/stream":
            self._stream()
            return
        if self.replica.status == 0:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(self.replica.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _stream(self) -> None:
        """Show the first line of a stream, and the second once somebody says so."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("X-Accel-Buffering", "no")
        self.end_headers()
        self.wfile.write(b"id: 1\n\n")
        self.wfile.flush()
        self.replica.goes_on.wait(30)
        self.wfile.write(b"id: 2\n\n")

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def balancer(folder: Path, ports: dict[str, int]) -> Iterator[tuple[int, int]]:
    """Run nginx with the configuration, other addresses apart; give its two ports."""
    text = CONFIG.read_text(encoding="utf-8")
    webhooks, internal = free_port(), free_port()
    here = {address: f"127.0.0.1:{port}" for address, port in ports.items()}
    here |= {
        "listen 8080": f"listen 127.0.0.1:{webhooks}",
        "listen 8081": f"listen 127.0.0.1:{internal}",
    }
    for there, place in here.items():
        assert there in text
        text = text.replace(there, place)
    temporary = "".join(
        f"{kind}_temp_path {folder / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off;\npid {folder / 'nginx.pid'};\nerror_log {folder / 'error.log'};\n"
        f"events {{}}\nhttp {{\naccess_log {folder / 'access.log'};\n{temporary}{text}}}\n"
    )
    nginx = installed("nginx")
    tried = subprocess.run([nginx, "-t", "-c", str(config)], check=False, capture_output=True)
    assert tried.returncode == 0, tried.stderr
    running = subprocess.Popen([nginx, "-c", str(config)])
    try:
        deadline = time.monotonic() + 30
        while not (listens(webhooks) and listens(internal)):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield webhooks, internal
    finally:
        running.terminate()
        running.wait(30)


@dataclass
class Setup:
    """The balancer, what is behind it, and the folder with its logs."""

    webhooks: int
    internal: int
    replicas: tuple[Replica, Replica]
    folder: Path

    def send(self, method: str, path: str, port: int | None = None, body: bytes = b"{}") -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.webhooks, timeout=60)
        connection.request(method, path, body if method == "POST" else None)
        status = connection.getresponse().status
        connection.close()
        return status

    @property
    def passed(self) -> list[list[str]]:
        return [replica.passed for replica in self.replicas]


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    replicas = (Replica(), Replica())
    for replica in replicas:
        replica.start()
    ports = {
        f"{address}:{port}": replica.port
        for address, replica in zip(ADDRESSES, replicas, strict=True)
        for port in (8080, 8081)
    }
    with balancer(tmp_path, ports) as (webhooks, internal):
        yield Setup(webhooks, internal, replicas, tmp_path)
    for replica in replicas:
        replica.goes_on.set()
        replica.stop()


def refuses(replica: Replica) -> None:
    replica.status = 503


def breaks_off(replica: Replica) -> None:
    replica.status = 0


def is_gone(replica: Replica) -> None:
    replica.stop()
    replica.start()  # so that the fixture can stop it; at another port


Fault = Callable[[Replica], None]


def test_requests_are_shared_among_the_replicas(setup: Setup) -> None:
    for _ in range(10):
        assert setup.send("POST", "/webhooks/meta") == 200
        assert setup.send("GET", "/api/v1/status", setup.internal) == 200
    assert all(passed.count("POST /webhooks/meta") == 5 for passed in setup.passed)
    assert all(passed.count("GET /api/v1/status") == 5 for passed in setup.passed)


@pytest.mark.parametrize("fault", [refuses, breaks_off, is_gone])
def test_a_callback_that_one_replica_does_not_take_goes_to_the_other(
    setup: Setup, fault: Fault
) -> None:
    fault(setup.replicas[0])
    for _ in range(20):
        assert setup.send("POST", "/webhooks/meta") == 200
    assert setup.passed[1] == ["POST /webhooks/meta"] * 20


@pytest.mark.parametrize("fault", [refuses, breaks_off, is_gone])
def test_a_question_that_one_replica_does_not_answer_goes_to_the_other(
    setup: Setup, fault: Fault
) -> None:
    fault(setup.replicas[0])
    for _ in range(20):
        assert setup.send("GET", "/api/v1/status", setup.internal) == 200


@pytest.mark.parametrize(("fault", "status"), [(refuses, 503), (breaks_off, 502)])
def test_a_message_or_a_decision_that_reached_a_replica_is_not_sent_a_second_time(
    setup: Setup, fault: Fault, status: int
) -> None:
    for replica in setup.replicas:
        fault(replica)
    path = "/graph/v25.0/1/messages"
    assert setup.send("POST", path, setup.internal) == status
    assert setup.passed[0] + setup.passed[1] == [f"POST {path}"]


def test_a_message_that_reached_no_replica_goes_to_the_other(setup: Setup) -> None:
    is_gone(setup.replicas[0])
    for _ in range(10):
        assert setup.send("POST", "/graph/v25.0/1/messages", setup.internal) == 200


def test_what_both_refuse_is_tried_three_times_and_refused(setup: Setup) -> None:
    for replica in setup.replicas:
        refuses(replica)
    assert setup.send("POST", "/webhooks/meta") == 503
    first, second = setup.passed
    assert first
    assert second
    assert first + second == ["POST /webhooks/meta"] * 3


def test_one_that_failed_before_is_asked_where_the_other_fails(setup: Setup) -> None:
    first, second = setup.replicas
    refuses(first)
    for _ in range(20):
        assert setup.send("POST", "/webhooks/meta") == 200
    first.status = 200
    refuses(second)
    for _ in range(20):
        assert setup.send("POST", "/webhooks/meta") == 200


def test_from_the_port_for_webhooks_nothing_else_is_reached(setup: Setup) -> None:
    for path in ("/api/v1/status", "/metrics", "/health/status", "/", "/webhooks/../metrics"):
        assert setup.send("POST", path) == 404, path
    assert setup.passed == [[], []]


def test_a_stream_is_passed_on_as_it_comes(setup: Setup) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", setup.internal, timeout=30)
    connection.request("GET", "/stream")
    answer = connection.getresponse()
    assert answer.read1() == b"id: 1\n\n"
    for replica in setup.replicas:
        replica.goes_on.set()
    assert answer.read() == b"id: 2\n\n"
    connection.close()


def test_connections_to_the_replicas_are_kept(setup: Setup) -> None:
    for _ in range(4):
        setup.send("POST", "/webhooks/meta")
    assert not [head for head in setup.replicas[0].heads if head.get("Connection") == "close"]


def test_the_token_in_a_path_is_in_no_log(setup: Setup) -> None:
    for replica in setup.replicas:
        breaks_off(replica)
    assert setup.send("POST", "/webhooks/main/a-token") == 502
    setup.send("GET", "/api/v1/status", setup.internal)
    deadline = time.monotonic() + 30
    while "/api/v1/status" not in (setup.folder / "access.log").read_text():
        assert time.monotonic() < deadline  # a line is written after the answer
        time.sleep(0.05)
    assert not [log for log in setup.folder.glob("*.log") if "a-token" in log.read_text()]
