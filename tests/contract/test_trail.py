"""The audit trail is sealed in ranges: what is changed, removed or added is found."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from service.model.users import AuditEntry
from service.store import trail
from service.store.database import Database
from service.store.retention import Limits
from service.store.schema import audit, audit_seals
from service.store.trail import (
    append_entries,
    delete_sealed,
    next_sealed,
    seal_next,
    verify,
)
from tests.querying import BOTH, database_of
from tests.storing import settled, within

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
    return (await database.read(verify)).faults or []


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
    noted = await database.read(partial(verify, noted=found.seal))
    assert noted.knows_seal
    assert not (await database.read(partial(verify, noted="00"))).knows_seal


async def test_what_was_changed_removed_or_added_is_found(database: Database) -> None:
    await add(database, 7)
    await seal(database)
    chosen = (await ids(database))[4]
    one = audit.c.id == chosen

    async def finds(change: object, *said: str) -> None:
        found: list[str] = []

        def attempt(connection: Connection) -> None:
            connection.execute(change)  # type: ignore[call-overload]
            found.extend(verify(connection).faults or [])
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
    nothing = dict.fromkeys((*trail.PERSONAL, "salt"))
    await finds(update(audit).where(one).values(nothing), f"entry {chosen}:")
    between = {"id": chosen + 100, "at": NOW, "event": "decided", "account": "main"}
    first = (await ids(database))[0]
    await finds(update(audit).where(audit.c.id == first).values(id=first - 1), "range 1")
    await finds(delete(audit_seals).where(audit_seals.c.id == 2), "range 2", "range 3")
    if not database.is_shared:  # there the ids are 1, 2, 3, and none is free
        return
    await finds(insert(audit).values({**between, "id": chosen + 1}), "entry", "range 2")


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
        while chunk := (await database.read(lambda c: next_sealed(c, limits, 0, 0, 0))).ids:
            gone += await database.write(partial(delete_sealed, ids=chunk, limits=limits))
        return gone

    assert await delete_old() == 0
    for _ in range(2):
        await database.write(partial(seal_next, now=NOW))
    assert await delete_old() == 6
    found = await database.read(verify)
    assert (found.ranges, found.unsealed, found.faults) == (0, 1, [])
    await add(database, 2, 60)
    await seal(database)
    found = await database.read(verify)
    assert (found.ranges, found.entries, found.faults) == (1, 3, [])
    assert found.begins_after == (await ids(database))[0] - 1 or database.is_shared
    assert await delete_old() == 0, "the newest is too young"
