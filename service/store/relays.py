"""Queries of the relays: how far each has come, its rows, and the logs that they read."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import orjson
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    RowMapping,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from service.model.relays import RowState
from service.model.users import ERASED_ALIAS
from service.store.database import ERASED
from service.store.erased import erased_among
from service.store.events import NOTHING_TOLD, EventRow, deleted_up_to, epoch_of, event_json
from service.store.logs import count_rows, first_since, newest_settled, settled
from service.store.schema import deliveries, events, journal, relay_replays, relays
from service.store.upserting import upsert_all

Source = Literal["callbacks", "events"]


class RelayRow(NamedTuple):
    """How far a relay has come; see the table."""

    name: str
    source: str
    position: int
    read_up_to: int
    undone: Sequence[int]
    paused_by: str | None
    last_delivered_at: int | None
    skipped: int
    resumed_at: int | None = None


class DeliveryRow(NamedTuple):
    """A callback that could not be delivered while others passed. Times are Unix milliseconds.

    `retry_asked` is whether a person wants it tried again, and it was not tried since.
    """

    relay: str
    id: int
    log_id: int
    replay: int
    state: str
    attempts: int
    due_at: int
    gives_up_at: int | None
    kinds: Sequence[str]
    names: Sequence[str]
    is_of_one: bool
    last_status: int | None
    last_error: str | None
    answer: str | None
    retry_asked: bool = False


class LogRow(NamedTuple):
    """A row of the log that a relay reads, as it is passed on.

    `account` is what the log calls its owner, `state` that of a callback.
    """

    id: int
    account: str
    at: int
    state: str
    content_type: str
    content_encoding: str
    body: bytes


class ReplayRow(NamedTuple):
    """A part of the log that is to be sent once more."""

    id: int
    relay: str
    position: int
    until_id: int
    requested_at: int


def ensure_relays(connection: Connection, sources: Mapping[str, Source]) -> None:
    """Let each configured relay have a row. A new one begins at the newest row of its log."""
    known = {row.name: row for row in relay_rows(connection)}
    for name, source in sources.items():
        row = known.get(name)
        if row is not None and row.source == source:
            continue
        forget_relay(connection, name)
        newest = newest_of(connection, source)
        begin = {"position": newest, "read_up_to": newest, "undone": "[]", "skipped": 0}
        connection.execute(insert(relays).values(name=name, source=source, **begin))


def forget_relay(connection: Connection, name: str) -> None:
    """Forget all that is known of a relay."""
    # First the row that whoever writes of a relay locks first.
    for table, column in ((relays, "name"), (deliveries, "relay"), (relay_replays, "relay")):
        connection.execute(delete(table).where(table.c[column] == name))


def relay_rows(connection: Connection) -> list[RelayRow]:
    """Return all relays that the database knows, configured or not."""
    rows = connection.execute(select(relays).order_by(relays.c.name)).mappings()
    return [RelayRow(**{**row, "undone": json.loads(row["undone"])}) for row in rows]


def newest_of(connection: Connection, source: Source) -> int:
    """Return the id of the newest settled row of a log; 0 where there is none."""
    return newest_settled(connection, _TABLES[source].c.id)


def count_after(
    connection: Connection, source: Source, after: int, until: int | None = None
) -> int:
    """Return how many settled rows of a log there are after an id, up to another or to the last."""
    return count_rows(connection, _TABLES[source].c.id, after, until)


def read_log(
    connection: Connection,
    source: Source,
    after: int,
    rows: int,
    size: int,
    until: int | None = None,
) -> list[LogRow]:
    """Return the next settled rows of a log: so many, and so many bytes, but one row at least."""
    table, body = _TABLES[source], _BODIES[source]
    within = and_(table.c.id > after, settled(connection, table.c.id))
    if until is not None:
        within = and_(within, table.c.id <= until)
    sizes = select(table.c.id, func.length(body)).where(within)
    last, total = None, 0
    for id_, length in connection.execute(sizes.order_by(table.c.id).limit(rows)):
        total += length
        if last is not None and total > size:
            break
        last = id_
    if last is None:
        return []
    return _rows(connection, source, table.c.id > after, table.c.id <= last)


_TABLES: Mapping[Source, Table] = {"callbacks": journal, "events": events}
_BODIES: Mapping[Source, Column[Any]] = {"callbacks": journal.c.body, "events": events.c.data}
_TIMES: Mapping[Source, Column[Any]] = {"callbacks": journal.c.received_at, "events": events.c.at}
_OF_JOURNAL = (
    journal.c.id,
    journal.c.account,
    journal.c.received_at,
    journal.c.state,
    journal.c.content_type,
    journal.c.content_encoding,
    journal.c.body,
)
_OF_EVENTS = [events.c[name] for name in EventRow._fields]


def _rows(connection: Connection, source: Source, *where: ColumnElement[bool]) -> list[LogRow]:
    if source == "callbacks":
        query = select(*_OF_JOURNAL).where(*where).order_by(journal.c.id)
        return [LogRow(*row) for row in connection.execute(query)]
    epoch = epoch_of(connection)
    found = connection.execute(select(*_OF_EVENTS).where(*where).order_by(events.c.id))
    return [_event(epoch, EventRow._make(row)) for row in found]


def _event(epoch: str, row: EventRow) -> LogRow:
    """Return an event as it is passed on: as the API shows it."""
    body = orjson.dumps(event_json(epoch, row))
    state = ERASED if row.data == NOTHING_TOLD else ""
    return LogRow(row.id, row.account, row.at, state, "application/json", "", body)


def log_row(connection: Connection, source: Source, id_: int) -> LogRow | None:
    """Return one row of a log, if it is still kept."""
    return next(iter(_rows(connection, source, _TABLES[source].c.id == id_)), None)


def is_erased(connection: Connection, source: Source, id_: int) -> bool:
    """Return whether a row that is not there was about an erased user, and not too old.

    Of an erased callback the row stays.
    """
    return source == "events" and id_ > deleted_up_to(connection)


def arrived_at(connection: Connection, source: Source, after: int) -> int | None:
    """Return when (Unix ms) the first settled row after an id arrived; None where there is none."""
    id_ = _TABLES[source].c.id
    shown = id_ > after, settled(connection, id_)
    query = select(_TIMES[source]).where(*shown).order_by(id_).limit(1)
    return connection.execute(query).scalar()


def delivery_rows(connection: Connection, relay: str) -> list[DeliveryRow]:
    """Return all rows of a relay, in the order of its log."""
    query = select(deliveries).where(deliveries.c.relay == relay)
    query = query.order_by(deliveries.c.log_id, deliveries.c.id)
    return [_delivery(row) for row in connection.execute(query).mappings()]


def list_deliveries(
    connection: Connection, relay: str, states: Iterable[str], after: int, limit: int
) -> list[DeliveryRow]:
    """Return a page of a relay's rows, by id; of some states alone where any is named."""
    query = select(deliveries).where(deliveries.c.relay == relay, deliveries.c.id > after)
    if wanted := list(states):
        query = query.where(deliveries.c.state.in_(wanted))
    found = connection.execute(query.order_by(deliveries.c.id).limit(limit))
    return [_delivery(row) for row in found.mappings()]


