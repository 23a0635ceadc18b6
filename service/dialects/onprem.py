"""The callbacks of the WhatsApp Business On-Premises API.

Every element of `contacts`, `messages`, `statuses` and `errors` is read for itself: one that
can't be read is a fault, its neighbours count. Unknown types and keys are normal.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from service.dialects.bodies import UnreadableError, read_object
from service.dialects.fields import (
    Alias,
    Element,
    Hash,
    Hint,
    Millisecond,
    Second,
    Truth,
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

SEND_BLOCKED_CODE = 480
MAX_FAULTS = 10
"""Faults that are named; the others are counted."""


class _NotReadableError(Exception):
    """An element that can't be read; the text says why, `path` where in it."""

    def __init__(self, why: str, path: str = "") -> None:
        super().__init__(why)
        self.path = path


class _IdentityNotice(Element):
    identity: Hash
    user: Alias | None = None


class _IdentityChanged(Element):
    """Meta's page on inbound system messages, "A User Potentially Changed"."""

    from_: Alias | None = Field(None, alias="from")
    id: Hint = None
    timestamp: Second = None
    system: _IdentityNotice


class _NumberNotice(Element):
    new_wa_id: Alias


class _NumberChange(Element):
    from_: Alias = Field(alias="from")
    id: Hint = None
    timestamp: Second = None
    system: _NumberNotice


class _Stamp(Element):
    hash: Hash
    created_timestamp: Millisecond = None
    acknowledged: Truth = None


class _Message(Element):
    from_: Alias = Field(alias="from")
    timestamp: Second = None
    identity: _Stamp | None = None


class _BlockedStatus(Element):
    recipient_id: Alias
    id: Hint = None
    timestamp: Second = None


class _Check(Element):
    input: Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
    status: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,32}$")]
    wa_id: Alias | None = None


def read(content_type: str, content_encoding: str, body: bytes) -> Reading:
    """Read a callback: its events, and a fault for whatever can't be read."""
    try:
        callback = read_object(content_type, content_encoding, body)
    except UnreadableError as error:
        return Reading(faults=(Fault("", str(error)),))
    found = _Found()
    for key, reader in _READERS.items():
        _read_elements(key, callback.get(key), reader, found)
    return Reading(tuple(found.events), tuple(found.faults), found.others, found.more_faults)


@dataclass(slots=True)
class _Found:
    """What has been read of a body so far."""

    events: list[Event] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    others: int = 0
    more_faults: int = 0

    def add_fault(self, fault: Fault) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(fault)
        else:
            self.more_faults += 1


def _read_elements(key: str, elements: Any, reader: "Reader", found: _Found) -> None:
    if elements is None:
        return
    if not isinstance(elements, list):
        found.add_fault(Fault(key, "not an array"))
        return
    for index, element in enumerate(elements):
        try:
            events = _read_element(element, reader)
        except _NotReadableError as error:
            where = f"{key}[{index}]"
            found.add_fault(Fault(f"{where}.{error.path}" if error.path else where, str(error)))
            continue
        found.events.extend(events)
        found.others += not events


def _read_element(element: Any, reader: "Reader") -> list[Event]:
    """Give the element's events, all or none of them."""
    if not isinstance(element, dict):
        raise _NotReadableError("not an object")
    try:
        return reader(element)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise _NotReadableError(first["type"].replace("_", " "), path) from None


def _read_message(element: dict[str, Any]) -> list[Event]:
    if element.get("type") == "system" or "system" in element:
        return _read_system(element)
    if "from" not in element and element.get("identity") is None:
        return []
    message = _Message.model_validate(element)
    wrote = UserWrote(message.from_, message.timestamp)
    stamp = message.identity
    if stamp is None:
        return [wrote]
    changed = stamp.created_timestamp or message.timestamp
    seen = IdentitySeen(message.from_, stamp.hash, changed, message.timestamp, stamp.acknowledged)
    return [seen, wrote]


def _read_system(element: dict[str, Any]) -> list[Event]:
    system = element.get("system")
    if not isinstance(system, dict):
        raise _NotReadableError("a system message without its system object")
    match system.get("type"):
        case "user_identity_changed":
            return [_read_identity_changed(element)]
        case "user_changed_number":
            return [_read_number_changed(element)]
        case _:
            return []


def _read_identity_changed(element: dict[str, Any]) -> IdentitySeen:
    notice = _IdentityChanged.model_validate(element)
    user, sender = notice.system.user, notice.from_
    if user is not None and sender is not None and user != sender:
        raise _NotReadableError("system.user and from name different users")
    wa_id = user or sender
    if wa_id is None:
        raise _NotReadableError("no user is named")
    changed = _moment_in_id(notice.id, wa_id, b"identity") or notice.timestamp
    return IdentitySeen(wa_id, notice.system.identity, changed)


def _read_number_changed(element: dict[str, Any]) -> NumberChanged:
    change = _NumberChange.model_validate(element)
    if change.from_ == change.system.new_wa_id:
        raise _NotReadableError("the new number is the old one")
    at = _moment_in_id(change.id, change.from_, b"change") or change.timestamp
    return NumberChanged(change.from_, change.system.new_wa_id, at)


def _moment_in_id(message_id: str | None, wa_id: str, kind: bytes) -> Moment | None:
    """Read the millisecond out of Meta's self-describing message id; only a hint, never trusted.

    Decoded it holds `sys-<wa_id>@s.whatsapp.net-<ms>-<kind>`; what comes before is not looked at.
    """
    if message_id is None or len(message_id) > 1024:  # noqa: PLR2004  Meta's ids have about 90
        return None
    try:
        decoded = base64.b64decode(message_id + "=" * (-len(message_id) % 4), b"-_")
    except (binascii.Error, ValueError):
        return None
    _, _, told = decoded.partition(f"sys-{wa_id}@s.whatsapp.net-".encode())
    digits, _, what = told.partition(b"-")
    if not what.startswith(kind) or not digits.isdigit() or len(digits) > len(str(LATEST_MS)):
        return None
    at = int(digits)
    return Moment(at) if 0 < at <= LATEST_MS else None


def _read_status(element: dict[str, Any]) -> list[Event]:
    if element.get("status") != "failed" or not _has_code(element, SEND_BLOCKED_CODE):
        return []
    status = _BlockedStatus.model_validate(element)
    return [SendBlocked(status.recipient_id, status.timestamp, _bounded(status.id))]


def _has_code(element: dict[str, Any], code: int) -> bool:
    errors = element.get("errors")
    if not isinstance(errors, list):
        return False
    return any(isinstance(e, dict) and e.get("code") in (code, str(code)) for e in errors)


def _bounded(message_id: str | None) -> str | None:
    """Keep only ids that are fit to be kept."""
    if message_id is None or len(message_id) > 256:  # noqa: PLR2004  Meta's ids have about 30
        return None
    return message_id


def _read_contact(element: dict[str, Any]) -> list[Event]:
    """Tell a check's result from the sender card of a message, element by element."""
    if "status" not in element:
        return []
    check = _Check.model_validate(element)
    return [ContactChecked(check.input, check.status, check.wa_id)]


def _read_error(_: dict[str, Any]) -> list[Event]:
    return []


Reader = Callable[[dict[str, Any]], list[Event]]

_READERS: dict[str, Reader] = {
    "contacts": _read_contact,
    "messages": _read_message,
    "statuses": _read_status,
    "errors": _read_error,
}
