"""The audit trail is sealed in ranges: what is changed, removed or added is found."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from hashlib import sha256

import asyncpg
import pytest
from sqlalchemy import Connection, delete, func, insert, select, text, update

from service.model.users import AuditEntry
from service.store import trail
from service.store.database import Database
from service.store.digests import PERSONAL, SealedEntry, seal_of
from service.store.retention import Limits
from service.store.schema import audit, audit_seals, users
from service.store.trail import (
    Seal,
    append_entries,
    delete_sealed,
    next_sealed,
    read_seal,
    seal_next,
    verify,
)
from tests.querying import BOTH, database_of
from tests.storing import database_at, opening, settled, within

NOW = 1_600_000_000_000


class UndoneError(Exception):
    """Ends a transaction without a commit."""


@pytest.fixture(params=BOTH)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with database_of(request) as made:
        yield made


@pytest.fixture(autouse=True)
def short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "ROWS", 3)


def entry(number: int) -> AuditEntry:
    by = {"kind": "key", "name": "crm"}
    return AuditEntry(NOW + number, "decided", "aGFzaA==", by, note=f"note {number}")


async def add(database: Database, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        await within(database, lambda t, n=number: t.add_audit([("main", entry(n))]))  # type: ignore[misc]


async def seal(database: Database) -> None:
    await settled(database)
    while await database.write(partial(seal_next, now=NOW), led=True):
        pass


async def faults(database: Database) -> list[str]:
    return (await database.read(verify)).faults


async def ids(database: Database) -> list[int]:
    return await database.read(
        lambda connection: [*connection.execute(select(audit.c.id).order_by(audit.c.id)).scalars()]
    )


async def test_a_trail_is_sealed_in_ranges_and_verified(database: Database) -> None:
    await add(database, 7)
    await seal(database)
    await add(database, 1, 7)
    found = await database.read(verify)
    assert (found.ranges, found.entries, found.unsealed, found.faults) == (3, 7, 1, [])
    assert found.not_verified == ["1 entries that are not sealed yet"]


def noted(written: str | None) -> Seal:
    seal = read_seal(written or "")
    assert seal is not None
    return seal


@pytest.mark.parametrize("wrong", ["", "1", "1:", ":00", "one:00", "1:0", "00ff"])
def test_a_seal_is_its_number_and_its_digest(wrong: str) -> None:
    assert read_seal(wrong) is None
    assert str(noted("7:00ff")) == "7:00ff"


async def test_a_seal_that_was_noted_elsewhere_has_to_be_there(database: Database) -> None:
    await add(database, 7)
    await seal(database)
    last = noted((await database.read(verify)).seal)

    async def said(*seals: Seal) -> list[str]:
        return (await database.read(partial(verify, noted=seals))).faults

    assert last.number == 3
    assert await said(last) == []
    assert await said(last, Seal(2, last.digest)) == [
        "the seal of range 2 is not the one that was noted"
    ]
    assert await said(Seal(4, b"")) == ["the seal of range 4 was noted, and is not there"]
    # Whoever cuts the end and the seals of it leaves a whole chain, but for what was noted.
    of_end = audit_seals.c.id == 3
    await database.write(lambda c: c.execute(delete(audit_seals).where(of_end)))
    last_id = select(func.max(audit_seals.c.last_id)).scalar_subquery()
    await database.write(lambda c: c.execute(delete(audit).where(audit.c.id > last_id)))
    assert await said() == []
    assert await said(last) == ["the seal of range 3 was noted, and is not there"]


async def test_neither_end_is_cut_by_saying_that_it_was_too_old(database: Database) -> None:
    await add(database, 7)
    await seal(database)
    cut = select(audit_seals.c.last_id).where(audit_seals.c.id == 1).scalar_subquery()

    def forge(connection: Connection) -> None:
        connection.execute(delete(audit).where(audit.c.id <= cut))
        connection.execute(update(audit_seals).where(audit_seals.c.id == 1).values(deleted_at=NOW))

    await database.write(forge)
    (fault,) = await faults(database)
    assert fault.endswith("no entry audit_deleted says so")
    forged = {"deleted_at": NOW}
    in_the_midst = update(audit_seals).where(audit_seals.c.id == 3).values(forged)
    await database.write(lambda c: c.execute(in_the_midst))
    assert len(await faults(database)) == 2


def test_a_seal_is_of_the_number_and_the_end_of_its_range() -> None:
    one = SealedEntry(1, NOW, "decided", "main", None, b"1")
    two = one._replace(id=2)
    seals = {seal_of(1, b"", [one]), seal_of(2, b"", [one]), seal_of(1, b"", [one, two])}
    assert len({*seals, seal_of(1, b"0", [one]), seal_of(1, b"", [two, one])}) == 5


async def test_what_was_changed_removed_or_added_is_found(database: Database) -> None:
    await add(database, 7)
    await seal(database)
    chosen = (await ids(database))[4]
    one = audit.c.id == chosen

    async def finds(change: object, *said: str) -> None:
        found: list[str] = []

        def attempt(connection: Connection) -> None:
            connection.execute(change)  # type: ignore[call-overload]
            found.extend(verify(connection).faults)
            raise UndoneError

        with pytest.raises(UndoneError):
            await database.write(attempt)
        assert len(found) == len(said)
        assert all(part in fault for part, fault in zip(said, found, strict=True))

    await finds(update(audit).where(one).values(note="another"), f"entry {chosen}:")
    await finds(update(audit).where(one).values(event="held"), "range 2")
    await finds(update(audit).where(one).values(at=1), "range 2")
    await finds(delete(audit).where(one), "range 2")
    await finds(update(audit).where(one).values(note=None), f"entry {chosen}:")
    nothing = dict.fromkeys((*PERSONAL, "salt"))
    await finds(update(audit).where(one).values(nothing), f"entry {chosen}:")
    between = {"id": chosen + 100, "at": NOW, "event": "decided", "account": "main"}
    first = (await ids(database))[0]
    await finds(update(audit).where(audit.c.id == first).values(id=first - 1), "range 1")
    await finds(delete(audit_seals).where(audit_seals.c.id == 2), "range 2", "range 3")
    if not database.is_shared:  # there the ids are 1, 2, 3, and none is free
        return
    await finds(insert(audit).values({**between, "id": chosen + 1}), "entry", "range 2")


async def test_only_who_was_erased_later_has_entries_that_say_nothing(database: Database) -> None:
    of = {"account": "main", "user_id": 1}
    names = "attempts", "after_hold", "disputed", "history_count", "has_work", "has_ask"
    zeros = dict.fromkeys(names, 0) | dict.fromkeys((*names[1:3], *names[4:]), False)
    user = {"id": 1, "wa_id": "", "created_at": NOW, "version": 1}

    def begin(connection: Connection) -> None:
        connection.execute(insert(users).values(account="main", **user, **zeros))
        append_entries(connection, [{**of, "at": NOW, "event": "erased"}])
        append_entries(connection, [{**of, "at": NOW + 5, "event": "held", "note": "by hand"}])

    await database.write(begin)
    await seal(database)
    nothing = dict.fromkeys((*PERSONAL, "salt"))
    blank = update(audit).where(audit.c.event == "held").values(nothing)
    await database.write(lambda c: c.execute(blank))
    (fault,) = await faults(database)
    assert fault.endswith("not what was written, and not erased later")
    told = {**of, "at": NOW + 9, "event": "erased"}
    await database.write(lambda c: append_entries(c, [told]))
    found = await database.read(verify)
    assert (found.erased, found.faults) == (1, [])
    # Whoever turns out to be somebody else afterwards was erased all the same.
    merged = [{**user, "id": 2}, {**user, "id": 3}]
    into = update(users).where(users.c.id == 1).values(merged_into=2)
    rows = [{"account": "main", **one, **zeros} for one in merged]
    await database.write(lambda c: c.execute(insert(users), rows))
    await database.write(lambda c: c.execute(into))
    assert await faults(database) == []
    of_another = update(audit).where(audit.c.event == "held").values(user_id=3)
    await database.write(lambda c: c.execute(of_another))
    assert len(await faults(database)) == 2


async def test_what_is_erased_while_it_is_sealed_keeps_its_digest(postgres_url: str) -> None:
    async with opening(database_at(postgres_url)) as database:
        await add(database, 1)
        old = dict.fromkeys(("salt", "digest"))
        await database.write(lambda c: c.execute(update(audit).values(old)))
        await settled(database)
        other = await asyncpg.connect(postgres_url)
        try:
            erasing = other.transaction()
            await erasing.start()
            digest = sha256(b"of what the entry said").digest()
            await other.execute("UPDATE audit SET note = NULL, digest = $1", digest)
            sealing = asyncio.create_task(database.write(partial(seal_next, now=NOW), led=True))
            while not await database.read(_waits_for_lock):
                await asyncio.sleep(0.01)
            await erasing.commit()
            assert await sealing is not None
        finally:
            await other.close()
        kept = select(audit.c.digest, audit.c.salt)
        assert await database.read(lambda c: c.execute(kept).all()) == [(digest, None)]


def _waits_for_lock(connection: Connection) -> bool:
    waiting = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(connection.execute(text(waiting)).scalar())


async def test_entries_of_an_earlier_release_get_digests_as_they_are_sealed(
    database: Database,
) -> None:
    await add(database, 2)
    old = dict.fromkeys(("salt", "digest"))
    await database.write(lambda connection: connection.execute(update(audit).values(old)))
    await database.write(
        lambda connection: append_entries(connection, [{"at": NOW, "event": "restored"}])
    )
    await seal(database)
    found = await database.read(verify)
    assert (found.entries, found.faults) == (3, [])
    missing = select(audit.c.id).where(audit.c.digest.is_(None))
    assert await database.read(lambda c: c.execute(missing).all()) == []


async def test_ranges_that_are_too_old_go_as_a_whole_and_never_what_is_not_sealed(
    database: Database,
) -> None:
    await add(database, 7)
    await settled(database)
    limits = Limits(NOW + 100, NOW + 50, 0)

    async def delete_old() -> int:
        gone = 0
        while chunk := (await database.read(lambda c: next_sealed(c, limits, 0, 100, 0))).ids:
            gone += await database.write(partial(delete_sealed, ids=chunk, limits=limits))
        return gone

    assert await delete_old() == 0
    for _ in range(2):
        await database.write(partial(seal_next, now=NOW))
    deleted = noted((await database.read(verify)).seal)
    assert await delete_old() == 6
    told = select(audit.c.note).where(audit.c.event == "audit_deleted")
    (note,) = await database.read(lambda c: c.execute(told).scalars().all())
    assert note.startswith("6 entries, up to ")
    assert note.endswith(f" of 2020-09-13T12:26:40+00:00; the last seal was {deleted}")
    found = await database.read(verify)
    assert (found.ranges, found.unsealed, found.faults) == (0, 2, [])
    (fault,) = (await database.read(partial(verify, deletes=False))).faults
    assert fault.endswith("although retention.audit_days keeps all for ever")
    await add(database, 1, 60)
    await seal(database)
    found = await database.read(partial(verify, noted=[deleted, Seal(1, b"")]))
    assert (found.ranges, found.entries, found.faults) == (1, 3, [])
    assert found.not_verified == [
        "the noted seal of range 1, which was deleted",
        f"the entries up to {found.begins_after}, which were deleted",
    ]
    assert found.begins_after == (await ids(database))[0] - 1 or database.is_shared
    assert await delete_old() == 0, "the newest is too young"
