"""The parts of the leader can be ended and begun again in one process, and leave nothing behind."""

import asyncio
from inspect import iscoroutine

import pytest

from tests.acceptance.conftest import OTHER_ID, WA_ID, Install, Installation, until
from tests.acceptance.sinks import sink

OF_EACH = {"Heartbeat.run", "MessageCounts.run"}
"""The loops of `service/workers` that every replica has."""


@pytest.mark.sqlite  # elsewhere it is begun again by itself, as long as nobody else leads
async def test_what_the_leader_does_ends_without_a_trace_and_is_begun_again(
    install: Install,
) -> None:
    async with sink() as crm:
        made = await install(policy={"mode": "auto"}, relays={"crm": {"url": crm.url}})
        assert made.service is not None
        context = made.service.context
        assert context is not None
        listeners = len(context.ledger.listeners)
        for time, wa_id in ((1, WA_ID), (2, OTHER_ID)):
            await made.change(wa_id)
            await made.becomes("acknowledged", wa_id)
            await until(lambda time=time: len(crm.hits) == 2 * time - 1)
            await resign(made)
            assert context.leading is None
            assert running() == OF_EACH
            # Who waits for a user to change, who follows the event log, and who has a page open.
            assert len(context.ledger.listeners) == 3
            await made.change(wa_id)
            assert await made.state(wa_id) == "acknowledging"
            await lead(made)
            await until(lambda: len(context.ledger.listeners) == listeners)
            await made.becomes("acknowledged", wa_id)
            # What came while nobody led is delivered, and nothing twice.
            await until(lambda time=time: len(crm.hits) == 2 * time)


async def resign(made: Installation) -> None:
    assert made.service is not None
    assert made.service.leader is not None
    await made.service.leader.stop()
    await made.service.leader.finish(1)


async def lead(made: Installation) -> None:
    assert made.service is not None
    assert made.service.leader is not None
    await made.service.leader.prepare()
    made.service.leader.start()


def running() -> set[str]:
    """Give the functions of `service/workers` that tasks run."""
    found = [task.get_coro() for task in asyncio.all_tasks()]
    return {
        coroutine.__qualname__
        for coroutine in found
        if iscoroutine(coroutine) and "/service/workers/" in coroutine.cr_code.co_filename
    }
