"""The journal: every callback as it came, and those that could not be read."""

import asyncio
import base64
import json
from functools import partial
from typing import Any

from aiohttp import web
from sqlalchemy import Row

from service.api import shapes
from service.api.access import CALLER, CALLER_ROLE
from service.api.context import rfc3339, services
from service.api.problems import ProblemError
from service.api.queries import MAX_ID, choices, cursor_of, listed, page
from service.ledger.callbacks import APPLIED, QUARANTINED, Replay, state_of
from service.model.users import by_key
from service.store.database import APP_MARK, SYNTHETIC
from service.store.queries import audit_entry_of, journal_entry, list_audit, list_journal
from service.webhooks.incoming import reader_of, replayed, united

STATES = frozenset({APPLIED, QUARANTINED, SYNTHETIC})


async def list_(request: web.Request) -> web.Response:
    """List callbacks, oldest first, without their bodies."""
    states = choices(request, "state", STATES)
    asked = page(request, 1)
    after = asked.after[0] if asked.after else 0
    rows = await services(request).database.read(
        partial(
            list_journal,
            state=states[0] if len(set(states)) == 1 else None,
            account=request.query.get("account"),
            after=after,
            limit=asked.limit + 1,
        )
    )
    more = len(rows) > asked.limit
    rows = rows[: asked.limit]
    return listed([_summary(row) for row in rows], cursor_of(rows[-1].id) if more else None)


def _summary(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        **_whose(row.account),
        "received_at": rfc3339(row.received_at),
        "state": row.state,
        "reason": row.reason,
        "replayed_at": rfc3339(row.replayed_at),
    }


def _whose(name: str) -> dict[str, str | None]:
    """Name the account; an app alone, where a callback is of several accounts or of none."""
    if name.startswith(APP_MARK):
        return {"account": None, "app": name.removeprefix(APP_MARK)}
    return {"account": name}


async def _entry(request: web.Request) -> Row[Any]:
    text = request.match_info["id"]
    known = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ID))
    entry_id = int(text) if known else 0
    row = None
    if 0 < entry_id <= MAX_ID:
        row = await services(request).database.read(partial(journal_entry, entry_id=entry_id))
    if row is None:
        raise ProblemError(404, "there is no such entry in the journal")
    return row


async def show(request: web.Request) -> web.Response:
    """Give one callback; its headers and its body to admins alone."""
    row = await _entry(request)
    shown = _summary(row)
    if request[CALLER_ROLE] == "admin":
        shown |= {
            "content_type": row.content_type,
            "content_encoding": row.content_encoding,
            "headers": json.loads(row.headers),
            **_body(row.body),
        }
    return web.json_response(shown)


def _body(body: bytes) -> dict[str, str]:
    """Write a body as text where it is text, else in base64."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


async def replay(request: web.Request) -> web.Response:
    """Read a callback again, through the same door: what was understood changes nothing."""
    row = await _entry(request)
    parts = services(request)
    dialect = reader_of(parts.settings, row.account)
    readings = await asyncio.to_thread(dialect, row.content_type, row.content_encoding, row.body)
    state, reason = state_of(united(readings))
    note = Replay(row.id, by_key(request[CALLER]), state, reason)
    for entry in replayed(row.account, row.received_at, row.body, readings, note):
        await parts.ledger.submit(entry)
    return web.json_response(_summary(await _entry(request)))


async def audit(request: web.Request) -> web.Response:
    """List the whole audit trail, oldest first."""
    asked = page(request, 1)
    after = asked.after[0] if asked.after else 0
    rows = await services(request).database.read(
        partial(
            list_audit,
            account=request.query.get("account"),
            event=request.query.get("event"),
            after=after,
            limit=asked.limit + 1,
        )
    )
    more = len(rows) > asked.limit
    rows = rows[: asked.limit]
    items = [
        {"id": row.id, **_whose(row.account), "wa_id": row.wa_id, "user_id": row.known_as}
        | shapes.audit_entry(audit_entry_of(row))
        for row in rows
    ]
    return listed(items, cursor_of(rows[-1].id) if more else None)
