"""From the acknowledgement to the open gate, where a send was refused: with 480, or with 1028."""

import http.client
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tools.bench.bodies import FIRST_SEEN_MS, NEW_USERS, hash_of, wa_id
from tools.bench.load import quantile
from tools.bench.options import Effort
from tools.bench.partner import Partner, partner
from tools.bench.processes import BenchmarkError
from tools.bench.report import Goal, Section
from tools.bench.servers import AUTHORIZATION, DOOR, Installation, Server, ackgate

USERS = 50
"""For each of the two."""
PATIENCE_SECONDS = 10.0
CLEAR_GOAL_MS = 100.0
ACCOUNT = "/api/v1/accounts/main"


class Sender:
    """The business: it delivers callbacks, asks the gate, and decides, on one connection."""

    def __init__(self, server: Server, simulator: Partner) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
        self._simulator = simulator

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Make one request."""
        text = None if body is None else json.dumps(body)
        headers = dict(AUTHORIZATION) | {"Content-Type": "application/json"}
        self._http.request(method, path, text, headers)
        answer = self._http.getresponse()
        return answer.status, json.loads(answer.read())

    def is_open(self, user: str) -> bool:
        """Ask the gate."""
        _, answer = self.ask("GET", f"{ACCOUNT}/recipients/{user}")
        return bool(answer["sendable"])

    def refused_with_480(self, user: str) -> None:
        """Deliver what the client says of a message that it did not send."""
        status = {
            "id": f"message-to-{user}",
            "recipient_id": user,
            "status": "failed",
            "timestamp": str(FIRST_SEEN_MS // 1000),
            "errors": [{"code": 480}],
        }
        self.ask("POST", DOOR, {"statuses": [status]})

    def refused_with_1028(self, user: str) -> None:
        """Have the client asked, since it refused a message at once."""
        self.ask("POST", f"{ACCOUNT}/identities/{user}/refresh")

    def acknowledge(self, user: str, hash_: str) -> None:
        """Decide, as soon as the identity is known."""
        self._until(lambda: self._decide(user, hash_))

    def _decide(self, user: str, hash_: str) -> bool:
        path = f"{ACCOUNT}/identities/{user}/acknowledge"
        status, _ = self.ask("POST", path, {"hash": hash_, "note": "benchmark"})
        return status in {200, 202}

    def open_since(self, user: str) -> float:
        """Wait for the gate; give the seconds since the client accepted the acknowledgement."""
        self._until(lambda: self.is_open(user))
        opened = time.time()
        accepted: dict[str, float] = dict(self._simulator.ask("puts"))
        return opened - accepted[user]

    def _until(self, true: Callable[[], bool]) -> None:
        ends_at = time.monotonic() + PATIENCE_SECONDS
        while not true():
            if time.monotonic() > ends_at:
                raise BenchmarkError("the gate did not clear")


def measure(_: Effort) -> Section:
    """Let sends be refused, see the gate close with the answer, and time how it opens."""
    section = Section(
        "clearing",
        "The gate after a refused send: from the client's acceptance to sendable",
        ("refused with", "users", "closed with the answer", "p50 ms", "slowest ms"),
    )
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        simulator = stack.enter_context(partner(Path(folder), tls=True))
        installation = Installation(Path(folder), simulator.base_url, "manual", simulator.ca_file)
        server = stack.enter_context(ackgate(installation))
        simulator.ask(f"know {NEW_USERS} {2 * USERS}")
        sender = Sender(server, simulator)
        _measure_way(section, "480", NEW_USERS, sender, sender.refused_with_480)
        _measure_way(section, "1028", NEW_USERS + USERS, sender, sender.refused_with_1028)
    section.notes.append(
        "closed with the answer: the gate asked next after the 200 of the callback, or of refresh"
    )
    return section


def _measure_way(
    section: Section, code: str, first: int, sender: Sender, refused: Callable[[str], None]
) -> None:
    closed, took = 0, []
    for number in range(first, first + USERS):
        user = wa_id(number)
        if not sender.is_open(user):
            raise BenchmarkError("a stranger is not sendable")
        refused(user)
        closed += not sender.is_open(user)
        sender.acknowledge(user, hash_of(number))
        took.append(1000 * sender.open_since(user))
    took.sort()
    section.rows.append((code, USERS, closed, quantile(took, 0.5), took[-1]))
    section.goals += [
        Goal(f"{code}: closed with the answer, of {USERS}", closed, USERS),
        Goal(f"{code}: slowest to clear, ms", took[-1], CLEAR_GOAL_MS, at_least=False),
    ]
