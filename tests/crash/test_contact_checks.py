"""SIGKILL while contacts are checked: no number is forgotten, none costs twice."""

import asyncio
import signal
from contextlib import suppress

import aiohttp
import pytest

from service.simulator import Simulator
from tests.acceptance.conftest import until
from tests.crash.conftest import TOKEN, Command, Start
from tests.crash.test_matrix import points_where

COUNT = 150
NUMBERS = [f"+1631556{n:04}" for n in range(COUNT)]
KEY = {"Idempotency-Key": "one"}


async def ask(command: Command) -> int | None:
    """Have the numbers checked; give the status, None where the process ended before."""
    url = f"{command.url}/api/v1/accounts/main/contacts"
    async with aiohttp.ClientSession() as http:
        with suppress(aiohttp.ClientError):
            async with http.post(url, json={"contacts": NUMBERS}, headers=KEY) as response:
                await response.read()
                return response.status
    return None


def open_checks(command: Command) -> int:
    return int(command.rows("SELECT count(*) FROM contacts WHERE due_at IS NOT NULL")[0][0])


@pytest.mark.parametrize("name", points_where(lambda n: n.startswith(("check.", "recheck."))))
async def test_a_kill_while_contacts_are_checked(
    command: Command, simulator: Simulator, start: Start, name: str
) -> None:
    simulator.webhook_url = f"{command.url}/webhooks/main/{TOKEN}"
    simulator.fault("callback_contacts", lose=True, times=2)
    process = await start(f"{name}:1")
    assert await command.ready(process)
    await ask(command)
    assert await process.wait() == -signal.SIGKILL

    process = await start()
    assert await command.ready(process)
    assert await ask(command) == 200
    await until(lambda: not open_checks(command), 30)
    found = command.rows("SELECT status, count(*), count(DISTINCT wa_id) FROM contacts GROUP BY 1")
    assert found == [("valid", COUNT, COUNT)]
    assert command.rows("SELECT sum(checks) FROM contact_days") == [(COUNT,)]
    assert simulator.contacts.counts["limited"] == 0


@pytest.mark.parametrize("name", points_where(lambda n: n.startswith("messages.")))
async def test_a_kill_while_messages_are_written_counts_none_twice(
    command: Command, start: Start, name: str
) -> None:
    status = {"id": "x", "recipient_id": "16315550001", "status": "sent", "timestamp": "1"}
    process = await start(f"{name}:1")
    assert await command.ready(process)
    async with aiohttp.ClientSession() as http:
        url = f"{command.url}/webhooks/main/{TOKEN}"
        async with http.post(url, json={"statuses": [status]}) as response:
            assert response.status == 200
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL
    process = await start()
    assert await command.ready(process)
    written = 1 if name == "messages.after_write" else None
    assert command.rows("SELECT sum(sent) FROM contact_days") == [(written,)]
