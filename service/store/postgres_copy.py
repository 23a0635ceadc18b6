"""Copying a SQLite file to a PostgreSQL database, at first beside the service that runs on it.

Each run brings the copy to what the file holds by then. The logs, which are long, are gone through
by id: what is there already and equal stays, so that the run with the service stopped is short. All
other tables are copied anew. While the copy is unfinished the database has no foreign keys, and no
service starts on it. It is finished by one transaction of a run that has the file for itself, once
the rows of every table are equal in number and checksum on both sides.
"""

import asyncio
import re
import secrets
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial, reduce
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import Connection, Select, Table, delete, exists, func, insert, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.observability import failpoints
from service.store import maintenance, upgrades
from service.store.database import StoreError
from service.store.events import EPOCH_KEY
from service.store.logs import LOGS, OFFSET_KEY, go_beyond
from service.store.postgres import driver_of
from service.store.postgres_maintenance import operating, wait_for_services
from service.store.postgres_peers import need_alone
from service.store.postgres_upgrades import (
    COPY_KEY,
    bring_up,
    copied_from,
    current,
    need_fit_server,
)
from service.store.schema import installation, leadership, metadata, replicas, user_ids, users
from service.store.sqlite_files import FileLock, InUseError, Progress
from service.store.upgrades import ID_KEY, OLDEST_KEY

OWN_KEYS = (ID_KEY, EPOCH_KEY, OFFSET_KEY, OLDEST_KEY, COPY_KEY)
"""What a database notes of itself alone; all else that the file notes is copied."""

CHUNK_ROWS, CHUNK_BYTES = 2_000, 4_194_304
"""What of a log is compared, and copied in one transaction."""
STREAMED = 500
"""Rows that are fetched at once."""

COPIED = tuple(
    table for table in metadata.sorted_tables if table not in (installation, leadership, replicas)
)
OTHERS = tuple(table for table in COPIED if table not in LOGS)

_USED = "has rows, and is no unfinished copy: name an empty database"
_OF_ANOTHER = "an unfinished copy of another database: name an empty one"

_UNKEPT = re.compile("[\0\ud800-\udfff]")
"""What PostgreSQL keeps in no text: NUL, and bytes in the file that are no UTF-8."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

Row = tuple[Any, ...]


class Tally(NamedTuple):
    """Number and checksum of rows, whatever their order: the sum of a checksum of each."""

    rows: int = 0
    checksum: int = 0

    def and_row(self, row: Row) -> "Tally":
        """Return what it is with another row."""
        of_row = int.from_bytes(blake2b(repr(row).encode(), digest_size=16).digest())
        return Tally(self.rows + 1, (self.checksum + of_row) % _MODULUS)

    def and_all(self, other: "Tally") -> "Tally":
        """Return what it is with the rows of another."""
        return Tally(self.rows + other.rows, (self.checksum + other.checksum) % _MODULUS)


_MODULUS = 1 << 128


def _tally(rows: Iterable[Row]) -> Tally:
    return reduce(Tally.and_row, rows, Tally())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run copied: how many rows each table has, and their checksums.

    `replaced` names rows in which characters were replaced that PostgreSQL can't keep. A copy that
    is not final needs another run.
    """

    is_final: bool
    tallies: dict[str, Tally] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)


def copy(path: Path, url: str, progress: Progress) -> Outcome:
    """Bring a PostgreSQL database to what a SQLite file holds.

    The copy is final where no service has the file. Raises StoreError, one line, where the file is
    not of this release, or the database is neither empty nor an unfinished copy of this file.
    """
    lock = FileLock(path)
    with maintenance.reading(path) as source:
        database_id = _look_at(source, path)
        counts = (select(func.count()).select_from(table) for table in COPIED)
        total = sum(source.execute(count).scalar_one() for count in counts)
        try:
            lock.take()
            is_final = True
        except InUseError:
            is_final = False
        try:
            told = partial(_tell, progress, total)
            return asyncio.run(_copy(source, url, database_id, told, is_final=is_final))
        finally:
            lock.release()


def _tell(progress: Progress, total: int, done: int) -> None:
    progress(done, max(done, total))  # more may come while the service runs


