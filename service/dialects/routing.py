"""What a relay needs to know of a callback: its kinds, whose it is, and whom it concerns.

That is read for each callback that is passed on, after it was answered. Nothing here decides
anything about a user, so what can't be read is left out, and the callback is of the kind `other`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from service.dialects.cloud import FIELDS, OBJECT
from service.dialects.common import UnreadableError, read_object

KINDS = ("messages", "statuses", "contacts", "identities", "errors", "other")
OTHER = "other"

_IDENTITY_TYPES = {"user_identity_changed", "customer_identity_changed"}
_NAMES = {
    "messages": ("from", "from_user_id", "from_parent_user_id"),
    "message_echoes": ("to", "to_user_id", "to_parent_user_id"),
    "statuses": ("recipient_id", "recipient_user_id", "recipient_parent_user_id"),
    "contacts": ("wa_id", "user_id", "parent_user_id", "input"),
}
"""Where an element says whom it is about; all of these are names of one user."""
_SYSTEM_NAMES = ("user", "customer", "wa_id", "new_wa_id", "user_id", "previous_user_id")
_SENDERS = "senders"
"""What an element of `contacts` is that comes with a message: its sender, and no check result."""


@dataclass(frozen=True, slots=True)
class Routing:
    """The kinds of a callback, the accounts concerned, and the names of the users.

    `is_of_one` is whether all the names are of a single user, as far as the callback tells.
    """

    kinds: frozenset[str] = frozenset({OTHER})
    accounts: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    is_of_one: bool = True


def route_onprem(account: str, content_type: str, encoding: str, body: bytes) -> Routing:
    """Read a callback of the On-Premises API."""
    try:
        callback = read_object(content_type, encoding, body)
    except UnreadableError:
        return Routing(accounts=(account,))
    return _routing(_elements(callback, f"{account}/"), (account,))


def route_cloud(
    accounts: Mapping[str, str], content_type: str, encoding: str, body: bytes
) -> Routing:
    """Read a webhook of the Cloud API; `accounts` has the account of each `phone_number_id`."""
    try:
        webhook = read_object(content_type, encoding, body)
    except UnreadableError:
        return Routing()
    found: list[tuple[str, frozenset[str]]] = []
    concerned: dict[str, None] = {}
    for field, value in _values(webhook):
        metadata = value.get("metadata")
        number = metadata.get("phone_number_id") if isinstance(metadata, dict) else None
        account = accounts.get(str(number))
        if account is not None:
            concerned[account] = None
        if webhook.get("object") == OBJECT and (not field or field in FIELDS):
            standby = value.get("standby")
            for part in (value, standby if isinstance(standby, dict) else {}):
                found += _elements(part, f"{account or ''}/")
        else:
            found.append((OTHER, frozenset()))
    return _routing(found, tuple(concerned))


def _values(webhook: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    for entry in _objects(webhook.get("entry")):
        for change in _objects(entry.get("changes")):
            value = change.get("value")
            yield change.get("field"), value if isinstance(value, dict) else {}


def _objects(elements: Any) -> Iterator[dict[str, Any]]:
    if isinstance(elements, list):
        yield from (element for element in elements if isinstance(element, dict))


def _elements(holder: dict[str, Any], prefix: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the kind of each element, and the names of its user, told apart by a prefix."""
    for key, names in _NAMES.items():
        for element in _objects(holder.get(key)):
            kind, said = key, [element.get(name) for name in names]
            system = element.get("system")
            if key == "messages" and isinstance(system, dict):
                said += [system.get(name) for name in _SYSTEM_NAMES]
                if system.get("type") in _IDENTITY_TYPES:
                    kind = "identities"
            elif key == "contacts" and not ("status" in element or "input" in element):
                kind = _SENDERS
            elif key == "message_echoes":
                kind = OTHER
            found = (f"{prefix}{name}" for name in said if isinstance(name, str | int) and name)
            yield kind, frozenset(found)
    for _ in _objects(holder.get("errors")):
        yield "errors", frozenset()


def _routing(elements: Iterable[tuple[str, frozenset[str]]], accounts: tuple[str, ...]) -> Routing:
    kinds: set[str] = set()
    named: dict[str, list[frozenset[str]]] = {}
    for kind, names in elements:
        if kind != _SENDERS:
            kinds.add(kind)
        for name in names:
            named.setdefault(name, []).append(names)
    all_names = frozenset(named)
    is_of_one = _of_the_first(named) == all_names
    return Routing(frozenset(kinds or {OTHER}), accounts, all_names, is_of_one)


def _of_the_first(named: Mapping[str, Sequence[frozenset[str]]]) -> set[str]:
    """Return all names of the user whose name comes first: those that come together are of one.

    `named` has, for each name, the names that it came together with.
    """
    found = set(islice(named, 1))
    unseen = [*found]
    while unseen:
        more = frozenset().union(*named[unseen.pop()]) - found
        found |= more
        unseen += more
    return found
