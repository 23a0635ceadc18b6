"""Who reads a log by position skips nothing, in whatever order transactions commit."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from sqlalchemy import Connection, Table, func, insert, select, text, update

from service.api.event_hub import EventHub, Reader
from service.dialects.routing import Routing
from service.ledger.ledger import Ledger
from service.model.event_log import EventType
from service.model.relays import Schedule
from service.observability.metrics import Metrics
from service.settings import RelaySettings
from service.store import journal as journal_queries
from service.store.database import ChangeSet, Database, JournalRow
from service.store.events import EventFilter, read_events, read_wanted, span_of
from service.store.journal import dismiss, list_journal, newest_callbacks, unknown_numbers
from service.store.logs import (
    OFFSET_KEY,
    PLACES,
    PLACES_OF_BATCHES,
    SHIFT,
    append,
    count_rows,
    dated_before,
    is_in_order,
    newest_settled,
    next_ids,
)
from service.store.postgres import PostgresDatabase
from service.store.relays import arrived_at, find_rows, newest_of, read_log
from service.store.schema import audit, events, installation, journal, users
from service.store.sqlite import SQLiteDatabase
from service.store.users import IdentityFilter, list_audit, list_identities
from service.workers.relay_log import Log
from service.workers.relay_reader import LogReader
from tests.querying import BOTH, database_of
from tests.storing import opening

T = TypeVar("T")

NOW = 1_600_000_000_000
Run = Callable[..., Awaitable[Any]]
"""Runs queries in a transaction that is open."""


class Watched(PostgresDatabase):
    """Says when it was read."""

    reads = 0

    async def read(self, query: Callable[[Connection], T]) -> T:
        answer = await super().read(query)
        self.reads += 1
        return answer

    async def is_read(self, times: int) -> None:
        """Wait until it was read so many times more."""
        goal = self.reads + times
        async with asyncio.timeout(20):
            while self.reads < goal:
                await asyncio.sleep(0.005)


@pytest.fixture(params=BOTH)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with database_of(request) as made:
        yield made


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator["Watched"]:
    async with opening(Watched(postgres_url)) as made:
        yield made


def row_of(log: Table, at: int = NOW, **other: Any) -> dict[str, Any]:
    if log is audit:
        return {"account": "main", "at": at, "event": "held"} | other
    if log is events:
        told = {"type": "identity.held", "names": '["1"]', "data": "{}"}
        return {"account": "main", "at": at, **told} | other
    texts = dict.fromkeys(("content_type", "content_encoding", "headers"), "")
    row = {"account": "main", "received_at": at, "state": "quarantined", "body": b""}
    return {**texts, **row} | other


def adding(log: Table, *ats: int, **other: Any) -> Callable[[Connection], None]:
    return lambda connection: append(connection, log, [row_of(log, at, **other) for at in ats])


class Open:
    """Transactions that are open, each of which ends when it is told to."""

    def __init__(self, database: Database, stack: AsyncExitStack) -> None:
        self._database = database
        self._stack = stack

    async def begin(self) -> tuple[Run, Callable[[], Awaitable[None]]]:
        """Begin one; give what runs queries in it, and what commits it."""
        mine = await self._stack.enter_async_context(AsyncExitStack())
        transaction = await mine.enter_async_context(self._database.transaction())
        return transaction.run, mine.aclose


@pytest.fixture
async def opened(postgres: Watched) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:
        yield Open(postgres, stack)


Page = Callable[[Connection, int], Sequence[Any]]

READERS: dict[str, tuple[Table, Page]] = {
    "read_events": (events, lambda c, after: read_events(c, after, 2)),
    "read_wanted": (
        events,
        lambda c, after: read_wanted(c, EventFilter(accounts=frozenset({"main"})), after, 2).rows,
    ),
    "read_log of events": (events, lambda c, after: read_log(c, "events", after, 2, 1000)),
    "read_log of callbacks": (journal, lambda c, after: read_log(c, "callbacks", after, 2, 1000)),
    "list_journal": (journal, lambda c, after: list_journal(c, None, None, after, 2)),
    "list_journal filtered": (
        journal,
        lambda c, after: list_journal(c, "quarantined", None, after, 2, ["main"]),
    ),
    "list_audit": (audit, lambda c, after: list_audit(c, None, None, after, 2)),
    "list_audit filtered": (audit, lambda c, after: list_audit(c, None, "held", after, 2)),
}


@pytest.mark.parametrize("reader", READERS)
async def test_a_reader_by_position_skips_nothing_that_is_committed_late(
    postgres: Watched, opened: Open, reader: str
) -> None:
    log, page = READERS[reader]
    position, seen = 0, []

    def next_page(connection: Connection) -> Sequence[Any]:
        return page(connection, position)

    async def read_on() -> list[int]:
        nonlocal position
        while rows := await postgres.read(next_page):
            position = rows[-1].id
            seen.extend(_at(row) for row in rows)
        return seen

    await postgres.write(adding(log, NOW))
    slow, commit = await opened.begin()
    await slow(adding(log, NOW + 1, NOW + 2))
    await postgres.write(adding(log, NOW + 3))
    await postgres.write(adding(log, NOW + 4, NOW + 5))
    assert await read_on() == [NOW], "what comes after the open transaction waits for it"
    await slow(adding(log, NOW + 6))
    await commit()
    late = [NOW + 1, NOW + 2, NOW + 6, NOW + 3, NOW + 4, NOW + 5]
    assert await read_on() == [NOW, *late], "in the order of ids"


def _at(row: Any) -> int:
    return int(row.received_at if hasattr(row, "received_at") else row.at)


async def test_what_the_newest_is_waits_too(postgres: Watched, opened: Open) -> None:
    for log in (events, journal):
        await postgres.write(adding(log, NOW))
    slow, commit = await opened.begin()
    await slow(adding(events, NOW + 1))
    for log in (events, journal):
        await postgres.write(adding(log, NOW + 2))
    for source, log in (("events", events), ("callbacks", journal)):
        first = await postgres.read(lambda c, of=log: c.execute(select(func.min(of.c.id))).scalar())
        assert await postgres.read(lambda c, s=source: newest_of(c, s)) == first
        assert await postgres.read(lambda c, s=source: find_rows(c, s, 0, NOW + 9)) == (
            first - 1,
            first,
            1,
        )
        assert await postgres.read(lambda c, s=source, f=first: arrived_at(c, s, f)) is None
        assert await postgres.read(lambda c, log=log, f=first: count_rows(c, log.c.id, f)) == 0
    assert (await postgres.read(span_of)).newest == await postgres.read(
        lambda c: newest_settled(c, events.c.id)
    )
    await commit()
    assert await postgres.read(lambda c: count_rows(c, events.c.id, 0)) == 3
    assert await postgres.read(lambda c: count_rows(c, journal.c.id, 0)) == 2


async def test_what_is_dismissed_is_what_was_shown(postgres: Watched, opened: Open) -> None:
    unknown = {"account": "@meta", "reason": "no account has the number 123"}

    async def shown() -> list[int]:
        found = await postgres.read(lambda c: unknown_numbers(c, "@meta", ["@meta"]))
        return [one.callbacks for one in found]

    await postgres.write(adding(journal, NOW, **unknown))
    slow, commit = await opened.begin()
    await slow(adding(journal, NOW + 1, **unknown))
    await postgres.write(adding(journal, NOW + 2, **unknown))
    assert await shown() == [1]
    await postgres.write(lambda c: dismiss(c, "@meta", "unknown_number", "123", NOW))
    assert await shown() == []
    await commit()
    assert await shown() == [2], "none of these was there to be dismissed"


class TestUpdatedSince:
    @pytest.fixture
    async def known(self, postgres: Watched) -> Watched:
        """Two pending identities, updated long ago."""
        zeros = dict.fromkeys(("attempts", "history_count", "version", "changed_precision"), 0)
        flags = dict.fromkeys(("after_hold", "disputed", "has_work", "has_ask"), False)
        times = dict.fromkeys(("created_at", "changed_at", "received_at", "updated_at"), NOW)
        row = {"account": "main", "hash": "A", "seen": "[]", "state": "pending"}
        rows = [{"id": n, "wa_id": str(n), **row, **zeros, **flags, **times} for n in (1, 2)]
        await postgres.write(lambda c: c.execute(insert(users), rows))
        return postgres

    async def since(self, database: Watched, since: int) -> list[str | None]:
        before = await database.read(dated_before)
        wanted = IdentityFilter(updated_since=since, updated_before=before)
        found = await database.read(lambda c: list_identities(c, wanted, None, 10))
        return [user.wa_id for user in found]

    async def test_what_is_committed_late_is_not_skipped(
        self, known: Watched, opened: Open
    ) -> None:
        slow, commit = await opened.begin()
        began = await slow(updating(1))
        later = await known.write(updating(2))
        assert began < later
        assert await self.since(known, began) == []
        assert await self.since(known, NOW) == ["1"], "as it was before"
        await commit()
        assert await self.since(known, began) == ["1", "2"]
        assert await self.since(known, later) == ["2"]

    async def test_one_who_only_reads_holds_nothing_up(
        self, known: Watched, postgres_url: str
    ) -> None:
        reader = await asyncpg.connect(postgres_url)
        async with reader.transaction():
            await reader.fetch("SELECT id FROM users")
            began = await known.write(updating(2))
            assert await self.since(known, began) == ["2"]
        await reader.close()


def updating(user_id: int) -> Callable[[Connection], int]:
    """Update an identity now, and give the time."""

    def work(connection: Connection) -> int:
        now = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        at = int(connection.execute(now).scalar_one())
        mine = update(users).where(users.c.id == user_id)
        connection.execute(mine.values(updated_at=at))
        return at

    return work


async def test_on_sqlite_nothing_waits(tmp_path: Path) -> None:
    async with opening(SQLiteDatabase(tmp_path / "ackgate.db")) as sqlite:
        assert await sqlite.read(is_in_order)
        assert await sqlite.read(dated_before) is None


class TestIds:
    async def test_they_grow_within_a_transaction_and_over_transactions(
        self, database: Database
    ) -> None:
        def twice(connection: Connection) -> list[int]:
            first = next_ids(connection, events.c.id, 2)
            rows = [row_of(events, id=id_) for id_ in first]
            connection.execute(insert(events), rows)
            append(connection, events, [row_of(events)])
            return [*first, *connection.execute(select(func.max(events.c.id))).scalars()]

        ids = [*await database.write(twice), *await database.write(twice)]
        assert ids == sorted(set(ids))

    async def test_none_are_asked_for(self, database: Database) -> None:
        assert list(await database.write(lambda c: next_ids(c, audit.c.id, 0))) == []

    async def test_on_sqlite_they_count(self, tmp_path: Path) -> None:
        async with opening(SQLiteDatabase(tmp_path / "ackgate.db")) as sqlite:
            await sqlite.write(adding(audit, NOW, NOW))
            assert list(await sqlite.write(lambda c: next_ids(c, audit.c.id, 2))) == [3, 4]

    async def test_on_postgresql_they_are_of_the_transaction_and_moved_by_an_offset(
        self, postgres: Watched
    ) -> None:
        def given(connection: Connection) -> tuple[int, int]:
            own = connection.execute(text("SELECT pg_current_xact_id()::text::bigint")).scalar_one()
            return own, next_ids(connection, events.c.id, 1).start

        transaction, id_ = await postgres.write(given)
        assert id_ == (transaction << SHIFT) + PLACES_OF_BATCHES
        offset = installation.c.key == OFFSET_KEY
        moved = update(installation).where(offset).values(value=str(5 << SHIFT))
        await postgres.write(lambda c: c.execute(moved))
        transaction, id_ = await postgres.write(given)
        assert id_ == ((transaction + 5) << SHIFT) + PLACES_OF_BATCHES
        await postgres.write(adding(events, NOW))
        assert len(await postgres.read(lambda c: read_events(c, 0, 9))) == 1, "settled with it"

    async def test_a_transaction_has_no_more_of_them_than_fit(self, postgres: Watched) -> None:
        def too_many(connection: Connection) -> None:
            left = PLACES - PLACES_OF_BATCHES
            append(connection, audit, [row_of(audit)])
            assert len(next_ids(connection, audit.c.id, left - 1)) == left - 1
            next_ids(connection, audit.c.id, left)

        with pytest.raises(OverflowError, match="8,192"):
            await postgres.write(too_many)


async def test_rows_after_a_position_are_counted(database: Database) -> None:
    for number in range(3):
        await database.write(adding(events, NOW + number, NOW + number))
    ids = await database.read(lambda c: [row.id for row in read_events(c, 0, 9)])

    async def count(after: int, until: int | None = None) -> int:
        return await database.read(lambda c: count_rows(c, events.c.id, after, until))

    assert await count(ids[0]) == 5
    assert await count(ids[1], ids[3]) == 2
    assert await count(ids[-1]) == 0
    assert await count(ids[-1] + 9) == 0


async def test_the_newest_callbacks_are_looked_for_among_so_many(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_queries, "LOOKED_AT", 3)
    for at, account in enumerate(("main", "shop", "main", "other", "main"), NOW):
        await database.write(adding(journal, at, account=account))

    async def newest(*names: str, limit: int = 9) -> list[int]:
        rows = await database.read(lambda c: newest_callbacks(c, names, limit))
        return [row.received_at for row in rows]

    assert await newest("main") == [NOW + 4, NOW + 2]
    assert await newest("main", limit=1) == [NOW + 4]
    assert await newest("shop") == []
    monkeypatch.setattr(journal_queries, "LOOKED_AT", 9)
    assert await newest("shop") == [NOW + 1]


class TestReaders:
    """What reads on at every commit, and must not miss what is settled after the last of them."""

    async def test_the_hub_looks_again_until_it_is_settled(
        self, postgres: Watched, opened: Open
    ) -> None:
        span = await postgres.read(span_of)
        hub = EventHub(span.epoch, postgres, Metrics())
        running = asyncio.create_task(hub.run())
        reader = Reader(EventFilter(), lambda: None, lambda: True)
        sent: list[bytes] = []

        async def write(chunk: bytes) -> None:
            sent.append(chunk)

        following = asyncio.create_task(hub.follow(reader, span.newest, write))
        slow, commit = await opened.begin()
        await slow(adding(events, NOW + 1, account="slow"))
        await postgres.write(adding(events, NOW + 2, account="fast"))
        last = await postgres.read(lambda c: c.execute(select(func.max(events.c.id))).scalar())
        hub.notify(ChangeSet(told=[EventType.HELD], event_id=last or 0))
        await postgres.is_read(3)
        assert b"data:" not in b"".join(sent)
        await commit()
        async with asyncio.timeout(20):
            while b"".join(sent).count(b"data:") < 2:
                await asyncio.sleep(0.005)
        text_ = b"".join(sent)
        assert text_.index(b'"slow"') < text_.index(b'"fast"')
        hub.close()
        await following
        running.cancel()

    async def test_a_relay_reads_on_once_it_is_settled(
        self, postgres: Watched, opened: Open
    ) -> None:
        await postgres.write(adding(journal, NOW))
        log = Log("callbacks", postgres, lambda _: NOBODY, lambda *_: {}, "")
        await log.open(Ledger(postgres, {}, Metrics(), max_waiting=10))
        schedule, news = Schedule(log.newest, 3600.0), asyncio.Event()
        settings = RelaySettings.model_validate({"url": "https://example.com"})
        reader = LogReader(settings, log, schedule, news.set)
        reading = asyncio.create_task(reader.run())
        slow, commit = await opened.begin()
        await slow(adding(journal, NOW + 1))
        await postgres.write(adding(journal, NOW + 2))
        rows = await postgres.read(lambda c: c.execute(select(journal.c.id)).scalars().all())
        log.note(ChangeSet(journal=[COMMITTED._replace(id=max(rows))]))
        assert log.has_after(schedule.read_up_to)
        reader.note_commit()
        await postgres.is_read(3)
        assert not schedule.entries
        await commit()
        async with asyncio.timeout(20):
            await news.wait()
        ids = await postgres.read(lambda c: c.execute(select(journal.c.id)).scalars().all())
        assert list(schedule.entries) == sorted(ids)[1:]
        reading.cancel()


NOBODY = Routing(frozenset(), (), frozenset())
COMMITTED = JournalRow("main", NOW + 2, "applied", "", "", "[]", b"")
