"""What the client answers: logins, identities, messages, contact checks, health, settings."""

import asyncio
import base64
import binascii
import ssl
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from service.simulator.api import Media
from service.simulator.onprem import bodies
from service.simulator.onprem.answers import (
    CALL,
    CLIENT,
    WireError,
    answer,
    invalid,
    read_object,
    required,
    unreadable,
)
from service.simulator.onprem.client import Client, Message
from service.simulator.onprem.contact_checks import Result
from service.simulator.onprem.state import CONCURRENCIES, ApplicationSettings
from service.simulator.users import User

REFUSED_CODE = 1028
REFUSED_TITLE = "A user_identity_changed system notification requires acknowledgement"


async def login(request: web.Request) -> web.Response:
    """Issue a token for the right password; a wrong one gets an empty 401, too many get 429.

    It expires at a time such as `2021-09-14 15:29:26+00:00` (Meta's page on users: login).
    """
    logins = request.app[CLIENT].logins
    if logins.too_many():
        raise WireError(429)
    if not logins.is_right(*basic_credentials(request.headers.get("Authorization", ""))):
        request[CALL].outcome = "refused"
        return web.Response(status=401)
    token, until = logins.log_in()
    request[CALL].outcome = "logged_in"
    expires_after = datetime.fromtimestamp(int(until), UTC).isoformat(" ")
    return answer(request, {"users": [{"token": token, "expires_after": expires_after}]})


def basic_credentials(header: str) -> tuple[str, str]:
    """Read name and password of HTTP Basic; two empty ones when there are none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password


async def get_identity(request: web.Request) -> web.Response:
    """Answer a user's latest identity; `contacts` is an object here."""
    user = _user(request)
    identity = {
        "hash": user.hash,
        "created_timestamp": user.created_timestamp,
        "acknowledged": user.acknowledged,
    }
    return answer(request, {"contacts": identity})


async def put_identity(request: web.Request) -> web.Response:
    """Acknowledge the latest hash: 200 and `{}`; 409 for any other, 404 for an unknown user."""
    call = request[CALL]
    call.outcome = "unreadable"
    wanted = (await read_object(request)).get("hash")
    if wanted is None:
        raise required("hash")
    if not isinstance(wanted, str):
        raise invalid("hash", "not a string")
    call.outcome = "unknown_user"
    user = _user(request)
    if user.hash != wanted:
        call.outcome = "stale"
        status = request.app[CLIENT].options.stale_hash_status
        error = WireError(409)
        raise WireError(status, error.code, error.title, error.details)
    call.outcome = "already" if user.acknowledged else "acknowledged"
    user.acknowledged = True
    return web.json_response({})


def _user(request: web.Request) -> User:
    user = request.app[CLIENT].users.get(request.match_info["wa_id"])
    if user is None:
        raise WireError(404, details="Identity was not found")
    return user


async def send_message(request: web.Request) -> web.Response:
    """Accept a message with its id, refuse it with 1028, or accept it and let it fail with 480.

    An accepted message's statuses follow: failed with 480, or sent and delivered.
    """
    client = request.app[CLIENT]
    body = await read_object(request)
    to = recipient(body)
    user = client.users.get_or_add(to, client.now_ms())
    is_blocked = client.settings.show_security_notifications and not user.acknowledged
    if is_blocked and client.options.blocked_send == "refuse":
        request[CALL].outcome = "refused"
        client.messages.append(
            Message(to, accepted=False, at=client.now(), code=REFUSED_CODE, body=body)
        )
        raise WireError(client.options.refusal_status, REFUSED_CODE, REFUSED_TITLE)
    request[CALL].outcome = "accepted"
    message_id, at_ms = bodies.outbound_id(to), client.now_ms()
    code = bodies.BLOCKED_CODE if is_blocked else None
    client.messages.append(
        Message(to, accepted=True, at=client.now(), id=message_id, code=code, body=body)
    )
    if is_blocked:
        client.call_back("status", bodies.blocked(message_id, to, at_ms), to)
    elif client.options.send_statuses:
        for state in ("sent", "delivered"):
            client.call_back("status", bodies.status(message_id, to, state, at_ms), to)
    contacts = [{"input": to, "wa_id": to}]
    return answer(request, {"messages": [{"id": message_id}], "contacts": contacts})


def recipient(body: dict[str, Any]) -> str:
    """Return the wa_id that a message is for; WireError when it lacks one or a type."""
    to = body.get("to")
    if to is None:
        raise required("to")
    if not isinstance(to, str) or not to:
        raise invalid("to", "not a WhatsApp ID")
    kind = body.get("type", "text")
    if not isinstance(kind, str) or kind not in body:
        raise required(str(kind))
    return to


async def upload_media(request: web.Request) -> web.Response:
    """Take a file as the body, its type in Content-Type (Meta's page on media)."""
    client = request.app[CLIENT]
    if "/" not in request.headers.get("Content-Type", ""):
        raise required("Content-Type")
    chunks = request.content.iter_any()
    file = await Media.receive(request.content_type, chunks)
    if not file.size:
        raise invalid("body", "empty")
    client.media.append(file)
    request[CALL].outcome = "accepted"
    return answer(request, {"media": [{"id": file.id}]})


