"""The accounts with the state of their clients, and counts of identities over all of them."""

from functools import partial
from typing import Any

from aiohttp import web
from sqlalchemy import Connection

from service.api import schemas
from service.api.context import CALLER_ACCOUNTS, AppContext, app_context, sees
from service.api.params import listed
from service.api.problems import ProblemError
from service.api.reporting import leader_report
from service.api.reports import AccountReport
from service.model.shapes import rfc3339, time_of
from service.model.users import Kind
from service.store.accounts import account_rows
from service.store.outbox import Backlog, backlogs
from service.store.restore import count_unverified
from service.store.users import count_states, oldest_pending

NOTHING = AccountReport()
"""What is known of an account while no leader has told anything of it yet."""


async def status(request: web.Request) -> web.Response:
    """Return counts of identities by state, and the age of the oldest pending one."""
    context = app_context(request)
    now = context.ledger.clock()
    accounts = request[CALLER_ACCOUNTS] or None
    counts, oldest = await context.database.read(
        lambda c: (count_states(c, within=accounts), oldest_pending(c, within=accounts))
    )
    age = None if oldest is None else max(0, now - oldest) / 1000
    answer: schemas.Status = {
        "counts": {state.value: count for state, count in counts.items()},
        "oldest_pending_at": rfc3339(oldest),
        "oldest_pending_seconds": age,
        "leader": context.leading is not None and context.database.leads,
        "as_of": time_of(now),
    }
    return web.json_response(answer)


async def list_(request: web.Request) -> web.Response:
    """List the accounts that are configured."""
    return listed(await _accounts(request))


async def show(request: web.Request) -> web.Response:
    """Return one account."""
    name = request.match_info["account"]
    found = [a for a in await _accounts(request) if a["account"] == name]
    if not found:
        raise ProblemError(404, "there is no such account", kind="no_such_account")
    return web.json_response(found[0])


async def _accounts(request: web.Request) -> list[schemas.Account]:
    context = app_context(request)
    told = leader_report(context).accounts
    rows, work, left = await context.database.read(partial(_load, now=context.ledger.clock()))
    return [
        {
            "account": name,
            "kind": account.kind,
            "first_callback_at": rfc3339(rows[name].first_callback_at if name in rows else None),
            "last_callback_at": rfc3339(rows[name].last_callback_at if name in rows else None),
            "backlog": {kind.value: _backlog(work.get((name, kind))) for kind in Kind},
            "login": told.get(name, NOTHING).login,
            "health": told.get(name, NOTHING).health,
            "settings": told.get(name, NOTHING).settings,
            "unverified": _unverified(context, name, left.get(name, 0)),
        }
        for name, account in context.settings.accounts.items()
        if sees(request, name)
    ]


def _load(
    connection: Connection, now: int
) -> tuple[dict[str, Any], dict[Any, Backlog], dict[str, int]]:
    return account_rows(connection), backlogs(connection, now), count_unverified(connection)


def _unverified(context: AppContext, name: str, remaining: int) -> schemas.Unverified | None:
    since = context.unverified.get(name)
    return None if since is None else {"since": rfc3339(since), "remaining": remaining}


def _backlog(backlog: Backlog | None) -> schemas.BacklogOfKind:
    backlog = backlog or Backlog(0, 0, None)
    oldest = rfc3339(backlog.oldest_due)
    return {"waiting": backlog.waiting, "overdue": backlog.overdue, "oldest_due_at": oldest}
