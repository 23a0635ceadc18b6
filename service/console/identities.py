"""Who waits for a decision, and one identity with its story."""

from functools import partial

from aiohttp import web

from service.api.context import CALLER_ACCOUNTS, app_context
from service.console.pages import page
from service.store.users import count_states


async def waiting(request: web.Request) -> web.Response:
    """Show who waits for a decision."""
    within = request[CALLER_ACCOUNTS] or None
    counts = await app_context(request).database.read(partial(count_states, within=within))
    return page(request, "waiting.html", counts=counts)
