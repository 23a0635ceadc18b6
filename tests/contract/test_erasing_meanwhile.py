"""What happens while somebody is erased: nothing of it brings the name back, or loses anything."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, select

from service.dialects.shares import Share
from service.ledger.callbacks import RecordCallback
from service.ledger.ledger import Ledger
from service.model.events import AliasesSeen, Event, IdentitySeen, NumberChanged
from service.model.policy import Policies, Policy
from service.model.timeline import Moment
from service.model.users import By, id_of_mark
from service.observability.metrics import Metrics
from service.store import erasing
from service.store.database import Database
from service.store.erasing import Found
from service.store.schema import events, users
from service.store.users import find_user
from service.workers.erasing import Eraser, Whom
from tests.querying import BOTH, database_of

POLICIES = {"shop": Policies((), Policy("default"), first_use=Policy("first"), local=True)}
BY: By = {"kind": "key", "name": "crm"}
GONE, OTHER = "16315550771", "16315550662"
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


async def take(ledger: Ledger, *told: Event) -> None:
    await ledger.submit(RecordCallback("shop", AT, b"{}", told))


def at(number: int) -> Moment:
    return Moment(AT + number)


def seen(number: int, alias: str, hash_: str, wa_id: str | None = None) -> list[Event]:
    moment = at(number)
    return [AliasesSeen(alias, wa_id, None, moment), IdentitySeen(alias, hash_, moment, moment)]


async def erase(ledger: Ledger, database: Database, alias: str) -> dict[str, int]:
    whom = Whom(alias, Share("shop", ("shop",)), closed=False)
    return (await Eraser(ledger, database).erase(whom, BY, None)).counts


@pytest.fixture
def come_after(
    monkeypatch: pytest.MonkeyPatch, database: Database, ledger: Ledger
) -> Callable[..., None]:
    """Let a callback come once: after a look at a table of which this holds."""

    def install(name: str, is_then: Callable[[Found], bool], *told: Event) -> None:
        look, read, to_come = getattr(erasing, name), database.read, iter([told])
        looks: list[Found] = []

        def looked(*given: Any) -> Found:
            looks.append(look(*given))
            return looks[-1]

        async def read_and_take(query: Callable[[Connection], Any]) -> Any:
            found = await read(query)
            if any(is_then(one) for one in looks) and (now := next(to_come, None)):
                await take(ledger, *now)
            return found

        monkeypatch.setattr(erasing, name, looked)
        monkeypatch.setattr(database, "read", read_and_take)

    return install


async def links_of(database: Database, alias: str) -> list[str]:
    found = await database.read(partial(find_user, account="shop", alias=alias))
    assert found is not None
    return [link.alias for link in found.links]


async def texts(database: Database, *columns: Any) -> str:
    return str(await database.read(lambda c: c.execute(select(*columns)).all()))


async def test_an_event_that_is_told_meanwhile_does_not_name_who_was_linked(
    database: Database, ledger: Ledger, come_after: Callable[..., None]
) -> None:
    await take(ledger, NumberChanged(GONE, OTHER, at(1)))
    await take(ledger, IdentitySeen(OTHER, "hash+A", at(2), at(2)))
    late = IdentitySeen(OTHER, "hash+B", at(3), at(3))
    come_after("look_at_events", lambda found: not found.more, late)
    await erase(ledger, database, GONE)
    told = await texts(database, events.c.names, events.c.data)
    assert "hash+B" in told
    assert GONE not in told


async def test_a_link_that_is_copied_behind_the_walk_is_found(
    database: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, come_after: Any
) -> None:
    monkeypatch.setattr(erasing, "ROWS", 1)
    await take(ledger, *seen(1, "US.1", "hash+A"))
    await take(ledger, *seen(2, "US.2", "hash+B", OTHER), NumberChanged("US.2", GONE, at(3)))
    first = await database.read(partial(erasing.find_user_id, account="shop", alias="US.1"))
    # The first one takes the number of the second, and its moves.
    late = AliasesSeen("US.1", OTHER, None, at(9))
    come_after("look_at_links", lambda found: found.last == first, late)
    counts = await erase(ledger, database, GONE)
    assert counts["links"] == 2
    assert GONE not in await texts(database, users.c.links)
    assert any(map(id_of_mark, await links_of(database, "US.1")))


async def test_a_link_that_goes_behind_the_walk_with_its_user_is_found(
    database: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, come_after: Any
) -> None:
    monkeypatch.setattr(erasing, "ROWS", 1)
    await take(ledger, *seen(1, "US.1", "hash+A"))
    await take(ledger, AliasesSeen("US.2", OTHER, "US.ENT.9", at(2)))
    await take(ledger, NumberChanged("US.2", GONE, at(3)))
    first = await database.read(partial(erasing.find_user_id, account="shop", alias="US.1"))
    # The two are one, of whom the first is left.
    late = AliasesSeen("US.1", None, "US.ENT.9", at(9))
    come_after("look_at_links", lambda found: found.last == first, late)
    await erase(ledger, database, GONE)
    assert GONE not in await texts(database, users.c.links)
    assert any(map(id_of_mark, await links_of(database, OTHER)))


@pytest.mark.parametrize("name", [GONE[:-1], "successor"])
async def test_what_only_looks_like_a_name_in_links_is_left_alone(
    database: Database, ledger: Ledger, name: str
) -> None:
    await take(ledger, NumberChanged(GONE, OTHER, at(1)))
    counts = await erase(ledger, database, name)
    assert counts["links"] == 0
    assert await links_of(database, OTHER) == [GONE]
