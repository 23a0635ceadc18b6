"""The same promise where two services write: the events of a user come to either, in any order.

What `test_any_order.py` demands of the rules alone holds for two ledgers on one PostgreSQL database
too: whatever comes to which of them, and whoever commits first, ends in the same state.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.ledger.callbacks import RecordCallback
from service.ledger.ledger import Ledger
from service.observability.metrics import Metrics
from service.store.postgres import PostgresDatabase
from service.store.postgres_errors import DEADLOCK
from tests.property.test_any_order import (
    CLOUD_STATES,
    NEW,
    NOW,
    OLD,
    OTHER,
    Event,
    Story,
    Users,
    apply,
    refused_stories,
    shown,
    stories,
)
from tests.storing import opening, within

pytestmark = pytest.mark.postgres

STORIES = st.one_of(
    stories(before_hash="Z"),
    stories(before_hash="Z", states=CLOUD_STATES, policies=("manual", "delayed"), cloud=True),
    refused_stories(),
    stories(before_hash="Z", moves=((OLD, NEW), (NEW, OLD), (OLD, OTHER))),
)


class Writers:
    """Two ledgers, each with its own connections to the same database."""

    def __init__(self, databases: Sequence[PostgresDatabase]) -> None:
        self.metrics = Metrics()
        self._database = databases[0]
        self._ledgers = [Ledger(one, {}, self.metrics, max_waiting=1000) for one in databases]
        self._numbers = count(1)

    async def close(self) -> None:
        for ledger in self._ledgers:
            await ledger.close()

    async def know(self, story: Story) -> str:
        """Store the users as they were before, at an account of their own; give its name."""
        account = f"story{next(self._numbers)}"
        async with self._database.transaction() as transaction:
            before = deepcopy(story.before).values()
            users = [replace(u, id=transaction.new_user_id(), account=account) for u in before]
            await transaction.save_users(users)
        for ledger in self._ledgers:
            ledger.policies = {account: story.policies}
        return account

    async def take(self, account: str, shares: Sequence[Sequence[Event]], *, at_once: bool) -> None:
        """Let each ledger take its share, one event after another or all at once."""

        async def write(ledger: Ledger, share: Sequence[Event]) -> None:
            waiting = []
            for event in share:
                waiting.append(ledger.submit(RecordCallback(account, NOW, b"{}", (event,))))
                if not at_once:
                    await waiting[-1]
            await asyncio.gather(*waiting)

        await asyncio.gather(*map(write, self._ledgers, shares))

    async def users(self, account: str) -> Users:
        wanted = [(account, name) for name in (OLD, NEW, OTHER)]
        found = await within(self._database, lambda t: t.load_users(wanted, ()))
        return {name: found[account, name] for name in (OLD, NEW, OTHER)}


@pytest.fixture
async def writers(postgres_url: str) -> AsyncIterator[Writers]:
    async with AsyncExitStack() as stack:
        databases = [
            await stack.enter_async_context(
                opening(PostgresDatabase(postgres_url, clock=lambda: NOW))
            )
            for _ in range(2)
        ]
        made = Writers(databases)
        stack.push_async_callback(made.close)
        yield made


@dataclass(frozen=True)
class Dealt:
    """A story, and to which of the two each event of it came."""

    story: Story
    shares: tuple[list[Event], list[Event]]
    at_once: bool


@st.composite
def dealt(draw: st.DrawFn) -> Dealt:
    story: Story = draw(STORIES)
    shares: tuple[list[Event], list[Event]] = ([], [])
    for event in story.delivered:
        shares[draw(st.integers(0, 1))].append(event)
    return Dealt(story, shares, draw(st.booleans()))


@pytest.mark.timeout(600)
@given(dealt())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_comes_to_which_of_two_writers_ends_in_the_same_state(
    writers: Writers, dealt: Dealt
) -> None:
    """Each example has an account of its own, so all of them may use one database."""
    story = dealt.story
    in_order = apply(deepcopy(story.before), story.happened, story.policies)
    account = await writers.know(story)
    await writers.take(account, dealt.shares, at_once=dealt.at_once)
    assert shown(await writers.users(account)) == shown(in_order)
    name, labels = "ackgate_conflicts_total", {"why": DEADLOCK}
    assert not writers.metrics.registry.get_sample_value(name, labels)
