"""How things stand: counts by state, and each account with its client."""

from functools import partial
from typing import Any

from aiohttp import web
from sqlalchemy import Connection

from service.api.context import AppContext, rfc3339, services
from service.api.problems import ProblemError
from service.api.queries import listed
from service.model.users import Kind
from service.store.queries import (
    Backlog,
    account_rows,
    backlogs,
    count_states,
    oldest_pending,
)
from service.store.unverified import count_unverified
from service.whatsapp.http import Reachability


async def status(request: web.Request) -> web.Response:
    """Count identities by state, and give the age of the oldest pending one."""
    parts = services(request)
    now = parts.ledger.clock()
    counts, oldest = await parts.database.read(lambda c: (count_states(c), oldest_pending(c)))
    age = None if oldest is None else max(0, now - oldest) / 1000
    return web.json_response(
        {
            "counts": {state.value: count for state, count in counts.items()},
            "oldest_pending_at": rfc3339(oldest),
            "oldest_pending_seconds": age,
            "as_of": rfc3339(now),
        }
    )


async def list_(request: web.Request) -> web.Response:
    """List the accounts that are configured."""
    parts = services(request)
    return listed(await _accounts(parts), None)


async def show(request: web.Request) -> web.Response:
    """Give one account."""
    name = request.match_info["account"]
    found = [a for a in await _accounts(services(request)) if a["account"] == name]
    if not found:
        raise ProblemError(404, "there is no such account")
    return web.json_response(found[0])


async def _accounts(parts: AppContext) -> list[dict[str, Any]]:
    rows, work, left = await parts.database.read(partial(_load, now=parts.ledger.clock()))
    return [
        {
            "account": name,
            "kind": account.kind,
            "first_callback_at": rfc3339(rows[name].first_callback_at if name in rows else None),
            "last_callback_at": rfc3339(rows[name].last_callback_at if name in rows else None),
            "backlog": {kind.value: _waiting(work.get((name, kind))) for kind in Kind},
            "login": _login(parts, name),
            "health": _health(parts, name),
            "settings": _settings(parts, name),
            "unverified": _unverified(parts, name, left.get(name, 0)),
        }
        for name, account in parts.settings.accounts.items()
    ]


def _load(
    connection: Connection, now: int
) -> tuple[dict[str, Any], dict[Any, Backlog], dict[str, int]]:
    return account_rows(connection), backlogs(connection, now), count_unverified(connection)


def _unverified(parts: AppContext, name: str, remaining: int) -> dict[str, Any] | None:
    verifier = parts.verifiers.get(name)
    if verifier is None:
        return None
    return {"since": rfc3339(verifier.since), "remaining": remaining}


def _waiting(backlog: Backlog | None) -> dict[str, Any]:
    backlog = backlog or Backlog(0, 0, None)
    oldest = rfc3339(backlog.oldest_due)
    return {"waiting": backlog.waiting, "overdue": backlog.overdue, "oldest_due_at": oldest}


def _settings(parts: AppContext, name: str) -> dict[str, Any] | None:
    inspector = parts.inspectors.get(name)
    if inspector is None:
        return None
    return {
        "read_at": rfc3339(inspector.read_at),
        "client_version": inspector.subject.version,
        "issues": [issue.code for issue in inspector.found],
    }


def _login(parts: AppContext, name: str) -> dict[str, Any] | None:
    """Tell of the login of a client, or of the access token of the Cloud API."""
    if (graph := parts.graphs.get(name)) is not None:
        used = rfc3339(graph.login_since)
        return {"state": graph.login, "since": used, "retry_in_seconds": None}
    if name not in parts.clients:
        return None
    session = parts.clients[name].session
    since = session.logged_in_at
    state = "refused" if session.refused else "none" if since is None else "ok"
    return {
        "state": state,
        "since": rfc3339(None if since is None else round(since * 1000)),
        "retry_in_seconds": round(session.paused_for, 1) if session.refused else None,
    }


def _health(parts: AppContext, name: str) -> dict[str, Any] | None:
    """Tell how a client is, or the Cloud API as the account has it."""
    if (graph := parts.graphs.get(name)) is not None:
        quality = graph.last_read.quality if graph.last_read else None
        return {"quality_rating": quality, **_reached(graph.reachability)}
    if name not in parts.clients:
        return None
    state = parts.clients[name].reachability
    return {"gateway_status": state.gateway, **_reached(state)}


def _reached(state: Reachability) -> dict[str, Any]:
    return {
        "reachable": state.unreachable_since is None,
        "unreachable_since": rfc3339(state.unreachable_since),
        "last_error": state.last_error,
    }
