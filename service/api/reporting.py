"""A replica's report, made of what it has in memory; the routes show the leader's."""

from collections.abc import Iterator
from typing import Any

from service.api import schemas
from service.api.context import AppContext, Leading
from service.api.reports import AccountReport, LeaderReport, RelayReport, Report
from service.model.shapes import rfc3339
from service.whatsapp.http import Reachability
from service.workers.monitoring import Inspector


def report_of(context: AppContext) -> Report:
    """Return what this replica tells the others now."""
    leading = None if context.leading is None else _leader_report(context, context.leading)
    return Report(context.noticed_here(), context.hashes_at(), leading)


def leader_report(context: AppContext) -> LeaderReport:
    """Return what the leader tells: this one, as of now, or what another one told last."""
    if context.leading is None:
        return context.elsewhere.leading
    return _leader_report(context, context.leading)


def _leader_report(context: AppContext, leading: Leading) -> LeaderReport:
    return LeaderReport(
        {name: _account(context, leading, name) for name in context.settings.accounts},
        {
            name: RelayReport(relay.is_backing_off, relay.last_error)
            for name, relay in leading.relays.items()
        },
        [*context.issues(leading)],
        dict(_checks(context, leading)),
    )


def _account(context: AppContext, leading: Leading, name: str) -> AccountReport:
    inspector = leading.inspectors.get(name)
    return AccountReport(
        _login(context, name),
        _health(context, name),
        None if inspector is None else _settings(inspector),
        context.unreachable_since(name),
    )


def _settings(inspector: Inspector) -> schemas.ClientSettings:
    return {
        "read_at": rfc3339(inspector.read_at),
        "client_version": inspector.subject.version,
        "issues": [issue.code for issue in inspector.found],
    }


def _login(context: AppContext, name: str) -> schemas.Login | None:
    """Return the state of the login to the client, or of the access token of the Cloud API."""
    if (graph := context.graphs.get(name)) is not None:
        used = rfc3339(graph.login_since)
        return {"state": graph.login, "since": used, "retry_in_seconds": None}
    if name not in context.clients:
        return None
    session = context.clients[name].session
    since = session.logged_in_at
    state = "refused" if session.refused else "none" if since is None else "ok"
    return {
        "state": state,
        "since": rfc3339(None if since is None else round(since * 1000)),
        "retry_in_seconds": round(session.paused_for, 1) if session.refused else None,
    }


def _health(context: AppContext, name: str) -> schemas.Health | None:
    """Return the state of the client, or of the Cloud API, as this account meets it."""
    if (graph := context.graphs.get(name)) is not None:
        quality = graph.last_read.quality if graph.last_read else None
        return {"quality_rating": quality, **_reachable(graph.reachability)}
    if name not in context.clients:
        return None
    state = context.clients[name].reachability
    return {"gateway_status": state.gateway, **_reachable(state)}


def _reachable(state: Reachability) -> schemas.Health:
    return {
        "reachable": state.unreachable_since is None,
        "unreachable_since": rfc3339(state.unreachable_since),
        "last_error": state.last_error,
    }


def _checks(context: AppContext, leading: Leading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the checks of the clients, their logins, and of all that is inspected."""
    for name, client in context.clients.items():
        reached, refused = client.reachability, client.session.refused
        yield f"client:{name}", _peer(reached) | {"gateway_status": reached.gateway}
        yield f"login:{name}", check(not refused, "the login is refused", otherwise="warn")
    for name, graph in context.graphs.items():
        accepted = graph.login != "refused"
        yield f"client:{name}", _peer(graph.reachability)
        yield f"login:{name}", check(accepted, "the access token is refused", otherwise="warn")
    for inspector in leading.inspectors.values():
        yield inspector.subject.check, _inspected(inspector)


def _peer(reached: Reachability) -> dict[str, Any]:
    why = reached.last_error or "does not answer"
    return check(reached.unreachable_since is None, why, otherwise="warn")


def _inspected(inspector: Inspector) -> dict[str, Any]:
    """Return the codes of what is wrong with an account's settings; details need a key."""
    found = inspector.found
    wrong = dict.fromkeys(issue.code for issue in found if not issue.is_notice)
    shown = check(not wrong, ", ".join(wrong), otherwise="warn")
    notices = [issue.detail for issue in found if issue.is_notice]
    return shown | {"detail": "; ".join(notices)} if notices else shown


def check(passed: bool, why_not: str, *, otherwise: str = "fail") -> dict[str, Any]:
    """Return a check as the health routes show it."""
    return {"status": "pass"} if passed else {"status": otherwise, "detail": why_not}
