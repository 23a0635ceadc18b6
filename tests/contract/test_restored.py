"""What a restore does to a database, on either one."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select

from service.model.timeline import Change, Moment
from service.model.users import Identity, Kind, State, User, Work
from service.store import restore
from service.store.database import Database, Transaction
from service.store.events import read_events, span_of
from service.store.restore import count_unverified, mark, unschedule, unverified_accounts
from service.store.schema import audit, outbox
from service.store.users import count_states
from tests.querying import BOTH, database_of
from tests.storing import within

NOW = 1_600_000_000_000
SCHEDULED = 5


@pytest.fixture(params=BOTH)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """Some scheduled users."""

    async def fill(transaction: Transaction) -> None:
        moment = Moment(NOW)
        await transaction.save_users(
            [
                User(
                    transaction.new_user_id(),
                    "main",
                    str(number),
                    NOW,
                    Identity(
                        Change("A", moment, NOW, [moment]),
                        State.SCHEDULED,
                        work=Work(Kind.ACKNOWLEDGE, NOW + 9, "A", "policy"),
                    ),
                )
                for number in range(SCHEDULED)
            ]
        )

    async with database_of(request) as opened:
        await within(opened, fill)
        yield opened


async def test_everybody_is_unverified_and_whom_policy_scheduled_is_pending(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "UNSCHEDULED", 2)
    before = await database.read(span_of)
    await database.write(lambda c: mark(c, NOW + 9))
    assert await database.read(unverified_accounts) == {"main": NOW + 9}
    assert await database.read(count_unverified) == {"main": SCHEDULED}
    counted = await database.read(count_states)
    assert (counted[State.SCHEDULED], counted[State.PENDING]) == (0, SCHEDULED)
    assert await database.read(lambda c: c.execute(select(outbox)).all()) == []
    assert (await database.read(span_of)).epoch != before.epoch
    told = await database.read(lambda c: read_events(c, before.newest, 99))
    assert [one.type for one in told] == ["identity.pending"] * SCHEDULED
    trail = select(audit.c.event, audit.c.hash).order_by(audit.c.id)
    entries = await database.read(lambda c: c.execute(trail).all())
    assert entries == [("pending", "A")] * SCHEDULED + [("restored", None)]


async def test_some_may_be_made_pending_in_a_transaction_of_their_own(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "UNSCHEDULED", 2)
    counts = [await database.write(lambda c: unschedule(c, NOW + 9)) for _ in range(4)]
    assert counts == [2, 2, 1, 0]
