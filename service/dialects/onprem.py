"""The callbacks of the WhatsApp Business On-Premises API.

Every element of `contacts`, `messages`, `statuses` and `errors` is read for itself: one that
can't be read is a fault, its neighbours count. Unknown types and keys are normal.
"""

import binascii
import re
from typing import Any

from service.dialects.common import (
    SYNTHETIC,
    FieldError,
    Findings,
    Reader,
    UnreadableError,
    alias,
    boolean,
    has_code,
    identity_hash,
    json_object,
    message_id,
    millisecond,
    optional_alias,
    printable,
    read_object,
    second,
)
from service.model.events import (
    ContactChecked,
    Event,
    Fault,
    HashUnreadable,
    IdentitySeen,
    NumberChanged,
    Reading,
    SendBlocked,
    UserWrote,
)
from service.model.timeline import LATEST_MS, Moment
from service.model.users import storable

SEND_BLOCKED_CODE = 480
OF_CLOUD = "a webhook of the Cloud API: it belongs to the URL of its app"
MAX_INPUT_CHARACTERS = 256

_URL_SAFE = bytes.maketrans(b"-_", b"+/")
MAX_MS_DIGITS = len(str(LATEST_MS))
_STATUS = re.compile(r"[a-z_]{1,32}")


def read(content_type: str, content_encoding: str, body: bytes) -> Reading:
    """Read a callback: its events, and a fault for whatever can't be read."""
    try:
        callback = read_object(content_type, content_encoding, body)
    except UnreadableError as error:
        return Reading(faults=(Fault("", str(error)),))
    if "object" in callback or "entry" in callback:
        return Reading(faults=(Fault("", OF_CLOUD),))
    found = Findings()
    for key, reader in _READERS:
        elements = callback.get(key)
        if elements is not None:
            found.read_elements(key, elements, reader)
    if not (found.events or found.others or found.faults) and callback.keys() == {SYNTHETIC}:
        return Reading(synthetic=True)
    _count_messages(callback.get("statuses"), found)
    return found.reading()


def _read_message(element: dict[str, Any]) -> list[Event]:
    if element.get("type") == "system" or "system" in element:
        return _read_system(element)
    stamp = element.get("identity")
    if stamp is None and "from" not in element:
        return []
    wa_id = alias(element, "from", "from")
    said = second(element.get("timestamp"))
    wrote = UserWrote(wa_id, said)
    if stamp is None:
        return [wrote]
    try:
        return [_read_stamp(element, wa_id, said), wrote]
    except FieldError as error:
        unreadable = HashUnreadable(wa_id, said, message_id(element))
        raise error.beside(unreadable, wrote) from None


def _read_stamp(element: dict[str, Any], wa_id: str, said: Moment | None) -> IdentitySeen:
    """Read the identity that a message carries."""
    stamp = json_object(element, "identity", "identity")
    hash_ = identity_hash(stamp, "hash", "identity.hash")
    changed = millisecond(stamp.get("created_timestamp")) or said
    return IdentitySeen(wa_id, hash_, changed, said, boolean(stamp.get("acknowledged")))


def _read_system(element: dict[str, Any]) -> list[Event]:
    system = element.get("system")
    if not isinstance(system, dict):
        raise FieldError("", "a system message without its system object")
    match system.get("type"):
        case "user_identity_changed":
            return [_read_identity_changed(element, system)]
        case "user_changed_number":
            return [_read_number_changed(element, system)]
        case _:
            return []


def _read_identity_changed(element: dict[str, Any], system: dict[str, Any]) -> IdentitySeen:
    """Follow Meta's page on inbound system messages, "A User Potentially Changed"."""
    user = optional_alias(system, "user", "system.user")
    sender = optional_alias(element, "from", "from")
    if user is not None and sender is not None and user != sender:
        raise FieldError("", "system.user and from name different users")
    wa_id = user or sender
    if wa_id is None:
        raise FieldError("", "no user is named")
    at = _moment(element, wa_id, b"identity")
    try:
        hash_ = identity_hash(system, "identity", "system.identity")
    except FieldError as error:
        raise error.beside(HashUnreadable(wa_id, at, message_id(element))) from None
    return IdentitySeen(wa_id, hash_, at)


