"""The container's health check asks the service where its configuration says that it listens."""

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy/healthcheck.py"


class Endpoint(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health/live" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- as in the base class
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def check(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    config = folder / "ackgate.toml"
    config.touch()
    return subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "ACKGATE_CONFIG": str(config), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_service_that_answers_is_healthy(tmp_path: Path, port: int) -> None:
    assert check(tmp_path, ACKGATE_SERVER__PORT=str(port)).returncode == 0


def test_health_is_asked_on_the_internal_address_when_there_is_one(
    tmp_path: Path, port: int
) -> None:
    internal = str(port)
    ran = check(tmp_path, ACKGATE_SERVER__PORT="1", ACKGATE_SERVER__INTERNAL__PORT=internal)
    assert ran.returncode == 0


def test_a_service_that_does_not_answer_is_not_healthy(tmp_path: Path) -> None:
    ran = check(tmp_path, ACKGATE_SERVER__PORT="1")
    assert (ran.returncode, ran.stderr) == (1, "/health/live does not answer\n")


def test_a_bad_configuration_is_one_line(tmp_path: Path) -> None:
    ran = check(tmp_path, ACKGATE_SERVER__PORT="many")
    assert ran.returncode == 1
    assert ran.stderr.startswith("server.port: ")
    assert ran.stderr.count("\n") == 1
