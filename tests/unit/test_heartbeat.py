"""The service notes that it is alive, and knows after a downtime how long that was."""

from collections.abc import AsyncIterator

import pytest

from service.ledger.ledger import Ledger
from service.model.gate import Reason
from service.observability.metrics import Metrics
from service.store.accounts import alive_at
from service.store.database import UnavailableError
from service.workers.monitoring import Heartbeat
from tests.storing import AnyDatabase, MakeDatabase, opening

NOW = 1_600_000_000_000


class Clock:
    """A clock that is set by hand, in Unix milliseconds."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def database(make_database: MakeDatabase, clock: Clock) -> AsyncIterator[AnyDatabase]:
    async with opening(make_database(clock)) as opened:
        yield opened


@pytest.fixture
async def ledger(database: AnyDatabase) -> Ledger:
    return Ledger(database, {}, Metrics(), max_waiting=10)


def heartbeat(ledger: Ledger, database: AnyDatabase) -> tuple[Heartbeat, list[Reason | None]]:
    told: list[Reason | None] = []
    return Heartbeat(ledger, database, told.append), told


async def test_a_first_start_has_missed_nothing(ledger: Ledger, database: AnyDatabase) -> None:
    beating, told = heartbeat(ledger, database)
    await beating.begin()
    assert told == [None]
    assert await database.read(alive_at) == NOW


async def test_a_start_knows_how_long_the_service_was_down(
    ledger: Ledger, database: AnyDatabase, clock: Clock
) -> None:
    beating, _ = heartbeat(ledger, database)
    await beating.begin()
    clock.now += 60_000
    await beating.beat()
    clock.now += 3_600_000
    again, told = heartbeat(ledger, database)
    await again.begin()
    assert told == [Reason("catching_up", clock.now, until=clock.now + 157_000)]
    await again.beat()
    assert len(told) == 1


async def test_a_time_in_which_callbacks_were_refused_is_a_downtime_too(
    ledger: Ledger, database: AnyDatabase, clock: Clock
) -> None:
    beating, told = heartbeat(ledger, database)
    await beating.begin()
    clock.now += 10_000
    ledger.refused += 1
    await beating.beat()
    assert await database.read(alive_at) == NOW
    clock.now += 10_000
    await beating.beat()
    assert [reason and reason.since for reason in told] == [None, NOW + 10_000, NOW + 20_000]
    assert await database.read(alive_at) == clock.now
    clock.now += 10_000
    await beating.beat()
    assert len(told) == 3


async def test_so_is_one_in_which_the_heartbeat_itself_could_not_be_written(
    ledger: Ledger, database: AnyDatabase, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    beating, told = heartbeat(ledger, database)
    await beating.begin()

    async def fail(*_: object) -> None:
        raise UnavailableError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(database, "write", fail)
        clock.now += 10_000
        await beating.beat()
        await beating.beat()
    clock.now += 10_000
    await beating.beat()
    assert [reason and reason.since for reason in told] == [None, NOW + 20_000]
