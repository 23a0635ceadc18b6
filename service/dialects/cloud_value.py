"""One value of a webhook of the Cloud API: contacts, messages and statuses of one phone number."""

from typing import Any, NamedTuple, NoReturn

from service.dialects.cloud_users import (
    ContactEntry,
    UserRef,
    ValueContacts,
    alias_or_none,
    parent_or_none,
    read_user_ref,
    recipient_in_id,
    user_id_or_none,
    user_ref,
)
from service.dialects.common import (
    FieldError,
    Findings,
    has_code,
    identity_hash,
    json_object,
    message_id,
    millisecond,
    second,
)
from service.model.events import (
    Event,
    HashRefused,
    HashUnreadable,
    IdentitySeen,
    MessageSent,
    NumberChanged,
    UserWrote,
)
from service.model.timeline import Moment

HASH_REFUSED_CODE = 137_000
MIN_CREATED_MS = 10**11
"""As milliseconds the year 1973: what is less can only be meant as seconds."""

_RECIPIENT = ("recipient_user_id", "recipient_id", "recipient_parent_user_id")
_PARTICIPANT = (
    "recipient_participant_user_id",
    "recipient_participant_id",
    "recipient_participant_parent_user_id",
)


class Place(NamedTuple):
    """Where in the webhook a value is; written out only where a fault names it."""

    entry: int
    change: int
    within: str = ""

    def __str__(self) -> str:
        """Write the path, up to the key that follows."""
        return f"entry[{self.entry}].changes[{self.change}].value.{self.within}"


