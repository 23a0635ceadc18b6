"""One soak: load and faults together, then quiet, then the verdict."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path

from tools.soak.api import Api
from tools.soak.client import Client, client_in
from tools.soak.command import Command, CommandError, command_in
from tools.soak.customers import ACCOUNTS
from tools.soak.door import Door
from tools.soak.evidence import Put
from tools.soak.faults import OF_CLIENT, OF_SERVICE, OfClient, OfService, Trouble
from tools.soak.finding import Gate, find, until_done
from tools.soak.load import Load
from tools.soak.oracle import coverage, judge
from tools.soak.record import Record, Wrong
from tools.soak.world import World

SETTLE_SECONDS = 60.0
"""So long each may take in the end: the senders, what is owed, and what the client is asked."""
POLL_SECONDS = 0.1


@dataclass(slots=True)
class Soak:
    """What is asked for, and what came of it."""

    folder: Path
    seed: str
    seconds: float
    record: Record = field(default_factory=Record)
    coverage: dict[str, int] = field(default_factory=dict)
    puts: Sequence[Put] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """All that takes part."""

    run: Soak
    client: Client
    command: Command
    world: World
    door: Door
    api: Api


async def soak(run: Soak) -> list[Wrong]:
    """Run it; give everything that was wrong."""
    try:
        async with AsyncExitStack() as stack:
            stage = await _set_up(run, stack)
            await _strain(stage)
            return await _verdict(stage)
    except CommandError as error:
        run.record.complain(str(error), "its log tells more")
        return run.record.wrongs


async def _set_up(run: Soak, stack: AsyncExitStack) -> Stage:
    """Start all that takes part; it ends with the stack."""
    client = await stack.enter_async_context(client_in(run.folder))
    command = await stack.enter_async_context(command_in(run.folder, client))
    chance = random.Random(f"{run.seed} door")
    door = await stack.enter_async_context(aclosing(Door(command, run.record, chance)))
    api = await stack.enter_async_context(aclosing(Api(command, run.record)))
    return Stage(run, client, command, World(client, run.record), door, api)


async def _strain(stage: Stage) -> None:
    """Load it and let things fail, then let it come to rest."""
    again = asyncio.create_task(stage.door.deliver_again())
    stop = asyncio.Event()
    load = Load(stage.world, stage.door, stage.api, stage.run.record)
    sending = asyncio.create_task(load.send(stage.run.seed, stop))
    failing = asyncio.create_task(_fail(stage, stop))
    try:
        await _watch({again, sending, failing}, stage.run.seconds)
        stop.set()
        await failing
        await _rest(stage, sending)
    finally:
        for task in (again, sending, failing):
            task.cancel()
        await asyncio.gather(again, sending, failing, return_exceptions=True)


async def _watch(tasks: set[asyncio.Task[None]], seconds: float) -> None:
    """Let tasks run for so long; raise what one of them raises."""
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


async def _fail(stage: Stage, stop: asyncio.Event) -> None:
    """Let service and client fail, each by itself, and be well again in the end."""
    record, seed = stage.run.record, stage.run.seed
    of_service = Trouble(OfService(stage.command, stage.client), OF_SERVICE, record)
    of_client = Trouble(OfClient(stage.client), OF_CLIENT, record)
    await asyncio.gather(
        of_service.cause(f"{seed} service", stop), of_client.cause(f"{seed} client", stop)
    )


async def _rest(stage: Stage, sending: asyncio.Task[None]) -> None:
    """Wait until everything is sent and accepted, and nothing is left to be done."""
    done, _ = await asyncio.wait({sending}, timeout=SETTLE_SECONDS)
    if not done:
        stage.run.record.complain("a sender waits for ever", "")
    deadline = time.monotonic() + SETTLE_SECONDS
    while stage.door.owed and time.monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)
    stage.run.record.owed = stage.door.owed
    await until_done(stage.command.database, SETTLE_SECONDS)


async def _verdict(stage: Stage) -> list[Wrong]:
    """Ask the gate about everybody, stop the service, gather the evidence, and judge."""
    run, command = stage.run, stage.command
    names = [person.wa_id for person in stage.world.people]
    moved_to = [move.wa_id for move in run.record.moves.values()]
    gate = await stage.api.lookup([*names, *moved_to, *run.record.checks])
    shown = {
        (account, name): told
        for account in ACCOUNTS
        for name, told in (await stage.api.shop(account, _names(run.record, account))).items()
    }
    await command.stop()
    evidence = await find(command.database, command.log, stage.client, Gate(gate, shown))
    run.puts, run.coverage = evidence.puts, coverage(run.record, evidence)
    run.record.counts |= Counter({"kills": command.kills, "starts": command.starts})
    return judge(run.record, evidence)


def _names(record: Record, account: str) -> list[str]:
    """Give all names that users of the Cloud API were told by."""
    steps = [step for life in record.lives if life.account == account for step in life.steps]
    return sorted({name for step in steps for name in (step.wa_id, step.user_id) if name})
