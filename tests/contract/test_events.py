"""The event log as every database keeps it, and the epoch that its ids belong to."""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, closing
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from service.ledger.callbacks import RecordCallback
from service.ledger.identities import BlockUser
from service.ledger.ledger import Ledger
from service.model.event_log import EventType, LoggedEvent
from service.model.events import AliasesSeen, ContactChecked, Event, IdentitySeen, UserWrote
from service.model.policy import Policies, Policy
from service.model.timeline import Moment
from service.model.users import by_key
from service.observability.metrics import Metrics
from service.store import upgrades
from service.store.database import ChangeSet, Database, Transaction
from service.store.events import (
    EventRow,
    delete_events,
    next_events,
    read_events,
    span_of,
)
from service.store.retention import Limits
from service.store.sqlite import SQLiteDatabase
from service.store.users import find_user
from tests.querying import BOTH, database_of
from tests.storing import opening, settled, within

NOW = 1_600_000_000_000
WA_ID = "16315550001"
Make = Callable[[], AbstractAsyncContextManager[Database]]


@pytest.fixture(params=BOTH)
def make(request: pytest.FixtureRequest) -> Make:
    """Give a way to open the same database, again and again."""
    return partial(database_of, request)


@pytest.fixture
async def database(make: Make) -> AsyncIterator[Database]:
    async with make() as opened:
        yield opened


def event(at: int = NOW, account: str = "main") -> LoggedEvent:
    return LoggedEvent(at, account, EventType.PENDING, (WA_ID,), {"hash": "A"})


async def append(database: Database, *told: LoggedEvent) -> None:
    await within(database, lambda transaction: transaction.add_events(told))


async def kept(database: Database, after: int = 0, limit: int = 100) -> list[EventRow]:
    await settled(database)
    return await database.read(partial(read_events, after=after, limit=limit))


async def test_events_are_read_as_they_were_appended_after_any_position(
    database: Database,
) -> None:
    await append(database, event(), event(NOW + 1, "shop"))
    await append(database, event(NOW + 2))
    first, second, third = await kept(database)
    assert first == (first.id, NOW, "main", "identity.pending", f'["{WA_ID}"]', '{"hash":"A"}')
    assert first.id < second.id < third.id
    assert await kept(database, first.id) == [second, third]
    assert await kept(database, first.id, 1) == [second]
    assert await kept(database, third.id) == []


async def test_ids_grow_over_transactions_that_fail_and_over_a_restart(
    make: Make,
) -> None:
    async with make() as database:
        await append(database, event())

        async def fail(transaction: Transaction) -> None:
            await transaction.add_events([event()])
            raise RuntimeError("a fault")

        with pytest.raises(RuntimeError):
            await within(database, fail)
        await append(database, event())
        before = await kept(database)
    async with make() as database:
        await append(database, event())
        [*same, last] = await kept(database)
        assert same == before
        assert last.id > before[-1].id


async def test_the_epoch_stays_over_a_restart_and_is_another_one_in_another_database(
    make: Make, tmp_path: Path
) -> None:
    async with make() as database:
        first = await database.read(span_of)
    async with make() as database:
        assert await database.read(span_of) == first
    async with opening(SQLiteDatabase(tmp_path / "another.db")) as other:
        assert (await other.read(span_of)).epoch != first.epoch
    assert (first.newest, first.deleted) == (0, 0)
    assert first.epoch.isalnum()


# What a batch tells


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    policies = {"main": Policies((), Policy("default"))}
    made = Ledger(database, policies, Metrics(), max_waiting=100)
    yield made
    await made.close()


async def take(ledger: Ledger, *read: Event) -> None:
    await ledger.submit(RecordCallback("main", NOW, b"{}", read))