def _read_number_changed(element: dict[str, Any], system: dict[str, Any]) -> NumberChanged:
    wa_id = alias(element, "from", "from")
    new_wa_id = alias(system, "new_wa_id", "system.new_wa_id")
    if wa_id == new_wa_id:
        raise FieldError("", "the new number is the old one")
    return NumberChanged(wa_id, new_wa_id, _moment(element, wa_id, b"change"))


def _moment(element: dict[str, Any], wa_id: str, kind: bytes) -> Moment | None:
    exact = _moment_in_id(printable(element.get("id")), wa_id, kind)
    return exact or second(element.get("timestamp"))


def _moment_in_id(message_id: str | None, wa_id: str, kind: bytes) -> Moment | None:
    """Read the millisecond in Meta's self-describing message id; None where it has no such form.

    Decoded it holds `sys-<wa_id>@s.whatsapp.net-<ms>-<kind>`; what comes before is not looked at.
    """
    if message_id is None:
        return None
    try:
        decoded = binascii.a2b_base64(message_id.encode("ascii").translate(_URL_SAFE) + b"==")
    except ValueError:
        return None
    _, _, rest = decoded.partition(b"sys-%b@s.whatsapp.net-" % wa_id.encode())
    digits, _, what = rest.partition(b"-")
    if not what.startswith(kind) or not digits.isdigit() or len(digits) > MAX_MS_DIGITS:
        return None
    at = int(digits)
    return Moment(at) if 0 < at <= LATEST_MS else None


def _read_status(element: dict[str, Any]) -> list[Event]:
    if element.get("status") != "failed" or not has_code(element, SEND_BLOCKED_CODE):
        return []
    holder = _names_recipient(element)
    within = "" if holder is element else "message."
    wa_id = alias(holder, "recipient_id", f"{within}recipient_id")
    return [SendBlocked(wa_id, second(element.get("timestamp")), message_id(element))]


def _names_recipient(status: dict[str, Any]) -> dict[str, Any]:
    """Return the object that names the recipient of a status: itself, else the `message` in it.

    Newer clients write `{"message": {"recipient_id": …}, "type": "message"}`.
    """
    message = status.get("message")
    if status.get("recipient_id") or not isinstance(message, dict):
        return status
    return message if message.get("recipient_id") else status


def _count_messages(elements: Any, found: Findings) -> None:
    """Count the messages that statuses report, also those whose status can't be read otherwise."""
    if isinstance(elements, list):
        for element in elements:
            if isinstance(element, dict):
                recipient = _names_recipient(element).get("recipient_id")
                found.count_message(element.get("status"), recipient)


def _read_contact(element: dict[str, Any]) -> list[Event]:
    """Read the result of a check; an element without status is the sender of a message."""
    if "status" not in element:
        return []
    input_, status = element.get("input"), element["status"]
    if not isinstance(input_, str) or not 0 < len(input_) <= MAX_INPUT_CHARACTERS:
        raise FieldError("input", "missing" if input_ is None else "no usable text")
    if not storable(input_):
        raise FieldError("input", "no usable text")
    if not isinstance(status, str) or not _STATUS.fullmatch(status):
        raise FieldError("status", "no usable text")
    return [ContactChecked(input_, status, optional_alias(element, "wa_id", "wa_id"))]


def read_checks(elements: Any) -> list[ContactChecked]:
    """Read the `contacts` of the answer to a check, which look as they do in its callback.

    What can't be read is left out: the check of that input stays open.
    """
    found = Findings()
    found.read_elements("contacts", elements, _read_contact)
    return [event for event in found.events if isinstance(event, ContactChecked)]


def _read_error(_: dict[str, Any]) -> list[Event]:
    return []


_READERS: tuple[tuple[str, Reader], ...] = (
    ("contacts", _read_contact),
    ("messages", _read_message),
    ("statuses", _read_status),
    ("errors", _read_error),
)
