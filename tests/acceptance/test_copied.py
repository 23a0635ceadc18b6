"""A service moves from its SQLite file to PostgreSQL, and goes on with all that it had."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.store import maintenance
from service.store.postgres_copy import Outcome, copy
from tests.acceptance.conftest import OTHER_ID, WA_ID, Install, Installation, merge, until
from tests.acceptance.sinks import sink
from tests.acceptance.test_relays import text, to

pytestmark = pytest.mark.postgres


async def copied(file: Path, url: str) -> Outcome:
    return await asyncio.to_thread(copy, file, url, lambda _, __: None)


async def events_after(service: Installation, last_id: str) -> tuple[list[dict[str, Any]], str]:
    accept = {"Accept": "application/json"}
    path = f"/events?after={last_id}&limit=1000"
    status, page = await service.api("GET", path, headers=accept)
    assert status == 200, page
    return page["items"], page["next_cursor"]


@pytest.fixture
async def file_service(prepare: Install, tmp_path: Path) -> Installation:
    """An installation on SQLite, whatever the others run on; it is not started."""
    made = await prepare()
    file = tmp_path / "before.db"
    maintenance.create(file)
    made.tree = merge(made.tree, {"database": {"url": f"sqlite:///{file}"}})
    return made


async def test_everything_goes_on_after_the_copy(
    file_service: Installation, empty_postgres_url: str, tmp_path: Path
) -> None:
    service, file = file_service, tmp_path / "before.db"
    async with sink() as crm:
        await service.start(relays=to(crm.url))
        await service.deliver(text(1), text(2, OTHER_ID))
        await until(lambda: len(crm.taken) == 2)
        port = crm.port
        await crm.close()
        await service.deliver(text(3), text(4, OTHER_ID))
        hash_ = await service.change(WA_ID)
        assert not (await copied(file, empty_postgres_url)).is_final, "the service has the file"

        await service.deliver(text(5))
        other_hash = await service.change(OTHER_ID)
        asked = [(await service.gate(wa_id))["reasons"] for wa_id in (WA_ID, OTHER_ID)]
        assert all(asked)
        known = [await service.identity(wa_id) for wa_id in (WA_ID, OTHER_ID)]
        told, position = await events_after(service, "first")
        await service.stop()
        assert (await copied(file, empty_postgres_url)).is_final

        await service.start(database={"url": empty_postgres_url})
        answers = [await service.gate(wa_id) for wa_id in (WA_ID, OTHER_ID)]
        assert [answer["reasons"] for answer in answers] == asked
        assert [await service.identity(wa_id) for wa_id in (WA_ID, OTHER_ID)] == known
        await service.deliver(text(6))
        await crm.open(port)
        await until(lambda: len({*crm.bodies}) == 8)
        assert len(crm.bodies) == 8, "with the two changes, each once"
        of_one = [body for body in crm.bodies if body in {text(n) for n in (1, 3, 5, 6)}]
        assert of_one == [text(n) for n in (1, 3, 5, 6)], "in their order"

        await service.acknowledge(hash_)
        await service.becomes("acknowledged", WA_ID, hash_)
        assert service.sim.users[WA_ID].acknowledged
        [reset, *again], now = await events_after(service, position)
        assert reset["type"] == "reset"
        assert [event["data"] for event in again[: len(told)]] == [event["data"] for event in told]
        assert len(again) > len(told)
        await service.change(OTHER_ID)
        await service.becomes("pending", OTHER_ID)
        later, _ = await events_after(service, now)
        assert {event["user"] for event in later} == {OTHER_ID}
        numbers = [int(event["id"].rpartition("-")[2]) for event in [*again, *later]]
        assert numbers == sorted({*numbers})
    assert other_hash == known[1]["hash"]