async def test_a_batch_tells_what_its_commands_set_in_their_order(
    ledger: Ledger, database: Database
) -> None:
    heard: list[ChangeSet] = []
    ledger.listeners.append(heard.append)
    await take(
        ledger,
        IdentitySeen(WA_ID, "A", Moment(NOW)),
        ContactChecked("+1 631", "valid", WA_ID),
        IdentitySeen(WA_ID, "B", Moment(NOW + 5000)),
    )
    told = [row.type for row in await kept(database)]
    assert told == [
        "identity.pending", "contact.resolved", "identity.superseded", "identity.pending",
    ]  # fmt: skip
    assert [commit.told for commit in heard] == [told]
    rows = await kept(database)
    assert [json.loads(row.data).get("hash") for row in rows] == ["A", None, "A", "B"]


async def test_a_block_of_one_of_two_is_told_of_the_person_that_they_turn_out_to_be(
    ledger: Ledger, database: Database
) -> None:
    await ledger.submit(BlockUser("main", WA_ID, "asked", by_key("desk")))
    await take(ledger, IdentitySeen("US.1349", "A", Moment(NOW)))
    before = len(await kept(database))
    await take(ledger, AliasesSeen("US.1349", WA_ID, None, Moment(NOW + 1000)))
    told = [(row.type, row.names) for row in (await kept(database))[before:]]
    assert told == [("recipient.blocked", f'["{WA_ID}","US.1349"]')]


async def test_an_ordinary_message_tells_nothing(ledger: Ledger, database: Database) -> None:
    heard: list[ChangeSet] = []
    await take(ledger, IdentitySeen(WA_ID, "A", Moment(NOW)))
    ledger.listeners.append(heard.append)
    await take(ledger, IdentitySeen(WA_ID, "A", Moment(NOW)), UserWrote(WA_ID, Moment(NOW + 9000)))
    assert len(await kept(database)) == 1
    assert [commit.told for commit in heard] == [[]]


async def test_what_a_failed_transaction_would_have_told_is_not_told(
    ledger: Ledger, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    async with database.transaction() as transaction:
        kind = type(transaction)
    monkeypatch.setattr(kind, "add_events", fail)
    with pytest.raises(RuntimeError):
        await take(ledger, IdentitySeen(WA_ID, "A", Moment(NOW)))
    assert await kept(database) == []
    assert await database.read(lambda c: find_user(c, "main", WA_ID)) is None


# Deleting


def limits(before: int, now: int = NOW + 100) -> Limits:
    return Limits(now, before, before)


async def delete_old(database: Database, before: int) -> None:
    chunk = await database.read(lambda c: next_events(c, limits(before), 0, 100, 0))
    if chunk.ids:
        await database.write(lambda c: delete_events(c, chunk.ids, limits(before)))


async def test_old_events_are_deleted_and_it_is_known_up_to_which(
    database: Database,
) -> None:
    await append(database, *(event(NOW + second) for second in range(4)))
    rows = await kept(database)
    await delete_old(database, NOW + 2)
    assert await kept(database) == rows[2:]
    assert (await database.read(span_of)).deleted == rows[1].id


async def test_the_newest_event_stays_so_that_its_id_is_given_once(
    make: Make,
) -> None:
    async with make() as database:
        await append(database, event(), event())
        newest = (await kept(database))[-1]
        await delete_old(database, NOW + 50)
        assert await kept(database) == [newest]
    async with make() as database:
        await append(database, event())
        assert (await kept(database))[-1].id > newest.id


async def test_an_event_of_a_clock_that_ran_ahead_does_not_keep_older_ones(
    database: Database,
) -> None:
    await append(database, event(NOW + 9000), event(NOW), event(NOW + 50))
    ahead, _, last = await kept(database)
    await delete_old(database, NOW + 1)
    assert await kept(database) == [ahead, last]


async def test_a_database_of_before_gets_an_epoch_and_forgets_blocks_that_have_ended(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ackgate.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        upgrades.migrate(connection, "0012")
    engine.dispose()
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(
            "INSERT INTO blocks VALUES (1, 'x', 0, 1, '{}');"
            "INSERT INTO blocks VALUES (2, 'x', 0, 9000000000000, '{}');"
            "INSERT INTO blocks VALUES (3, 'x', 0, NULL, '{}');"
        )
    async with opening(SQLiteDatabase(path)) as database:
        assert (await database.read(span_of)).epoch
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT user_id FROM blocks").fetchall() == [(2,), (3,)]
