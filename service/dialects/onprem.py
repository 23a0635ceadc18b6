"""The callbacks of the WhatsApp Business On-Premises API.

Every element of `contacts`, `messages`, `statuses` and `errors` is read for itself: one that
can't be read is a fault, its neighbours count. Unknown types and keys are normal.
"""

import binascii
import re
from collections.abc import Callable
from typing import Any

from service.dialects.bodies import UnreadableError, read_object
from service.dialects.fields import (
    FieldError,
    alias,
    hint,
    identity_hash,
    millisecond,
    optional_alias,
    second,
    table,
    truth,
)
from service.model.events import (
    ContactChecked,
    Event,
    Fault,
    IdentitySeen,
    NumberChanged,
    Reading,
    SendBlocked,
    UserWrote,
)
from service.model.moments import LATEST_MS, Moment
from service.model.names import storable

SEND_BLOCKED_CODE = 480
MAX_INPUT_CHARACTERS = 256
MAX_ID_CHARACTERS = 256
SYNTHETIC = "ackgate-doctor"
"""The one key of a callback of our own, which no client sends and which has no effect."""
MAX_FAULTS = 10
"""Faults that are named; the others are counted."""

_URL_SAFE = bytes.maketrans(b"-_", b"+/")
MAX_MS_DIGITS = len(str(LATEST_MS))
_STATUS = re.compile(r"[a-z_]{1,32}")


def read(content_type: str, content_encoding: str, body: bytes) -> Reading:
    """Read a callback: its events, and a fault for whatever can't be read."""
    try:
        callback = read_object(content_type, content_encoding, body)
    except UnreadableError as error:
        return Reading(faults=(Fault("", str(error)),))
    found = _Found()
    for key, reader in _READERS:
        elements = callback.get(key)
        if elements is not None:
            _read_elements(key, elements, reader, found)
    if not (found.events or found.others or found.faults) and callback.keys() == {SYNTHETIC}:
        return Reading(synthetic=True)
    faults = tuple(found.faults)
    sent, delivered = _messages(callback.get("statuses"))
    return Reading(tuple(found.events), faults, found.others, found.more_faults, sent, delivered)


class _Found:
    """What has been read of a body so far."""

    __slots__ = ("events", "faults", "more_faults", "others")

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.faults: list[Fault] = []
        self.others = self.more_faults = 0

    def add_fault(self, fault: Fault) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(fault)
        else:
            self.more_faults += 1


def _read_elements(key: str, elements: Any, reader: "Reader", found: _Found) -> None:
    if not isinstance(elements, list):
        found.add_fault(Fault(key, "not an array"))
        return
    for index, element in enumerate(elements):
        try:
            events = reader(element) if isinstance(element, dict) else _no_object()
        except FieldError as error:
            where = f"{key}[{index}]"
            found.add_fault(Fault(f"{where}.{error.path}" if error.path else where, str(error)))
            continue
        if events:
            found.events += events
        else:
            found.others += 1


def _no_object() -> list[Event]:
    raise FieldError("", "not an object")


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
    return [_read_stamp(table(element, "identity", "identity"), wa_id, said), wrote]


def _read_stamp(stamp: dict[str, Any], wa_id: str, said: Moment | None) -> IdentitySeen:
    """Read the identity that a message carries."""
    hash_ = identity_hash(stamp, "hash", "identity.hash")
    changed = millisecond(stamp.get("created_timestamp")) or said
    return IdentitySeen(wa_id, hash_, changed, said, truth(stamp.get("acknowledged")))


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
    hash_ = identity_hash(system, "identity", "system.identity")
    user = optional_alias(system, "user", "system.user")
    sender = optional_alias(element, "from", "from")
    if user is not None and sender is not None and user != sender:
        raise FieldError("", "system.user and from name different users")
    wa_id = user or sender
    if wa_id is None:
        raise FieldError("", "no user is named")
    return IdentitySeen(wa_id, hash_, _moment(element, wa_id, b"identity"))


def _read_number_changed(element: dict[str, Any], system: dict[str, Any]) -> NumberChanged:
    wa_id = alias(element, "from", "from")
    new_wa_id = alias(system, "new_wa_id", "system.new_wa_id")
    if wa_id == new_wa_id:
        raise FieldError("", "the new number is the old one")
    return NumberChanged(wa_id, new_wa_id, _moment(element, wa_id, b"change"))


def _moment(element: dict[str, Any], wa_id: str, kind: bytes) -> Moment | None:
    told = _moment_in_id(hint(element.get("id")), wa_id, kind)
    return told or second(element.get("timestamp"))


def _moment_in_id(message_id: str | None, wa_id: str, kind: bytes) -> Moment | None:
    """Read the millisecond out of Meta's self-describing message id; only a hint, never trusted.

    Decoded it holds `sys-<wa_id>@s.whatsapp.net-<ms>-<kind>`; what comes before is not looked at.
    """
    if message_id is None:
        return None
    try:
        decoded = binascii.a2b_base64(message_id.encode("ascii").translate(_URL_SAFE) + b"==")
    except ValueError:
        return None
    _, _, told = decoded.partition(b"sys-%b@s.whatsapp.net-" % wa_id.encode())
    digits, _, what = told.partition(b"-")
    if not what.startswith(kind) or not digits.isdigit() or len(digits) > MAX_MS_DIGITS:
        return None
    at = int(digits)
    return Moment(at) if 0 < at <= LATEST_MS else None


def _read_status(element: dict[str, Any]) -> list[Event]:
    if element.get("status") != "failed" or not _has_code(element, SEND_BLOCKED_CODE):
        return []
    wa_id = alias(element, "recipient_id", "recipient_id")
    message_id = hint(element.get("id"))
    if message_id is not None and len(message_id) > MAX_ID_CHARACTERS:
        message_id = None
    return [SendBlocked(wa_id, second(element.get("timestamp")), message_id)]


def _messages(elements: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tell to whom messages were sent and delivered: no event, for it changes nothing by itself.

    Whether a recipient can be a user is looked at when it is written, not in every status.
    """
    if not isinstance(elements, list):
        return (), ()
    sent: list[str] = []
    delivered: list[str] = []
    for element in elements:
        status = element.get("status") if isinstance(element, dict) else None
        if status not in ("sent", "delivered"):
            continue
        wa_id = element.get("recipient_id")
        if isinstance(wa_id, str) and len(wa_id) <= MAX_ID_CHARACTERS:
            (sent if status == "sent" else delivered).append(wa_id)
    return tuple(sent), tuple(delivered)


def _has_code(element: dict[str, Any], code: int) -> bool:
    errors = element.get("errors")
    if not isinstance(errors, list):
        return False
    return any(isinstance(e, dict) and e.get("code") in (code, str(code)) for e in errors)


def _read_contact(element: dict[str, Any]) -> list[Event]:
    """Tell a check's result from the sender card of a message, element by element."""
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
    found = _Found()
    _read_elements("contacts", elements, _read_contact, found)
    return [event for event in found.events if isinstance(event, ContactChecked)]


def _read_error(_: dict[str, Any]) -> list[Event]:
    return []


Reader = Callable[[dict[str, Any]], list[Event]]

_READERS: tuple[tuple[str, Reader], ...] = (
    ("contacts", _read_contact),
    ("messages", _read_message),
    ("statuses", _read_status),
    ("errors", _read_error),
)
