"""What happens by itself is told when it is noticed, and once, over a restart too."""

import json
from collections.abc import AsyncIterator
from functools import partial

import pytest

from service.ledger.identities import BlockUser
from service.ledger.ledger import Ledger
from service.ledger.noticed import BATCH
from service.model.account_checks import Issue
from service.model.policy import Policies, Policy
from service.model.users import by_key
from service.observability.metrics import Metrics
from service.store.events import EventRow, read_events
from service.store.users import find_block, find_user
from service.workers.noticing import Noticer
from tests.storing import MakeDatabase, opening, settled

NOW = 1_600_000_000_000
WA_ID = "16315550001"
ISSUE = Issue("webhook_url", "main", NOW, "another URL")
OF_APP = Issue("unknown_number", None, NOW, "callbacks for a number", "1063")
OF_NOBODY = Issue("key_expires", None, NOW, "a key expires", "crm")


class World:
    """A ledger on a database, with issues and a clock of the test's own."""

    def __init__(self, make_database: MakeDatabase) -> None:
        self.now = NOW
        self.issues: list[tuple[str, Issue]] = []
        self.settled = True
        self.database = make_database(lambda: self.now)
        self.ledger = self._ledger()
        self.noticer = self._noticer()

    def _ledger(self) -> Ledger:
        policies = {"main": Policies((), Policy("default"))}
        return Ledger(self.database, policies, Metrics(), max_waiting=1000)

    def _noticer(self) -> Noticer:
        return Noticer(lambda: self.issues, lambda _: self.settled, self.ledger, self.database)

    def restart(self) -> None:
        """Begin with nothing in memory."""
        self.ledger, self.noticer = self._ledger(), self._noticer()

    async def told(self) -> list[EventRow]:
        await settled(self.database)
        return await self.database.read(partial(read_events, after=0, limit=1000))

    async def types(self) -> list[str]:
        return [row.type for row in await self.told()]


@pytest.fixture
async def world(make_database: MakeDatabase) -> AsyncIterator[World]:
    made = World(make_database)
    async with opening(made.database):
        yield made


async def block(world: World, wa_id: str = WA_ID, seconds: int | None = 60) -> None:
    until = None if seconds is None else NOW + 1000 * seconds
    await world.ledger.submit(BlockUser("main", wa_id, "asked", by_key("desk"), until))


async def test_a_block_that_ends_by_time_is_told_once(world: World) -> None:
    await block(world)
    await world.noticer.look()
    assert await world.types() == ["recipient.blocked"]
    world.now = NOW + 60_000
    await world.noticer.look()
    world.restart()
    await world.noticer.look()
    [_, ended] = await world.told()
    assert (ended.type, ended.at, ended.names) == ("recipient.resumed", world.now, f'["{WA_ID}"]')
    user = await world.database.read(lambda c: find_user(c, "main", WA_ID))
    assert user is not None
    assert await world.database.read(lambda c: find_block(c, user.id)) is None


async def test_a_block_for_good_and_one_that_was_renewed_are_not_ended(world: World) -> None:
    await block(world, "1", None)
    await block(world, "2", 60)
    await block(world, "2", 600)
    world.now = NOW + 60_000
    await world.noticer.look()
    assert await world.types() == ["recipient.blocked"] * 3


async def test_however_many_blocks_end_at_once_all_are_told(world: World) -> None:
    count = BATCH + 7
    for number in range(count):
        await block(world, f"1631555{number:04}")
    world.now = NOW + 60_000
    await world.noticer.look()
    assert (await world.types()).count("recipient.resumed") == count


async def test_an_issue_is_raised_once_and_cleared_once_over_restarts(world: World) -> None:
    world.issues = [("main", ISSUE)]
    await world.noticer.look()
    await world.noticer.look()
    world.restart()
    await world.noticer.look()
    assert await world.types() == ["issue.raised"]
    world.issues = []
    await world.noticer.look()
    world.restart()
    await world.noticer.look()
    raised, cleared = await world.told()
    assert (raised.account, cleared.type) == ("main", "issue.cleared")
    assert json.loads(raised.data) == json.loads(cleared.data)
    world.issues = [("main", ISSUE)]
    await world.noticer.look()
    assert (await world.types())[-1] == "issue.raised"


async def test_after_a_start_an_issue_is_not_cleared_before_somebody_has_looked(
    world: World,
) -> None:
    world.issues = [("main", ISSUE)]
    await world.noticer.look()
    world.restart()
    world.issues, world.settled = [], False
    await world.noticer.look()
    assert await world.types() == ["issue.raised"]
    world.settled = True
    await world.noticer.look()
    assert await world.types() == ["issue.raised", "issue.cleared"]


async def test_an_issue_of_an_app_is_the_apps_and_one_of_nobody_is_nobodys(world: World) -> None:
    world.issues = [("@meta", OF_APP), ("api.keys", OF_NOBODY)]
    await world.noticer.look()
    assert [row.account for row in await world.told()] == ["@meta", ""]
