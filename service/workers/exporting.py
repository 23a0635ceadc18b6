"""Tells all that is kept of a user, piece by piece: the logs are searched as for an erasure."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import orjson
from sqlalchemy import Connection

from service.dialects import erasing as dialect
from service.dialects.erasing import Names
from service.dialects.shares import Share
from service.model.shapes import rfc3339
from service.store import erasing as store
from service.store import exporting
from service.store.database import Database
from service.store.erasing import Found, Search
from service.store.exporting import PAGE, shown
from service.workers.erasing import Whom

PAUSE_SECONDS = 0.005


class Exporter:
    """Exports users of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def export(self, whom: Whom) -> AsyncIterator[bytes]:
        """Yield the pieces of one JSON object. Raises UnavailableError."""
        account = whom.account
        whole = await self._database.read(
            partial(exporting.whole_user, account=account, alias=whom.alias)
        )
        user_id = await self._database.read(
            partial(store.find_user_id, account=account, alias=whom.alias)
        )
        inputs = await self._database.read(
            partial(store.inputs_of, account=account, names=whole["names"])
        )
        names = sorted({*whole["names"], *inputs})
        logs, own = Search(names, whom.share.owners), Search(names, [account])
        known = Names(names)
        yield orjson.dumps({"account": account, **whole})[:-1]
        lists = (
            ("audit", self._audit(user_id)),
            ("callbacks", self._callbacks(known, whom.share, logs)),
            ("events", self._events(known, own)),
            ("messages", self._found(store.look_at_recipients, own, "")),
        )
        for key, items in lists:
            yield f',"{key}":['.encode()
            comma = b""
            async for item in items:
                yield comma + orjson.dumps(item)
                comma = b","
            yield b"]"
        yield b"}"

    async def _audit(self, user_id: int | None) -> AsyncIterator[Any]:
        after, rows = 0, [*range(PAGE)] if user_id is not None else []
        while len(rows) == PAGE and user_id is not None:
            page = partial(exporting.audit_page, user_id=user_id, after=after)
            found = await self._database.read(page)
            for row in found:
                yield shown(row)
                after = row.id
            rows = [row.id for row in found]

    async def _callbacks(self, names: Names, share: Share, search: Search) -> AsyncIterator[Any]:
        async for rows in self._pages(store.look_at_callbacks, search, 0):
            for row, said in await asyncio.to_thread(_said_in, names, share, rows):
                yield {"id": row.id, "received_at": rfc3339(row.received_at), "elements": said}

    async def _events(self, names: Names, search: Search) -> AsyncIterator[Any]:
        async for one in self._found(store.look_at_events, search, 0):
            if names.are_within(one["names"]) or names.are_within(one["data"]):
                yield one

    async def _found(
        self, look: Callable[[Connection, Search, Any], Found], search: Search, after: Any
    ) -> AsyncIterator[Any]:
        async for rows in self._pages(look, search, after):
            for row in rows:
                yield {"id": row.id, **shown(row)}

    async def _pages(
        self, look: Callable[[Connection, Search, Any], Found], search: Search, after: Any
    ) -> AsyncIterator[Sequence[Any]]:
        more = True
        while more:
            found = await self._database.read(
                lambda connection, after=after: look(connection, search, after)  # type: ignore[misc] # mypy infers no lambda with a default
            )
            yield found.rows
            after, more = found.last, found.more
            await asyncio.sleep(PAUSE_SECONDS)


def _said_in(names: Names, share: Share, rows: Sequence[Any]) -> list[tuple[Any, list[Any]]]:
    """Return callbacks with what they say of the user, those that say something."""
    found = []
    for row in rows:
        others = share.others_in(row.account)
        said = dialect.about(bytes(row.body), row.content_encoding, names, others)
        if said is not None:
            found.append((row, said))
    return found