def _look_at(source: Connection, path: Path) -> str:
    """Return the id of a file that can be copied; let its texts be read, whatever they hold."""
    raw = source.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise TypeError("the file is not SQLite's")
    found = upgrades.current(raw)
    if (why_not := upgrades.unfit(raw)) is not None:
        raise StoreError(f"{path}: {why_not}")
    if found != upgrades.latest():
        raise StoreError(f"{path}: {upgrades.outdated(found)}")
    query = select(installation.c.value).where(installation.c.key == ID_KEY)
    database_id = source.execute(query).scalar()
    if database_id is None:
        raise StoreError(f"{path}: has no id yet: run 'ackgate db upgrade'")
    raw.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
    return str(database_id)


async def _copy(
    source: Connection, url: str, database_id: str, told: Callable[[int], None], *, is_final: bool
) -> Outcome:
    async with operating(url) as engine:
        async with engine.connect() as looking:
            is_new = await looking.run_sync(_is_without_tables)
        if is_new:
            await bring_up(engine, migrate=True, create=True)
        await wait_for_services(engine)
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="READ COMMITTED")
            async with connection.begin():
                await connection.run_sync(partial(_begin, database_id=database_id))
            copying = _Copying(source, connection, told, Outcome(is_final))
            for log in LOGS:
                await copying.copy_log(log)
            for table in OTHERS:
                await copying.copy_anew(table)
            failpoints.reached("copy.before_final")
            if is_final:
                async with connection.begin():
                    await connection.run_sync(partial(_finish, source=source))
            return copying.outcome


def _is_without_tables(connection: Connection) -> bool:
    where = need_fit_server(connection)
    found = current(connection, where)
    if found not in (None, upgrades.latest()):
        raise StoreError(f"{where}: {upgrades.outdated(found)}")
    return found is None


def _begin(connection: Connection, database_id: str) -> None:
    """Let no service start on the database before the copy is final."""
    need_alone(connection)
    begun = copied_from(connection)
    if begun not in (None, database_id):
        raise StoreError(f"database.url: {_OF_ANOTHER}")
    if begun is None:
        for table in COPIED:
            if connection.execute(select(exists(select(1).select_from(table)))).scalar_one():
                raise StoreError(f"database.url: {_USED}")
        connection.execute(insert(installation).values(key=COPY_KEY, value=database_id))
        # So tables can be emptied, and copied at different moments while the service runs.
        for referring, name, _ in _references():
            connection.exec_driver_sql(f"ALTER TABLE {referring} DROP CONSTRAINT {name}")


def _references() -> Iterator[tuple[str, str, str]]:
    """Yield every foreign key: its table, its name, and its rule."""
    for table in COPIED:
        for key in table.foreign_key_constraints:
            (element,) = key.elements
            there = f"{element.column.table.name} ({element.column.name})"
            rule = f"FOREIGN KEY ({element.parent.name}) REFERENCES {there}"
            yield table.name, str(key.name), rule


def _finish(connection: Connection, source: Connection) -> None:
    """Make of equal rows a database that a service may go on with."""
    for referring, name, rule in _references():
        connection.exec_driver_sql(f"ALTER TABLE {referring} ADD CONSTRAINT {name} {rule}")
    copied = installation.c.key.not_in(OWN_KEYS)
    notes = [dict(row) for row in source.execute(select(installation).where(copied)).mappings()]
    connection.execute(delete(installation).where(copied))
    if notes:
        connection.execute(insert(installation), notes)
    _count_on(connection)
    go_beyond(connection)
    # Should the file be gone on with, both give the same ids to different events.
    epoch = {"key": EPOCH_KEY, "value": secrets.token_hex(4)}
    connection.execute(delete(installation).where(installation.c.key.in_((EPOCH_KEY, COPY_KEY))))
    connection.execute(insert(installation).values(epoch))


def _count_on(connection: Connection) -> None:
    """Let the database count on from the ids that rows have."""
    for table in COPIED:
        if "id" not in table.c:
            continue
        of_table = func.pg_get_serial_sequence(table.name, "id")
        counter = user_ids.name if table is users else connection.execute(select(of_table)).scalar()
        newest = connection.execute(select(func.max(table.c.id))).scalar()
        if counter and newest:
            connection.execute(select(func.setval(counter, newest)))


