"""How a service on PostgreSQL knows of the others on its database, and comes to lead them.

It has a connection of its own for that, so that neither waits for what else is asked of the
database. Each second it says there that it is present, and keeps the lease of the leader or tries
to take it. After its commits it tells the others that there is something to look at, without saying
what. https://www.postgresql.org/docs/current/sql-notify.html
"""

import asyncio
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog
from sqlalchemy import Connection, delete, text, update

from service.store.database import StoreError, UnavailableError
from service.store.postgres_errors import FAILURES, cause_of, described
from service.store.postgres_upgrades import refuse_unfinished, take_turn
from service.store.restore import refuse_unmarked
from service.store.schema import leadership, replicas

if TYPE_CHECKING:
    Driver = asyncpg.Connection[asyncpg.Record]

LEASE_MS = 5_000
"""How long a lease lasts by the server's clock; its holder renews it every second."""
BELIEVED_SECONDS = 4.0
"""How long its holder believes in it by its own clock, from before it asked for it."""

PRESENT_MS = 15_000
"""Whoever has said so long nothing is not present: it says so every second."""
FORGOTTEN_MS = 86_400_000
"""After so long without a word its row is deleted: it was killed, and will not come back."""

CONNECT_SECONDS, COMMAND_SECONDS = 2.0, 2.0
SETTINGS = {
    "application_name": "ackgate replica",
    "lock_timeout": "1000",
    "statement_timeout": "1900",
    "tcp_user_timeout": "4000",
}
"""Times in milliseconds, all less than a lease lasts."""

TELL_SECONDS = 0.02
"""The others are told that there is something new no more often than that."""
CHANNEL = "ackgate"

NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""The server's time (Unix ms), within a statement."""

_IS_KNOWN = "EXISTS (SELECT FROM replicas WHERE id = $1)"
RENEW = f"""
UPDATE leadership SET until = {NOW} + $2
WHERE holder = $1 AND {_IS_KNOWN} RETURNING term
"""  # noqa: S608  constants of ours only
"""Whoever holds a lease keeps it, even late: nobody else has taken it meanwhile."""

TAKE = f"""
UPDATE leadership SET term = term + 1, holder = $1, until = {NOW} + $2
WHERE (until < {NOW} OR until > {NOW} + 2 * $2) AND {_IS_KNOWN} RETURNING term
"""  # noqa: S608  constants of ours only
"""It changes the key of the row, so it waits for transactions of the former leader that hold it.

A lease that ends later than any can end is from before the server's clock was set back.
"""

HUNG_MS = 5_000
END_HUNG = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = 'ackgate'
AND state = 'active' AND wait_event = 'ClientRead' AND xact_start IS NOT NULL
AND state_change < clock_timestamp() - $1 * interval '1 millisecond'
"""
"""Ends the transactions of a service that hangs in the midst of asking something.

The driver asks in two steps. Between them the server waits for the second one without any time-out
of its own, and keeps the lead and the users that the transaction holds.
"""

PRESENT = f"""
WITH forgotten AS (DELETE FROM replicas WHERE seen_at < {NOW} - {FORGOTTEN_MS} AND id <> $1),
said AS (UPDATE replicas SET seen_at = {NOW} WHERE id = $1 RETURNING id)
SELECT (SELECT id FROM said), (
    SELECT count(*) FROM replicas
    WHERE id <> $1 AND seen_at BETWEEN {NOW} - {PRESENT_MS} AND {NOW} + {PRESENT_MS})
"""  # noqa: S608  constants of ours only

TAKEN = "database.url: a service works on this database"

_JOIN = text(f"INSERT INTO replicas (id, seen_at, report) VALUES (:id, {NOW}, '{{}}')")  # noqa: S608  constants of ours only
_TIME = text(f"SELECT {NOW}")
_NEWEST = text(f"SELECT max(seen_at) FROM replicas WHERE seen_at <= {NOW} + {PRESENT_MS}")  # noqa: S608  constants of ours only
"""What lies further ahead is from before the server's clock was set back."""

log = structlog.get_logger(__name__)


def need_alone(connection: Connection) -> None:
    """Raise StoreError where a service works on the database; none begins to in the transaction.

    One that was silent for long, as where its machine slept, is not there any more either: it finds
    its row gone, and does nothing before it is started again.
    """
    take_turn(connection)
    if is_used(connection):
        raise StoreError(TAKEN)
    connection.execute(delete(replicas))
    connection.execute(update(leadership).values(holder="", until=0))


