"""Old callbacks go, a little at a time; what somebody may still need stays."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from service.ledger.callbacks import RecordCallback
from service.ledger.ledger import Ledger
from service.model.event_log import EventType, LoggedEvent
from service.model.events import IdentitySeen
from service.model.policy import Policies, Policy
from service.model.timeline import Moment
from service.observability.metrics import Metrics
from service.settings import RetentionSettings
from service.store.database import JournalRow, Transaction
from service.store.events import read_events, span_of
from service.store.journal import list_journal
from service.store.relays import Source
from service.store.retention import Limits, next_chunk, next_quarantined, oldest_entry
from service.store.schema import audit, journal, users
from service.store.sqlite import SQLiteDatabase
from service.workers import retention
from service.workers.retention import Retention
from tests.storing import within

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
def path(tmp_path: Path) -> Path:
    return tmp_path / "ackgate.db"


@pytest.fixture
async def database(path: Path, clock: Clock) -> AsyncIterator[SQLiteDatabase]:
    opened = SQLiteDatabase(path, clock=clock)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
async def ledger(database: SQLiteDatabase) -> AsyncIterator[Ledger]:
    made = Ledger(database, POLICIES, Metrics(), max_waiting=10_000)
    yield made
    await made.close()


class Keeper:
    """Looks after the journal with some settings."""

    def __init__(self, ledger: Ledger, database: SQLiteDatabase, **days: float) -> None:
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


async def keep(database: SQLiteDatabase, *rows: JournalRow) -> None:
    await within(database, lambda transaction: transaction.add_journal(rows))


async def kept(database: SQLiteDatabase) -> list[int]:
    listed = await database.read(lambda c: list_journal(c, None, None, 0, 1000))
    return [entry.id for entry in listed]


async def fill(database: SQLiteDatabase, count: int, days_ago: float, size: int = 400) -> None:
    """Keep many old callbacks."""
    sql = (
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO journal (id, account, received_at, state, content_type, content_encoding, "
        "headers, body) SELECT ? + i, 'main', ? + i, 'applied', '', '', '[]', randomblob(?) FROM n"
    )

    async def work(transaction: Transaction) -> None:
        ids = [transaction.new_journal_id() for _ in range(count)]
        values = (count - 1, ids[0], NOW - round(days_ago * DAY), size)
        await transaction.run(lambda c: c.exec_driver_sql(sql, values))

    await within(database, work)


async def test_what_is_older_than_thirty_days_goes_and_the_rest_stays(
    database: SQLiteDatabase, ledger: Ledger
) -> None:
    await keep(database, row(40), row(30.1), row(29.9), row(1))
    keeper = Keeper(ledger, database)
    assert await keeper.look() == 2
    assert await kept(database) == [3, 4]
    assert await keeper.look() == 0
    assert keeper.counted == 2


async def test_an_entry_goes_once_its_time_has_come(
    database: SQLiteDatabase, ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "JUMP_SECONDS", 10**9)
    await keep(database, row(29.5), row(29), row(0), row(0))
    keeper = Keeper(ledger, database)
    assert await keeper.look() == 0
    clock.now += DAY // 2 + 1
    assert await keeper.look() == 1
    clock.now += DAY
    assert await keeper.look() == 1
    assert await kept(database) == [3, 4]


async def test_a_part_that_could_not_be_read_is_kept_three_times_as_long(
    database: SQLiteDatabase, ledger: Ledger
) -> None:
    quarantined = [row(days, "quarantined") for days in (91, 89, 31, 1)]
    await keep(database, quarantined[0], row(80), *quarantined[1:], row(0))
    assert await Keeper(ledger, database).look() == 2
    assert await kept(database) == [3, 4, 5, 6]


async def test_what_was_replayed_and_understood_goes_like_any_other(
    database: SQLiteDatabase, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "WALKS_ANEW", 2)
    await keep(database, row(40, "quarantined"), row(40), row(0))
    keeper = Keeper(ledger, database)
    assert await keeper.look() == 1
    sql = "UPDATE journal SET state = 'applied', replayed_at = 1 WHERE id = 1"
    await database.write(lambda c: c.exec_driver_sql(sql))
    assert [await keeper.look() for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(
    ("days", "left"),
    [
        ({"journal_days": 0.0}, [2, 3]),
        ({"quarantined_days": 0.0}, [1, 3]),
        ({"journal_days": 0.0, "quarantined_days": 0.0}, [1, 2, 3]),
    ],
)
async def test_zero_days_keep_for_ever(
    database: SQLiteDatabase, ledger: Ledger, days: dict[str, float], left: list[int]
) -> None:
    await keep(database, row(900, "quarantined"), row(900), row(0))
    keeper = Keeper(ledger, database, **days)
    assert keeper.retention.wanted is bool(left != [1, 2, 3])
    await keeper.look()
    assert await kept(database) == left


async def test_the_newest_entry_stays_so_that_no_id_is_given_twice(
    database: SQLiteDatabase, ledger: Ledger
) -> None:
    await keep(database, row(40), row(40))
    await Keeper(ledger, database).look()
    assert await kept(database) == [2]
    await keep(database, row(0))
    assert await kept(database) == [2, 3]


async def test_an_entry_from_a_clock_that_ran_ahead_does_not_hold_up_the_others(
    database: SQLiteDatabase, ledger: Ledger
) -> None:
    await keep(database, row(40), row(-4000), row(40), row(0))
    assert await Keeper(ledger, database).look() == 2
    assert await kept(database) == [2, 4]


async def test_a_clock_that_is_set_forward_deletes_nothing_before_the_next_look(
    database: SQLiteDatabase, ledger: Ledger, clock: Clock
) -> None:
    await keep(database, row(20), row(1), row(0))
    keeper = Keeper(ledger, database)
    assert await keeper.look() == 0
    clock.now += 15 * DAY
    assert await keeper.look() == 0
    assert await kept(database) == [1, 2, 3]
    clock.now -= 15 * DAY
    assert await keeper.look() == 0
    assert await kept(database) == [1, 2, 3]


async def test_a_look_sees_no_more_than_what_is_to_go_and_one_entry(
    database: SQLiteDatabase, ledger: Ledger
) -> None:
    await fill(database, 1200, 40)
    await fill(database, 5000, 1)
    limits = Limits(NOW, NOW - 30 * DAY, NOW - 90 * DAY)
    after, seen = 0, []
    for _ in range(3):
        look = partial(next_chunk, limits=limits, after=after, rows=500, size=10**9)
        chunk = await database.read(look)
        seen.append((len(chunk.ids), chunk.last, chunk.more))
        after = chunk.last
    assert seen == [(500, 500, True), (500, 1000, True), (200, 1200, False)]
    look = partial(next_quarantined, limits=limits, after=0, rows=500, size=10**9)
    assert await database.read(look) == (await database.read(look))
    plan = await database.read(
        lambda c: c.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT id, received_at FROM journal "
            "WHERE id > 0 AND state = 'quarantined' ORDER BY id LIMIT 500"
        ).fetchall()
    )
    assert "ix_journal_quarantined" in str(plan)
    assert await Keeper(ledger, database).look() == 1200


async def test_large_bodies_go_a_few_at_a_time(database: SQLiteDatabase) -> None:
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
async def test_the_space_is_given_back_but_for_a_reserve(
    database: SQLiteDatabase, ledger: Ledger, path: Path
) -> None:
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
    database: SQLiteDatabase, ledger: Ledger
) -> None:
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


async def test_the_age_of_the_oldest_is_told(database: SQLiteDatabase) -> None:
    assert await database.read(oldest_entry) is None
    await keep(database, row(3), row(1))
    assert await database.read(oldest_entry) == NOW - 3 * DAY


async def test_a_database_that_fails_is_tried_again(
    database: SQLiteDatabase, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "FIRST_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(retention, "EVERY_SECONDS", 0.01)
    await keep(database, row(40), row(0))
    deny = "CREATE TRIGGER deny BEFORE DELETE ON journal BEGIN SELECT raise(ABORT, 'no'); END"
    await database.write(lambda c: c.exec_driver_sql(deny))
    keeper = Keeper(ledger, database)
    running = asyncio.create_task(keeper.retention.run())
    try:
        await asyncio.sleep(0.1)
        assert await kept(database) == [1, 2]
        await database.write(lambda c: c.exec_driver_sql("DROP TRIGGER deny"))
        async with asyncio.timeout(10):
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
    database: SQLiteDatabase, ledger: Ledger
) -> None:
    await keep(database, *(row(days) for days in (20, 15, 13, 9, 5, 1)))
    keeper = Keeper(ledger, database, journal_days=7.0, relay_days=14.0)
    reader = Reader(needs_from=2)
    keeper.retention.readers = [reader]
    assert await keeper.look() == 2
    assert await kept(database) == [3, 4, 5, 6]
    assert reader.lost == [2]
    reader.needs_from = 5
    assert await keeper.look() == 2
    assert await kept(database) == [5, 6]


async def test_while_the_disk_is_low_nothing_is_held_for_relays(
    database: SQLiteDatabase, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(database, row(9), row(8), row(1))
    keeper = Keeper(ledger, database, journal_days=7.0)
    keeper.retention.readers = [Reader(needs_from=1)]
    assert await keeper.look() == 0
    monkeypatch.setattr(retention, "LOW_DISK_BYTES", 2**62)
    assert await keeper.look() == 2


async def test_events_go_after_as_many_days_as_callbacks(
    ledger: Ledger, database: SQLiteDatabase
) -> None:
    events = [
        LoggedEvent(NOW - days * DAY, "main", EventType.PENDING, (), {}) for days in (40, 31, 29, 1)
    ]
    await within(database, lambda transaction: transaction.add_events(events))
    keeper = Keeper(ledger, database, journal_days=30)
    assert await keeper.look() == 0
    left = await database.read(lambda c: read_events(c, 0, 10))
    assert [event.at for event in left] == [NOW - 29 * DAY, NOW - DAY]
    assert (await database.read(span_of)).deleted == left[0].id - 1
    await Keeper(ledger, database, journal_days=0).look()
    assert await database.read(lambda c: read_events(c, 0, 10)) == left
