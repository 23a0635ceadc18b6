"""Contacts: what the client last said of a number."""

from functools import partial

from aiohttp import web

from service.api import shapes
from service.api.queries import cursor_of, listed, need_account, page
from service.api.services import services
from service.store.queries import find_contacts, list_contacts


async def list_(request: web.Request) -> web.Response:
    """Give the contacts with this `input` or this `wa_id`, else all of the account."""
    asked = page(request, 1)
    account = need_account(request)
    database = services(request).database
    inputs, wa_ids = request.query.getall("input", []), request.query.getall("wa_id", [])
    if inputs or wa_ids:
        usable = [[x for x in names if x.isprintable()] for names in (inputs, wa_ids)]
        found = await database.read(
            partial(find_contacts, account=account, inputs=usable[0], wa_ids=usable[1])
        )
        return listed([shapes.contact(contact) for contact in found], None)
    after = asked.after[0] if asked.after else 0
    rows = await database.read(
        partial(list_contacts, account=account, after=after, limit=asked.limit + 1)
    )
    more = len(rows) > asked.limit
    rows = rows[: asked.limit]
    return listed(
        [shapes.contact(contact) for _, contact in rows], cursor_of(rows[-1][0]) if more else None
    )
