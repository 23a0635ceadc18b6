"""Old callbacks go, a little at a time; what somebody may still need stays."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, update

from service.ledger.callbacks import RecordCallback
from service.ledger.ledger import Ledger
from service.model.event_log import EventType, LoggedEvent
from service.model.events import IdentitySeen
from service.model.policy import Policies, Policy
from service.model.timeline import Moment
from service.observability.metrics import Metrics
from service.settings import RetentionSettings
from service.store.database import JournalRow, Transaction, UnavailableError
from service.store.events import read_events, span_of
from service.store.journal import list_journal
from service.store.relays import Source
from service.store.retention import Limits, next_chunk, next_quarantined, oldest_entry
from service.store.schema import audit, journal, users
from service.workers import retention
from service.workers.retention import Retention
from tests.querying import looked_at
from tests.storing import AnyDatabase, MakeDatabase, opening, settled, within

DAY = 86_400_000
NOW = 2_000 * DAY
POLICIES = {"main": Policies((), Policy("default"))}


class Clock:
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
async def ledger(database: AnyDatabase) -> AsyncIterator[Ledger]:
    made = Ledger(database, POLICIES, Metrics(), max_waiting=10_000)
    yield made
    await made.close()


class Keeper:
    """Looks after the journal with some settings."""

    def __init__(self, ledger: Ledger, database: AnyDatabase, **days: float) -> None:
        self.metrics = Metrics()
        self.retention = Retention(RetentionSettings(**days), ledger, database, self.metrics)

    async def look(self) -> int:
        return await self.retention.look()

    @property
    def counted(self) -> float | None:
        return self.metrics.registry.get_sample_value("ackgate_journal_deleted_total")


def row(days_ago: float, state: str = "applied", body: bytes = b"{}") -> JournalRow:
    at = NOW - round(days_ago * DAY)
    return JournalRow("main", at, state, "application/json", "", "[]", body)


async def keep(database: AnyDatabase, *rows: JournalRow) -> list[int]:
    """Keep callbacks, one after another; give their ids."""

    async def work(transaction: Transaction) -> list[int]:
        ids = [transaction.new_journal_id() for _ in rows]
        named = [row._replace(id=id_) for row, id_ in zip(rows, ids, strict=True)]
        await transaction.add_journal(named)
        return ids

    return await within(database, work)


async def kept(database: AnyDatabase) -> list[int]:
    await settled(database)
    listed = await database.read(lambda c: list_journal(c, None, None, 0, 1000))
    return [entry.id for entry in listed]


async def fill(database: AnyDatabase, count: int, days_ago: float, size: int = 400) -> list[int]:
    """Keep many old callbacks; give their ids."""
    many = [row(days_ago, body=bytes(size))] * count
    parts = [many[start : start + 5_000] for start in range(0, count, 5_000)]
    return [id_ for part in parts for id_ in await keep(database, *part)]


async def test_what_is_older_than_thirty_days_goes_and_the_rest_stays(
    database: AnyDatabase, ledger: Ledger
) -> None:
    ids = await keep(database, row(40), row(30.1), row(29.9), row(1))
    keeper = Keeper(ledger, database)
    assert await keeper.look() == 2
    assert await kept(database) == ids[2:]
    assert await keeper.look() == 0
    assert keeper.counted == 2


async def test_an_entry_goes_once_its_time_has_come(
    database: AnyDatabase, ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "JUMP_SECONDS", 10**9)
    ids = await keep(database, row(29.5), row(29), row(0), row(0))
    keeper = Keeper(ledger, database)
    assert await keeper.look() == 0
    clock.now += DAY // 2 + 1
    assert await keeper.look() == 1
    clock.now += DAY
    assert await keeper.look() == 1
    assert await kept(database) == ids[2:]


async def test_a_part_that_could_not_be_read_is_kept_three_times_as_long(
    database: AnyDatabase, ledger: Ledger
) -> None:
    quarantined = [row(days, "quarantined") for days in (91, 89, 31, 1)]
    ids = await keep(database, quarantined[0], row(80), *quarantined[1:], row(0))
    assert await Keeper(ledger, database).look() == 2
    assert await kept(database) == ids[2:]


async def test_what_was_replayed_and_understood_goes_like_any_other(
    database: AnyDatabase, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "WALKS_ANEW", 2)
    [first, *_] = await keep(database, row(40, "quarantined"), row(40), row(0))
    keeper = Keeper(ledger, database)
    assert await keeper.look() == 1
    replayed = update(journal).where(journal.c.id == first).values(state="applied", replayed_at=1)
    await database.write(lambda c: c.execute(replayed))
    assert [await keeper.look() for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(
    ("days", "left"),
    [
        ({"journal_days": 0.0}, [1, 2]),
        ({"quarantined_days": 0.0}, [0, 2]),
        ({"journal_days": 0.0, "quarantined_days": 0.0}, [0, 1, 2]),
    ],
)
async def test_zero_days_keep_for_ever(
    database: AnyDatabase, ledger: Ledger, days: dict[str, float], left: list[int]
) -> None:
    ids = await keep(database, row(900, "quarantined"), row(900), row(0))
    keeper = Keeper(ledger, database, **days)
    assert keeper.retention.wanted is bool(left != [0, 1, 2])
    await keeper.look()
    assert await kept(database) == [ids[n] for n in left]


async def test_the_newest_entry_stays_so_that_no_id_is_given_twice(
    database: AnyDatabase, ledger: Ledger
) -> None:
    [_, newest] = await keep(database, row(40), row(40))
    await Keeper(ledger, database).look()
    assert await kept(database) == [newest]
    [next_] = await keep(database, row(0))
    assert next_ > newest
    assert await kept(database) == [newest, next_]


async def test_an_entry_from_a_clock_that_ran_ahead_does_not_hold_up_the_others(
    database: AnyDatabase, ledger: Ledger
) -> None:
    ids = await keep(database, row(40), row(-4000), row(40), row(0))
    assert await Keeper(ledger, database).look() == 2
    assert await kept(database) == [ids[1], ids[3]]


async def test_a_clock_that_is_set_forward_deletes_nothing_before_the_next_look(
    database: AnyDatabase, ledger: Ledger, clock: Clock
) -> None:
    ids = await keep(database, row(20), row(1), row(0))
    keeper = Keeper(ledger, database)
    assert await keeper.look() == 0
    clock.now += 15 * DAY
    assert await keeper.look() == 0
    assert await kept(database) == ids
    clock.now -= 15 * DAY
    assert await keeper.look() == 0
    assert await kept(database) == ids


async def test_a_look_sees_no_more_than_what_is_to_go_and_one_entry(
    database: AnyDatabase, ledger: Ledger
) -> None:
    ids = await fill(database, 1200, 40)
    await fill(database, 5000, 1)
    limits = Limits(NOW, NOW - 30 * DAY, NOW - 90 * DAY)
    after, seen = 0, []
    for _ in range(3):
        look = partial(next_chunk, limits=limits, after=after, rows=500, size=10**9)
        chunk = await database.read(look)
        seen.append((len(chunk.ids), chunk.last, chunk.more))
        after = chunk.last
    assert seen == [(500, ids[499], True), (500, ids[999], True), (200, ids[1199], False)]
    look = partial(next_quarantined, limits=limits, after=0, rows=500, size=10**9)
    found, rows, _ = await looked_at(database, look)
    assert (found.ids, found.more) == ((), False)
    assert rows < 10
    assert await Keeper(ledger, database).look() == 1200


async def test_large_bodies_go_a_few_at_a_time(database: AnyDatabase) -> None:
    await keep(database, *(row(40, body=bytes(400_000)) for _ in range(5)), row(0))
    limits = Limits(NOW, NOW - 30 * DAY, 0)
    after, sizes, more = 0, [], True
    while more:
        look = partial(next_chunk, limits=limits, after=after, rows=500, size=1_000_000)
        chunk = await database.read(look)
        sizes.append(len(chunk.ids))
        after, more = chunk.last, chunk.more
    assert sizes == [2, 2, 1]


@pytest.mark.slow
@pytest.mark.sqlite
async def test_the_space_is_given_back_but_for_a_reserve(
    database: AnyDatabase, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SHARE", 0.5)
    path = tmp_path / "ackgate.db"
    await fill(database, 10_000, 40, size=2000)
    await fill(database, 1000, 0, size=2000)

    def pages(connection: Connection, name: str = "page_count") -> int:
        return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())

    before = await database.write(pages)
    assert await Keeper(ledger, database).look() == 10_000
    free = await database.write(partial(pages, name="freelist_count"))
    after = await database.write(pages)
    assert after < before / 5
    assert 0 < free <= 1.2 * after / retention.KEPT_FREE
    await database.close()
    with path.open("rb") as file:
        assert file.seek(0, 2) == after * 4096
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
async def test_accepting_goes_on_while_a_hundred_thousand_callbacks_are_deleted(
    database: AnyDatabase, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SHARE", 0.5)
    await fill(database, 100_000, 40)
    # The newest row is never deleted.
    newer = IdentitySeen("1", "A", Moment(NOW))
    await ledger.submit(RecordCallback("main", NOW, "digest", (newer,), row(0), request_id="one"))
    deleting = asyncio.create_task(Keeper(ledger, database).look())

    async def send(sender: int) -> int:
        sent = 0
        while not deleting.done():
            seen = IdentitySeen(f"1{sender}{sent}", "A", Moment(NOW))
            entry = RecordCallback("main", NOW, "digest", (seen,), row(0), request_id="one")
            await ledger.submit(entry, bounded=True)
            sent += 1
            await asyncio.sleep(0.01)
        return sent

    sent = 1 + sum(await asyncio.gather(*(send(n) for n in range(4))))
    assert deleting.result() == 100_000
    assert sent > 100, "in one transaction it would be four"
    assert len(await database.read(lambda c: c.execute(select(journal.c.id)).all())) == sent
    assert await database.read(lambda c: c.execute(select(func.count(users.c.id))).scalar()) == sent
    assert await database.read(lambda c: c.execute(select(func.count(audit.c.id))).scalar()) == sent


async def test_the_age_of_the_oldest_is_told(database: AnyDatabase) -> None:
    assert await database.read(oldest_entry) is None
    await keep(database, row(3), row(1))
    assert await database.read(oldest_entry) == NOW - 3 * DAY


async def test_a_database_that_fails_is_tried_again(
    database: AnyDatabase, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "FIRST_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(retention, "EVERY_SECONDS", 0.01)
    ids = await keep(database, row(40), row(0))
    tries, write = 0, database.write

    async def fail(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        raise UnavailableError("disk full")

    monkeypatch.setattr(database, "write", fail)
    keeper = Keeper(ledger, database)
    running = asyncio.create_task(keeper.retention.run())
    try:
        async with asyncio.timeout(10):
            while tries < 3:
                await asyncio.sleep(0.01)
            assert await kept(database) == ids
            monkeypatch.setattr(database, "write", write)
            while keeper.counted != 1:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@dataclass
class Reader:
    """What still needs the journal from an id on."""

    needs_from: int
    source: Source = "callbacks"
    lost: list[int] = field(default_factory=list)

    def lose(self, ids: Sequence[int]) -> None:
        self.lost += [id_ for id_ in ids if id_ >= self.needs_from]


async def test_what_a_relay_still_needs_is_held_for_relay_days_and_no_longer(
    database: AnyDatabase, ledger: Ledger
) -> None:
    ids = await keep(database, *(row(days) for days in (20, 15, 13, 9, 5, 1)))
    keeper = Keeper(ledger, database, journal_days=7.0, relay_days=14.0)
    reader = Reader(needs_from=ids[1])
    keeper.retention.readers = [reader]
    assert await keeper.look() == 2
    assert await kept(database) == ids[2:]
    assert reader.lost == [ids[1]]
    reader.needs_from = ids[4]
    assert await keeper.look() == 2
    assert await kept(database) == ids[4:]


@pytest.mark.sqlite
async def test_while_the_disk_is_low_nothing_is_held_for_relays(
    database: AnyDatabase, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(database, row(9), row(8), row(1))
    keeper = Keeper(ledger, database, journal_days=7.0)
    keeper.retention.readers = [Reader(needs_from=1)]
    assert await keeper.look() == 0
    monkeypatch.setattr(retention, "LOW_DISK_BYTES", 2**62)
    assert await keeper.look() == 2


async def test_events_go_after_as_many_days_as_callbacks(
    ledger: Ledger, database: AnyDatabase
) -> None:
    events = [
        LoggedEvent(NOW - days * DAY, "main", EventType.PENDING, (), {}) for days in (40, 31, 29, 1)
    ]
    await within(database, lambda transaction: transaction.add_events(events))
    keeper = Keeper(ledger, database, journal_days=30)
    assert await keeper.look() == 0
    await settled(database)
    left = await database.read(lambda c: read_events(c, 0, 10))
    assert [event.at for event in left] == [NOW - 29 * DAY, NOW - DAY]
    assert (await database.read(span_of)).deleted == left[0].id - 1
    await Keeper(ledger, database, journal_days=0).look()
    assert await database.read(lambda c: read_events(c, 0, 10)) == left
    await Keeper(ledger, database, journal_days=0, events_days=20).look()
    assert await database.read(lambda c: read_events(c, 0, 10)) == left[1:]
