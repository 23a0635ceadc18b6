"""Messages to users (Meta's pages on messages, user ids, and the identity change check)."""

from typing import Any

from service.simulator.cloud import wamids
from service.simulator.cloud.answers import invalid
from service.simulator.cloud.cloud import Cloud, CloudMessage
from service.simulator.cloud.lines import Line


def send(cloud: Cloud, line: Line, body: dict[str, Any]) -> dict[str, Any]:
    """Accept a message, and tell afterwards what became of it; GraphError when it can't be read."""
    to, by_number = recipient(body)
    hash_ = _text(body, "recipient_identity_key_hash")
    if by_number and to not in cloud.users.given_up:
        cloud.users.known(to)
    message = CloudMessage(
        id=wamids.outbound_id(to),
        phone_number_id=line.number.phone_number_id,
        to=to,
        hash=hash_,
        at=cloud.now(),
        by_number=by_number,
        more=_opaque(body),
    )
    judge(cloud, line, message)
    cloud.messages.append(message)
    cloud.counts.update(("accepted", message.outcome))
    cloud.report(message)
    return {
        "messaging_product": "whatsapp",
        "contacts": [_contact(body, to, by_number=by_number)],
        "messages": [{"id": message.id}],
    }


def judge(cloud: Cloud, line: Line, message: CloudMessage) -> None:
    """Say what becomes of a message: it is checked only while the number's check is on."""
    user = cloud.users.get(message.to)
    if user is None:
        message.outcome = "undeliverable"
        return
    message.user = user.key
    if line.identity_check and message.hash is not None and message.hash != user.hash:
        message.outcome = "mismatch"


def recipient(body: dict[str, Any]) -> tuple[str, bool]:
    """Return whom a message is for, and whether that is a number; `to` goes before `recipient`."""
    if body.get("messaging_product") != "whatsapp":
        raise invalid("messaging_product is not whatsapp")
    kind = body.get("type", "text")
    if not isinstance(kind, str) or not isinstance(body.get(kind), dict):
        raise invalid("the message lacks the object that its type names")
    to = _text(body, "to")
    if to is not None:
        return _digits(to), True
    user_id = _text(body, "recipient")
    if user_id is None:
        raise invalid("The parameter to is required.")
    return user_id, False


def _text(body: dict[str, Any], key: str) -> str | None:
    text = body.get(key)
    if text is not None and (not isinstance(text, str) or not text):
        raise invalid(f"{key} is not a string, or empty")
    return text


def _digits(number: str) -> str:
    digits = "".join(digit for digit in number if digit.isascii() and digit.isdigit())
    if not digits or set(number) - set("+0123456789 -()."):
        raise invalid("to is not a phone number")
    return digits


def _opaque(body: dict[str, Any]) -> dict[str, Any]:
    """Return the business's own data, which each status repeats."""
    key = "biz_opaque_callback_data"
    return {key: body[key]} if key in body else {}


def _contact(body: dict[str, Any], to: str, *, by_number: bool) -> dict[str, Any]:
    if not by_number:
        return {"input": to, "user_id": to}
    contact = {"input": body["to"], "wa_id": to}
    return {**contact, "user_id": body["recipient"]} if "recipient" in body else contact
