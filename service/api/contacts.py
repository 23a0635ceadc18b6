"""Contacts: what the client last said of a number."""

from functools import partial

from aiohttp import web

from service.api import shapes
from service.api.queries import cursor_of, listed, need_account, page
from service.api.services import services
from service.model.names import storable
from service.store.queries import ContactFilter, list_contacts


async def list_(request: web.Request) -> web.Response:
    """Give the contacts with this `input` or this `wa_id`, else all of the account."""
    asked = page(request, 1)
    account = need_account(request)
    inputs, wa_ids = (
        [text for text in request.query.getall(name, []) if storable(text)]
        for name in ("input", "wa_id")
    )
    if not inputs and not wa_ids and request.query.keys() & {"input", "wa_id"}:
        return listed([], None)
    rows = await services(request).database.read(
        partial(
            list_contacts,
            wanted=ContactFilter(account, inputs, wa_ids),
            after=asked.after[0] if asked.after else 0,
            limit=asked.limit + 1,
        )
    )
    more = len(rows) > asked.limit
    rows = rows[: asked.limit]
    return listed(
        [shapes.contact(contact) for _, contact in rows], cursor_of(rows[-1][0]) if more else None
    )
