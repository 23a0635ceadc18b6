"""Of several services on one PostgreSQL database one leads, and no other does at the same time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import asyncpg
import pytest
from sqlalchemy import insert, select, text

from service.ledger.callbacks import RecordCallback
from service.ledger.leases import SweepIdentities
from service.ledger.ledger import Ledger
from service.model.events import IdentitySeen
from service.model.policy import Policies, Policy
from service.model.timeline import Moment
from service.model.users import Kind
from service.observability.metrics import Metrics
from service.store import postgres_peers
from service.store.database import (
    Database,
    FaultError,
    JournalRow,
    NotLeaderError,
    UnavailableError,
)
from service.store.postgres import PostgresDatabase
from service.store.postgres_maintenance import OperatedPostgres
from service.store.postgres_statements import PostgresTransaction
from service.store.schema import accounts
from tests.postgres import execute, fetch

pytestmark = pytest.mark.postgres

NOW = 1_700_000_000_000
BEGAN = NOW - 30 * 86_400_000
HASHES = (("A", 0), ("B", 60_000))
POLICIES = {"main": Policies((), Policy("default", "manual"))}
AT_ONCE = {"main": Policies((), Policy("default", "auto"))}
ROW = JournalRow("main", NOW, "applied", "application/json", "", "[]", b"{}")
END_LEASE = "UPDATE leadership SET until = 1"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresDatabase]:
    """Open a database that leads when the test says so, and not by itself."""
    database = PostgresDatabase(url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def replicas(postgres_url: str) -> AsyncIterator[Sequence[PostgresDatabase]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(opened(postgres_url)) for _ in range(3)]


async def note(database: Database, name: str, *, led: bool = False) -> None:
    await database.write(lambda c: c.execute(insert(accounts).values(name=name)), led=led)


async def names(database: Database) -> list[str]:
    query = select(accounts.c.name).order_by(accounts.c.name)
    return await database.read(lambda c: [*c.execute(query).scalars()])


async def test_one_of_several_that_ask_at_once_leads(
    replicas: Sequence[PostgresDatabase],
) -> None:
    for _ in range(20):
        leads = await asyncio.gather(*(one.lead() for one in replicas))
        assert sorted(leads) == [False, False, True]
        assert [one.leads for one in replicas] == leads
        leader = replicas[leads.index(True)]
        assert await leader.lead(), "it keeps the lead"
        await leader.resign()
        assert not leader.leads


async def test_each_knows_how_many_there_are(postgres_url: str) -> None:
    async with opened(postgres_url) as one:
        await one.lead()
        assert one.replicas == 1
        async with opened(postgres_url) as other:
            await one.lead()
            await other.lead()
            assert (one.replicas, other.replicas) == (2, 2)
        await one.lead()
        assert one.replicas == 1


async def test_whoever_stops_lets_another_lead_at_once(postgres_url: str) -> None:
    async with opened(postgres_url) as one:
        async with opened(postgres_url) as other:
            assert await other.lead()
            assert not await one.lead()
        assert await one.lead()


async def test_a_lease_that_ended_is_taken_by_another_and_the_former_leader_writes_nothing(
    postgres_url: str, replicas: Sequence[PostgresDatabase]
) -> None:
    former, leader, _ = replicas
    assert await former.lead()
    await note(former, "before", led=True)
    await execute(postgres_url, END_LEASE)
    assert await leader.lead()
    assert former.leads, "it has not heard of it"
    with pytest.raises(NotLeaderError):
        await note(former, "after", led=True)
    await note(former, "of anybody's")
    await note(leader, "leader's", led=True)
    assert await names(former) == ["before", "leader's", "of anybody's"]
    assert not await former.lead()


async def test_a_lease_that_ended_is_kept_where_nobody_took_it(
    postgres_url: str, replicas: Sequence[PostgresDatabase]
) -> None:
    one, other, _ = replicas
    assert await one.lead()
    await execute(postgres_url, END_LEASE)
    assert await one.lead()
    assert not await other.lead()


async def test_a_leader_that_hangs_in_the_midst_of_a_statement_holds_nobody_up(
    postgres_url: str, replicas: Sequence[PostgresDatabase], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There no time-out of the server's ends its transaction."""
    monkeypatch.setattr(postgres_peers, "HUNG_MS", 500)
    former, leader, _ = replicas
    assert await former.lead()

    async def hang() -> None:
        async with former.transaction(led=True) as transaction:
            assert isinstance(transaction, PostgresTransaction)
            await transaction._driver.prepare("SELECT 1 WHERE $1")
            await execute(postgres_url, END_LEASE)
            async with asyncio.timeout(10):
                while not await leader.lead():
                    await asyncio.sleep(0.1)

    with pytest.raises(UnavailableError):
        await hang()
    assert leader.leads


