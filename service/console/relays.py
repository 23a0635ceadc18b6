"""The relays: how far each is, what it could not deliver, and what a person can do about it."""

from urllib.parse import quote

from aiohttp import web

from service.api import relays
from service.console.asking import answer_of, path_with, query_from
from service.console.pages import page_or_part, see_other

PATH = "/console/relays"
SHOWN = 50
DONE = {
    "paused": "Paused. Nothing is sent, and nothing is lost, until somebody resumes it.",
    "resumed": "Resumed. It sends again.",
    "retried": "Tried again now. What fails once more comes back to this list.",
}


async def show_all(request: web.Request) -> web.Response:
    """Show all relays."""
    found = (await answer_of(request, relays.list_))["items"]
    return page_or_part(request, "relays.html", "_relays.html", relays=found)


async def show(request: web.Request) -> web.Response:
    """Show one relay, with what it could not deliver."""
    query = query_from(request, relays.DeliveriesQuery, limit=str(SHOWN))
    relay = await answer_of(request, relays.show)
    listed = await answer_of(request, relays.deliveries, query)
    here = _path(request)
    state = ",".join(query.state)
    return page_or_part(
        request,
        "relay.html",
        "_relay.html",
        relay=relay,
        deliveries=listed["items"],
        states=query.state,
        here=here,
        is_later=query.cursor is not None,
        next=_next(here, state, listed["next_cursor"]),
        done=DONE.get(request.query.get("done", "")),
    )


def _next(here: str, state: str, cursor: str | None) -> str | None:
    return cursor and path_with(here, state=state, cursor=cursor)


def _path(request: web.Request) -> str:
    return f"{PATH}/{quote(request.match_info['relay'], safe='')}"


async def pause(request: web.Request) -> web.Response:
    """Pause a relay."""
    await answer_of(request, relays.pause)
    return see_other(f"{_path(request)}?done=paused")


async def resume(request: web.Request) -> web.Response:
    """Resume a relay."""
    await answer_of(request, relays.resume)
    return see_other(f"{_path(request)}?done=resumed")


async def retry_dead(request: web.Request) -> web.Response:
    """Try all again that was given up."""
    await answer_of(request, relays.retry_dead)
    return see_other(f"{_path(request)}?done=retried")


async def retry(request: web.Request) -> web.Response:
    """Try one delivery again."""
    await answer_of(request, relays.retry)
    return see_other(f"{_path(request)}?done=retried")
