"""One soak: load and faults together, then quiet, then a restore, then the verdict."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

from tools.processes import RunError
from tools.simulator import simulator
from tools.soak.api import Api
from tools.soak.cloud_model import ACCOUNTS
from tools.soak.database import Database, SqliteDatabase, postgres_database
from tools.soak.delivery import Delivery
from tools.soak.evidence import GateAnswers, Put, gather, gather_restored, outbox
from tools.soak.faults import (
    CLIENT_FAULTS,
    PROCESS_FAULTS,
    SERVICE_FAULTS,
    ClientFaults,
    ServiceFaults,
    cause_faults,
)
from tools.soak.load import Load
from tools.soak.oracle import coverage, judge
from tools.soak.record import Record, Violation
from tools.soak.service import Client, Service
from tools.soak.sinks import Sinks
from tools.soak.world import World

SETTLE_SECONDS = 60.0
"""How long each may take in the end: the senders, their callbacks, and the calls to the client."""
LONGEST_PAUSE_SECONDS = 300.0
"""What is promised of the pause between two tries."""
POLL_SECONDS = 0.1
MANY = 1_000_000
DOWN_SECONDS = 2.0
"""How long a sink is down when the backup is made, so that there is something left to deliver."""
AFTER_RESTORE = 50
"""Callbacks that come after the restore; on SQLite the first get numbers that others had."""
REPLICAS = {"sqlite": 1, "postgresql": 2}
"""Services, by kind of database."""
RESTORE_SECONDS = 1.0
"""A restore that is killed is killed within this time."""


@dataclass(slots=True)
class Soak:
    """What is asked for, and what was found."""

    folder: Path
    seed: str
    seconds: float
    database: str = "sqlite"
    """Its kind: sqlite or postgresql."""
    record: Record = field(default_factory=Record)
    coverage: dict[str, int] = field(default_factory=dict)
    puts: Sequence[Put] = ()

    @property
    def backup(self) -> Path:
        """The backup that is made half way, and restored in the end."""
        return self.folder / "backup"


@dataclass(frozen=True, slots=True)
class Stage:
    """All that takes part."""

    run: Soak
    client: Client
    services: Sequence[Service]
    """On PostgreSQL two replicas."""
    world: World
    delivery: Delivery
    api: Api
    sinks: Sinks

    @property
    def service(self) -> Service:
        """The first one, which is backed up and restored."""
        return self.services[0]

    async def start(self) -> None:
        """Start every service."""
        for service in self.services:
            await service.start()

    async def stop(self) -> None:
        """Stop every service in order."""
        for service in self.services:
            await service.stop()


async def soak(run: Soak) -> list[Violation]:
    """Run it, and return every violation."""
    try:
        async with AsyncExitStack() as stack:
            stage = await _set_up(run, stack)
            await _load(stage)
            return await _verdict(stage)
    except RunError as error:
        run.record.add_violation(str(error), "see the log of the service")
        return run.record.violations


async def _set_up(run: Soak, stack: AsyncExitStack) -> Stage:
    """Start all that takes part; it ends with the stack."""
    options = {"show_security_notifications": True, "health_per_minute": MANY}
    client = Client(stack.enter_context(simulator(run.folder, **options)))
    sinks = Sinks(run.record, random.Random(f"{run.seed} sinks"))
    await sinks.start()
    await stack.enter_async_context(aclosing(sinks))
    database = _database(run, stack)
    folders = [run.folder, run.folder / "second"][: REPLICAS[run.database]]
    services = [Service(folder, client, sinks.config, database) for folder in folders]
    for service in services:
        await stack.enter_async_context(aclosing(service))
        await service.start()
    delivery = Delivery(services, run.record, random.Random(f"{run.seed} delivery"))
    await stack.enter_async_context(aclosing(delivery))
    api = await stack.enter_async_context(aclosing(Api(services, run.record)))
    return Stage(run, client, services, World(client, run.record), delivery, api, sinks)


def _database(run: Soak, stack: AsyncExitStack) -> Database:
    if run.database == "postgresql":
        return stack.enter_context(postgres_database(run.folder))
    return SqliteDatabase(run.folder / "ackgate.db")


async def _load(stage: Stage) -> None:
    """Load it and let things fail, then let it come to rest."""
    stop, seed = asyncio.Event(), stage.run.seed
    load = Load(stage.world, stage.delivery, stage.api, stage.run.record)
    again = asyncio.create_task(stage.delivery.deliver_again())
    sending = asyncio.create_task(load.send(seed, stop))
    failing = asyncio.create_task(_fail(stage, stop))
    backing_up = asyncio.create_task(_back_up(stage))
    tasks = (again, sending, failing, backing_up)
    try:
        done, _ = await asyncio.wait(
            tasks, timeout=stage.run.seconds, return_when=asyncio.FIRST_EXCEPTION
        )
        for task in done:
            task.result()
        stop.set()
        await asyncio.gather(failing, backing_up)
        await _come_to_rest(stage, sending)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _back_up(stage: Stage) -> None:
    """Make a backup half way, while one sink takes nothing."""
    await asyncio.sleep(stage.run.seconds / 2)
    stage.sinks.is_down = True
    await asyncio.sleep(DOWN_SECONDS)
    await stage.service.back_up(stage.run.backup)
    stage.sinks.is_down = False


async def _fail(stage: Stage, stop: asyncio.Event) -> None:
    """Let service and client fail, each by itself, until both are well again in the end."""
    record, seed = stage.run.record, stage.run.seed
    faults, calm = SERVICE_FAULTS[stage.run.database], asyncio.Lock()
    of_service = ServiceFaults(stage.service, stage.client, calm)
    of_others = [ServiceFaults(other, stage.client, calm) for other in stage.services[1:]]
    of_client = ClientFaults(stage.client)
    await asyncio.gather(
        cause_faults(of_service, faults, record, f"{seed} service", stop),
        cause_faults(of_client, CLIENT_FAULTS, record, f"{seed} client", stop),
        *(cause_faults(one, PROCESS_FAULTS, record, f"{seed} other", stop) for one in of_others),
    )
    for other in stage.services[1:]:  # it too may pause because of a refused login
        await other.stop()
        await other.start()


async def _come_to_rest(stage: Stage, sending: asyncio.Task[None]) -> None:
    """Wait until everything is sent and accepted, and no work is left."""
    record, delivery = stage.run.record, stage.delivery
    done, _ = await asyncio.wait({sending}, timeout=SETTLE_SECONDS)
    if not done:
        record.add_violation("a sender waits for ever", "")
    deadline = time.monotonic() + SETTLE_SECONDS
    while delivery.undelivered and time.monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)
    record.undelivered = delivery.undelivered
    await stage.sinks.come_to_rest(stage.api, SETTLE_SECONDS)
    began = time.time()
    while left := await outbox(stage.service.database):
        last_due = min(max(work.due_at for work in left) / 1000, began + LONGEST_PAUSE_SECONDS)
        if time.time() > max(began, last_due) + SETTLE_SECONDS:
            return
        await asyncio.sleep(POLL_SECONDS)


async def _verdict(stage: Stage) -> list[Violation]:
    """Ask the gate about everybody, stop the service, gather the evidence, restore, and judge."""
    run, service = stage.run, stage.service
    names = [person.wa_id for person in stage.world.people]
    new_numbers = [change.wa_id for change in run.record.number_changes.values()]
    reasons = await stage.api.lookup([*names, *new_numbers, *run.record.checks])
    cloud = {
        (account, name): answer
        for account in ACCOUNTS
        for name, answer in (
            await stage.api.cloud_lookup(account, _cloud_names(run.record, account))
        ).items()
    }
    await stage.stop()
    seen = await stage.client.do("seen")
    gate = GateAnswers(reasons, cloud)
    evidence = await gather(service.database, [each.log for each in stage.services], seen, gate)
    await _restore(stage)
    backup = await service.database.opened(run.backup)
    restored = await gather_restored(backup, service.database)
    evidence = replace(evidence, restored=restored)
    run.puts, run.coverage = evidence.puts, coverage(run.record, evidence)
    run.record.counts |= Counter(
        kills=sum(each.kills for each in stage.services),
        starts=sum(each.starts for each in stage.services),
    )
    return judge(run.record, evidence)


async def _restore(stage: Stage) -> None:
    """Restore the backup, at the second attempt, and let the relays deliver what is left."""
    run, service = stage.run, stage.service
    chance = random.Random(f"{run.seed} restore")
    stage.sinks.begin_anew()
    await service.restore(run.backup, kill_after=chance.uniform(0, RESTORE_SECONDS))
    await asyncio.sleep(1)  # what is replaced is named by the second
    await service.restore(run.backup)
    await stage.start()
    # By themselves: the evidence of all that came before is gathered already.
    later = Record()
    async with aclosing(Delivery(stage.services, later, chance)) as delivery:
        for _ in range(AFTER_RESTORE):
            await delivery.deliver(stage.world.status(chance))
        if delivery.undelivered:
            later.add_violation("a callback was not accepted after a restore", "")
    run.record.violations += later.violations
    await stage.sinks.come_to_rest(stage.api, SETTLE_SECONDS)
    await stage.stop()


def _cloud_names(record: Record, account: str) -> list[str]:
    """Return all names of users of the Cloud API that were in accepted callbacks."""
    steps = [step for life in record.lives if life.account == account for step in life.steps]
    return sorted({name for step in steps for name in (step.wa_id, step.user_id) if name})
