"""What every database promises about contact checks: what is open, what expires, what was spent."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import StaticPool

from service.model.budget import Usage
from service.model.contacts import DAY_MS, FRESH_MS, Check, Contact, OptIn
from service.model.users import User
from service.store import upgrades
from service.store.contacts import (
    WRITTEN_STEP_MS,
    Expiring,
    Known,
    Place,
    Repeat,
    add_usage,
    bring_checks_near,
    due_inputs,
    expiring,
    find_contacts,
    find_request,
    forget_requests,
    form,
    has_old_requests,
    keep_answer,
    keep_request,
    known_numbers,
    next_due_check,
    not_formed,
    note_written,
    open_checks,
    usage,
)
from service.store.database import Database, Transaction
from service.store.postgres import PostgresDatabase
from service.store.schema import contacts
from service.store.sqlite import SQLiteDatabase
from service.store.sqlite_files import connect, prepare_file
from tests.querying import BOTH, database_of, looked_at
from tests.storing import opening, within

NOW = 1_600_000_000_000
SOON = NOW - FRESH_MS + 1000

Do = Callable[[Callable[[Connection], Any]], Any]


@pytest.fixture(params=BOTH)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with database_of(request) as opened:
        yield opened


async def do(database: Database, work: Callable[[Connection], Any]) -> Any:
    return await database.write(work)


def contact(number: int, status: str = "valid", checked_at: int = NOW, **more: Any) -> Contact:
    wa_id = f"1631555{number:04}"
    fields: dict[str, Any] = {"canonical": wa_id} | more
    return Contact("main", f"+{wa_id}", status, wa_id, checked_at, **fields)


async def save(database: Database, *saved: Contact) -> None:
    async with database.transaction() as transaction:
        await transaction.load_contacts([(one.account, one.input) for one in saved])
        await transaction.save_contacts(saved)


async def test_a_contact_comes_back_with_its_open_check_and_its_opt_in(
    database: Database,
) -> None:
    one = contact(1, check=Check(NOW, NOW + 5, 2, forced=True), opt_in=OptIn(NOW - 9, "shop"))
    other = contact(2, "processing", canonical=None)
    await save(database, one, other)
    keys = [("main", one.input), ("main", other.input)]
    loaded = await within(database, lambda transaction: transaction.load_contacts(keys))
    assert list(loaded.values()) == [one, other]
    found = await database.read(lambda c: find_contacts(c, "main", [one.input, other.input]))
    assert found == {one.input: one, other.input: other}


async def test_what_is_due_is_found_the_longest_due_first(database: Database) -> None:
    at = [contact(n, check=Check(NOW, NOW + n)) for n in (3, 1, 2)]
    await save(database, contact(9), *at)
    assert await do(database, lambda c: due_inputs(c, "main", NOW + 2, 10)) == [
        at[1].input,
        at[2].input,
    ]
    assert await do(database, lambda c: next_due_check(c, "main")) == NOW + 1
    assert await do(database, lambda c: next_due_check(c, "shop")) is None
    assert await do(database, open_checks) == {"main": 3}
    await do(database, lambda c: bring_checks_near(c, "main", NOW, NOW + 1))
    assert set(await do(database, lambda c: due_inputs(c, "main", NOW, 10))) == {
        at[0].input,
        at[2].input,
    }


async def test_a_number_is_known_in_any_spelling_by_its_form(database: Database) -> None:
    opt_in = OptIn(NOW, "shop")
    await save(
        database,
        contact(1),
        contact(2, "failed", opt_in=opt_in),
        contact(3, "failed", check=Check(NOW, NOW)),
        contact(4, checked_at=NOW - FRESH_MS),
    )
    forms = [f"1631555{n:04}" for n in range(1, 6)]
    found = await do(database, lambda c: known_numbers(c, "main", forms, NOW))
    assert found == {
        forms[0]: Known(counted=True, opt_in=None),
        forms[1]: Known(counted=False, opt_in=opt_in),
        forms[2]: Known(counted=True, opt_in=None),
        forms[3]: Known(counted=False, opt_in=None),
    }


async def add_writer(transaction: Transaction, wa_id: str, wrote_at: int) -> None:
    user = User(transaction.new_user_id(), "main", wa_id, NOW, wrote_at=wrote_at)
    await transaction.save_users([user])


async def expire(database: Database, limit: int = 10, **more: Any) -> Expiring:
    wanted: dict[str, Any] = {"opted_in": False, "limit": limit} | more
    after, since = wanted.pop("after", Place(SOON - DAY_MS)), NOW - 7 * DAY_MS
    found = await do(database, lambda c: expiring(c, "main", after, SOON + 1, since, **wanted))
    assert isinstance(found, Expiring)
    return found


async def test_of_what_expires_only_the_newest_valid_result_of_a_number_in_use_is_wanted(
    database: Database,
) -> None:
    wrote, quiet, fresh, invalid, open_, told, old = (contact(n, checked_at=SOON) for n in range(7))
    await save(
        database,
        wrote,
        quiet,
        contact(2, checked_at=SOON + 5),
        contact(3, "invalid", SOON),
        contact(4, checked_at=SOON, check=Check(NOW, NOW)),
        told,
        contact(6, checked_at=SOON),
        Contact("main", "another spelling", "valid", old.wa_id, NOW),
    )
    for one in (wrote, fresh, invalid, open_, old):
        await within(database, partial(add_writer, wa_id=one.wa_id or "", wrote_at=NOW - DAY_MS))
    await do(database, lambda c: note_written(c, "main", [told.wa_id or ""], NOW))
    assert (await expire(database)).inputs == [wrote.input, told.input]
    assert (await expire(database, opted_in=True)).inputs == []


async def test_a_walk_sees_each_contact_once(database: Database) -> None:
    await save(database, *(contact(n, checked_at=SOON - n // 2) for n in range(7)))
    await do(database, lambda c: note_written(c, "main", [f"1631555{n:04}" for n in range(7)], NOW))
    seen: list[str] = []
    place: Place | None = Place(SOON - DAY_MS)
    while place is not None:
        found = await expire(database, limit=2, after=place)
        seen, place = seen + found.inputs, found.place
    assert sorted(seen) == [f"+1631555{n:04}" for n in range(7)]


async def test_that_the_business_wrote_is_noted_once_in_some_hours(
    database: Database,
) -> None:
    await save(database, contact(1))

    async def noted(now: int) -> int | None:
        await do(database, lambda c: note_written(c, "main", ["16315550001", "9"], now))
        found = await do(database, lambda c: c.execute(contacts.select()).one().written_at)
        assert isinstance(found, int)
        return found

    assert await noted(NOW) == NOW
    assert await noted(NOW + WRITTEN_STEP_MS) == NOW
    assert await noted(NOW + WRITTEN_STEP_MS + 1) == NOW + WRITTEN_STEP_MS + 1
    await save(database, contact(1, "invalid"))
    assert await noted(NOW + 5) == NOW + WRITTEN_STEP_MS + 1


async def test_usage_is_summed_up_over_the_days_of_the_window(database: Database) -> None:
    for day, added in (
        (7, Usage(100)),
        (8, Usage(1, 1)),
        (9, Usage(2, 0, 3)),
        (9, Usage(0, 0, 1, 4)),
    ):
        await do(database, lambda c, day=day, added=added: add_usage(c, "main", day, added))
    await do(database, lambda c: add_usage(c, "shop", 9, Usage(50)))
    assert await do(database, lambda c: usage(c, "main", 8)) == Usage(3, 1, 4, 4)
    assert await do(database, lambda c: usage(c, "nobody", 8)) == Usage()


async def test_a_request_is_known_by_its_key_until_it_is_too_old(database: Database) -> None:
    async def found(caller: str = "crm", since: int = NOW) -> Any:
        return await do(database, lambda c: find_request(c, "main", caller, "k", since))

    assert await found() is None
    await do(database, lambda c: keep_request(c, "main", "crm", "k", "digest", NOW))
    assert await found() == Repeat("digest", None)
    await do(database, lambda c: keep_answer(c, "main", "crm", "k", "answer"))
    assert await found() == Repeat("digest", "answer")
    assert await found("erp") is None
    assert await found(since=NOW + 1) is None
    await do(database, lambda c: keep_request(c, "main", "crm", "k", "other", NOW + 9, NOW + 1))
    assert await found() == Repeat("other", None)
    assert not await do(database, lambda c: has_old_requests(c, NOW + 9))
    assert await do(database, lambda c: forget_requests(c, NOW + 9, 10)) == 0
    assert await do(database, lambda c: forget_requests(c, NOW + 10, 10)) == 1
    assert await found() is None


async def test_inputs_without_a_form_are_found_until_they_have_one(
    database: Database,
) -> None:
    await save(database, contact(1), contact(2, canonical=None), contact(3, canonical=None))
    inputs = await do(database, lambda c: not_formed(c, "main", 10))
    assert inputs == ["+16315550002", "+16315550003"]
    await do(database, lambda c: form(c, "main", [(inputs[0], "1"), (inputs[1], "")]))
    assert await do(database, lambda c: not_formed(c, "main", 10)) == []


@pytest.mark.parametrize(
    ("index", "work"),
    [
        ("ix_contacts_open", lambda c: due_inputs(c, "main", NOW, 10)),
        ("ix_contacts_open", lambda c: next_due_check(c, "main")),
        ("ix_contacts_open", open_checks),
        ("ix_contacts_open", lambda c: bring_checks_near(c, "main", NOW, NOW)),
        ("ix_contacts_account_canonical", lambda c: not_formed(c, "main", 10)),
        ("ix_contacts_account_canonical", lambda c: known_numbers(c, "main", ["1"], NOW)),
        ("ix_contacts_account_wa_id_id", lambda c: note_written(c, "main", ["1"], NOW)),
        (
            "ix_contacts_valid",
            lambda c: expiring(c, "main", Place(1), 2, 3, opted_in=True, limit=9),
        ),
    ],
)
async def test_no_query_looks_at_every_contact(
    tmp_path: Path, index: str, work: Callable[[Connection], Any]
) -> None:
    def explain(connection: Connection) -> str:
        plans: list[str] = []

        def listen(*args: Any) -> None:
            _, _, statement, parameters, _, many = args
            if not statement.startswith("EXPLAIN"):
                given = parameters[0] if many else parameters
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)
                plans.extend(str(row[3]) for row in rows)

        event.listen(connection, "before_cursor_execute", listen)
        work(connection)
        event.remove(connection, "before_cursor_execute", listen)
        return "\n".join(plans)

    async with opening(SQLiteDatabase(tmp_path / "ackgate.db")) as database:
        plan = await do(database, explain)
    assert index in plan
    assert "SCAN contacts\n" not in f"{plan}\n"


MANY = 5_000


@pytest.mark.postgres
async def test_no_query_looks_at_every_contact_on_postgresql(postgres_url: str) -> None:
    async with opening(PostgresDatabase(postgres_url)) as database:
        await save(database, *(contact(n, checked_at=n + 2) for n in range(MANY)))
        for query in (
            lambda c: due_inputs(c, "main", NOW, 10),
            lambda c: next_due_check(c, "main"),
            open_checks,
            lambda c: not_formed(c, "main", 10),
            lambda c: known_numbers(c, "main", ["16315550001"], NOW),
            lambda c: expiring(c, "main", Place(1), MANY, 3, opted_in=False, limit=9),
        ):
            _, looked, _ = await looked_at(database, query)
            assert looked < 50


@pytest.mark.postgres
async def test_a_contact_that_another_works_on_is_not_waited_for(postgres_url: str) -> None:
    async with opening(PostgresDatabase(postgres_url)) as database:
        await save(database, contact(1), contact(2))
        async with database.transaction() as transaction:
            await transaction.load_contacts([("main", contact(1).input)])
            both = [contact(n).wa_id or "" for n in (1, 2)]
            await do(database, lambda c: note_written(c, "main", both, NOW))
        noted = contacts.select().order_by(contacts.c.input)
        rows = await do(database, lambda c: c.execute(noted).all())
        assert [row.written_at for row in rows] == [None, NOW]


async def test_contacts_of_the_release_before_are_brought_along(tmp_path: Path) -> None:
    path = tmp_path / "ackgate.db"
    prepare_file(path)
    with closing(connect(path)) as raw:
        engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
        with engine.begin() as connection:
            upgrades.migrate(connection, "0001")
            columns = ("account", "input", "status", "checked_at", "digests")
            row = dict(zip(columns, ("main", "+1", "valid", NOW, "[]"), strict=True))
            table = contacts.name
            connection.exec_driver_sql(
                f"INSERT INTO {table} ({','.join(row)}) VALUES (?,?,?,?,?)", tuple(row.values())
            )
    opened = SQLiteDatabase(path)
    await opened.open()
    try:
        found = await opened.read(lambda c: find_contacts(c, "main", ["+1"]))
        assert found["+1"] == Contact("main", "+1", "valid", None, NOW, answered_at=NOW)
    finally:
        await opened.close()
    assert path.with_name(f"ackgate.db.before-{upgrades.latest()}").exists()
    with closing(sqlite3.connect(path)) as raw:
        (oldest,) = raw.execute(
            "SELECT value FROM installation WHERE key = 'oldest_migration'"
        ).fetchone()
    assert oldest == "0001"
