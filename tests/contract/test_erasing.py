"""Erasing is done in slices, can be done again, and leaves what others rely on."""

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from service.dialects.shares import Share
from service.ledger.callbacks import RecordCallback
from service.ledger.erasing import EraseUser
from service.ledger.ledger import Ledger
from service.model.events import AliasesSeen, IdentitySeen, MessageSent
from service.model.policy import Policies, Policy
from service.model.timeline import Moment
from service.model.users import By, State
from service.observability.metrics import Metrics
from service.store import erasing
from service.store.database import Database, JournalRow, RecipientQuery
from service.store.relays import DeliveryRow, save_deliveries
from service.store.restore import count_unverified, mark
from service.store.schema import aliases, deliveries, erasures, events, journal, message_recipients
from service.store.trail import seal_next, verify
from service.store.users import find_user
from service.workers.erasing import Eraser, Whom
from tests.querying import BOTH, database_of
from tests.storing import settled

POLICIES = {
    "shop": Policies((), Policy("default", mode="auto"), first_use=Policy("first"), local=True)
}
BY: By = {"kind": "key", "name": "crm"}
GONE, USER_ID, OTHER = "16315550771", "US.77100000000000000001", "16315550662"
SHARE = Share("shop", ("shop", "@meta"), "1", frozenset({"2"}))
AT = 1_600_000_000_000


@pytest.fixture(params=BOTH)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with database_of(request) as made:
        yield made


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    made = Ledger(database, POLICIES, Metrics(), max_waiting=1000)
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "ROWS", 3)
    monkeypatch.setattr(erasing, "FOUND", 2)


async def come(ledger: Ledger, number: int, *names: str, seen: str | None = None) -> None:
    """Let a callback come that names somebody, perhaps with an identity."""
    messages = [{"from": name, "text": {"body": f"hello {number}"}} for name in names]
    body = json.dumps({"messages": messages}).encode()
    row = JournalRow("shop", AT, "applied", "application/json", "", "[]", body)
    moment = Moment(AT + number)
    said: list[Any] = [MessageSent(names[0], f"m{number}", moment)]
    if seen is not None:
        said += [
            AliasesSeen(USER_ID, GONE, None, moment),
            IdentitySeen(USER_ID, seen, moment, moment),
        ]
    await ledger.submit(RecordCallback("shop", AT + number, body, said, row))


async def bodies(database: Database) -> list[bytes]:
    query = select(journal.c.body).order_by(journal.c.id)
    found = await database.read(lambda connection: connection.execute(query).scalars().all())
    return [bytes(body) for body in found]


async def is_empty(database: Database, *tables: Any) -> bool:
    return not [t for t in tables if await database.read(lambda c, t=t: c.execute(select(t)).all())]  # type: ignore[misc]


def whom(alias: str) -> Whom:
    return Whom(alias, SHARE, closed=False)


async def test_what_was_cut_short_is_done_again_by_another_name(
    database: Database, ledger: Ledger
) -> None:
    await come(ledger, 0, GONE, seen="hash+A")
    for number in range(1, 8):
        await come(ledger, number, *((OTHER,) if number % 3 else (USER_ID, OTHER)))
    await settled(database)
    await database.write(partial(seal_next, now=AT))
    user_id = await ledger.submit(EraseUser("shop", GONE, BY, closed=False))
    assert await is_empty(database, aliases)
    assert any(GONE.encode() in body for body in await bodies(database)), "not searched yet"
    found = await Eraser(ledger, database).erase(whom(USER_ID), BY, None)
    assert found.counts["callbacks"] == 3
    assert found.counts["messages"] == 3
    left = await bodies(database)
    assert not [body for body in left if GONE.encode() in body or USER_ID.encode() in body]
    assert left[0] == b""
    assert sum(OTHER.encode() in body for body in left) == 7
    assert await is_empty(database, erasures)
    kept = select(message_recipients.c.alias).distinct()
    assert await database.read(lambda c: c.execute(kept).scalars().all()) == [OTHER]
    data = select(events.c.data).where(events.c.data != "{}")
    assert await database.read(lambda c: c.execute(data).all()) == []
    await settled(database)
    await database.write(partial(seal_next, now=AT))
    trail = await database.read(verify)
    assert trail.erased > 0
    assert (trail.unsealed, trail.faults) == (0, [])
    again = await ledger.submit(EraseUser("shop", GONE, BY, closed=False))
    assert again == user_id


async def test_no_former_name_is_trusted_for_being_new(database: Database, ledger: Ledger) -> None:
    await come(ledger, 0, GONE, seen="hash+A")
    known = await database.read(partial(find_user, account="shop", alias=GONE))
    assert known is not None
    assert known.identity.state is State.ACKNOWLEDGED
    await Eraser(ledger, database).erase(whom(GONE), BY, None)
    data = await database.find_recipients(RecipientQuery("shop", None, [USER_ID, GONE]))
    assert {user.id for user in data.users.values()} == {known.id}
    for number, seen in enumerate(("hash+A", "hash+B"), 1):
        await come(ledger, number, GONE, seen=seen)
        for alias in (GONE, USER_ID):
            found = await database.read(partial(find_user, account="shop", alias=alias))
            assert found is not None
            assert (found.id, found.identity.state) == (known.id, State.PENDING)


async def test_a_restore_opens_nothing_for_who_was_erased(
    database: Database, ledger: Ledger
) -> None:
    await come(ledger, 0, GONE, seen="hash+A")
    await Eraser(ledger, database).erase(whom(GONE), BY, None)
    await database.write(partial(mark, now=AT))
    data = await database.find_recipients(RecipientQuery("shop", None, [GONE]))
    assert data.users[GONE].after_hold
    assert await database.read(count_unverified) == {}


async def test_what_a_relay_still_knows_of_a_name_is_not_written_again(
    database: Database, ledger: Ledger
) -> None:
    names = [f"shop/{GONE}", f"shop/{OTHER}"]
    row = DeliveryRow(
        "crm", 1, 1, 0, "retrying", 1, AT, None, ["messages"], names, False, 500, "500", GONE
    )
    await database.write(partial(save_deliveries, rows=[row]))
    await Eraser(ledger, database).erase(whom(GONE), BY, None)
    await database.write(partial(save_deliveries, rows=[row._replace(attempts=2)]))
    query = select(deliveries.c.names, deliveries.c.answer)
    ((text, answer),) = await database.read(lambda c: c.execute(query).all())
    assert json.loads(text) == sorted(["shop/erased", f"shop/{OTHER}"])
    assert answer is None