async def check_contacts(request: web.Request) -> web.Response:
    """Answer each number's status, waiting for it or reporting it later by callback.

    Follows Meta's page on the contacts node.
    """
    client = request.app[CLIENT]
    checks, counts = client.contacts, client.contacts.counts
    counts["requests"] += 1
    if not client.contacts_limit.allows():
        counts["limited"] += 1
        raise WireError(429)
    body = await read_object(request)
    texts = contacts_in(body)
    blocking, forced = body.get("blocking", "no_wait"), body.get("force_check", False)
    if blocking not in ("wait", "no_wait"):
        raise invalid("blocking", "neither wait nor no_wait")
    if not isinstance(forced, bool):
        raise invalid("force_check", "not a boolean")
    results = checks.known(dict.fromkeys(texts), forced=forced)
    pending = [text for text in dict.fromkeys(texts) if text not in results]
    counts["numbers"] += len(texts)
    counts["looked_up"] += len(pending)
    counts["forced"] += len(pending) if forced else 0
    if blocking == "no_wait":
        results |= {text: checks.pending(text) for text in pending}
        _report_later(client, pending)
    elif pending:
        await client.pause(client.options.contact_check_seconds)
        found = {text: checks.find(text) for text in pending}
        checks.keep(found)
        results |= found
    return answer(request, {"contacts": [results[text].as_json(text) for text in texts]})


def contacts_in(body: dict[str, Any]) -> list[str]:
    """Return the numbers that a request asks for; WireError when there are none."""
    contacts = body.get("contacts")
    if contacts is None:
        raise required("contacts")
    if not isinstance(contacts, list) or not contacts:
        raise invalid("contacts", "not an array of phone numbers")
    if not all(isinstance(text, str) for text in contacts):
        raise invalid("contacts", "not all are strings")
    return contacts


def _report_later(client: Client, texts: list[str]) -> None:
    """Call back with the pending contacts alone, in the form of the synchronous answer.

    What is lost on its way is in the cache all the same, as it would be at the client.
    """
    checks, delay = client.contacts, client.options.contact_check_seconds
    results = {text: checks.find(text) for text in texts if not checks.is_stuck(text)}
    asyncio.get_running_loop().call_later(delay, checks.keep, results)
    found = list(results.items())
    size = client.options.contacts_per_callback or max(1, len(found))
    for start in range(0, len(found), size):
        part: list[tuple[str, Result]] = found[start : start + size]
        body = {"contacts": [result.as_json(text) for text, result in part]}
        wa_id = part[0][1].wa_id if len(part) == 1 else None
        client.call_back("contacts", body, wa_id, delay=delay)


async def get_health(request: web.Request) -> web.Response:
    """Answer the health that was set, ten times a minute at most (Meta's page on health)."""
    client = request.app[CLIENT]
    if not client.health_limit.allows():
        raise WireError(429)
    health = {"gateway_status": "connecting"} if client.is_restarting else client.health
    return answer(request, {"health": health})


async def get_settings(request: web.Request) -> web.Response:
    """Answer the application settings (Meta's page on the settings)."""
    settings = request.app[CLIENT].settings.model_dump(mode="json")
    return answer(request, {"settings": {"application": settings}})


async def patch_settings(request: web.Request) -> web.Response:
    """Change a part of the application settings; the rest stays."""
    client = request.app[CLIENT]
    values = await read_object(request)
    webhooks = values.get("webhooks", {})
    if not isinstance(webhooks, dict):
        raise invalid("webhooks", "not an object")
    if webhooks.get("max_concurrent_requests", CONCURRENCIES[0]) not in CONCURRENCIES:
        raise invalid("webhooks.max_concurrent_requests", f"not one of {CONCURRENCIES}")
    try:
        client.settings = client.settings.changed(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise invalid(".".join(map(str, wrong["loc"])), wrong["msg"]) from None
    client.retry_now()
    return answer(request, {})


async def delete_settings(request: web.Request) -> web.Response:
    """Reset the application settings to those of a new client, which knows no webhook."""
    request.app[CLIENT].settings = ApplicationSettings()
    return answer(request, {})


async def get_webhook_ca(request: web.Request) -> web.Response:
    """Answer the authority that verifies the webhook's certificate: text/plain, PEM."""
    pem = request.app[CLIENT].webhook_ca
    if pem is None:
        raise WireError(404)
    return web.Response(text=pem)


async def post_webhook_ca(request: web.Request) -> web.Response:
    """Keep the authority that verifies the webhook's certificate; the Coreapps restart."""
    if request.content_type != "text/plain":
        raise unreadable("Content-Type is not text/plain.")
    client = request.app[CLIENT]
    try:
        client.trust_webhook(await request.text())
    except (ssl.SSLError, ValueError):
        raise invalid("certificate", "not PEM") from None
    client.restart()
    return answer(request, {})


async def delete_webhook_ca(request: web.Request) -> web.Response:
    """Verify the webhook's certificate by the system's authorities again; the Coreapps restart."""
    client = request.app[CLIENT]
    if client.webhook_ca is None:
        raise WireError(404)
    client.trust_webhook(None)
    client.restart()
    return answer(request, {})
