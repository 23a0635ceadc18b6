"""Health: whether the service lives, can store a callback, and reaches the clients; metrics."""

import asyncio
import math
from contextlib import suppress
from typing import Any

from aiohttp import web
from sqlalchemy import Connection

from service.api.context import AppContext, Leading, app_context
from service.api.reporting import check, leader_report
from service.model.budget import Usage
from service.observability.metrics import Metrics
from service.store.accounts import account_rows
from service.store.contacts import open_checks, usage
from service.store.database import UnavailableError
from service.store.outbox import backlogs
from service.store.restore import count_unverified
from service.store.retention import oldest_entry
from service.store.users import count_states, oldest_pending
from service.workers.relays import STATES, Relay
from service.workers.retention import LOW_DISK_BYTES

MEBIBYTE = 1_048_576
OVERDUE_MS = 60_000
"""Work that is due for longer than this is a warning."""


async def live(_: web.Request) -> web.Response:
    """Return that the service answers."""
    return web.json_response({"status": "pass"})


async def ready(request: web.Request) -> web.Response:
    """Return whether a callback can be stored now."""
    context = app_context(request)
    checks = await _store_checks(context)
    able = all(check["status"] == "pass" for check in checks.values())
    body = {"status": "pass" if able else "fail", "checks": checks}
    return web.json_response(body, status=200 if able else 503)


async def _store_checks(context: AppContext) -> dict[str, dict[str, Any]]:
    fault = context.database.fault()
    able = fault is None and await context.storage.can_write()
    why_not = "the database can't be written" if fault is None else str(fault)
    return {
        "service": check(context.ready, "starting or stopping"),
        "queue": check(not context.ledger.full, "too many callbacks wait to be stored"),
        "database": check(able, why_not),
    }


async def status(request: web.Request) -> web.Response:
    """Return the state of everything: the store, the clients, their logins, overdue work."""
    context = app_context(request)
    checks = await _store_checks(context) | {"disk": await _disk_check(context)}
    try:
        checks |= await _work_checks(context)
    except UnavailableError:
        checks["work"] = check(False, "the database can't be read")
    with suppress(UnavailableError):
        checks |= await _budget_checks(context)
    checks |= leader_report(context).checks
    if context.database.is_shared:
        leads = context.leading is not None or context.elsewhere.is_led
        checks["leader"] = check(leads, "no replica leads", otherwise="warn")
    worst = max((c["status"] for c in checks.values()), key=("pass", "warn", "fail").index)
    return web.json_response({"status": worst, "checks": checks})


async def _disk_check(context: AppContext) -> dict[str, Any]:
    try:
        free = await context.database.free_bytes()
    except UnavailableError:
        return check(False, "it can't be told how much is free", otherwise="warn")
    if free is None:
        return check(True, "")
    why = f"less than {LOW_DISK_BYTES // MEBIBYTE} MiB are free"
    return check(free >= LOW_DISK_BYTES, why, otherwise="warn") | {"free_bytes": free}


async def _work_checks(context: AppContext) -> dict[str, dict[str, Any]]:
    now = context.ledger.clock()
    found, left = await context.database.read(lambda c: (backlogs(c, now), count_unverified(c)))
    checks = {
        f"verified:{name}": {
            "status": "warn",
            "detail": "the database was restored: "
            f"the client is still to be asked about {left.get(name, 0)} users",
        }
        for name in context.unverified
    }
    for (account, kind), backlog in found.items():
        if account not in context.settings.accounts:
            continue
        late = backlog.oldest_due is not None and now - backlog.oldest_due > OVERDUE_MS
        why = f"{backlog.overdue} due, the oldest for more than {OVERDUE_MS // 1000} s"
        checks[f"{kind.value}:{account}"] = check(not late, why, otherwise="warn")
    return checks


async def _usages(context: AppContext) -> dict[str, Usage]:
    """Return how much of its budget of contact checks each account used, and its messages."""
    now = context.ledger.clock()
    days = {name: checker.budget.first_day(now) for name, checker in context.checkers.items()}
    found = await context.database.read(
        lambda c: {name: usage(c, name, days[name]) for name in days}
    )
    return {name: used + context.messages.counted(name) for name, used in found.items()}


