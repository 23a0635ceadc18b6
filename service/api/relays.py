"""The relays: where each stands, what failed, and what a person can do about it."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from service.api import schemas
from service.api.asked import heed
from service.api.auth import CALLER, CALLER_BY, CALLER_ROLE, visible
from service.api.context import AppContext, app_context
from service.api.params import (
    MAX_ID,
    BodyTime,
    Names,
    PageQuery,
    listed,
    page,
    query_of,
    read_body,
)
from service.api.problems import ProblemError, field_problem
from service.api.reporting import leader_report
from service.api.reports import RelayReport
from service.ledger.relays import ReplayRelay, RetryDeliveries, SwitchRelay
from service.ledger.unit_of_work import Command
from service.model.relays import RowState
from service.model.shapes import rfc3339
from service.settings import CloudAccountSettings, RelaySettings, Settings
from service.store.database import NotLeaderError, UnavailableError
from service.store.relays import (
    DeliveryRow,
    Figures,
    find_rows,
    list_deliveries,
    relay_figures,
)
from service.webhooks.request_ids import REQUEST_ID
from service.webhooks.signatures import signed
from service.workers.destinations import Destination
from service.workers.relay_sources import ids_of

TEST = "ackgate.test"
"""Says in the body of a test that it is one."""
T = TypeVar("T")
DeliveryState = Literal["retrying", "waiting", "dead"]

log = structlog.get_logger(__name__)


class DeliveriesQuery(PageQuery):
    """Which deliveries to list."""

    state: Annotated[
        list[DeliveryState],
        Names,
        Field(
            default_factory=list,
            description="Only these states; repeated, or with commas.",
            examples=[["dead"]],
        ),
    ]


class RangeBody(BaseModel):
    """What to send once more: what arrived between two times, both included."""

    model_config = ConfigDict(extra="forbid")
    begin: Annotated[BodyTime, Field(alias="from")]
    end: Annotated[BodyTime, Field(alias="to")]


async def list_(request: web.Request) -> web.Response:
    """List the relays, by name."""
    return listed(await _relays(request, lambda _: True))


async def show(request: web.Request) -> web.Response:
    """Return one relay."""
    return web.json_response(await _relay(request, _need_relay(request)))


async def pause(request: web.Request) -> web.Response:
    """Pause a relay: nothing is sent until it is resumed, and nothing is lost."""
    return await _switch(request, paused=True)


async def resume(request: web.Request) -> web.Response:
    """Resume a relay, whoever or whatever paused it; it sends at once."""
    return await _switch(request, paused=False)


async def _switch(request: web.Request, *, paused: bool) -> web.Response:
    relay, caller = _need_relay(request), request[CALLER]
    command = SwitchRelay(relay, request[CALLER_BY], paused, request[REQUEST_ID])
    await _ask(request, command)
    decision = "pause" if paused else "resume"
    log.info("decision", decision=decision, relay=relay, caller=caller)
    return web.json_response(await _relay(request, relay))


async def _ask(request: web.Request, command: Command[T]) -> T:
    """Write what is asked of a relay; the leader hears of it, now or within a second."""
    context = app_context(request)
    await _save(context)
    result = await context.ledger.submit(command)
    with suppress(UnavailableError):  # it is written, and heard of a little later
        await heed(context)
    return result


async def _save(context: AppContext) -> None:
    """Write what relays have done since the last second, where they run here."""
    if context.leading is not None:
        with suppress(NotLeaderError):  # another replica has begun to lead
            await asyncio.gather(*(relay.save() for relay in context.leading.relays.values()))


async def deliveries(request: web.Request) -> web.Response:
    """List what failed while others passed, and what waits behind it.

    What was answered is shown to operators and admins alone.
    """
    relay, asked = _need_relay(request), page(request, 1)
    query = query_of(request, DeliveriesQuery)
    await _save(app_context(request))
    rows = await app_context(request).database.read(
        partial(
            list_deliveries,
            relay=relay,
            states=query.state,
            after=asked.after_id,
            limit=asked.limit + 1,
        )
    )
    shown = partial(_delivery, with_answer=request[CALLER_ROLE] in ("operator", "admin"))
    return asked.answer(rows, shown, lambda row: (row.id,))


async def retry(request: web.Request) -> web.Response:
    """Try one delivery again now."""
    relay, text = _need_relay(request), request.match_info["id"]
    is_short = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ID))
    is_id = is_short and int(text) <= MAX_ID
    if not is_id or not (count := await _retry(request, relay, int(text))):
        raise ProblemError(404, "there is no such delivery", kind="no_such_delivery")
    return _counted(count)


async def retry_dead(request: web.Request) -> web.Response:
    """Try all dead deliveries again now; `count` says how many there are."""
    return _counted(await _retry(request, _need_relay(request), None))


async def _retry(request: web.Request, relay: str, id_: int | None) -> int:
    by, caller = request[CALLER_BY], request[CALLER]
    count = await _ask(request, RetryDeliveries(relay, id_, by, request[REQUEST_ID]))
    if count or id_ is None:
        log.info("decision", decision="retry", relay=relay, caller=caller, count=count)
    return count


def _counted(count: int) -> web.Response:
    counted: schemas.Count = {"count": count}
    return web.json_response(counted, status=202)


async def replay(request: web.Request) -> web.Response:
    """Send once more what arrived between two times, beside what is new, with new ids.

    `count` is how many callbacks, or events, arrived then; the relay's filters hold for them too.
    """
    relay, body = _need_relay(request), await read_body(request, RangeBody)
    if body.end < body.begin:
        raise field_problem(("to", "must not be before from"))
    begin, end = (int(at.timestamp() * 1000) for at in (body.begin, body.end))
    context, by = app_context(request), request[CALLER_BY]
    # Counted by a reader: the writer has callbacks to keep.
    after, until, count = await context.database.read(
        partial(find_rows, source=context.settings.relays[relay].source, begin=begin, end=end)
    )
    command = ReplayRelay(relay, after, until, count, by, request[REQUEST_ID])
    await _ask(request, command)
    log.info("decision", decision="replay", relay=relay, caller=request[CALLER], count=count)
    return _counted(count)


async def test(request: web.Request) -> web.Response:
    """Send a small body of our own to the destination now, signed as a callback would be.

    It is outside the log: nothing is written, and it is sent while the relay is paused too.
    """
    relay, context = _need_relay(request), app_context(request)
    settings, now = context.settings, context.ledger.clock()
    at, configured = rfc3339(now), settings.relays[relay]
    accounts = configured.accounts or sorted(settings.accounts)
    body = json.dumps(_test_document(relay, str(at))).encode()
    headers = {
        "Content-Type": "application/json",
        "Ackgate-Test": "true",
        "Ackgate-Account": ",".join(accounts),
        "Ackgate-Received-At": str(at),
        "Ackgate-Attempt": "1",
    }
    if (secret := _app_secret(settings, accounts)) is not None:
        headers |= signed(secret, body)
    destination, began = Destination(configured), time.monotonic()
    try:
        id_ = f"{ids_of(configured.source, context.hub.epoch)}test.{now}"
        answer = await destination.send(id_, headers, body)
    finally:
        await destination.close()
    seconds = time.monotonic() - began
    log.info("decision", decision="test", relay=relay, caller=request[CALLER])
    tried: schemas.RelayTest = {
        "status": answer.status,
        "milliseconds": round(seconds * 1000),
        "error": answer.error,
        "answer": answer.text or None,
    }
    return web.json_response(tried)


def _test_document(relay: str, at: str) -> dict[str, Any]:
    """Return what a test sends: a webhook of Meta in its form, in which no handler has a part."""
    change = {"field": TEST, "value": {"sent_at": at}}
    return {"object": TEST, "entry": [{"id": relay, "changes": [change]}]}


def _app_secret(settings: Settings, accounts: Iterable[str]) -> bytes | None:
    """Return the secret of the first app that accounts belong to; None where there is none."""
    for name in accounts:
        account = settings.accounts[name]
        if isinstance(account, CloudAccountSettings):
            app = settings.apps[account.app]
            if app.app_secret is not None:
                return app.secrets[0]
    return None


def _need_relay(request: web.Request) -> str:
    """Return the name of a relay that is configured, and that the caller may see."""
    name = request.match_info["relay"]
    relay = app_context(request).settings.relays.get(name)
    if relay is None or not _is_visible(request, relay):
        raise ProblemError(404, "there is no such relay", kind="no_such_relay")
    return name


def _is_visible(request: web.Request, relay: RelaySettings) -> bool:
    """Return whether the caller's key is for all accounts that a relay passes on."""
    within, accounts = visible(request), relay.accounts
    return within is None or (bool(accounts) and within.issuperset(accounts))


