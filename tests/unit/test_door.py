"""The door by itself: whatever goes wrong with reading a callback, it is kept."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from service.ingress.bodies import Intake
from service.ingress.door import OFF_LOOP_BYTES, Door, Entrance
from service.ledger.ledger import Ledger
from service.ledger.messages import Messages
from service.model.events import Reading
from service.model.policy import Policies, Policy
from service.observability.metrics import Metrics
from service.store.queries import list_journal
from service.store.sqlite import SQLiteDatabase

MAX_BODY = 4 * OFF_LOOP_BYTES


def failing(_: str, __: str, ___: bytes) -> Mapping[str, Reading]:
    raise RuntimeError("a fault in the dialect")


@pytest.mark.parametrize("size", [2, OFF_LOOP_BYTES + 1], ids=["small", "read beside the loop"])
async def test_what_the_dialect_fails_on_is_kept_and_answered_200(
    tmp_path: Path, size: int
) -> None:
    async with AsyncExitStack() as stack:
        database, metrics = SQLiteDatabase(tmp_path / "ackgate.db"), Metrics()
        await database.open()
        stack.push_async_callback(database.close)
        policies = {"main": Policies((), Policy("default"))}
        ledger = Ledger(database, policies, metrics, max_waiting=10)
        stack.push_async_callback(ledger.close)
        intake = Intake(metrics, max_body=MAX_BODY, max_in_flight=MAX_BODY, timeout_seconds=5)
        entrances = {"main": Entrance("main", None, failing)}
        door = Door(entrances, ledger, intake, metrics, Messages(), {})
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/webhooks/{account}", door.post)
        client = await stack.enter_async_context(TestClient(TestServer(app)))
        answer = await client.post("/webhooks/main", data=b"x" * size)
        assert (answer.status, await answer.read()) == (200, b"{}")
        [row] = await database.read(lambda c: list_journal(c, None, None, 0, 10))
    assert (row.account, row.state, row.reason) == (
        "main",
        "quarantined",
        "the rules failed: RuntimeError",
    )