def _delivery(row: RowMapping) -> DeliveryRow:
    read = {"kinds": json.loads(row["kinds"]), "names": json.loads(row["names"])}
    return DeliveryRow(**{**row, **read})


def save_deliveries(connection: Connection, rows: Sequence[DeliveryRow]) -> None:
    """Write rows, new or known; what a person asks about them meanwhile stays."""
    values = [
        {**row._asdict(), "kinds": json.dumps(row.kinds), "names": json.dumps(row.names)}
        for row in without_erased(connection, rows)
    ]
    upsert_all(connection, deliveries, values, ["relay", "id"], kept=["retry_asked"])


def without_erased(connection: Connection, rows: Sequence[DeliveryRow]) -> Iterator[DeliveryRow]:
    """Yield rows without the names of who was erased since the relay has them in memory."""
    called = {name: _split(name) for row in rows for name in row.names}
    erased = erased_among(connection, {alias for _, alias in called.values()})
    anywhere = {("", alias) for _, alias in erased}  # where the account is not known
    gone = {
        name: f"{name.removesuffix(alias)}{ERASED_ALIAS}"
        for name, (account, alias) in called.items()
        if (account, alias) in erased | anywhere
    }
    for row in rows:
        if gone.keys().isdisjoint(row.names):
            yield row
            continue
        names = {gone.get(name, name) for name in row.names}
        yield row._replace(names=sorted(names), answer=None)


def _split(name: str) -> tuple[str, str]:
    """Return the account and the alias that a relay's name is made of; old ones have no account."""
    account, slash, alias = name.partition("/")
    return (account, alias) if slash else ("", name)


def delete_deliveries(connection: Connection, relay: str, ids: Iterable[int]) -> None:
    """Delete rows that were delivered."""
    keys = [{"r": relay, "i": id_} for id_ in ids]
    if keys:
        ours = deliveries.c
        which = ours.relay == bindparam("r"), ours.id == bindparam("i")
        connection.execute(delete(deliveries).where(*which), keys)


def ask_to_retry(connection: Connection, relay: str, id_: int | None) -> int:
    """Have a row of a relay tried again, all dead ones without an id; return how many that are."""
    which = deliveries.c.state == RowState.DEAD.value if id_ is None else deliveries.c.id == id_
    asking = update(deliveries).where(deliveries.c.relay == relay, which)
    return connection.execute(asking.values(retry_asked=True)).rowcount