async def _relay(request: web.Request, name: str) -> schemas.Relay:
    return (await _relays(request, lambda other: other == name))[0]


async def _relays(request: web.Request, wanted: Callable[[str], bool]) -> list[schemas.Relay]:
    """Return where relays stand, as the database has it, and how they fare as the leader says."""
    context = app_context(request)
    await _save(context)
    sources = {
        name: relay.source
        for name, relay in sorted(context.settings.relays.items())
        if wanted(name) and _is_visible(request, relay)
    }
    found = await context.database.read(partial(relay_figures, sources=sources))
    told, now = leader_report(context).relays, context.ledger.clock()
    return [_shown(found[name], told.get(name, RelayReport()), now) for name in sources]


def _shown(figures: Figures, told: RelayReport, now: int) -> schemas.Relay:
    row, counts, since = figures.row, figures.counts, figures.behind_since
    sending = "backing_off" if told.is_backing_off else "running"
    return {
        "name": row.name,
        "source": row.source,
        "state": "paused" if row.paused_by is not None else sending,
        "paused_by": row.paused_by,
        "behind": figures.behind,
        "behind_seconds": 0.0 if since is None else max(0.0, (now - since) / 1000),
        "retrying": counts.get(RowState.RETRYING, 0),
        "waiting": counts.get(RowState.WAITING, 0),
        "dead": counts.get(RowState.DEAD, 0),
        "skipped": row.skipped,
        "replaying": figures.replaying,
        "last_delivered_at": rfc3339(row.last_delivered_at),
        "last_error": told.last_error,
        "position": row.position,
    }


def _delivery(row: DeliveryRow, *, with_answer: bool) -> schemas.Delivery:
    return {
        "id": row.id,
        "journal_id": row.log_id,
        "replay": bool(row.replay),
        "state": row.state,
        "attempts": row.attempts,
        "due_at": rfc3339(row.due_at),
        "last_status": row.last_status,
        "last_error": row.last_error,
        "answer": row.answer if with_answer else None,
    }
