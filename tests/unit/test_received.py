"""A callback as it was received: whatever goes wrong with reading it, it is kept."""

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import select

from service.dialects import onprem
from service.ingress.received import MAX_HEADER_BYTES, Received, kept_headers, label
from service.ledger.ledger import Ledger
from service.model.events import Reading
from service.model.policy import Policies, Policy
from service.observability.metrics import Metrics
from service.store.sqlite import SQLiteDatabase
from service.store.tables import journal


def failing(_: str, __: str, ___: bytes) -> Mapping[str, Reading]:
    raise RuntimeError("a fault in the dialect")


def plain(content_type: str, content_encoding: str, body: bytes) -> Mapping[str, Reading]:
    return {"main": onprem.read(content_type, content_encoding, body)}


async def test_a_callback_that_the_dialect_fails_on_is_kept_and_harms_no_neighbour(
    tmp_path: Path,
) -> None:
    database = SQLiteDatabase(tmp_path / "ackgate.db")
    await database.open()
    policies = {"main": Policies((), Policy("default"))}
    ledger = Ledger(database, policies, Metrics(), max_waiting=10)
    bad = Received("main", 1, failing, {"Content-Type": "application/json"}, b"{}")
    good = Received("main", 2, plain, {"X-Request-ID": "a-request"}, b"{}")
    await ledger.submit(bad)
    await ledger.submit(good)
    query = select(journal.c.state, journal.c.reason, journal.c.body).order_by(journal.c.id)
    rows = await database.read(lambda connection: connection.execute(query).all())
    await ledger.close()
    await database.close()
    assert [tuple(row) for row in rows] == [
        ("quarantined", "the rules failed: RuntimeError", b"{}"),
        ("applied", None, b"{}"),
    ]
    assert (bad.state, good.state) == ("quarantined", "applied")
    assert list(bad.rest) == []


def test_only_the_user_agent_and_x_headers_are_kept() -> None:
    headers = {"User-Agent": "a", "X-One": "b", "Authorization": "c", "Cookie": "d", "Host": "e"}
    assert kept_headers(headers) == '[["user-agent", "a"], ["x-one", "b"]]'


def test_headers_beyond_8_kb_are_left_out() -> None:
    headers = {f"X-{n}": "v" * 1000 for n in range(20)}
    assert len(kept_headers(headers)) <= MAX_HEADER_BYTES
    assert '"x-6"' in kept_headers(headers)


def test_a_label_is_bounded_and_can_be_kept() -> None:
    assert label("text/\udcff" + "x" * 500).startswith("text/\\udcff")
    assert len(label("x" * 500)) == 200