class Value:
    """The value of one change: what one webhook says about one phone number."""

    def __init__(self, found: Findings, where: Place) -> None:
        self._found = found
        self._where = where
        self._contacts = ValueContacts()

    def read(self, value: dict[str, Any]) -> None:
        """Read the contacts first, for messages and statuses are completed by them."""
        found, where = self._found, self._where
        contacts, messages = value.get("contacts"), value.get("messages")
        statuses, errors = value.get("statuses"), value.get("errors")
        if contacts is not None:
            found.read_elements("contacts", contacts, self._read_contact, where)
        if messages is not None:
            found.read_elements("messages", messages, self._read_message, where)
            found.events += self._contacts.remaining_sightings()
        if statuses is not None:
            found.read_elements("statuses", statuses, self._read_status, where)
            found.events += self._contacts.remaining_sightings()
        if errors is not None:
            found.read_elements("errors", errors, _read_error, where)
        if contacts is None and messages is None and statuses is None and errors is None:
            found.others += 1
        unused = self._contacts.unused_entries()
        if unused:
            # Echoes are of messages of the business, and say nothing of a user but the time.
            at = _earliest(messages, statuses, value.get("message_echoes"))
            events, nameless = self._contacts.events_of_unused(unused, at)
            found.events += events
            for _ in range(nameless):
                found.add_fault(f"{where}contacts", "no user is named")

    def _read_contact(self, element: dict[str, Any]) -> list[Event] | None:
        user = read_user_ref(element, "user_id", "wa_id", "parent_user_id")
        is_named = user.strongest is not None or user.parent is not None
        try:
            hash_ = _hash_or_none(element, "identity_key_hash")
        except FieldError:
            if is_named:
                self._contacts.add(ContactEntry(user, None, unreadable=True))
            raise
        if not is_named:
            return [] if hash_ is None else _nobody()
        self._contacts.add(ContactEntry(user, hash_))
        return None if hash_ is not None or user.user_id is not None else []

    def _read_message(self, element: dict[str, Any]) -> list[Event]:
        at = second(element.get("timestamp"))
        sender = read_user_ref(element, "from_user_id", "from", "from_parent_user_id")
        if element.get("type") == "system" or element.get("system") is not None:
            return self._read_system(element, sender, at)
        stamp, fault = _stamp_or_fault(element, at)
        entries = self._contacts.entries_of(sender)
        if entries:
            sender = self._contacts.resolve_aliases(sender, entries)
        user = sender.strongest
        if user is None:
            if fault is not None:
                raise fault
            return [] if stamp is None else _nobody()
        id_ = message_id(element)
        events = self._contacts.alias_events(sender, at)
        events += self._contacts.hash_events(sender, entries, at, id_)
        if stamp is not None:
            events.append(IdentitySeen(user, *stamp, at))
        events.append(UserWrote(user, at))
        if fault is not None:
            raise fault.beside(*events, HashUnreadable(user, at, id_))
        return events

    def _read_system(
        self, element: dict[str, Any], sender: UserRef, at: Moment | None
    ) -> list[Event]:
        """Follow the page on system messages, and its older spellings."""
        stamped = bool(element.get("identity"))
        system = element.get("system") or ({} if stamped else None)
        if not isinstance(system, dict):
            raise FieldError("", "a system message without its system object")
        for entry in self._contacts.entries_of(sender):
            entry.at = at
        match system.get("type"):
            case "user_changed_number" | "customer_changed_number" | "user_changed_user_id":
                return self._read_changed(system, sender, at)
            case "user_identity_changed" | "customer_identity_changed":
                return self._read_identity(element, system, sender, at)
            case _ if stamped:
                return self._read_identity(element, system, sender, at)
            case _:
                return []

    def _read_changed(
        self, system: dict[str, Any], sender: UserRef, at: Moment | None
    ) -> list[Event]:
        """Read that a user has another number or user id; `from` is the old one, or stayed."""
        new = user_ref(
            _system_user_id(system, "user_id"),
            _system_alias(system, "wa_id") or _system_alias(system, "new_wa_id"),
            parent_or_none(system.get("parent_user_id")),
        )
        before = user_ref(
            _system_user_id(system, "previous_user_id"), _system_alias(system, "customer")
        )
        old = user_ref(
            _other_than(new.user_id, before.user_id, sender.user_id),
            _other_than(new.wa_id, before.wa_id, sender.wa_id),
            parent_or_none(system.get("previous_parent_user_id")),
        )
        user, new_user = old.strongest, new.strongest
        if new_user is None:
            raise FieldError("system", "no new number and no new user id")
        if user is None:
            return self._read_only_new(new, sender, at)
        return [
            *self._contacts.alias_events(old, at),
            *self._contacts.alias_events(new, at),
            NumberChanged(user, new_user, at),
        ]

    def _read_only_new(self, new: UserRef, sender: UserRef, at: Moment | None) -> list[Event]:
        """Read a change that names nobody before it: all it can say is what belongs together."""
        if new.user_id is not None and new.wa_id is not None:
            return self._contacts.alias_events(new, at)
        if sender.strongest is None:
            raise FieldError("from", "missing")
        raise FieldError("", "the new number is the old one")

    def _read_identity(
        self,
        element: dict[str, Any],
        system: dict[str, Any],
        sender: UserRef,
        at: Moment | None,
    ) -> list[Event]:
        """Read the notification that older pages have; the newest know only hashes in contacts."""
        named = _agreed(
            sender,
            user_ref(_system_user_id(system, "user_id"), _system_alias(system, "user")),
            user_ref(None, _system_alias(system, "customer")),
        )
        user = named.strongest or _nobody()
        beside = element.get("identity") and not system.get("identity")
        try:
            hash_, created = _stamp(element, "", at) if beside else _stamp(system, "system.", at)
        except FieldError as error:
            named_events = self._contacts.alias_events(named, at, creates=False)
            unreadable = HashUnreadable(user, at, message_id(element))
            raise error.beside(*named_events, unreadable) from None
        return [*self._contacts.alias_events(named, at), IdentitySeen(user, hash_, created, at)]

    def _read_status(self, element: dict[str, Any]) -> list[Event]:
        status, id_ = element.get("status"), message_id(element)
        user_id, wa_id, parent = _PARTICIPANT if _to_group(element) else _RECIPIENT
        self._found.count_message(status, element.get(wa_id) or element.get(user_id) or None)
        at = second(element.get("timestamp"))
        user = read_user_ref(element, user_id, wa_id, parent)
        hash_, fault = _hash_or_fault(element, "recipient_identity_key_hash")
        entries = self._contacts.entries_of(user)
        if entries:
            user = self._contacts.resolve_aliases(user, entries)
        refused = status == "failed" and has_code(element, HASH_REFUSED_CODE)
        if user.strongest is None and (refused or hash_ is not None or fault is not None):
            user = user_ref(None, _recipient_in_id(element), user.parent)
        event: Event | None
        if refused:
            # The hash that the user has now may be named; the message id may lead to the user.
            name = user.strongest or (None if id_ else _nobody())
            event = HashRefused(name, at, id_ or None, hash_)
        elif hash_ is not None:
            event = IdentitySeen(user.strongest or _nobody(), hash_, at, at)
        else:
            event = _sending(status, element, user, at)
        # A status alone is no reason to keep a user: without a hash it only links known aliases.
        events = self._contacts.alias_events(user, at, creates=isinstance(event, IdentitySeen))
        events += self._contacts.hash_events(user, entries, at, id_)
        if event is not None:
            events.append(event)
        if fault is not None:
            if user.strongest is not None:
                # A refusal keeps its message id to itself: else one of the two would be a repeat.
                events.append(HashUnreadable(user.strongest, at, None if refused else id_))
            raise fault.beside(*events)
        return events