async def test_nobody_takes_the_lead_while_a_transaction_of_the_leader_is_open(
    postgres_url: str, replicas: Sequence[PostgresDatabase]
) -> None:
    former, leader, _ = replicas
    assert await former.lead()
    async with former.transaction(led=True) as transaction:
        await execute(postgres_url, END_LEASE)
        assert not await leader.lead()
        await transaction.run(lambda c: c.execute(insert(accounts).values(name="in time")))
    assert await leader.lead()
    assert await names(leader) == ["in time"]


async def test_a_lease_that_ends_later_than_any_can_is_taken(
    postgres_url: str, replicas: Sequence[PostgresDatabase]
) -> None:
    """As where the server's clock was set back."""
    one, other, _ = replicas
    assert await one.lead()
    await execute(postgres_url, f"UPDATE leadership SET until = until + {86_400_000}")
    assert await other.lead()


async def test_whoever_can_not_renew_its_lease_does_not_believe_in_it_for_as_long_as_it_lasts(
    replicas: Sequence[PostgresDatabase],
) -> None:
    one, other, _ = replicas
    assert await one.lead()
    async with asyncio.timeout(30):
        while one.leads:
            assert not await other.lead()
            await asyncio.sleep(0.05)
    with pytest.raises(NotLeaderError):
        await note(one, "late", led=True)


async def test_a_leader_whose_connection_was_cut_leads_on(
    postgres_url: str, replicas: Sequence[PostgresDatabase]
) -> None:
    one, _, _ = replicas
    assert await one.lead()
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
    await execute(postgres_url, f"{cut}'ackgate replica' AND datname = current_database()")
    async with asyncio.timeout(10):
        while True:
            try:
                assert await one.lead()
            except UnavailableError:
                continue
            break


async def test_whoever_may_not_take_the_lead_keeps_it_all_the_same(
    postgres_url: str, replicas: Sequence[PostgresDatabase]
) -> None:
    one, other, _ = replicas
    assert not await one.lead(may_take=False)
    assert await one.lead()
    await execute(postgres_url, END_LEASE)
    assert not await other.lead(may_take=False)
    assert await one.lead(may_take=False)


