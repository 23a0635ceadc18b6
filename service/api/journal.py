"""The journal: every callback as it came, and those that could not be read."""

import asyncio
import base64
import json
from functools import partial
from typing import Annotated, Any, Literal, cast, get_args

import structlog
from aiohttp import web
from pydantic import Field
from sqlalchemy import Row

from service.api import schemas
from service.api.auth import CALLER, CALLER_BY, CALLER_ROLE, visible
from service.api.context import app_context, sees
from service.api.params import MAX_ID, FilterText, Names, PageQuery, page, query_of
from service.api.problems import ProblemError
from service.api.serializers import audit_entry
from service.ledger.callbacks import Replay, state_of
from service.model.shapes import rfc3339, time_of
from service.store.database import APP_MARK, ERASED
from service.store.journal import journal_entry, list_journal
from service.store.users import audit_entry_of, list_audit
from service.webhooks.incoming import reader_of, replayed, united
from service.webhooks.request_ids import REQUEST_ID

log = structlog.get_logger(__name__)

JournalState = Literal["applied", "quarantined", "synthetic", "erased"]
STATES = frozenset(get_args(JournalState))


class JournalQuery(PageQuery):
    """Which callbacks to list."""

    state: Annotated[
        list[JournalState],
        Names,
        Field(
            default_factory=list,
            description="Only these states; repeated, or with commas.",
            examples=[["quarantined"]],
        ),
    ]
    account: Annotated[FilterText | None, Field(description="Only of this account.")] = None


class TrailQuery(PageQuery):
    """Which entries of the audit trail to list."""

    account: Annotated[FilterText | None, Field(description="Only of this account.")] = None
    event: Annotated[FilterText | None, Field(description="Only of this event.")] = None
    order: Annotated[
        Literal["oldest", "newest"], Field(description="Which entries come first.")
    ] = "oldest"


async def list_(request: web.Request) -> web.Response:
    """List callbacks, oldest first, without their bodies."""
    query = query_of(request, JournalQuery)
    states = set(query.state)
    asked = page(request, 1)
    rows = await app_context(request).database.read(
        partial(
            list_journal,
            state=states.pop() if len(states) == 1 else None,
            account=query.account,
            after=asked.after_id,
            limit=asked.limit + 1,
            within=visible(request),
        )
    )
    return asked.answer(rows, _summary, lambda row: (row.id,))


def _summary(row: Row[Any]) -> schemas.JournalEntry:
    return {
        "id": row.id,
        **_owner(row.account),
        "received_at": time_of(row.received_at),
        "state": row.state,
        "reason": row.reason,
        "replayed_at": rfc3339(row.replayed_at),
        "request_id": row.request_id,
    }


def _owner(name: str | None) -> schemas.Owner:
    """Return the account, or the app whose callback is of several accounts or of none."""
    if name is not None and name.startswith(APP_MARK):
        return {"account": None, "app": name.removeprefix(APP_MARK)}
    return {"account": name}


async def _entry(request: web.Request) -> Row[Any]:
    text = request.match_info["id"]
    known = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ID))
    entry_id = int(text) if known else 0
    row = None
    if 0 < entry_id <= MAX_ID:
        row = await app_context(request).database.read(partial(journal_entry, entry_id=entry_id))
    within = visible(request)
    if row is None or (within is not None and row.account not in within):
        raise ProblemError(404, "there is no such entry in the journal", kind="no_such_entry")
    return row


async def show(request: web.Request) -> web.Response:
    """Return one callback; its headers and its body to admins alone."""
    row = await _entry(request)
    shown = cast(schemas.JournalEntryWithBody, _summary(row))
    if request[CALLER_ROLE] == "admin":
        shown["content_type"] = row.content_type
        shown["content_encoding"] = row.content_encoding
        shown["headers"] = [[name, _readable(value)] for name, value in json.loads(row.headers)]
        try:
            shown["body"] = row.body.decode()
        except UnicodeDecodeError:
            shown["body_base64"] = base64.b64encode(row.body).decode()
    return web.json_response(shown)


def _readable(value: str) -> str:
    """Return a header without the surrogates that stand for bytes: no reader need take them."""
    return value.encode(errors="surrogateescape").decode(errors="replace")


async def replay(request: web.Request) -> web.Response:
    """Read a callback again; what was understood when it came changes nothing now."""
    row = await _entry(request)
    if row.state == ERASED:
        return web.json_response(_summary(row))
    context = app_context(request)
    read = reader_of(context.settings, row.account)
    readings = await asyncio.to_thread(read, row.content_type, row.content_encoding, row.body)
    if not all(sees(request, account) for account in readings if account):
        raise ProblemError(403, "it is by now for an account too that this key is not for")
    state, reason = state_of(united(readings))
    note = Replay(row.id, request[CALLER_BY], state, reason, request[REQUEST_ID])
    for command in replayed(row.account, row.received_at, row.body, readings, note):
        await context.ledger.submit(command)
    log.info(
        "decision",
        account=row.account,
        decision="replay",
        journal_id=row.id,
        state=state,
        caller=request[CALLER],
    )
    return web.json_response(_summary(await _entry(request)))


async def audit(request: web.Request) -> web.Response:
    """List the whole audit trail, oldest first unless `order` says otherwise."""
    query = query_of(request, TrailQuery)
    asked = page(request, 1)
    rows = await app_context(request).database.read(
        partial(
            list_audit,
            account=query.account,
            event=query.event,
            after=asked.after_id,
            limit=asked.limit + 1,
            within=visible(request),
            newest_first=query.order == "newest",
        )
    )
    return asked.answer(rows, _audited, lambda row: (row.id,))


def _audited(row: Row[Any]) -> schemas.TrailEntry:
    return {
        "id": row.id,
        **_owner(row.account),
        "wa_id": row.wa_id,
        "user_id": row.known_as,
        **audit_entry(audit_entry_of(row)),
    }
