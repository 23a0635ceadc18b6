"""Contact checks over the wire (Meta's page on the contacts node)."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from service.simulator.answers import WireError, invalid, required
from service.simulator.client import Client
from service.simulator.contact_checks import Result
from service.simulator.delivery import Callback
from service.simulator.wire.keys import answered, client_of, json_object


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, read from its body."""

    texts: list[str]
    waits: bool
    forced: bool


async def check_contacts(request: web.Request) -> web.Response:
    """Answer each number's status, waiting for it or reporting it later by callback."""
    client = client_of(request)
    client.contacts.counts["requests"] += 1
    if not client.contacts_limit.allows():
        client.contacts.counts["limited"] += 1
        raise WireError(429)
    asked = _read(await json_object(request))
    results = client.contacts.known(dict.fromkeys(asked.texts), forced=asked.forced)
    pending = [text for text in dict.fromkeys(asked.texts) if text not in results]
    _count(client, asked, len(pending))
    if asked.waits:
        results |= await _looked_up(client, pending)
    else:
        results |= {text: client.contacts.pending(text) for text in pending}
        _report_later(client, pending)
    return answered(request, {"contacts": [results[text].of(text) for text in asked.texts]})


def _read(body: dict[str, Any]) -> Asked:
    contacts = body.get("contacts")
    if contacts is None:
        raise required("contacts")
    if not isinstance(contacts, list) or not contacts:
        raise invalid("contacts", "not an array of phone numbers")
    if not all(isinstance(text, str) for text in contacts):
        raise invalid("contacts", "not all are strings")
    blocking = body.get("blocking", "no_wait")
    if blocking not in ("wait", "no_wait"):
        raise invalid("blocking", "neither wait nor no_wait")
    forced = body.get("force_check", False)
    if not isinstance(forced, bool):
        raise invalid("force_check", "not a boolean")
    return Asked(contacts, blocking == "wait", forced)


def _count(client: Client, asked: Asked, looked_up: int) -> None:
    counts = client.contacts.counts
    counts["numbers"] += len(asked.texts)
    counts["looked_up"] += looked_up
    counts["forced"] += looked_up if asked.forced else 0


async def _looked_up(client: Client, texts: list[str]) -> dict[str, Result]:
    if texts:
        await client.pause(client.options.contact_check_seconds)
    results = {text: client.contacts.find(text) for text in texts}
    client.contacts.keep(results)
    return results


def _report_later(client: Client, texts: list[str]) -> None:
    """Call back with the pending contacts alone, in the form of the synchronous answer.

    What is lost on its way is in the cache all the same, as it would be at the client.
    """
    checks, seconds = client.contacts, client.options.contact_check_seconds
    results = {text: checks.find(text) for text in texts if not checks.is_stuck(text)}
    asyncio.get_running_loop().call_later(seconds, checks.keep, results)
    for part in _parts(list(results.items()), client.options.contacts_per_callback):
        body = {"contacts": [result.of(text) for text, result in part]}
        wa_id = part[0][1].wa_id if len(part) == 1 else None
        client.delivery.send(Callback("contacts", json.dumps(body).encode(), wa_id, delay=seconds))


def _parts(
    results: list[tuple[str, Result]], most: int | None
) -> Iterator[list[tuple[str, Result]]]:
    size = most or max(1, len(results))
    for start in range(0, len(results), size):
        yield results[start : start + size]