async def test_the_lease_is_kept_while_what_a_replica_tells_of_itself_is_locked(
    postgres_url: str, replicas: Sequence[PostgresDatabase]
) -> None:
    one, _, _ = replicas
    connection = await asyncpg.connect(postgres_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM replicas FOR UPDATE")
            for _ in range(2):
                assert await one.lead()
    finally:
        await connection.close()


async def test_a_led_write_that_waits_is_given_up_before_others_have_to_have_taken_over(
    replicas: Sequence[PostgresDatabase],
) -> None:
    one, _, _ = replicas
    assert await one.lead()
    with pytest.raises(UnavailableError, match="statement timeout"):
        await one.write(lambda c: c.execute(text("SELECT pg_sleep(60)")), led=True)


async def test_a_query_that_is_cancelled_gives_its_connection_up_at_once(
    replicas: Sequence[PostgresDatabase],
) -> None:
    one, _, _ = replicas
    sleeping = text("SELECT pg_sleep(3600)")
    tasks = [
        asyncio.create_task(ask(lambda c: c.execute(sleeping))) for ask in (one.read, one.write)
    ]
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    done, _ = await asyncio.wait(tasks, timeout=2)
    assert done == {*tasks}


class TestARestoredDatabase:
    """Whoever was silent while a database was marked as restored."""

    async def test_neither_reads_nor_writes_nor_leads_until_it_is_started_again(
        self, postgres_url: str, replicas: Sequence[PostgresDatabase]
    ) -> None:
        one, other, _ = replicas
        assert await one.lead()
        await execute(postgres_url, "UPDATE replicas SET seen_at = 1")  # it slept
        await asyncio.to_thread(OperatedPostgres(postgres_url).mark_restored, datetime.now(UTC))
        with pytest.raises(FaultError, match="start this service again"):
            await note(one, "late")
        assert not await other.lead()
        for silent in (one, other):
            assert not await silent.lead()
            assert silent.fault() is not None
            for ask in (note(silent, "late"), names(silent)):
                with pytest.raises(FaultError):
                    await ask
        assert await fetch(postgres_url, "SELECT name FROM accounts") == []
        async with opened(postgres_url) as again:
            assert await again.lead()


async def test_of_a_batch_what_the_leader_alone_may_write_is_refused_and_the_rest_is_kept(
    postgres_url: str, replicas: Sequence[PostgresDatabase]
) -> None:
    former, leader, _ = replicas
    assert await former.lead()
    await execute(postgres_url, END_LEASE)
    assert await leader.lead()
    ledger = Ledger(former, POLICIES, Metrics(), max_waiting=100)
    led = ledger.submit(SweepIdentities("main", NOW, 1))
    kept = ledger.submit(RecordCallback("main", NOW, b"{}", (), ROW))
    with pytest.raises(NotLeaderError):
        await led
    await kept
    await ledger.close()
    assert ledger.available
    assert await fetch(postgres_url, "SELECT count(*) FROM journal") == [(1,)]


class TestHearing:
    """What others have committed."""

    async def test_a_commit_is_told_to_the_others(
        self, replicas: Sequence[PostgresDatabase]
    ) -> None:
        for one in replicas:
            await one.lead()
        for one in replicas:
            await one.hear(0.1)  # of itself: it has a new connection
        await note(replicas[0], "new")
        async with asyncio.timeout(30):
            await asyncio.gather(*(one.hear(3600) for one in replicas[1:]))

    async def test_of_users_it_tells_of_those_that_were_changed(
        self, postgres_url: str, replicas: Sequence[PostgresDatabase]
    ) -> None:
        one, other, _ = replicas
        ledger = Ledger(one, POLICIES, Metrics(), max_waiting=100)

        async def take(name: str, hash_: str, at: int) -> None:
            event = IdentitySeen(name, hash_, Moment(BEGAN + at))
            await ledger.submit(RecordCallback("main", NOW, b"{}", [event]))

        await take("16315550001", "A", 0)
        await take("16315550002", "A", 0)
        found = await fetch(postgres_url, "SELECT id FROM users ORDER BY wa_id")
        first, second = watched = [id_ for (id_,) in found]
        assert (await other.look(watched)).users == {first, second}, "not seen before"
        assert (await other.look(watched)).users == set()
        await take("16315550002", "B", 60_000)
        assert (await other.look(watched)).users == {second}
        block = f"INSERT INTO blocks VALUES ({first}, 'opted_out', {NOW}, NULL, '{{}}')"
        await execute(postgres_url, block)
        assert (await other.look(watched)).users == {first}
        await execute(postgres_url, "DELETE FROM blocks")
        assert (await other.look(watched)).users == {first}
        assert (await other.look(watched)).users == set()
        await ledger.close()

    async def test_the_leader_alone_is_told_of_work(
        self, postgres_url: str, replicas: Sequence[PostgresDatabase]
    ) -> None:
        leader, other, _ = replicas
        assert await leader.lead()
        ledger = Ledger(other, AT_ONCE, Metrics(), max_waiting=100)
        assert (await leader.look([])).work == set()
        events = [IdentitySeen("16315550001", h, Moment(BEGAN + at)) for h, at in HASHES]
        await ledger.submit(RecordCallback("main", NOW, b"{}", events, ROW))
        looked = await leader.look([])
        assert looked.work == {("main", Kind.ACKNOWLEDGE)}
        newest = "SELECT (SELECT max(id) FROM journal), (SELECT max(id) FROM events)"
        assert await fetch(postgres_url, newest) == [(looked.journal_id, looked.event_id)]
        looked = await replicas[2].look([])
        assert (looked.work, looked.checks) == (set(), set())
        await ledger.close()