def _sending(
    status: Any, element: dict[str, Any], user: UserRef, at: Moment | None
) -> MessageSent | None:
    """Return for whom a message is, for a later 137000 that names nobody.

    That is no news where the message id says so itself.
    """
    name, id_ = user.strongest, message_id(element)
    if name is None or not id_ or status not in ("sent", "delivered") or _to_group(element):
        return None
    recipient = recipient_in_id(id_)
    return MessageSent(name, id_, at) if recipient is None or recipient not in user[:2] else None


def _earliest(*parts: Any) -> Moment | None:
    """Return the earliest time in messages and statuses: no hash beside them is surely newer."""
    times = (
        second(element.get("timestamp"))
        for elements in parts
        if isinstance(elements, list)
        for element in elements
        if isinstance(element, dict)
    )
    return min(filter(None, times), default=None)


def _read_error(_: dict[str, Any]) -> list[Event]:
    return []


def _nobody() -> NoReturn:
    raise FieldError("", "no user is named")


def _to_group(element: dict[str, Any]) -> bool:
    """Return whether a status is of a message to a group: its `recipient_id` is the group's."""
    return element.get("recipient_type") == "group"


def _recipient_in_id(element: dict[str, Any]) -> str | None:
    """Return the recipient by the message id, where nothing else says who it is."""
    id_ = message_id(element)
    return recipient_in_id(id_) if id_ and not _to_group(element) else None


def _system_user_id(system: dict[str, Any], key: str) -> str | None:
    return user_id_or_none(system.get(key), f"system.{key}")


def _system_alias(system: dict[str, Any], key: str) -> str | None:
    return alias_or_none(system.get(key), f"system.{key}")


def _hash_or_none(holder: dict[str, Any], key: str) -> str | None:
    value = holder.get(key)
    return None if value is None or value == "" else identity_hash(holder, key, key)


def _hash_or_fault(holder: dict[str, Any], key: str) -> tuple[str | None, FieldError | None]:
    try:
        return _hash_or_none(holder, key), None
    except FieldError as fault:
        return None, fault


def _stamp_or_fault(
    message: dict[str, Any], at: Moment | None
) -> tuple[tuple[str, Moment | None] | None, FieldError | None]:
    try:
        return (_stamp(message, "", at) if message.get("identity") else None), None
    except FieldError as fault:
        return None, fault


def _stamp(holder: dict[str, Any], where: str, at: Moment | None) -> tuple[str, Moment | None]:
    """Read the hash that a message or a system message has, and since when it holds.

    `identity` is the hash, or on older pages an object with the hash and `created_timestamp`.
    """
    if isinstance(holder.get("identity"), str):
        return identity_hash(holder, "identity", f"{where}identity"), at
    stamp = json_object(holder, "identity", f"{where}identity")
    hash_ = identity_hash(stamp, "hash", f"{where}identity.hash")
    return hash_, _created(stamp.get("created_timestamp")) or at


def _created(value: Any) -> Moment | None:
    created = millisecond(value)
    return second(value) if created is not None and created.at < MIN_CREATED_MS else created


def _other_than(new: str | None, *candidates: str | None) -> str | None:
    return next((alias for alias in candidates if alias not in {None, new}), None)


def _agreed(*named: UserRef) -> UserRef:
    """Return the one user whom all of these name."""
    user_ids = {one.user_id for one in named} - {None}
    wa_ids = {one.wa_id for one in named} - {None}
    if len(user_ids) > 1 or len(wa_ids) > 1:
        raise FieldError("", "system and from name different users")
    return UserRef(next(iter(user_ids), None), next(iter(wa_ids), None), named[0].parent)
