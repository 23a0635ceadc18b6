"""The bodies of webhooks in the exact JSON of Meta's pages, the ids of messages, the signature.

An id is `wamid.` and base64 of a self-describing text. The decoded bytes, as in Meta's examples:
0x1c 0x18, a length and the user's alias, 0x15 0x02 0x00, 0x12 for a message from a user or 0x11 for
one to a user, 0x18, a length and so many digits in hexadecimal, 0x00.
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from service.simulator.options import Number
from service.simulator.users import CloudUser

Body = dict[str, Any]

MISMATCH_CODE = 137000
UNDELIVERABLE_CODE = 131026
TITLES = {
    MISMATCH_CODE: "Recipient identity key hash mismatch",
    UNDELIVERABLE_CODE: "Message undeliverable",
}
ERRORS_PAGE = "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/"

INBOUND, OUTBOUND = b"\x12", b"\x11"
ID_DIGITS = 20
LONGEST_ALIAS = 127


def inbound_id(alias: str) -> str:
    """Return the id of a message from a user."""
    return _message_id(alias, INBOUND)


def outbound_id(alias: str) -> str:
    """Return the id of a message to a user."""
    return _message_id(alias, OUTBOUND)


def _message_id(alias: str, direction: bytes) -> str:
    name = alias.encode()[:LONGEST_ALIAS]
    digits = secrets.token_hex(ID_DIGITS // 2).upper().encode()
    head = b"\x1c\x18" + bytes([len(name)]) + name
    raw = head + b"\x15\x02\x00" + direction + b"\x18" + bytes([len(digits)]) + digits + b"\x00"
    return "wamid." + base64.b64encode(raw).decode()


@dataclass(frozen=True, slots=True)
class Update:
    """One update: what it is about, and the lists that it adds to a change of its number."""

    kind: str
    """`message`, `status`, `number`, `identity` or `errors`, by which faults apply."""
    number: Number
    lists: dict[str, list[Body]]
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """How webhooks name users: with user ids or, as before spring 2026, by numbers alone.

    A number that may not be shown is missing, or `empty`.
    """

    user_ids: bool = True
    empty: bool = False

    def number(self, key: str, shown: str | None) -> Body:
        """Return a number under its key, or how it is left out."""
        return {} if shown is None and not self.empty else {key: shown or ""}

    def names(self, user: CloudUser, shown: str | None, keys: tuple[str, str, str]) -> Body:
        """Return a user's number, user id and parent user id under these keys, where it has any."""
        number, user_id, parent = keys
        found = self.number(number, shown)
        if self.user_ids:
            found[user_id] = user.user_id
            if user.parent_user_id is not None:
                found[parent] = user.parent_user_id
        return found


CONTACT = ("wa_id", "user_id", "parent_user_id")
FROM = ("from", "from_user_id", "from_parent_user_id")
RECIPIENT = ("recipient_id", "recipient_user_id", "recipient_parent_user_id")


def contact(user: CloudUser, style: Style, shown: str | None, *, named: bool = True) -> Body:
    """Return the contact of a user, with the username unless it isn't `named`, as in `sent`."""
    profile = {"name": user.name}
    if user.username is not None and named and style.user_ids:
        profile["username"] = user.username
    return {"profile": profile, **style.names(user, shown, CONTACT)}


def text_message(
    user: CloudUser, text: str, at: float, style: Style, *, with_hash: bool
) -> dict[str, list[Body]]:
    """Return what a user wrote, with the hash when the identity change check is on."""
    writer = contact(user, style, user.shown)
    if with_hash:
        writer["identity_key_hash"] = user.hash
    message = {
        **style.names(user, user.shown, FROM),
        "id": inbound_id(user.shown or user.user_id),
        "timestamp": _seconds(at),
        "type": "text",
        "text": {"body": text},
    }
    return {"contacts": [writer], "messages": [message]}


def user_changed(before: CloudUser, now: CloudUser, at: float, style: Style) -> Body:
    """Return the message that a user has another number and user id, or, hidden, the latter alone.

    Meta's pages on system messages and on business-scoped user ids; there is no `contacts`.
    """
    by_number = now.shown is not None
    old, new = (before.shown, now.shown) if by_number else (before.user_id, now.user_id)
    system = {
        "body": f"User {now.name} changed from {old} to {new}",
        **style.number("wa_id", now.shown),
    }
    if style.user_ids:
        system["user_id"] = now.user_id
        system["previous_user_id"] = before.user_id
        if now.parent_user_id is not None:
            system["parent_user_id"] = now.parent_user_id
            system["previous_parent_user_id"] = before.parent_user_id
    system["type"] = "user_changed_number" if by_number else "user_changed_user_id"
    return _system(before, at, style, system)