class _Copying:
    """One run over the tables."""

    def __init__(
        self,
        source: Connection,
        target: AsyncConnection,
        told: Callable[[int], None],
        outcome: Outcome,
    ) -> None:
        self.outcome = outcome
        self._source = source
        self._target = target
        self._told = told
        self._done = 0

    async def copy_log(self, log: Table) -> None:
        """Go through a log by id; copy what is not there, or not equal."""
        after, whole = 0, Tally()
        while True:
            rows = self._chunk(log, after)
            wanted = _tally(rows)
            within = [log.c.id > after, *([log.c.id <= rows[-1][0]] if rows else [])]
            query = select(*log.c).where(*within)
            if await self._tally_of(query) != wanted:
                async with self._target.begin():
                    await self._target.execute(delete(log).where(*within))
                    await self._write(log, rows)
                failpoints.reached("copy.after_part_of_log")
                await self._need_equal(log, query, wanted)
            whole = whole.and_all(wanted)
            if not rows:
                break
            after = rows[-1][0]
        self.outcome.tallies[log.name] = whole

    def _chunk(self, log: Table, after: int) -> list[Row]:
        """Read the next rows of a log, whose first column is the id."""
        query = select(*log.c).where(log.c.id > after).order_by(log.c.id).limit(CHUNK_ROWS)
        rows, size = [], 0
        with closing(self._read(log, query)) as found:
            for row in found:
                rows.append(row)
                size += sum(len(value) for value in row if isinstance(value, str | bytes))
                if size >= CHUNK_BYTES:
                    break
        return rows

    async def copy_anew(self, table: Table) -> None:
        """Empty a table, and copy all of it."""
        wanted = Tally()

        def rows() -> Iterator[Row]:
            nonlocal wanted
            for row in self._read(table, select(*table.c)):
                wanted = wanted.and_row(row)
                yield row

        async with self._target.begin():
            await self._target.exec_driver_sql(f"TRUNCATE {table.name}")
            await self._write(table, rows())
        failpoints.reached("copy.after_table")
        await self._need_equal(table, select(*table.c), wanted)
        self.outcome.tallies[table.name] = wanted

    def _read(self, table: Table, query: Select[Any]) -> Generator[Row, None, None]:
        """Yield rows of the file as PostgreSQL can keep them."""
        try:
            with closing(self._source.execute(query, execution_options=_STREAMING)) as found:
                for row in found:
                    yield self._kept(table, tuple(row))
                    self._done += 1
                    if not self._done % STREAMED:
                        self._told(self._done)
        except DBAPIError as error:  # else it would be taken for one of PostgreSQL's
            raise StoreError(f"the table {table.name} can't be read: {error.orig}") from None

    def _kept(self, table: Table, row: Row) -> Row:
        if not any(isinstance(value, str) and _UNKEPT.search(value) for value in row):
            return row
        kept = tuple(_UNKEPT.sub(REPLACEMENT, v) if isinstance(v, str) else v for v in row)
        places = [list(table.c).index(column) for column in table.primary_key]
        key = ", ".join(str(kept[place]) for place in places)
        self.outcome.replaced.append(f"{table.name} {key}")
        return kept

    async def _write(self, table: Table, rows: Iterable[Row]) -> None:
        names = [column.name for column in table.c]
        # The driver's own way, here and below: rows through SQLAlchemy take ten times as long.
        driver = await driver_of(self._target)
        try:
            await driver.copy_records_to_table(table.name, records=rows, columns=names)
        except (ValueError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            why = type(error).__name__
            raise StoreError(f"PostgreSQL refuses a row of the table {table.name}: {why}") from None

    async def _tally_of(self, query: Select[Any]) -> Tally:
        """Count rows of the database."""
        options = {"literal_binds": True}
        written = query.compile(dialect=self._target.dialect, compile_kwargs=options)
        found = Tally()
        driver = await driver_of(self._target)
        async with driver.transaction():
            async for row in driver.cursor(str(written), prefetch=STREAMED):
                found = found.and_row(tuple(row))
        return found

    async def _need_equal(self, table: Table, query: Select[Any], wanted: Tally) -> None:
        """Raise StoreError where rows are not as they were written; the last run alone looks."""
        if self.outcome.is_final and (found := await self._tally_of(query)) != wanted:
            raise StoreError(
                f"the table {table.name} is not equal: {wanted.rows} rows in the file, "
                f"{found.rows} in the database, or another checksum"
            )


_STREAMING = {"yield_per": STREAMED}
