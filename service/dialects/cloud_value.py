"""One value of a webhook of the Cloud API: contacts, messages and statuses of one phone number."""

from typing import Any, NamedTuple, NoReturn

from service.dialects import wamid
from service.dialects.fields import (
    MAX_ID_CHARACTERS,
    FieldError,
    has_code,
    identity_hash,
    message_id,
    millisecond,
    second,
    table,
)
from service.dialects.findings import Findings, read_elements
from service.dialects.naming import (
    Naming,
    Who,
    alias_or_none,
    called,
    parent_or_none,
    read_who,
    user_id_or_none,
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
from service.model.moments import Moment

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
    """The value of one change: what an account is told at once."""

    __slots__ = ("_found", "_naming", "_where")

    def __init__(self, found: Findings, where: Place) -> None:
        self._found = found
        self._where = where
        self._naming = Naming()

    def read(self, value: dict[str, Any]) -> None:
        """Read the contacts first, for messages and statuses are completed by them."""
        found, where = self._found, self._where
        contacts, messages = value.get("contacts"), value.get("messages")
        statuses, errors = value.get("statuses"), value.get("errors")
        if contacts is not None:
            read_elements("contacts", contacts, self._read_contact, found, where)
        if messages is not None:
            read_elements("messages", messages, self._read_message, found, where)
            found.events += self._naming.tell_ends()
        if statuses is not None:
            read_elements("statuses", statuses, self._read_status, found, where)
            found.events += self._naming.tell_ends()
        if errors is not None:
            read_elements("errors", errors, _read_error, found, where)
        if contacts is None and messages is None and statuses is None and errors is None:
            found.others += 1
        if contacts is not None:
            # Echoes are of messages of the business, and tell nothing of a user but the time.
            self._read_untold(messages, statuses, value.get("message_echoes"))

    def _read_untold(self, *parts: Any) -> None:
        cards = self._naming.untold()
        if not cards:
            return
        events, of_nobody = self._naming.tell_untold(cards, _earliest(*parts))
        self._found.events += events
        for _ in range(of_nobody):
            self._found.add_fault(f"{self._where}contacts", "no user is named")

    def _read_contact(self, element: dict[str, Any]) -> list[Event] | None:
        named = read_who(element, "user_id", "wa_id", "parent_user_id")
        try:
            hash_ = _hash_or_none(element, "identity_key_hash")
        except FieldError:
            if named.strongest is not None or named.parent is not None:
                self._naming.add(named, None, unreadable=True)
            raise
        if named.strongest is None and named.parent is None:
            return [] if hash_ is None else _nobody()
        self._naming.add(named, hash_)
        return None if hash_ is not None or named.user_id is not None else []

    def _read_message(self, element: dict[str, Any]) -> list[Event]:
        at = second(element.get("timestamp"))
        sender = read_who(element, "from_user_id", "from", "from_parent_user_id")
        if element.get("type") == "system" or element.get("system") is not None:
            return self._read_system(element, sender, at)
        stamp, fault = _stamp_or_fault(element, at)
        cards = self._naming.cards_of(sender)
        if cards:
            sender = self._naming.meet(sender, cards)
        user = sender.strongest
        if user is None:
            if fault is not None:
                raise fault
            return [] if stamp is None else _nobody()
        id_ = message_id(element)
        events = self._naming.name(sender, at)
        events += self._naming.tell(sender, cards, at, id_)
        if stamp is not None:
            events.append(IdentitySeen(user, *stamp, at))
        events.append(UserWrote(user, at))
        if fault is not None:
            raise fault.beside(*events, HashUnreadable(user, at, id_))
        return events

    def _read_system(self, element: dict[str, Any], sender: Who, at: Moment | None) -> list[Event]:
        """Follow the page on system messages, and its older spellings."""
        stamped = bool(element.get("identity"))
        system = element.get("system") or ({} if stamped else None)
        if not isinstance(system, dict):
            raise FieldError("", "a system message without its system object")
        for card in self._naming.cards_of(sender):
            card.at = at
        match system.get("type"):
            case "user_changed_number" | "customer_changed_number" | "user_changed_user_id":
                return self._read_changed(system, sender, at)
            case "user_identity_changed" | "customer_identity_changed":
                return self._read_identity(element, system, sender, at)
            case _ if stamped:
                return self._read_identity(element, system, sender, at)
            case _:
                return []

    def _read_changed(self, system: dict[str, Any], sender: Who, at: Moment | None) -> list[Event]:
        """Read that a user has another number or user id; `from` is the old one, or stayed."""
        new = called(
            _system_user_id(system, "user_id"),
            _system_alias(system, "wa_id") or _system_alias(system, "new_wa_id"),
            parent_or_none(system.get("parent_user_id")),
        )
        before = called(
            _system_user_id(system, "previous_user_id"), _system_alias(system, "customer")
        )
        old = called(
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
            *self._naming.name(old, at),
            *self._naming.name(new, at),
            NumberChanged(user, new_user, at),
        ]

    def _read_only_new(self, new: Who, sender: Who, at: Moment | None) -> list[Event]:
        """Read a change that names nobody before it: all it can say is what belongs together."""
        if new.user_id is not None and new.wa_id is not None:
            return self._naming.name(new, at)
        if sender.strongest is None:
            raise FieldError("from", "missing")
        raise FieldError("", "the new number is the old one")

    def _read_identity(
        self,
        element: dict[str, Any],
        system: dict[str, Any],
        sender: Who,
        at: Moment | None,
    ) -> list[Event]:
        """Read the notification that older pages have; the newest know only hashes in contacts."""
        named = _agreed(
            sender,
            called(_system_user_id(system, "user_id"), _system_alias(system, "user")),
            called(None, _system_alias(system, "customer")),
        )
        user = named.strongest or _nobody()
        beside = element.get("identity") and not system.get("identity")
        try:
            hash_, created = _stamp(element, "", at) if beside else _stamp(system, "system.", at)
        except FieldError as error:
            named_events = self._naming.name(named, at, creates=False)
            unreadable = HashUnreadable(user, at, message_id(element))
            raise error.beside(*named_events, unreadable) from None
        return [*self._naming.name(named, at), IdentitySeen(user, hash_, created, at)]

    def _read_status(self, element: dict[str, Any]) -> list[Event]:
        status = element.get("status")
        user_id, wa_id, parent = _PARTICIPANT if _to_group(element) else _RECIPIENT
        if status in ("sent", "delivered"):
            recipient = element.get(wa_id) or element.get(user_id)
            _count(recipient, self._found.sent if status == "sent" else self._found.delivered)
        at = second(element.get("timestamp"))
        named = read_who(element, user_id, wa_id, parent)
        hash_, fault = _hash_or_fault(element, "recipient_identity_key_hash")
        cards = self._naming.cards_of(named)
        if cards:
            named = self._naming.meet(named, cards)
        refused = status == "failed" and has_code(element, HASH_REFUSED_CODE)
        if named.strongest is None and (refused or hash_ is not None or fault is not None):
            named = called(None, _in_id(element), named.parent)
        told: Event | None
        if refused:
            told = _refusal(element, named, at, hash_)
        elif hash_ is not None:
            told = IdentitySeen(named.strongest or _nobody(), hash_, at, at)
        else:
            told = _sending(status, element, named, at)
        id_ = message_id(element)
        events = self._naming.name(named, at, creates=isinstance(told, IdentitySeen))
        events += self._naming.tell(named, cards, at, id_)
        if told is not None:
            events.append(told)
        if fault is not None:
            raise fault.beside(*events, *_unreadable(named, at, None if refused else id_))
        return events


def _unreadable(named: Who, at: Moment | None, id_: str | None) -> list[Event]:
    """Tell a hash that can't be read, where its user can; a refusal keeps its message id."""
    user = named.strongest
    return [] if user is None else [HashUnreadable(user, at, id_)]


def _refusal(
    element: dict[str, Any], named: Who, at: Moment | None, hash_: str | None
) -> HashRefused:
    """Read a 137000, which may say the new hash; the message id may lead to the user."""
    id_ = message_id(element) or None
    return HashRefused(named.strongest or (_nobody() if id_ is None else None), at, id_, hash_)


def _sending(
    status: Any, element: dict[str, Any], named: Who, at: Moment | None
) -> MessageSent | None:
    """Tell for whom a message is, for a later 137000 that names nobody."""
    user = named.strongest
    if user is None or status not in ("sent", "delivered") or _to_group(element):
        return None
    id_ = message_id(element)
    if not id_:
        return None
    told = wamid.recipient(id_)
    return MessageSent(user, id_, at) if told is None or told not in named[:2] else None


def _count(recipient: Any, counted: list[str]) -> None:
    """Note to whom a message was sent or delivered: no event, it changes nothing by itself.

    Whether a recipient can be a user is looked at when it is written, not in every status.
    """
    if recipient and isinstance(recipient, str) and len(recipient) <= MAX_ID_CHARACTERS:
        counted.append(recipient)


def _earliest(*parts: Any) -> Moment | None:
    """Give the earliest time in messages and statuses: no hash beside them is surely newer."""
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
    """Tell a status of a message to a group, whose `recipient_id` is the group's."""
    return element.get("recipient_type") == "group"


def _in_id(element: dict[str, Any]) -> str | None:
    """Give the recipient that the message id tells, where nothing else does."""
    id_ = message_id(element)
    return wamid.recipient(id_) if id_ and not _to_group(element) else None


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
    """Read the hash that a message or a system message tells of, and since when it holds.

    `identity` is the hash, or on older pages an object with the hash and `created_timestamp`.
    """
    if isinstance(holder.get("identity"), str):
        return identity_hash(holder, "identity", f"{where}identity"), at
    stamp = table(holder, "identity", f"{where}identity")
    hash_ = identity_hash(stamp, "hash", f"{where}identity.hash")
    return hash_, _created(stamp.get("created_timestamp")) or at


def _created(value: Any) -> Moment | None:
    created = millisecond(value)
    return second(value) if created is not None and created.at < MIN_CREATED_MS else created


def _other_than(new: str | None, *candidates: str | None) -> str | None:
    return next((alias for alias in candidates if alias not in {None, new}), None)


def _agreed(*named: Who) -> Who:
    """Give the one user of whom all of these speak."""
    user_ids = {one.user_id for one in named} - {None}
    wa_ids = {one.wa_id for one in named} - {None}
    if len(user_ids) > 1 or len(wa_ids) > 1:
        raise FieldError("", "system and from name different users")
    return Who(next(iter(user_ids), None), next(iter(wa_ids), None), named[0].parent)
