"""Events: the event log as a stream of server-sent events, and as a list for those who poll."""

import re
from functools import partial
from typing import Annotated

import orjson
import structlog
from aiohttp import web
from pydantic import AfterValidator, Field

from service.api.auth import is_admitted, visible
from service.api.context import app_context
from service.api.event_hub import Reader
from service.api.event_stream import (
    FIRST,
    NOW,
    Position,
    is_id,
    missed_json,
    opening,
    position_after,
    sent,
)
from service.api.openapi import JSON, STREAM
from service.api.params import DEFAULT_LIMIT, Limit, Names, Query, query_of
from service.model.event_log import EventType
from service.store.database import UnavailableError
from service.store.events import EventFilter, event_json, read_wanted, span_of, written_id
from service.webhooks.request_ids import HEADER, REQUEST_ID

LAST_EVENT_ID = "Last-Event-ID"
_HEADERS = {
    "Content-Type": f"{STREAM}; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx passes each event on at once
}
_QUALITY = re.compile(r";\s*q=([0-9.]+)")

log = structlog.get_logger(__name__)


def _checked(after: str | None) -> str | None:
    if after is None or is_id(after):
        return after
    raise ValueError(f"must be an id of an event, {NOW} or {FIRST}")


class EventsQuery(Query):
    """Which events, and from where on."""

    after: Annotated[
        str | None,
        AfterValidator(_checked),
        Field(
            description="The id of the last event seen, or the `next_cursor` of a list; `now` for "
            "only what happens from now on, `first` for all that is kept. `Last-Event-ID` comes "
            "before it.",
            examples=["first"],
        ),
    ] = None
    type: Annotated[
        list[EventType],
        Names,
        Field(
            default_factory=list,
            description="Only of these types; repeated, or with commas.",
            examples=[["identity.pending"]],
        ),
    ]
    account: Annotated[
        list[str],
        Names,
        Field(
            default_factory=list,
            description="Only of these accounts; repeated, or with commas.",
            examples=[["main"]],
        ),
    ]
    limit: Limit = DEFAULT_LIMIT


async def follow(request: web.Request) -> web.StreamResponse:
    """Follow what happens, as server-sent events; or list it, where JSON is accepted."""
    query = query_of(request, EventsQuery)
    within = visible(request)
    accounts = frozenset(query.account) if query.account else None
    if within is not None:
        accounts = within if accounts is None else accounts & within
    types = frozenset(str(type_) for type_ in query.type) if query.type else None
    wanted = EventFilter(types, accounts)
    if _wants_json(request.headers.get("Accept", "")):
        return await _list(request, query, wanted)
    return await _stream(request, query, wanted)


def _wants_json(accept: str) -> bool:
    """Return whether JSON is named in `Accept`, and preferred to a stream."""
    qualities = {JSON: 0.0, STREAM: 0.0}
    for part in accept.split(","):
        media = part.partition(";")[0].strip().lower()
        if media in qualities:
            quality = _QUALITY.search(part)
            try:
                qualities[media] = 1.0 if quality is None else float(quality[1])
            except ValueError:
                qualities[media] = 0.0
    return qualities[JSON] > qualities[STREAM]


async def _list(request: web.Request, query: EventsQuery, wanted: EventFilter) -> web.Response:
    """Answer with a page, and with where to go on, which is there on the last page too."""
    context = app_context(request)
    span = await context.database.read(span_of)
    last_id = request.headers.get(LAST_EVENT_ID) or query.after or FIRST
    position = position_after(last_id, span)
    page = await context.database.read(
        partial(read_wanted, wanted=wanted, after=position.number, limit=query.limit)
    )
    items = [event_json(span.epoch, row) for row in page.rows]
    if position.missed is not None:
        items.insert(0, missed_json(span.epoch, position, context.ledger.clock()))
    answer = {"items": items, "next_cursor": written_id(span.epoch, page.position)}
    return web.Response(
        body=orjson.dumps(answer), content_type=JSON, headers={"Cache-Control": "no-store"}
    )


async def _stream(
    request: web.Request, query: EventsQuery, wanted: EventFilter
) -> web.StreamResponse:
    """Send events until the reader goes away, or the service stops."""
    context = app_context(request)
    span = await context.database.read(span_of)
    last_id = request.headers.get(LAST_EVENT_ID) or query.after
    if last_id in {None, NOW}:
        position = Position(context.hub.newest(span))
    else:
        position = position_after(last_id, span)
    response = web.StreamResponse(headers={**_HEADERS, HEADER: request[REQUEST_ID]})
    response.force_close()
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    first = opening(span.epoch, position.number)
    if position.missed is not None:
        first += sent(missed_json(span.epoch, position, context.ledger.clock()))
    try:
        await response.write(first)
        reader = Reader(wanted, partial(_cut, request), partial(is_admitted, request, "reader"))
        await context.hub.follow(reader, position.number, response.write)
        await response.write_eof()
    except ConnectionError:
        pass  # the reader went away, or was cut off
    except UnavailableError:
        _cut(request)  # it comes again, as after any other fault
    except Exception:
        # The answer has begun, so none of ours can say it.
        log.exception("a stream of events failed")
        _cut(request)
    return response


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
