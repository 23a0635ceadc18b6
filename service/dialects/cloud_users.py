"""Whom the elements of one value of the Cloud API are about.

A value names a user in more than one place: in `contacts[]`, where the hash is, and in the message
or status beside it, where the time is. Either may lack one of the aliases that the other has.
"""

import binascii
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from service.dialects.common import FieldError, as_alias
from service.model.events import AliasesSeen, Event, HashUnreadable, IdentitySeen
from service.model.timeline import Moment
from service.model.users import is_user_id

MAX_ENTRIES = 4
"""Contacts found by one alias; those beyond are read as if nobody of that name had written."""
MAX_HASHES = 2
"""Hashes that contacts of one value may have of one user: two are a dispute already."""


class UserRef(NamedTuple):
    """All that an element calls a user."""

    user_id: str | None
    wa_id: str | None
    parent: str | None = None

    @property
    def strongest(self) -> str | None:
        """The alias by which events name the user; a parent id is none."""
        return self.user_id or self.wa_id


def user_ref(user_id: str | None, wa_id: str | None, parent: str | None = None) -> UserRef:
    """Return the aliases in their places, for a user id may stand in the place of a wa_id."""
    if wa_id is not None and is_user_id(wa_id):
        return UserRef(user_id or wa_id, None, parent)
    return UserRef(user_id, wa_id, parent)


def read_user_ref(holder: Mapping[str, Any], user_id: str, wa_id: str, parent: str) -> UserRef:
    """Read what an element calls its user, by the keys under which it does."""
    return user_ref(
        user_id_or_none(holder.get(user_id), user_id),
        alias_or_none(holder.get(wa_id), wa_id),
        parent_or_none(holder.get(parent)),
    )


def user_id_or_none(value: Any, path: str) -> str | None:
    """Read a user id: empty is missing. Of another form it could be taken for a wa_id."""
    if not value:
        return None
    if not isinstance(value, str) or not is_user_id(value):
        raise FieldError(path, "not of the form of a user id")
    return value


def alias_or_none(value: Any, path: str) -> str | None:
    """Read what names a user: empty is missing, and a plus before a number is dropped."""
    if not value:
        return None
    return as_alias(value.removeprefix("+") if isinstance(value, str) else value, path)


def parent_or_none(value: Any) -> str | None:
    """Read a parent id where it has the form of a user id; one that has not is no fault."""
    return value if isinstance(value, str) and is_user_id(value) else None


class ContactEntry:
    """An element of `contacts`: whom it names, and the identity hash that it has of that user."""

    def __init__(self, user: UserRef, hash_: str | None, *, unreadable: bool = False) -> None:
        self.user = user
        self.hash = hash_
        self.unreadable = unreadable
        """Whether it has a hash that can't be read; then `hash` is None."""
        self.used = False
        """Whether a message or status of this user has been read."""
        self.at: Moment | None = None
        """When, by a system message, for want of any other."""

    def repeats(self, other: "ContactEntry") -> bool:
        """Return whether both say the same."""
        mine = self.user, self.hash, self.unreadable
        return mine == (other.user, other.hash, other.unreadable)


class _Span:
    """From when to when messages and statuses are about a hash, and which ends became events."""

    def __init__(self, first: Moment) -> None:
        self.begin = self.end = first
        self.reported = {first}

    def include(self, at: Moment) -> None:
        """Reach to this time too."""
        self.begin, self.end = min(self.begin, at), max(self.end, at)

    def report_ends(self) -> list[Moment]:
        """Return the ends that did not become events yet; they do now."""
        ends = [at for at in (self.begin, self.end) if at not in self.reported]
        self.reported.update(ends)
        return ends


