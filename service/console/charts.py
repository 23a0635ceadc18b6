"""The charts of the last hour, day and week."""

from functools import partial

from aiohttp import web

from service.api import relays
from service.api.auth import visible
from service.api.context import app_context, sees
from service.api.problems import ProblemError
from service.console.asking import answer_of, path_with
from service.console.pages import page_or_part
from service.model.points import SPANS, Chart, chart
from service.store.points import points_of

PATH = "/console/charts"


async def show(request: web.Request) -> web.Response:
    """Show what happened in a span of time, of all accounts or of one."""
    span = SPANS.get(request.query.get("span") or "hour")
    if span is None:
        raise ProblemError(404, "there is no such chart")
    context, account = app_context(request), request.query.get("account") or None
    accounts = [name for name in context.settings.accounts if sees(request, name)]
    if account is not None and account not in accounts:
        raise ProblemError(404, "there is no such account", kind="no_such_account")
    names = visible(request) if account is None else [account]
    seen = [one["name"] for one in (await answer_of(request, relays.list_))["items"]]
    now = context.ledger.clock()
    found = await context.database.read(
        partial(points_of, span=span, since=span.first(now), names=names, relays=seen)
    )
    shown = chart(span, found, now)
    return page_or_part(
        request,
        "charts.html",
        "_charts.html",
        chart=shown,
        rows=range(len(shown.at) - 1, -1, -1),
        totals=totals(shown),
        span=span,
        spans=SPANS,
        accounts=accounts,
        account=account,
        has_relays=bool(seen),
        here=path_with(PATH, span=span.name, account=account),
    )


def totals(shown: Chart) -> dict[str, int | None]:
    """Return what the whole of a chart comes to: sums of what is counted, the longest of times."""
    blocked = [one for one in shown.blocked_longest if one is not None]
    lags = [one for one in shown.lag if one is not None]
    return {
        "callbacks": sum(shown.callbacks),
        "changes": sum(shown.changes),
        "acknowledged": sum(shown.acknowledged),
        "blocked": max(blocked, default=None),
        "lag": max(lags, default=None),
    }
