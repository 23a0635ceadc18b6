"""The hub reads the log once, and everybody gets what is theirs once."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest

from service.api.event_hub import PAGE, EventHub, Reader
from service.api.event_stream import Position, is_id, position_after
from service.model.event_log import EventType, LoggedEvent
from service.observability.metrics import Metrics
from service.store.database import ChangeSet
from service.store.events import EventFilter, Span, read_events, span_of
from tests.storing import AnyDatabase, MakeDatabase, opening, settled, within

NOW = 1_600_000_000_000
ALL = EventFilter()
HELD = EventFilter(frozenset({"identity.held"}))


class World:
    """A hub that runs on a database, and readers whose bytes are kept."""

    def __init__(self, database: AnyDatabase, hub: EventHub) -> None:
        self.database = database
        self.hub = hub
        self.tasks: list[asyncio.Task[None]] = []

    async def tell(self, count: int = 1, type_: EventType = EventType.PENDING) -> None:
        events = [LoggedEvent(NOW, "main", type_, (f"user{n}",), {}) for n in range(count)]
        last = await within(self.database, lambda transaction: transaction.add_events(events))
        self.hub.notify(ChangeSet(told=[type_] * count, event_id=last))

    async def ids(self) -> list[int]:
        """Give the numbers of all events, in their order."""
        await settled(self.database)
        query = partial(read_events, after=0, limit=10_000)
        return [event.id for event in await self.database.read(query)]

    def follow(self, position: int, wanted: EventFilter = ALL) -> "Kept":
        kept = Kept(wanted)
        following = self.hub.follow(kept.reader, position, kept.write)
        self.tasks.append(asyncio.create_task(following))
        return kept


class Kept:
    """A reader, and what it was sent."""

    def __init__(self, wanted: EventFilter) -> None:
        self.reader = Reader(wanted, lambda: None, lambda: True)
        self.chunks: list[bytes] = []

    async def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)

    def ids(self) -> list[int]:
        """Give the numbers of the events that came, in their order."""
        sent = b"".join(self.chunks).split(b"\n\n")
        return [
            int(one.partition(b"\n")[0].rpartition(b"-")[2]) for one in sent if b"\ndata: " in one
        ]

    async def has(self, count: int) -> list[int]:
        async with asyncio.timeout(20):
            while len(self.ids()) < count:
                await asyncio.sleep(0.005)
        return self.ids()


@pytest.fixture
async def world(make_database: MakeDatabase) -> AsyncIterator[World]:
    async with opening(make_database()) as database:
        epoch = (await database.read(span_of)).epoch
        made = World(database, EventHub(epoch, database, Metrics()))
        running = asyncio.create_task(made.hub.run())
        yield made
        made.hub.close()
        await asyncio.gather(*made.tasks)
        running.cancel()


async def test_all_who_want_the_same_get_the_very_same_bytes(world: World) -> None:
    one, other = world.follow(0), world.follow(0)
    await world.tell()
    await one.has(1)
    await other.has(1)
    await world.tell(3)
    await one.has(4)
    await other.has(4)
    assert one.chunks[-1] is other.chunks[-1]


async def test_whoever_begins_in_the_past_gets_all_of_it_and_then_what_comes(world: World) -> None:
    count = 2 * PAGE + 7
    await world.tell(count)
    readers = [world.follow(0) for _ in range(3)]
    for reader in readers:
        await reader.has(PAGE)
    await world.tell(5)
    for reader in readers:
        assert await reader.has(count + 5) == await world.ids()
    late = world.follow((await world.ids())[count - 1])
    assert await late.has(5) == (await world.ids())[count:]


async def test_whoever_comes_from_ahead_of_the_hub_gets_nothing_twice(world: World) -> None:
    await world.tell(3)
    first = world.follow(0)
    await first.has(3)
    events = [LoggedEvent(NOW, "main", EventType.PENDING, (), {})] * 4
    # The hub is not told of these, so it is behind.
    await within(world.database, lambda transaction: transaction.add_events(events))
    ahead = world.follow((await world.ids())[4])
    await world.tell()
    assert await first.has(8) == await world.ids()
    assert await ahead.has(3) == (await world.ids())[5:]


async def test_who_wants_few_events_gets_those_alone_from_the_past_and_from_now_on(
    world: World,
) -> None:
    await world.tell(3)
    await world.tell(2, EventType.HELD)
    await world.tell(3)
    reader = world.follow(0, HELD)
    assert await reader.has(2) == (await world.ids())[3:5]
    await world.tell(4)
    await world.tell(1, EventType.HELD)
    ids = await world.ids()
    assert await reader.has(3) == [*ids[3:5], ids[12]]


async def test_a_heartbeat_names_where_the_log_is_and_is_no_event(world: World) -> None:
    everything, few = world.follow(0), world.follow(0, HELD)
    await world.tell(3)
    [*_, newest] = await everything.has(3)
    world.hub.beat()
    beat = f"id: {world.hub.epoch}-{newest}\n\n".encode()
    async with asyncio.timeout(20):
        while beat not in few.chunks:
            await asyncio.sleep(0.005)
    assert few.ids() == []


async def test_without_readers_the_log_is_not_read(world: World) -> None:
    await world.tell(3)
    assert not world.hub._news.is_set()
    [*_, newest] = await world.ids()
    assert world.hub.newest(await world.database.read(span_of)) == newest


SPAN = Span("epoch1", newest=90, deleted=40)


@pytest.mark.parametrize(
    ("last_id", "expected"),
    [
        ("now", Position(90)),
        ("first", Position(40)),
        ("epoch1-40", Position(40)),
        ("epoch1-57", Position(57)),
        ("epoch1-90", Position(90)),
        ("epoch1-39", Position(40, "gap")),
        ("epoch1-91", Position(40, "gap")),
        ("epoch1-x", Position(40, "gap")),
        ("", Position(40, "gap")),
        ("epoch2-57", Position(40, "reset")),
    ],
)
def test_where_a_reader_goes_on_and_what_it_is_told_of_what_it_missed(
    last_id: str, expected: Position
) -> None:
    assert position_after(last_id, SPAN) == expected


@pytest.mark.parametrize(("text", "known"), [("now", True), ("a1-7", True), ("7", False)])
def test_what_is_an_id(text: str, known: bool) -> None:
    assert is_id(text) is known