class ValueContacts:
    """The contacts of one value, and what of them became events already.

    A value may hold a thousand messages of one user: aliases become an event once, and a hash at
    most at its first message and at the ends of the span in which messages came.
    """

    def __init__(self) -> None:
        self._entries: list[ContactEntry] = []
        self._by_alias: dict[str, list[ContactEntry]] = {}
        self._hashes: dict[str | None, set[str]] = {}
        self._named: dict[UserRef, bool] = {}
        self._spans: dict[tuple[str, str], _Span] = {}
        self._without_time: set[tuple[str, str]] = set()

    def add(self, entry: ContactEntry) -> None:
        """Add a contact, unless it repeats another; a third hash of its user is a fault."""
        user = entry.user.strongest or entry.user.parent
        same = self._by_alias.get(user or "")
        if same and any(entry.repeats(other) for other in same):
            return
        if entry.hash is not None:
            known = self._hashes.setdefault(user, set())
            if entry.hash not in known and len(known) >= MAX_HASHES:
                raise FieldError("identity_key_hash", "more than two hashes of one user")
            known.add(entry.hash)
        self._entries.append(entry)
        for alias in filter(None, entry.user):
            found = self._by_alias.setdefault(alias, [])
            if len(found) < MAX_ENTRIES:
                found.append(entry)

    def entries_of(self, user: UserRef) -> Sequence[ContactEntry]:
        """Return the contacts of the user of a message or status: by user id, else by wa_id."""
        known = self._by_alias
        others = known.get(user.wa_id or "") or known.get(user.parent or "") or []
        if user.user_id is None:
            return others
        own = known.get(user.user_id, [])
        return own + [x for x in others if x.user.user_id is None and x not in own]

    def resolve_aliases(self, user: UserRef, entries: Sequence[ContactEntry]) -> UserRef:
        """Return what a message or status calls its user, completed by what its contacts say."""
        user_id, wa_id, parent = user
        if user_id is None:
            found = {entry.user.user_id for entry in entries} - {None}
            user_id = found.pop() if len(found) == 1 else None
        for entry in entries:
            contact = entry.user
            if user_id is not None and contact.parent == user_id and contact.user_id:
                user_id, parent = contact.user_id, user_id
            if contact.user_id is None or contact.user_id == user_id:
                wa_id = wa_id or contact.wa_id
                parent = parent or contact.parent
        return UserRef(user_id, wa_id, parent)

    def alias_events(
        self, user: UserRef, at: Moment | None, *, creates: bool = True
    ) -> list[Event]:
        """Return the event about what a user is called, unless there was the same before.

        One that is no reason to keep the user is an event only if it links two aliases.
        """
        user_id, wa_id, parent = user
        if user_id is None or not (creates or wa_id):
            return []
        if self._named.get(user) in (True, creates):
            return []
        self._named[user] = creates
        return [AliasesSeen(user_id, wa_id, parent, at, creates)]

    def hash_events(
        self,
        user: UserRef,
        entries: Sequence[ContactEntry],
        at: Moment | None,
        message_id: str | None,
    ) -> list[Event]:
        """Return the hashes of a user's contacts, at the time of the message or status."""
        events: list[Event] = []
        for entry in entries:
            name = entry.user.user_id or user.strongest
            if name is None:
                continue
            entry.used = True
            if entry.user.user_id and entry.user.wa_id and entry.user[:2] != user[:2]:
                events += self.alias_events(entry.user, at, creates=entry.hash is not None)
            if entry.hash is not None:
                events += self._sightings(name, entry.hash, at)
            elif entry.unreadable:
                events.append(HashUnreadable(name, at, message_id))
        return events

    def _sightings(self, user: str, hash_: str, at: Moment | None) -> list[Event]:
        key = user, hash_
        if at is None:
            if key in self._without_time:
                return []
            self._without_time.add(key)
        elif key in self._spans:
            self._spans[key].include(at)
            return []
        else:
            self._spans[key] = _Span(at)
        return [IdentitySeen(user, hash_, at, at)]

    def remaining_sightings(self) -> list[Event]:
        """Return the sightings at the ends of the spans, where messages came at several times."""
        return [
            IdentitySeen(user, hash_, at, at)
            for (user, hash_), span in self._spans.items()
            for at in span.report_ends()
        ]

    def unused_entries(self) -> list[ContactEntry]:
        """Return the contacts of users whom nothing else in the value was about."""
        return [entry for entry in self._entries if not entry.used]

    def events_of_unused(
        self, entries: Sequence[ContactEntry], otherwise: Moment | None
    ) -> tuple[list[Event], int]:
        """Return what these contacts say, at `otherwise` for want of a time, and the nameless.

        Those are the hashes of which nobody is named.
        """
        events: list[Event] = []
        nameless = 0
        for entry in entries:
            at = entry.at or otherwise
            events += self.alias_events(entry.user, at, creates=entry.hash is not None)
            name = entry.user.strongest
            if name is None:
                nameless += entry.hash is not None
            elif entry.hash is not None:
                events += self._sightings(name, entry.hash, at)
            elif entry.unreadable:
                events.append(HashUnreadable(name, at))
        return events, nameless


# What a message id says of its recipient, which no page promises.

WAMID_PREFIX = "wamid."
MAX_ALIAS_BYTES = 127
"""What one byte of length can say."""
MIN_PHONE_DIGITS, MAX_PHONE_DIGITS = 5, 15

_HEAD = b"\x1c\x18"
"""A structure whose first field is a text: what follows is its length, in one byte, and itself."""
_NEXT = b"\x15"
"""The field after it, a number."""
_ENCODED = 4 * (-(-(len(_HEAD) + 1 + MAX_ALIAS_BYTES + len(_NEXT)) // 3))
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def recipient_in_id(message_id: str) -> str | None:
    """Return the alias that the id of a message holds: a phone number, or a user id; else None.

    Decoded, ids begin with `1c 18`, a length, and for a message to a phone number its digits; for
    a message to a user id that id. The id of a group has more digits than any phone number.
    """
    if not message_id.startswith(WAMID_PREFIX):
        return None
    try:
        encoded = message_id[len(WAMID_PREFIX) :][:_ENCODED].encode("ascii")
        decoded = binascii.a2b_base64(encoded.translate(_URL_SAFE) + b"==")
    except ValueError:
        return None
    begin = len(_HEAD) + 1
    if not decoded.startswith(_HEAD) or len(decoded) < begin:
        return None
    end = begin + decoded[begin - 1]
    alias = decoded[begin:end]
    if not alias.isascii() or not decoded.startswith(_NEXT, end):
        return None
    if alias.isdigit():
        return alias.decode() if MIN_PHONE_DIGITS <= len(alias) <= MAX_PHONE_DIGITS else None
    return alias.decode() if is_user_id(alias.decode()) else None
