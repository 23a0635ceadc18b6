"""Contact checks over the wire (Meta's page on the contacts node)."""

import json
from typing import Any

from aiohttp import web

from service.simulator.answers import WireError, invalid, required
from service.simulator.client import Client
from service.simulator.delivery import Callback
from service.simulator.wire.keys import answered, client_of, json_object


async def check_contacts(request: web.Request) -> web.Response:
    """Answer each number's status, waiting for it or reporting it later by callback."""
    client = client_of(request)
    if not client.contacts_limit.allows():
        raise WireError(429)
    body = await json_object(request)
    texts, waits = _contacts(body), _blocking(body)
    open_texts = _to_check(client, texts, forced=body.get("force_check", False))
    if open_texts and waits:
        await client.pause(client.options.contact_check_seconds)
        client.contacts.keep(open_texts)
    elif open_texts:
        _report_later(client, open_texts)
    pending = [] if waits else open_texts
    results = [
        {"input": text, "status": "processing"} if text in pending else client.contacts.result(text)
        for text in texts
    ]
    return answered(request, {"contacts": results})


def _contacts(body: dict[str, Any]) -> list[str]:
    contacts = body.get("contacts")
    if contacts is None:
        raise required("contacts")
    if not isinstance(contacts, list) or not contacts:
        raise invalid("contacts", "not an array of phone numbers")
    if not all(isinstance(text, str) for text in contacts):
        raise invalid("contacts", "not all are strings")
    return contacts


def _blocking(body: dict[str, Any]) -> bool:
    blocking = body.get("blocking", "no_wait")
    if blocking not in ("wait", "no_wait"):
        raise invalid("blocking", "neither wait nor no_wait")
    return bool(blocking == "wait")


def _to_check(client: Client, texts: list[str], *, forced: object) -> list[str]:
    if not isinstance(forced, bool):
        raise invalid("force_check", "not a boolean")
    if forced:
        return texts
    return [text for text in texts if not client.contacts.is_cached(text)]


def _report_later(client: Client, texts: list[str]) -> None:
    """Call back with the pending contacts alone, in the form of the synchronous answer."""
    results = [client.contacts.result(text) for text in texts]
    client.contacts.keep(texts)
    body = json.dumps({"contacts": results}).encode()
    delay = client.options.contact_check_seconds
    client.delivery.send(Callback("contacts", body, delay=delay))
