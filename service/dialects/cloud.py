"""The callbacks of the WhatsApp Cloud API: a placeholder until its own dialect is merged."""

from collections.abc import Mapping
from typing import Any

from service.dialects.bodies import UnreadableError, read_object
from service.model.events import Event, Fault, IdentitySeen, Reading, UserWrote


def read(
    content_type: str, content_encoding: str, body: bytes, accounts: Mapping[str, str]
) -> Mapping[str, Reading]:
    """Read a callback; what belongs to no account of ours comes under the empty name."""
    try:
        callback = read_object(content_type, content_encoding, body)
    except UnreadableError as error:
        return {"": Reading(faults=(Fault("", str(error)),))}
    found: dict[str, list[Event]] = {}
    faults: list[Fault] = []
    for entry in callback.get("entry", ()):
        for change in entry.get("changes", ()):
            value = change["value"]
            number = value["metadata"]["phone_number_id"]
            if number in accounts:
                found.setdefault(accounts[number], []).extend(_events(value))
            else:
                faults.append(Fault("entry", f"no account has the number {number}"))
    readings = {name: Reading(tuple(events)) for name, events in found.items()}
    return readings | ({"": Reading(faults=tuple(faults))} if faults else {})


def _events(value: dict[str, Any]) -> list[Event]:
    events: list[Event] = []
    hashes = {c.get("wa_id"): c.get("identity_key_hash") for c in value.get("contacts", ())}
    for message in value.get("messages", ()):
        if hash_ := hashes.get(message["from"]):
            events.append(IdentitySeen(message["from"], hash_, None))
        events.append(UserWrote(message["from"], None))
    return events
