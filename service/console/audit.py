"""The audit trail: what happened, when, and who decided so."""

from aiohttp import web

from service.api import journal
from service.api.context import app_context, sees
from service.console.asking import answer_of, path_with, query_from
from service.console.pages import page_or_part
from service.console.words import EVENTS

PATH = "/console/audit"
SHOWN = 50


async def show(request: web.Request) -> web.Response:
    """Show the audit trail, newest first."""
    query = query_from(request, journal.TrailQuery, limit=str(SHOWN), order="newest")
    listed = await answer_of(request, journal.audit, query)
    wanted = {"account": query.account, "event": query.event}
    cursor = listed["next_cursor"]
    return page_or_part(
        request,
        "audit.html",
        "_audit.html",
        entries=listed["items"],
        accounts=[name for name in app_context(request).settings.accounts if sees(request, name)],
        events=sorted(EVENTS, key=lambda event: EVENTS[event]),
        wanted=wanted,
        here=path_with(PATH, **wanted),
        is_later=query.cursor is not None,
        next=cursor and path_with(PATH, **wanted, cursor=cursor),
    )