def customer_changed_number(before: CloudUser, now: CloudUser, at: float) -> Body:
    """Return the message about another number in the older spelling."""
    system = {
        "body": f"User {now.name} changed from {before.wa_id} to {now.wa_id}",
        "new_wa_id": now.wa_id,
        "customer": before.wa_id,
        "type": "customer_changed_number",
    }
    return _system(before, at, Style(user_ids=False), system)


def customer_identity_changed(
    user: CloudUser, at: float, spelling: Literal["customer", "sibling"]
) -> Body:
    """Return the message about another identity in an older spelling: in `system`, or beside it."""
    system = {"body": f"{user.name}'s security code changed", "type": "customer_identity_changed"}
    if spelling != "sibling":
        return _system(
            user,
            at,
            Style(user_ids=False),
            {**system, "identity": user.hash, "customer": user.wa_id},
        )
    identity = {"acknowledged": False, "created_timestamp": _seconds(at), "hash": user.hash}
    return {**_system(user, at, Style(user_ids=False), system), "identity": identity}


def _system(user: CloudUser, at: float, style: Style, system: Body) -> Body:
    return {
        **style.number("from", user.shown),
        "id": inbound_id(user.shown or user.user_id),
        "timestamp": _seconds(at),
        "system": system,
        "type": "system",
    }


def failed(code: int, details: str) -> Body:
    """Return the part of a status that says why a message failed."""
    title = TITLES[code]
    return {
        "errors": [
            {
                "code": code,
                "title": title,
                "message": title,
                "error_data": {"details": details},
                "href": ERRORS_PAGE,
            }
        ]
    }


PRICING: Body = {
    "pricing": {
        "billable": False,
        "pricing_model": "PMP",
        "category": "service",
        "type": "free_customer_service",
    }
}


def status(message_id: str, state: str, at: float, recipient: Body, more: Body) -> Body:
    """Return the status of a message to a user: sent, delivered, read or failed."""
    head = {"id": message_id, "status": state, "timestamp": _seconds(at)}
    return {**head, **recipient, **more}


def error(code: int, title: str, details: str) -> Body:
    """Return the report of an error that belongs to no message."""
    return {"code": code, "title": title, "message": title, "error_data": {"details": details}}


def envelope(updates: Iterable[Update], per_change: int = 1) -> Body:
    """Put updates in one body in their order: an entry for each account, a change for each few."""
    entries: list[Body] = []
    for update in updates:
        number = update.number
        if not entries or entries[-1]["id"] != number.waba_id:
            entries.append({"id": number.waba_id, "changes": []})
        changes = entries[-1]["changes"]
        if changes and _joined(changes[-1]["value"], update, per_change):
            continue
        metadata = {
            "display_phone_number": number.display_phone_number,
            "phone_number_id": number.phone_number_id,
        }
        lists = {key: list(elements) for key, elements in update.lists.items()}
        value = {"messaging_product": "whatsapp", "metadata": metadata, **lists}
        changes.append({"field": "messages", "value": value})
    return {"object": "whatsapp_business_account", "entry": entries}


def _joined(value: Body, update: Update, per_change: int) -> bool:
    """Add an update to a change of the same number and the same lists, while it has room."""
    (*_, main) = update.lists
    there = set(value) - {"messaging_product", "metadata"}
    number = value["metadata"]["phone_number_id"]
    if (number, there) != (update.number.phone_number_id, set(update.lists)):
        return False
    if len(value[main]) >= per_change:
        return False
    for key, elements in update.lists.items():
        value[key] += [each for each in elements if key != "contacts" or each not in value[key]]
    return True


def escaped(body: object) -> bytes:
    r"""Write JSON as Meta does: `\uXXXX` for all that isn't ASCII, and `\/`."""
    return json.dumps(body, separators=(",", ":")).replace("/", "\\/").encode()


def signature(secret: str, raw: bytes) -> str:
    """Return what `X-Hub-Signature-256` says of these bytes."""
    return "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()


def _seconds(at: float) -> str:
    return str(int(at))
