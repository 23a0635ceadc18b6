"""Is it alive, can it store a callback, and how are the clients? And what Prometheus reads."""

from contextlib import suppress
from typing import Any

from aiohttp import web
from sqlalchemy import Connection

from service.api.context import AppContext, services
from service.api.room import LOW_DISK_BYTES
from service.model.budget import Usage
from service.observability import metrics as prometheus
from service.store.contact_checks import open_checks, usage
from service.store.database import UnavailableError
from service.store.queries import backlogs, count_states, oldest_pending
from service.store.retention import oldest_entry
from service.store.unverified import count_unverified
from service.whatsapp.graph import Graph
from service.workers.inspector import Inspector

MEBIBYTE = 1_048_576
OVERDUE_MS = 60_000
"""Work that has been due for longer than this is a warning."""


async def live(_: web.Request) -> web.Response:
    """Tell that the door is open."""
    return web.json_response({"status": "pass"})


async def ready(request: web.Request) -> web.Response:
    """Tell whether a callback can be stored here and now."""
    parts = services(request)
    checks = await _store_checks(parts)
    able = all(check["status"] == "pass" for check in checks.values())
    body = {"status": "pass" if able else "fail", "checks": checks}
    return web.json_response(body, status=200 if able else 503)


async def _store_checks(parts: AppContext) -> dict[str, dict[str, Any]]:
    return {
        "service": _check(parts.ready, "starting or stopping"),
        "queue": _check(not parts.ledger.full, "too many callbacks wait to be stored"),
        "database": _check(await parts.room.can_write(), "the database can't be written"),
    }


def _check(passed: bool, why_not: str, *, otherwise: str = "fail") -> dict[str, Any]:
    return {"status": "pass"} if passed else {"status": otherwise, "detail": why_not}


async def status(request: web.Request) -> web.Response:
    """Tell how everything is: the store, the clients, their logins, overdue work."""
    parts = services(request)
    checks = await _store_checks(parts) | {"disk": await _disk_check(parts)}
    try:
        checks |= await _work_checks(parts)
    except UnavailableError:
        checks["work"] = _check(False, "the database can't be read")
    with suppress(UnavailableError):
        checks |= await _budget_checks(parts)
    for name, client in parts.clients.items():
        reached = client.reachability
        checks[f"client:{name}"] = _check(
            reached.unreachable_since is None,
            reached.last_error or "does not answer",
            otherwise="warn",
        ) | {"gateway_status": reached.gateway}
        checks[f"login:{name}"] = _check(
            not client.session.refused, "the login is refused", otherwise="warn"
        )
    for name, graph in parts.graphs.items():
        checks |= _graph_checks(name, graph)
    checks |= {each.subject.check: _settings_check(each) for each in parts.inspectors.values()}
    worst = max((c["status"] for c in checks.values()), key=("pass", "warn", "fail").index)
    return web.json_response({"status": worst, "checks": checks})


def _graph_checks(name: str, graph: Graph) -> dict[str, dict[str, Any]]:
    """Tell of the Cloud API, as one account has it, what is told of a client."""
    refused, reached = graph.login == "refused", graph.reachability
    why = reached.last_error or "does not answer"
    answers = reached.unreachable_since is None
    return {
        f"client:{name}": _check(answers, why, otherwise="warn"),
        f"login:{name}": _check(not refused, "the access token is refused", otherwise="warn"),
    }


def _settings_check(inspector: Inspector) -> dict[str, Any]:
    """Name what is wrong with an account's settings; the rest is for who has a key."""
    found = inspector.found
    wrong = dict.fromkeys(issue.code for issue in found if not issue.is_notice)
    check = _check(not wrong, ", ".join(wrong), otherwise="warn")
    notices = [issue.detail for issue in found if issue.is_notice]
    return check | {"detail": "; ".join(notices)} if notices else check


async def _disk_check(parts: AppContext) -> dict[str, Any]:
    free = await parts.room.free_bytes()
    why = f"less than {LOW_DISK_BYTES // MEBIBYTE} MiB are free"
    return _check(free >= LOW_DISK_BYTES, why, otherwise="warn") | {"free_bytes": free}


