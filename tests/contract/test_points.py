"""The points of the charts hold what the logs tell, once, and a chart reads few of them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select

from service.model.points import SPANS, Chart, Point, Series, added_up, chart
from service.store.database import Database
from service.store.logs import append
from service.store.points import add_points, points_of
from service.store.schema import audit, changes, journal, points, users
from service.workers import points as recording
from service.workers.points import Recorder
from tests.querying import BOTH, database_of, looked_at
from tests.storing import settled

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOW = 20_000 * DAY + 12 * HOUR + 30_000


class Clock:
    now = NOW

    def __call__(self) -> int:
        return self.now


class Behind:
    name = "crm"

    async def behind_seconds(self) -> float:
        return 2.5


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=BOTH)
async def database(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Database]:
    async with database_of(request, clock) as opened:
        yield opened


async def shown(
    database: Database, span: str, names: Sequence[str] | None = None, relays: Sequence[str] = ()
) -> Chart:
    """Give the chart of a span that ends now."""
    wanted = SPANS[span]
    query = partial(points_of, span=wanted, since=wanted.first(NOW), names=names, relays=relays)
    return chart(wanted, await database.read(query), NOW)


def callbacks(connection: Connection, account: str, *ats: int, state: str = "applied") -> None:
    texts = dict.fromkeys(("content_type", "content_encoding", "headers"), "")
    row = {"account": account, "state": state, "body": b"", **texts}
    append(connection, journal, [{**row, "received_at": at} for at in ats])


def trail(connection: Connection, event: str, *ats: int, account: str = "main") -> None:
    rows = [{"account": account, "at": at, "event": event, "user_id": 1} for at in ats]
    append(connection, audit, rows)


def acknowledged_user(connection: Connection) -> None:
    """Store a user whose earlier change took ten minutes, and the latest one minute."""
    row = dict.fromkeys(("created_at", "attempts", "history_count", "changed_precision"), 0)
    row |= {"id": 1, "account": "main", "wa_id": "16315550001", "hash": "B", "seen": "[]"}
    at = {"changed_at": NOW - 5 * MINUTE, "received_at": NOW - 2 * MINUTE}
    latest = {"state": "acknowledged", "version": 1, "acknowledged_at": NOW - MINUTE}
    flags = ("after_hold", "disputed", "has_work", "has_ask")
    connection.execute(
        insert(users), [{**row, **dict.fromkeys(flags, False), **at, **latest, "updated_at": NOW}]
    )
    before: dict[str, Any] = {"user_id": 1, "hash": "A", "first_at": 0, "changed_precision": 0}
    before |= {"seen": "[]", "outcome": "superseded", "acknowledged_at": NOW - 10 * MINUTE}
    known = {"changed_at": NOW - HOUR, "received_at": NOW - 20 * MINUTE}
    connection.execute(insert(changes), [{**before, **known, "id": 1}])


def everything(connection: Connection) -> None:
    callbacks(connection, "main", NOW - 3 * DAY, NOW - 2 * HOUR, NOW - MINUTE, NOW - MINUTE)
    callbacks(connection, "shop", NOW - MINUTE)
    callbacks(connection, "main", NOW - MINUTE, state="synthetic")
    acknowledged_user(connection)
    trail(connection, "changed", NOW - 20 * MINUTE, NOW - 2 * MINUTE)
    trail(connection, "decided", NOW - MINUTE)
    trail(connection, "acknowledged", NOW - 10 * MINUTE, NOW - MINUTE)


async def test_they_tell_of_each_span_what_the_logs_do(database: Database) -> None:
    await database.write(everything)
    await settled(database)
    await Recorder([Behind()], database).look()
    hour, day = await shown(database, "hour", relays=["crm"]), await shown(database, "day")
    assert hour.callbacks[-2:] == [3, 0]
    assert sum(day.callbacks) == 4, "what the doctor sent, and what is older, is none of them"
    assert (sum(hour.changes), sum(hour.acknowledged)) == (2, 2)
    assert hour.blocked[-2] == hour.blocked_longest[-2] == MINUTE
    assert hour.blocked[-11] == 10 * MINUTE
    assert (day.blocked[-2], day.blocked_longest[-2]) == (11 * MINUTE // 2, 10 * MINUTE)
    assert (hour.lag[-1], hour.lag[-2], day.lag[-1]) == (2500, None, None)
    mine = await shown(database, "hour", names=["shop"])
    assert (sum(mine.callbacks), sum(mine.changes)) == (1, 0)


async def test_nothing_is_counted_twice(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "ROWS", 2)
    monkeypatch.setattr(recording, "PAUSE_SECONDS", 0)
    await database.write(lambda c: callbacks(c, "main", *[NOW - MINUTE] * 7))
    await settled(database)
    await asyncio.gather(*(Recorder([], database).look() for _ in range(2)))
    await Recorder([], database).look()
    await database.write(lambda c: callbacks(c, "main", NOW - MINUTE))
    await settled(database)
    await Recorder([], database).look()
    assert [sum((await shown(database, span)).callbacks) for span in SPANS] == [8, 8, 8]


async def test_what_no_chart_shows_goes(database: Database) -> None:
    old = added_up([Point(MINUTE, NOW - NOW % MINUTE - 2 * HOUR, Series.CHANGES, "main", 1)])
    await database.write(partial(add_points, found=None, rows=old, now=NOW))
    steps = await database.read(lambda c: c.execute(select(points.c.step)).scalars().all())
    assert sorted(steps) == [15 * MINUTE, HOUR]


async def test_a_chart_reads_only_its_own_span(database: Database) -> None:
    minutes = [
        Point(MINUTE, NOW - NOW % MINUTE - n * MINUTE, Series.CALLBACKS, "main", 1)
        for n in range(7 * 24 * 60)
    ]
    rows = [*{(row.step, row.at): row for row in added_up(minutes)}.values()]
    kept = [row for row in rows if row.at >= NOW - 7 * DAY]
    await database.write(lambda c: c.execute(insert(points), [row._asdict() for row in kept]))
    count = await database.read(lambda c: c.execute(select(func.count(points.c.at))).scalar())
    assert count is not None
    assert count > 10_000
    query = partial(points_of, span=SPANS["hour"], since=SPANS["hour"].first(NOW), names=None)
    found, looked, statements = await looked_at(database, partial(query, relays=[]))
    assert len(found) == 60
    assert (statements, looked < 300) == (1, True)