def server_time(connection: Connection) -> int:
    """Return the server's time (Unix ms)."""
    now: int = connection.execute(_TIME).scalar_one()
    return now


def is_used(connection: Connection, since: int | None = None) -> bool:
    """Return whether a service works on the database, or did so a moment ago.

    With `since` (Unix ms), whether one has said so after that.
    """
    newest = connection.execute(_NEWEST).scalar()
    after = server_time(connection) - PRESENT_MS if since is None else since
    return newest is not None and newest > after


class Peers:
    """What a service knows of the others. `id` is what it calls itself.

    `heard` is set when another one has committed something; `others` says how many are present;
    `term` is that in which this one leads, None where it does not; `is_expelled` that the database
    does not know this one any more.
    """

    def __init__(self, url: str) -> None:
        self.id = secrets.token_hex(8)
        self.heard = asyncio.Event()
        self.others = 0
        self.term: int | None = None
        self.is_expelled = False
        self._url = url
        self._has_joined = False
        self._believed_until = 0.0
        self._connection: Driver | None = None
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None

    def join(self, connection: Connection) -> None:
        """Work on a database from now on; raise StoreError where it must not be used."""
        take_turn(connection)
        refuse_unfinished(connection)
        refuse_unmarked(connection)
        connection.execute(_JOIN, {"id": self.id})
        self._has_joined = True

    @property
    def leads(self) -> bool:
        """Whether no other service leads: as long as the lease can't have ended."""
        is_held = self.term is not None and time.monotonic() < self._believed_until
        return is_held and not self.is_expelled

    async def lead(self, *, may_take: bool) -> bool:
        """Keep the lead, or take it if it may be taken; return whether this one leads.

        The others are told that it is present. Raises UnavailableError.
        """
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell())
        asked_at = time.monotonic()
        (term,) = await self._ask(RENEW, self.id, LEASE_MS) or (None,)
        with suppress(UnavailableError):
            await self._ask(END_HUNG, HUNG_MS)
        if term is None and may_take:
            with suppress(UnavailableError):  # a transaction of the former leader is still open
                (term,) = await self._ask(TAKE, self.id, LEASE_MS) or (None,)
        self.term = term
        self._believed_until = asked_at + BELIEVED_SECONDS
        with suppress(UnavailableError):  # its row is locked, or it was not to be had in time
            known, self.others = await self._ask(PRESENT, self.id)
            self.is_expelled |= known is None
        return self.leads

    async def resign(self) -> None:
        """Let another one lead at once."""
        if self.term is not None:
            self.term = None
            with suppress(UnavailableError):
                await self._ask("UPDATE leadership SET until = 0 WHERE holder = $1", self.id)

    def tell(self) -> None:
        """Tell the others that something was committed."""
        if self.others:
            self._news.set()

    async def _tell(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._ask(f"SELECT pg_notify('{CHANNEL}', $1)", self.id)
            except UnavailableError:
                pass  # they look by themselves, too
            except Exception:
                log.exception("telling the other replicas failed")
            await asyncio.sleep(TELL_SECONDS)

    def _listen(self, _connection: object, _pid: int, _channel: str, teller: object) -> None:
        if teller != self.id:
            self.heard.set()

    async def _ask(self, sql: str, *bound: Any) -> Any:
        """Return the first row. A connection on which anything failed is thrown away."""
        async with self._turn:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._connect()
                return await self._connection.fetchrow(sql, *bound)
            except BaseException as error:
                if self._connection is not None:
                    self._connection.terminate()
                self._connection = None
                if isinstance(error, FAILURES):
                    raise UnavailableError(described(cause_of(error))) from None
                raise

    async def _connect(self) -> "Driver":
        connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            server_settings=SETTINGS,
        )
        try:
            await connection.add_listener(CHANNEL, self._listen)
        except BaseException:
            connection.terminate()
            raise
        self.heard.set()  # whatever was told meanwhile was not heard
        return connection

    async def close(self) -> None:
        """Let another one lead, and be present no more."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        await self.resign()
        if not self._has_joined:
            return
        with suppress(UnavailableError):
            await self._ask("DELETE FROM replicas WHERE id = $1", self.id)
        if self._connection is not None:
            with suppress(*FAILURES):
                await self._connection.remove_listener(CHANNEL, self._listen)
                await self._connection.close(timeout=1)
