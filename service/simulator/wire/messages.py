"""Messages to users: blocked while the identity is unacknowledged (Meta's page on messages)."""

import json
from typing import Any

from aiohttp import web

from service.simulator import callback_bodies, message_ids
from service.simulator.answers import WireError, invalid, required
from service.simulator.client import Client, Message
from service.simulator.delivery import Callback
from service.simulator.wire.keys import CALL, answered, client_of, json_object

REFUSED_CODE = 1028
REFUSED_TITLE = "A user_identity_changed system notification requires acknowledgement"


async def send_message(request: web.Request) -> web.Response:
    """Accept a message with its id, refuse it with 1028, or accept it and let it fail with 480."""
    client = client_of(request)
    to = recipient(await json_object(request))
    user = client.users.known(to, client.now_ms())
    is_blocked = client.settings.show_security_notifications and not user.acknowledged
    if is_blocked and client.options.blocked_send == "refuse":
        request[CALL].outcome = "refused"
        client.messages.append(Message(to, accepted=False, at=client.now(), code=REFUSED_CODE))
        raise WireError(client.options.refusal_status, REFUSED_CODE, REFUSED_TITLE)
    request[CALL].outcome = "accepted"
    message = Message(to, accepted=True, at=client.now(), id=message_ids.outbound_id(to))
    client.messages.append(message)
    report(client, message, is_blocked=is_blocked)
    contacts = [{"input": to, "wa_id": to}]
    return answered(request, {"messages": [{"id": message.id}], "contacts": contacts})


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


def report(client: Client, message: Message, *, is_blocked: bool) -> None:
    """Send the statuses of an accepted message: failed with 480, or sent and delivered."""
    assert message.id is not None  # noqa: S101 - accepted messages have one
    at_ms = client.now_ms()
    if is_blocked:
        message.code = callback_bodies.BLOCKED_CODE
        _send(client, message.to, callback_bodies.blocked(message.id, message.to, at_ms))
    elif client.options.send_statuses:
        for state in ("sent", "delivered"):
            body = callback_bodies.status(message.id, message.to, state, at_ms)
            _send(client, message.to, body)


def _send(client: Client, wa_id: str, body: dict[str, Any]) -> None:
    client.delivery.send(Callback("status", json.dumps(body).encode(), wa_id))
