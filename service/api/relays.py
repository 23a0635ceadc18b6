"""The relays: where each stands, what failed, and what a person can do about it."""

import json
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any, Literal

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from service.api import schemas
from service.api.auth import CALLER, CALLER_ROLE, visible
from service.api.context import app_context
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
from service.ledger.relays import ReplayRelay, RetryDeliveries, SwitchRelay
from service.model.relays import RowState
from service.model.shapes import rfc3339
from service.model.users import by_key
from service.settings import CloudAccountSettings, Settings
from service.store.relays import DeliveryRow, find_rows, list_deliveries
from service.webhooks.request_ids import REQUEST_ID
from service.webhooks.signatures import signed
from service.workers.relays import Relay

TEST = "ackgate.test"
"""Says in the body of a test that it is one."""
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
    leading = app_context(request).leading
    relays = [] if leading is None else sorted(leading.relays.items())
    return listed([await _relay(relay) for _, relay in relays if _is_visible(request, relay)])


async def show(request: web.Request) -> web.Response:
    """Return one relay."""
    return web.json_response(await _relay(_need_relay(request)))


async def pause(request: web.Request) -> web.Response:
    """Pause a relay: nothing is sent until it is resumed, and nothing is lost."""
    return await _switch(request, paused=True)


async def resume(request: web.Request) -> web.Response:
    """Resume a relay, whoever or whatever paused it; it sends at once."""
    return await _switch(request, paused=False)


async def _switch(request: web.Request, *, paused: bool) -> web.Response:
    relay, caller = _need_relay(request), request[CALLER]
    command = SwitchRelay(relay.name, by_key(caller), paused, request[REQUEST_ID])
    await app_context(request).ledger.submit(command)
    if paused:
        relay.pause(caller)
    else:
        relay.resume()
    decision = "pause" if paused else "resume"
    log.info("decision", decision=decision, relay=relay.name, caller=caller)
    return web.json_response(await _relay(relay))


async def deliveries(request: web.Request) -> web.Response:
    """List what failed while others passed, and what waits behind it.

    What was answered is shown to operators and admins alone.
    """
    relay, asked = _need_relay(request), page(request, 1)
    query = query_of(request, DeliveriesQuery)
    await relay.save()  # what it has done since the last second is not written yet
    rows = await app_context(request).database.read(
        partial(
            list_deliveries,
            relay=relay.name,
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
    known = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ID))
    if not known or not relay.retry([int(text)]):
        raise ProblemError(404, "there is no such delivery", kind="no_such_delivery")
    return await _retried(request, relay, 1)


async def retry_dead(request: web.Request) -> web.Response:
    """Try all dead deliveries again now; `count` says how many there are."""
    relay = _need_relay(request)
    return await _retried(request, relay, relay.retry(None))


async def _retried(request: web.Request, relay: Relay, count: int) -> web.Response:
    by = by_key(request[CALLER])
    await app_context(request).ledger.submit(
        RetryDeliveries(relay.name, count, by, request[REQUEST_ID])
    )
    log.info("decision", decision="retry", relay=relay.name, caller=request[CALLER], count=count)
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
    context, by = app_context(request), by_key(request[CALLER])
    # Counted by a reader: the writer has callbacks to keep.
    after, until, count = await context.database.read(
        partial(find_rows, source=relay.source, begin=begin, end=end)
    )
    command = ReplayRelay(relay.name, after, until, count, by, request[REQUEST_ID])
    row = await context.ledger.submit(command)
    relay.add_replay(row)
    log.info("decision", decision="replay", relay=relay.name, caller=request[CALLER], count=count)
    counted: schemas.Count = {"count": count}
    return web.json_response(counted, status=202)


async def test(request: web.Request) -> web.Response:
    """Send a small body of our own to the destination now, signed as a callback would be.

    It is outside the log: nothing is written, and it is sent while the relay is paused too.
    """
    relay, settings = _need_relay(request), app_context(request).settings
    at = rfc3339(app_context(request).ledger.clock())
    accounts = relay.settings.accounts or sorted(settings.accounts)
    body = json.dumps(_test_document(relay.name, str(at))).encode()
    headers = {
        "Content-Type": "application/json",
        "Ackgate-Test": "true",
        "Ackgate-Account": ",".join(accounts),
        "Ackgate-Received-At": str(at),
        "Ackgate-Attempt": "1",
    }
    if (secret := _app_secret(settings, accounts)) is not None:
        headers |= signed(secret, body)
    answer, seconds = await relay.test(headers, body)
    log.info("decision", decision="test", relay=relay.name, caller=request[CALLER])
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


def _need_relay(request: web.Request) -> Relay:
    leading = app_context(request).leading
    relay = None if leading is None else leading.relays.get(request.match_info["relay"])
    if relay is None or not _is_visible(request, relay):
        raise ProblemError(404, "there is no such relay", kind="no_such_relay")
    return relay


def _is_visible(request: web.Request, relay: Relay) -> bool:
    """Return whether the caller's key is for all accounts that a relay passes on."""
    within, accounts = visible(request), relay.settings.accounts
    return within is None or (bool(accounts) and within.issuperset(accounts))


async def _relay(relay: Relay) -> schemas.Relay:
    counts = relay.counts()
    return {
        "name": relay.name,
        "source": relay.settings.source,
        "state": relay.state,
        "paused_by": relay.paused_by,
        "behind": await relay.behind(),
        "behind_seconds": await relay.behind_seconds(),
        "retrying": counts[RowState.RETRYING],
        "waiting": counts[RowState.WAITING],
        "dead": counts[RowState.DEAD],
        "skipped": relay.skipped,
        "replaying": await relay.replaying(),
        "last_delivered_at": rfc3339(relay.last_delivered_at),
        "last_error": relay.last_error,
        "position": relay.position,
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
