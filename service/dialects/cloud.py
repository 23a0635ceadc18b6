"""The webhooks of the WhatsApp Cloud API.

One POST may speak of several phone numbers: `entry[].changes[].value`, where each value names its
own. Every element of a value is read for itself: one that can't be read is a fault, its neighbours
count. Other fields, unknown types and keys are normal.

https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages
"""

from collections.abc import Mapping
from typing import Any

from service.dialects.cloud_value import Place, Value
from service.dialects.common import SYNTHETIC, Findings, UnreadableError, read_object
from service.model.events import Fault, Reading

OBJECT = "whatsapp_business_account"
FIELDS = ("messages", "standby")
"""What is read. The second is about conversations that another app has, such as Meta's own agent;
its content stands under `value.standby`, in the same form.
"""
CONTENTS = ("contacts", "messages", "statuses", "errors")
SAMPLE_ENTRY, SAMPLE_NUMBER = "0", "123456123"
"""What the samples name that are sent from the app's dashboard."""
NO_ACCOUNT = ""
"""The key of what belongs to no account."""
MAX_NUMBER_ID_DIGITS = 32


def read(
    content_type: str, content_encoding: str, body: bytes, accounts: Mapping[str, str]
) -> Mapping[str, Reading]:
    """Read a webhook: what it says for each account concerned, by the account's name.

    `accounts` has the account's name for each `phone_number_id`. What belongs to none of them
    stands under `NO_ACCOUNT`. There is always at least one reading.
    """
    try:
        webhook = read_object(content_type, content_encoding, body)
    except UnreadableError as error:
        return {NO_ACCOUNT: Reading(faults=(Fault("", str(error)),))}
    if SYNTHETIC in webhook and len(webhook) == 1:
        return {NO_ACCOUNT: Reading(synthetic=True)}
    post = _Post(accounts)
    post.read(webhook)
    readings = {name: found.reading() for name, found in post.found.items()}
    return readings or {NO_ACCOUNT: Reading()}


class _Post:
    """One POST: what has been read of it so far, for each account concerned."""

    def __init__(self, accounts: Mapping[str, str]) -> None:
        self._accounts = accounts
        self._unknown_numbers: set[str] = set()
        self.found: dict[str, Findings] = {}

    def read(self, webhook: dict[str, Any]) -> None:
        """Read all changes; webhooks of other objects than WhatsApp's are ignored."""
        object_ = webhook.get("object")
        if object_ != OBJECT and object_ and isinstance(object_, str):
            self._of(NO_ACCOUNT).others += 1
            return
        entries = webhook.get("entry")
        if not isinstance(entries, list):
            self._refuse("entry", "missing" if entries is None else "not an array")
            return
        for number, entry in enumerate(entries):
            if isinstance(entry, dict):
                self._read_entry(number, entry)
            else:
                self._refuse(f"entry[{number}]", "not an object")

    def _read_entry(self, number: int, entry: dict[str, Any]) -> None:
        changes = entry.get("changes")
        if changes is None:
            self._of(NO_ACCOUNT).others += 1
            return
        if not isinstance(changes, list):
            self._refuse(f"entry[{number}].changes", "not an array")
            return
        is_sample = entry.get("id") == SAMPLE_ENTRY
        for index, change in enumerate(changes):
            if isinstance(change, dict):
                self._read_change(Place(number, index), change, is_sample=is_sample)
            else:
                self._refuse(f"entry[{number}].changes[{index}]", "not an object")

    def _refuse(self, where: str, reason: str) -> None:
        """Note a fault of the envelope, which belongs to no account."""
        self._of(NO_ACCOUNT).add_fault(where, reason)

    def _read_change(self, place: Place, change: dict[str, Any], *, is_sample: bool) -> None:
        value, field = change.get("value"), change.get("field")
        if not _is_ours(field, value):
            account = self._accounts.get(number_id_of(value) or "")
            self._of(account or NO_ACCOUNT).others += 1
            return
        if not isinstance(value, dict):
            reason = "missing" if value is None else "not an object"
            self._refuse(str(place).removesuffix("."), reason)
            return
        number, standby = number_id_of(value), value.get("standby")
        if standby is None:
            self._read_value(place, value, number, is_sample=is_sample)
            return
        if any(key in value for key in CONTENTS):
            self._read_value(place, value, number, is_sample=is_sample)
        if isinstance(standby, dict):
            within, number = place._replace(within="standby."), number_id_of(standby) or number
            self._read_value(within, standby, number, is_sample=is_sample)
        else:
            self._refuse(f"{place}standby", "not an object")

    def _read_value(
        self, place: Place, value: dict[str, Any], number: str | None, *, is_sample: bool
    ) -> None:
        account = self._accounts.get(number) if number is not None else None
        if account is not None:
            Value(self._of(account), place).read(value)
        elif number is None:
            self._refuse(f"{place}metadata.phone_number_id", "missing")
        elif is_sample and number == SAMPLE_NUMBER:
            self._of(NO_ACCOUNT).others += 1
        elif number not in self._unknown_numbers:
            self._unknown_numbers.add(number)
            self._refuse("", f"no account has {_number_in_words(number)}")

    def _of(self, account: str) -> Findings:
        return self.found.setdefault(account, Findings())


def _is_ours(field: Any, value: Any) -> bool:
    """Return whether a change is read; a missing field is known by what its value holds."""
    if field is None or field == "":
        keys = ("messages", "statuses", "standby")
        return isinstance(value, dict) and any(key in value for key in keys)
    return field in FIELDS


def number_id_of(value: Any) -> str | None:
    """Return the `phone_number_id` that the value of a change names; None where it names none."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    number = metadata.get("phone_number_id") if isinstance(metadata, dict) else None
    if type(number) is int:
        return str(number)
    return number if isinstance(number, str) and number else None


def _number_in_words(number: str) -> str:
    if len(number) <= MAX_NUMBER_ID_DIGITS and number.isascii() and number.isdigit():
        return f"the number {number}"
    return "this number"