async def _work_checks(parts: AppContext) -> dict[str, dict[str, Any]]:
    now = parts.ledger.clock()
    found, left = await parts.database.read(lambda c: (backlogs(c, now), count_unverified(c)))
    checks = {
        f"verified:{name}": {
            "status": "warn",
            "detail": "the database was restored: "
            f"the client is still to be asked about {left.get(name, 0)} users",
        }
        for name in parts.verifiers
    }
    for (account, kind), backlog in found.items():
        if account not in parts.settings.accounts:
            continue
        late = backlog.oldest_due is not None and now - backlog.oldest_due > OVERDUE_MS
        why = f"{backlog.overdue} due, the oldest for more than {OVERDUE_MS // 1000} s"
        checks[f"{kind.value}:{account}"] = _check(not late, why, otherwise="warn")
    return checks


async def _usages(parts: AppContext) -> dict[str, Usage]:
    """Give what each account spent on contact checks, and the messages it may go by."""
    now = parts.ledger.clock()
    days = {name: checker.budget.first_day(now) for name, checker in parts.checkers.items()}
    found = await parts.database.read(lambda c: {name: usage(c, name, days[name]) for name in days})
    return {name: used + parts.messages.counted(name) for name, used in found.items()}


async def _budget_checks(parts: AppContext) -> dict[str, dict[str, Any]]:
    checks = {}
    for name, used in (await _usages(parts)).items():
        budget = parts.checkers[name].budget
        within = not used.checks or budget.used(used) < budget.warn_at
        checks[f"contacts:{name}"] = _check(within, budget.explain(used), otherwise="warn")
    return checks


async def metrics(request: web.Request) -> web.Response:
    """Give the metrics, the state of the tables freshly counted."""
    parts = services(request)
    shown = parts.metrics
    now = parts.ledger.clock()
    shown.write_queue.set(parts.ledger.waiting)
    shown.disk_free.set(await parts.room.free_bytes())
    _count_issues(parts)
    with suppress(UnavailableError):
        await _count(parts, now)
    return web.Response(body=shown.render(), headers={"Content-Type": prometheus.CONTENT_TYPE})


def _count_issues(parts: AppContext) -> None:
    parts.metrics.issues.clear()
    for inspector in parts.inspectors.values():
        for issue in inspector.issues():
            if not issue.is_notice:
                parts.metrics.issues.labels(issue.account or "", issue.code).set(1)


async def _count(parts: AppContext, now: int) -> None:
    def load(connection: Connection) -> tuple[Any, int | None, Any, int | None, Any, Any]:
        return (
            count_states(connection),
            oldest_pending(connection),
            backlogs(connection, now),
            oldest_entry(connection),
            count_unverified(connection),
            open_checks(connection),
        )

    counts, oldest, work, arrived, left, open_ = await parts.database.read(load)
    shown = parts.metrics
    for state, count in counts.items():
        shown.identities.labels(state.value).set(count)
    shown.oldest_pending.set(0 if oldest is None else max(0, now - oldest) / 1000)
    shown.journal_oldest.set(0 if arrived is None else max(0, now - arrived) / 1000)
    for name in parts.clients:
        shown.unverified.labels(name).set(left.get(name, 0))
        shown.contacts_open.labels(name).set(open_.get(name, 0))
    for name, used in (await _usages(parts)).items():
        shown.budget_used.labels(name).set(parts.checkers[name].budget.used(used))
        shown.budget_checks.labels(name).set(used.checks)
        shown.budget_messages.labels(name).set(used.messages)
    shown.outbox.clear()
    shown.overdue.clear()
    for (account, kind), backlog in work.items():
        shown.outbox.labels(account, kind.value).set(backlog.waiting)
        overdue = max(0, now - (backlog.oldest_due or now)) / 1000
        shown.overdue.labels(account, kind.value).set(overdue)