async def _budget_checks(context: AppContext) -> dict[str, dict[str, Any]]:
    checks = {}
    for name, used in (await _usages(context)).items():
        budget = context.checkers[name].budget
        within = not used.checks or budget.used(used) < budget.warn_at
        checks[f"contacts:{name}"] = check(within, budget.explain(used), otherwise="warn")
    return checks


async def metrics(request: web.Request) -> web.Response:
    """Return the metrics; at the leader with the state of the tables, counted now."""
    context = app_context(request)
    shown = context.metrics
    now = context.ledger.clock()
    shown.write_queue.set(context.ledger.waiting)
    await _show_files(context, now)
    shown.of_leader.is_shown = context.leading is not None
    shown.leader.set(context.leading is not None and context.database.leads)
    if context.leading is not None:
        _count_issues(context, context.leading)
        shown.alerts_failing.set(context.leading.alerter.failing)
        with suppress(UnavailableError):
            await _count(context, context.leading, now)
    accept = ",".join(request.headers.getall("Accept", ()))
    # With a thousand accounts this takes a second, in which others want to be answered.
    text, media_type = await asyncio.to_thread(shown.render, accept)
    return web.Response(body=text, headers={"Content-Type": media_type})


async def _show_files(context: AppContext, now: int) -> None:
    """Show what is known of the database's files: nothing where a server has them."""
    shown = context.metrics
    files = await context.database.files()
    if files is None:
        shown.log_bytes.set(math.nan)
        shown.backup_age.set(math.nan)
    else:
        made_at = files.backed_up_at
        shown.log_bytes.set(files.log_bytes)
        shown.backup_age.set(math.inf if made_at is None else _age(now, made_at))
    with suppress(UnavailableError):
        free = await context.database.free_bytes()
        shown.disk_free.set(math.nan if free is None else free)


def _age(now: int, since: int) -> float:
    """Return how many seconds ago it was; 0 where the clock was set back meanwhile."""
    return max(0, now - since) / 1000


def _count_issues(context: AppContext, leading: Leading) -> None:
    context.metrics.issues.clear()
    for _, issue in context.issues(leading):
        if not issue.is_notice:
            context.metrics.issues.labels(issue.account or "", issue.code).set(1)


async def _count(context: AppContext, leading: Leading, now: int) -> None:
    def load(connection: Connection) -> tuple[Any, int | None, Any, int | None, Any, Any, Any]:
        return (
            count_states(connection),
            oldest_pending(connection),
            backlogs(connection, now),
            oldest_entry(connection),
            count_unverified(connection),
            open_checks(connection),
            account_rows(connection),
        )

    counts, oldest, work, arrived, left, open_, known = await context.database.read(load)
    shown = context.metrics
    for state, count in counts.items():
        shown.identities.labels(state.value).set(count)
    shown.oldest_pending.set(0 if oldest is None else _age(now, oldest))
    shown.journal_oldest.set(0 if arrived is None else _age(now, arrived))
    for name in context.settings.accounts:
        if name in known and known[name].last_callback_at is not None:
            shown.last_callback.labels(name).set(known[name].last_callback_at / 1000)
    for name in context.clients:
        shown.unverified.labels(name).set(left.get(name, 0))
        shown.contacts_open.labels(name).set(open_.get(name, 0))
    for name, used in (await _usages(context)).items():
        shown.budget_used.labels(name).set(context.checkers[name].budget.used(used))
        shown.budget_checks.labels(name).set(used.checks)
        shown.budget_messages.labels(name).set(used.messages)
    for relay in leading.relays.values():
        await _show_relay(shown, relay)
    shown.outbox.clear()
    shown.overdue.clear()
    for (account, kind), backlog in work.items():
        shown.outbox.labels(account, kind.value).set(backlog.waiting)
        shown.overdue.labels(account, kind.value).set(_age(now, backlog.oldest_due or now))


async def _show_relay(shown: Metrics, relay: Relay) -> None:
    shown.relay_behind.labels(relay.name).set(await relay.behind())
    shown.relay_behind_seconds.labels(relay.name).set(await relay.behind_seconds())
    for row_state, count in relay.counts().items():
        shown.relay_rows.labels(relay.name, row_state.value).set(count)
    for relay_state in STATES:
        shown.relay_state.labels(relay.name, relay_state).set(relay.state == relay_state)
