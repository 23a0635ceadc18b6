"""Queries that few steps need say the same on either database."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from service.model.timeline import Change, Moment
from service.model.users import Identity, Kind, State, User, Work
from service.store.accounts import account_rows, alive_at, note_alive, note_policies
from service.store.database import Database, JournalRow, Transaction
from service.store.outbox import (
    Backlog,
    backlogs,
    bring_near,
    left_to_client,
    next_due,
    stale_unsettled,
)
from service.store.relays import (
    DeliveryRow,
    Progress,
    ReplayRow,
    add_replay,
    ask_to_retry,
    count_after,
    count_skipped,
    delete_deliveries,
    ensure_relays,
    find_rows,
    forget_relay,
    list_deliveries,
    log_row,
    move_replay,
    newest_of,
    note_retried,
    pause,
    read_log,
    relay_rows,
    replay_rows,
    save_deliveries,
    save_progress,
)
from service.store.replicas import asked
from service.store.retention import (
    Limits,
    delete_entries,
    next_chunk,
    next_quarantined,
    oldest_entry,
)
from service.store.schema import audit
from service.store.users import count_pending_since, oldest_pending
from tests.querying import BOTH, database_of
from tests.storing import within

NOW = 1_600_000_000_000


@pytest.fixture(params=BOTH)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with database_of(request) as opened:
        yield opened


def identity(
    state: State, checked_at: int | None = None, work: Work | None = None, at: int = NOW
) -> Identity:
    moment = Moment(at)
    return Identity(Change("A", moment, at, [moment]), state, checked_at=checked_at, work=work)


async def save(database: Database, *identities: Identity) -> list[int]:
    """Save users with these identities, and give their ids."""

    async def work(transaction: Transaction) -> list[int]:
        users = [
            User(transaction.new_user_id(), "main", str(number), NOW, one)
            for number, one in enumerate(identities)
        ]
        await transaction.save_users(users)
        return [user.id for user in users]

    return await within(database, work)


class TestOutbox:
    async def test_what_waits_is_counted_by_account_and_kind(self, database: Database) -> None:
        puts = [Work(Kind.ACKNOWLEDGE, NOW + n, "A", "policy") for n in range(3)]
        await save(database, *(identity(State.SCHEDULED, work=put) for put in puts))
        found = await database.read(lambda c: backlogs(c, NOW + 1))
        assert found == {("main", Kind.ACKNOWLEDGE): Backlog(3, 2, NOW)}
        assert await database.read(lambda c: backlogs(c, NOW - 1)) == {
            ("main", Kind.ACKNOWLEDGE): Backlog(3, 0, NOW)
        }

    async def test_the_next_is_due_or_its_lease_ends(self, database: Database) -> None:
        asked = partial(next_due, account="main", kind=Kind.ACKNOWLEDGE)
        assert await database.read(asked) is None
        put = Work(Kind.ACKNOWLEDGE, NOW, "A", "policy", holder="me", lease_until=NOW + 5)
        other = Work(Kind.ACKNOWLEDGE, NOW + 9, "A", "policy")
        await save(
            database,
            identity(State.ACKNOWLEDGING, work=put),
            identity(State.ACKNOWLEDGING, work=other),
        )
        assert await database.read(asked) == NOW + 5

    async def test_nothing_is_due_later_than_it_could_be(self, database: Database) -> None:
        far = NOW + 10**9
        await save(
            database,
            identity(State.ACKNOWLEDGING, work=Work(Kind.ACKNOWLEDGE, far, "A", "policy")),
            identity(State.SCHEDULED, work=Work(Kind.ACKNOWLEDGE, far, "A", "policy")),
        )
        await database.write(lambda c: bring_near(c, "main", Kind.ACKNOWLEDGE, NOW))
        found = await database.read(lambda c: backlogs(c, NOW))
        assert found == {("main", Kind.ACKNOWLEDGE): Backlog(2, 1, NOW)}

    async def test_who_is_left_to_the_client_comes_by_id(self, database: Database) -> None:
        put = Work(Kind.ACKNOWLEDGE, NOW, "A", "policy")
        ids = await save(
            database,
            identity(State.ACKNOWLEDGING, work=put),
            identity(State.SCHEDULED, work=put),
            identity(State.ACKNOWLEDGING, work=put),
        )
        found = await database.read(lambda c: left_to_client(c, "main", 0, 9))
        assert found == [ids[0], ids[2]]
        assert await database.read(lambda c: left_to_client(c, "main", ids[0], 9)) == [ids[2]]

    async def test_first_are_those_who_were_never_asked_about(self, database: Database) -> None:
        ids = await save(
            database,
            identity(State.HELD, NOW - 5),
            identity(State.PENDING, NOW - 9),
            identity(State.FAILED, NOW),
            identity(State.PENDING),
            identity(State.ACKNOWLEDGED),
        )
        found = await database.read(lambda c: stale_unsettled(c, "main", NOW, 9))
        assert found == [ids[3], ids[1], ids[0]]
        assert await database.read(lambda c: stale_unsettled(c, "main", NOW, 1)) == [ids[3]]
        assert await database.read(lambda c: stale_unsettled(c, "main", NOW, 2)) == found[:2]


async def test_the_pending_are_counted_up_to_a_limit(database: Database) -> None:
    await save(database, *(identity(State.PENDING, at=NOW + n) for n in range(4)))
    assert await database.read(lambda c: count_pending_since(c, "main", NOW + 3, 9)) == 3
    assert await database.read(lambda c: count_pending_since(c, "main", NOW + 3, 2)) == 2
    assert await database.read(oldest_pending) == NOW


async def test_a_policy_that_changes_is_noted(database: Database) -> None:
    for policy in ("{}", "{}", '{"default": "hold"}'):
        given = [("main", policy), ("shop", policy)]
        await database.write(lambda c, given=given: note_policies(c, given, NOW))
    rows = await database.read(account_rows)
    assert rows["main"].policy == '{"default": "hold"}'
    trail = select(audit.c.account, audit.c.event).order_by(audit.c.id)
    found = await database.read(lambda c: c.execute(trail).all())
    assert found == [("main", "policy_changed"), ("shop", "policy_changed")]


async def test_the_last_sign_of_life_is_kept(database: Database) -> None:
    assert await database.read(alive_at) is None
    for now in (NOW, NOW + 9):
        await database.write(lambda c, now=now: note_alive(c, now))
    assert await database.read(alive_at) == NOW + 9


def row(at: int, state: str = "applied", body: bytes = b"{}") -> JournalRow:
    return JournalRow("main", at, state, "application/json", "", "[]", body)


async def add(database: Database, *rows: JournalRow) -> list[int]:
    """Append callbacks, and give the ids of all that there are."""
    await within(database, lambda transaction: transaction.add_journal(rows))
    return [row.id for row in await log_of(database, 0)]


async def log_of(database: Database, after: int, **more: Any) -> list[Any]:
    given = {"rows": 99, "size": 10**6} | more
    return await database.read(partial(read_log, source="callbacks", after=after, **given))


class TestRelays:
    async def test_a_relay_is_kept_with_how_far_it_has_come(self, database: Database) -> None:
        (first,) = await add(database, row(NOW))
        await database.write(lambda c: ensure_relays(c, {"crm": "callbacks", "bi": "events"}))
        await database.write(lambda c: save_progress(c, "crm", Progress(5, 9, (6, 7)), NOW))
        await database.write(lambda c: pause(c, "crm", "desk"))
        await database.write(lambda c: count_skipped(c, "crm", 3))
        await database.write(lambda c: ensure_relays(c, {"crm": "callbacks"}))
        bi, crm = await database.read(relay_rows)
        assert bi == ("bi", "events", 0, 0, [], None, None, 0, None)
        assert crm == ("crm", "callbacks", 5, 9, [6, 7], "desk", NOW, 3, None)
        await database.write(lambda c: ensure_relays(c, {"bi": "callbacks"}))
        assert (await database.read(relay_rows))[0].position == first
        await database.write(lambda c: forget_relay(c, "crm"))
        assert [one.name for one in await database.read(relay_rows)] == ["bi"]

    async def test_deliveries_are_kept_until_they_have_ended(self, database: Database) -> None:
        rows = [
            DeliveryRow(
                "crm", n, 9 - n, 0, state, 1, NOW, None, ["messages"], ["1"], n == 1, 500, "x", None
            )
            for n, state in ((1, "dead"), (2, "retrying"))
        ]
        await database.write(lambda c: save_deliveries(c, rows))
        await database.write(lambda c: save_deliveries(c, [rows[0]._replace(attempts=2)]))
        found = await database.read(lambda c: list_deliveries(c, "crm", [], 0, 9))
        assert found == [rows[0]._replace(attempts=2), rows[1]]
        assert await database.read(lambda c: list_deliveries(c, "crm", ["dead"], 1, 9)) == []
        await database.write(lambda c: delete_deliveries(c, "crm", [1]))
        assert await database.read(lambda c: list_deliveries(c, "crm", [], 0, 9)) == rows[1:]

    async def test_what_a_person_asks_stays_until_it_is_noted(self, database: Database) -> None:
        row = DeliveryRow("crm", 1, 9, 0, "dead", 1, NOW, None, [], [], False, 500, "x", None)
        await database.write(lambda c: save_deliveries(c, [row, row._replace(id=2)]))
        assert await database.write(lambda c: ask_to_retry(c, "crm", 3)) == 0
        assert await database.write(lambda c: ask_to_retry(c, "crm", 1)) == 1
        await database.write(lambda c: save_deliveries(c, [row._replace(attempts=2)]))
        assert (await database.read(asked)).retries == {"crm": [1]}
        assert await database.write(lambda c: ask_to_retry(c, "crm", None)) == 2
        await database.write(lambda c: note_retried(c, "crm", [1]))
        assert (await database.read(asked)).retries == {"crm": [2]}

    async def test_replays_are_moved_on_and_end(self, database: Database) -> None:
        first, second = [
            await database.write(lambda c: add_replay(c, "crm", 1, 5, NOW)) for _ in range(2)
        ]
        assert (first, second) == (
            ReplayRow(NOW, "crm", 1, 5, NOW),
            ReplayRow(NOW + 1, "crm", 1, 5, NOW),
        )
        await database.write(lambda c: move_replay(c, first.id, 3, ended=False))
        await database.write(lambda c: move_replay(c, second.id, 5, ended=True))
        found = await database.read(lambda c: replay_rows(c, "crm"))
        assert found == [first._replace(position=3)]

    async def test_a_log_is_read_by_rows_and_by_bytes(self, database: Database) -> None:
        ids = await add(database, *(row(NOW + n, body=b"12345") for n in range(5)))
        assert [one.id for one in await log_of(database, ids[0], rows=2)] == ids[1:3]
        assert [one.id for one in await log_of(database, 0, size=11)] == ids[:2]
        assert [one.id for one in await log_of(database, 0, size=1)] == ids[:1]
        assert [one.id for one in await log_of(database, ids[0], until=ids[2])] == ids[1:3]
        assert await database.read(lambda c: newest_of(c, "callbacks")) == ids[-1]
        assert await database.read(lambda c: count_after(c, "callbacks", ids[1])) == 3
        assert await database.read(lambda c: count_after(c, "callbacks", ids[1], ids[3])) == 2
        one = await database.read(lambda c: log_row(c, "callbacks", ids[3]))
        assert one is not None
        assert (one.at, one.body) == (NOW + 3, b"12345")

    async def test_what_arrived_between_two_times_is_found(self, database: Database) -> None:
        for second in range(5):
            ids = await add(database, row(NOW + 10 * second), row(NOW + 10 * second))
        found = partial(find_rows, source="callbacks")
        assert await database.read(lambda c: found(c, begin=NOW + 5, end=NOW + 30)) == (
            ids[1],
            ids[7],
            6,
        )
        after, until, count = await database.read(lambda c: found(c, begin=NOW + 99, end=NOW + 100))
        assert (after, until, count) == (ids[-1], ids[-1], 0)


class TestRetention:
    async def test_what_is_old_goes_and_the_newest_stays(self, database: Database) -> None:
        ids = await add(
            database, row(NOW), row(NOW + 1, "quarantined"), row(NOW + 2), row(NOW + 50), row(NOW)
        )
        limits = Limits(NOW + 60, NOW + 10, NOW + 5)
        chunk = await database.read(lambda c: next_chunk(c, limits, 0, 99, 999))
        assert (chunk.ids, chunk.last) == ((ids[0], ids[2]), ids[2])
        apart = await database.read(lambda c: next_quarantined(c, limits, 0, 99, 999))
        assert apart.ids == (ids[1],)
        gone = [*chunk.ids, *apart.ids]
        assert await database.write(lambda c: delete_entries(c, gone, limits)) == 3
        assert [one.id for one in await log_of(database, 0)] == ids[3:]
        assert await database.read(oldest_entry) == NOW + 50