def note_retried(connection: Connection, relay: str, ids: Sequence[int]) -> None:
    """Note that rows are tried again, as a person asked."""
    mine = deliveries.c.relay == relay, deliveries.c.id.in_(ids)
    connection.execute(update(deliveries).where(*mine).values(retry_asked=False))


class Progress(NamedTuple):
    """How far a relay has come: see the table."""

    position: int
    read_up_to: int
    undone: tuple[int, ...]


def save_progress(
    connection: Connection, relay: str, progress: Progress, last_delivered_at: int | None
) -> None:
    """Note how far a relay has come."""
    undone = json.dumps(progress.undone)
    values = progress._asdict() | {"undone": undone, "last_delivered_at": last_delivered_at}
    connection.execute(update(relays).where(relays.c.name == relay).values(values))


def pause(connection: Connection, relay: str, by: str) -> None:
    """Pause a relay, and note by whom or what."""
    connection.execute(update(relays).where(relays.c.name == relay).values(paused_by=by))


def resume(connection: Connection, relay: str, now: int) -> None:
    """Have a relay send again, and at once, whatever kept it from that."""
    sends = {"paused_by": None, "resumed_at": now}
    connection.execute(update(relays).where(relays.c.name == relay).values(sends))


def count_skipped(connection: Connection, relay: str, count: int) -> None:
    """Note that a relay lost rows of its log to retention."""
    skipped = {"skipped": relays.c.skipped + count}
    connection.execute(update(relays).where(relays.c.name == relay).values(skipped))


def forget_skipped(connection: Connection, relay: str) -> None:
    """Count anew what a relay loses."""
    connection.execute(update(relays).where(relays.c.name == relay).values(skipped=0))


class Figures(NamedTuple):
    """Where a relay stands. `behind_since` is when (Unix ms) the oldest arrived it is behind with.

    `replaying` counts what is still to be sent once more, before any filter; `counts` its rows.
    """

    row: RelayRow
    behind: int
    behind_since: int | None
    replaying: int
    counts: Mapping[str, int]


def relay_figures(connection: Connection, sources: Mapping[str, Source]) -> dict[str, Figures]:
    """Return where relays stand, each with the log that it reads, by their names."""
    ours = deliveries.c
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    query = select(ours.relay, ours.state, func.count()).group_by(ours.relay, ours.state)
    for relay, state, count in connection.execute(query):
        counts[relay][state] = count
    query = select(ours.relay, func.count()).group_by(ours.relay)
    left = query.where(ours.replay != 0, ours.state != RowState.DEAD.value)
    replaying: Counter[str] = Counter({row[0]: row[1] for row in connection.execute(left)})
    for _, relay, position, until, _ in connection.execute(select(relay_replays)):
        if relay in sources:
            replaying[relay] += count_after(connection, sources[relay], position, until)
    return {
        row.name: Figures(
            row,
            count_after(connection, sources[row.name], row.read_up_to) + len(row.undone),
            arrived_at(connection, sources[row.name], row.position),
            replaying[row.name],
            counts[row.name],
        )
        for row in relay_rows(connection)
        if row.name in sources
    }


def replay_rows(connection: Connection, relay: str) -> list[ReplayRow]:
    """Return what is still to be sent once more, in the order in which it was asked for."""
    query = select(relay_replays).where(relay_replays.c.relay == relay)
    return [ReplayRow(*row) for row in connection.execute(query.order_by(relay_replays.c.id))]


def find_rows(connection: Connection, source: Source, begin: int, end: int) -> tuple[int, int, int]:
    """Find what arrived between two times (Unix ms): after which id, up to which, and how many."""
    table = _TABLES[source]
    arrived = _TIMES[source]
    first, last = (first_since(connection, table, arrived, at) for at in (begin, end + 1))
    within = and_(table.c.id >= first, table.c.id < last)
    count = connection.execute(select(func.count()).select_from(table).where(within)).scalar()
    return first - 1, last - 1, count or 0


def add_replay(connection: Connection, relay: str, after: int, until: int, now: int) -> ReplayRow:
    """Ask for the rows after an id, up to another, to be sent once more. `now` is Unix ms."""
    newest = connection.execute(select(func.max(relay_replays.c.id))).scalar() or 0
    # Ids of replays are never given twice: webhook ids are made of them.
    row = ReplayRow(max(newest + 1, now), relay, after, until, now)
    connection.execute(insert(relay_replays).values(row._asdict()))
    return row


def move_replay(connection: Connection, id_: int, position: int, *, ended: bool) -> None:
    """Note how far a replay has come; one that has ended is deleted."""
    table: Table = relay_replays
    if ended:
        connection.execute(delete(table).where(table.c.id == id_))
    else:
        connection.execute(update(table).where(table.c.id == id_).values(position=position))
