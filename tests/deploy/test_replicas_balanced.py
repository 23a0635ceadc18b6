"""Two replicas on one PostgreSQL database, behind the load balancer of the compose file."""

import http.client
import itertools
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.deploy.test_balancer import ADDRESSES, balancer
from tests.postgres import fetch, run
from tools.bodies import hash_of, identity_change, wa_id
from tools.installation import AUTHORIZATION, WEBHOOK, Installation
from tools.processes import ROOT, free_port, status_of

pytestmark = [pytest.mark.tools, pytest.mark.postgres]

SENDERS = 4


class Replica:
    """A process of the service, which may be ended and started again at the same ports."""

    def __init__(self, folder: Path, url: str) -> None:
        folder.mkdir()
        self.webhooks, self.internal = free_port(), free_port()
        self._installation = Installation(
            folder,
            database_url=url,
            drain_seconds=1,
            more=f"[server.internal]\nport = {self.internal}\n",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._installation.command(self.webhooks), cwd=ROOT)
        until(lambda: status_of(f"http://127.0.0.1:{self.internal}/health/ready") == 200)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it in order; or kill it with SIGKILL."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    @property
    def leads(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.internal, timeout=30)
        connection.request("GET", "/api/v1/status", headers=AUTHORIZATION)
        found = json.loads(connection.getresponse().read())
        connection.close()
        return bool(found["leader"])


class Senders:
    """Send callbacks through the balancer, one after another, until they are to stop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._numbers = itertools.count(1)
        self._is_over = threading.Event()
        self.users: list[str] = []
        self.not_200: list[int] = []
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._is_over.is_set():
            user = next(self._numbers)
            body = identity_change(wa_id(user), hash_of(user), round(time.time() * 1000))
            status = post(self._port, WEBHOOK, body)
            if status == 200:
                self.users.append(wa_id(user))
            else:
                self.not_200.append(status)

    def wait_for(self, more: int) -> None:
        """Wait until so many more were taken."""
        count = len(self.users)
        until(lambda: len(self.users) >= count + more)

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def post(port: int, path: str, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    status = connection.getresponse().status
    connection.close()
    return status


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def replicas(tmp_path: Path, postgres_url: str) -> Iterator[tuple[Replica, Replica]]:
    both = Replica(tmp_path / "first", postgres_url), Replica(tmp_path / "second", postgres_url)
    with ExitStack() as stack:
        for replica in both:
            stack.callback(replica.stop)
            replica.start()
        yield both


@pytest.fixture
def ports(replicas: tuple[Replica, Replica], tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The two ports of a balancer before them: for webhooks, and for all else."""
    addresses = {
        f"{address}:{port}": at
        for address, replica in zip(ADDRESSES, replicas, strict=True)
        for port, at in ((8080, replica.webhooks), (8081, replica.internal))
    }
    with balancer(tmp_path, addresses) as found:
        yield found


@pytest.mark.slow
def test_no_sender_sees_a_restart_of_each_replica_or_the_death_of_the_leader(
    replicas: tuple[Replica, Replica], ports: tuple[int, int], postgres_url: str
) -> None:
    senders = Senders(ports[0])
    try:
        senders.wait_for(50)
        for replica in replicas:
            replica.stop()
            senders.wait_for(20)
            replica.start()
            senders.wait_for(20)
        leader, follower = sorted(replicas, key=lambda replica: not replica.leads)
        leader.stop(signal.SIGKILL)
        senders.wait_for(20)
        until(lambda: follower.leads)
        senders.wait_for(20)
    finally:
        senders.stop()
    assert senders.not_200 == []
    stored = run(fetch(postgres_url, "SELECT wa_id FROM users"))
    assert sorted(senders.users) == sorted(name for (name,) in stored)


def test_a_stream_at_one_replica_tells_of_what_the_others_take(
    replicas: tuple[Replica, Replica], ports: tuple[int, int]
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", ports[1], timeout=30)
    connection.request(
        "GET", "/api/v1/events", headers=AUTHORIZATION | {"Accept": "text/event-stream"}
    )
    stream = connection.getresponse()
    assert stream.status == 200
    users = [wa_id(user) for user in range(1, 5)]
    for number, user in enumerate(users):
        body = identity_change(user, hash_of(number), round(time.time() * 1000))
        assert post(replicas[number % 2].webhooks, WEBHOOK, body) == 200
    told = b""
    while not all(user.encode() in told for user in users):
        told += stream.read1()
    connection.close()
