"""Who the elements of one value of the Cloud API speak of.

A value names a user in more than one place: in `contacts[]`, where the hash is, and in the message
or status beside it, where the time is. Either may lack one of the aliases that the other has.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from service.dialects.fields import FieldError, usable
from service.model.events import Event, HashUnreadable, IdentitySeen, Named
from service.model.moments import Moment
from service.model.names import is_user_id

MAX_DIGITS = 32
MAX_CARDS = 4
"""Contacts found by one alias; what is beyond is told as if nobody of that name had written."""
MAX_HASHES = 2
"""Hashes that contacts of one value may tell of one user: two are a dispute already."""


class Who(NamedTuple):
    """All that an element calls a user."""

    user_id: str | None
    wa_id: str | None
    parent: str | None = None

    @property
    def strongest(self) -> str | None:
        """Give the alias by which events name the user; a parent id is none."""
        return self.user_id or self.wa_id


def called(user_id: str | None, wa_id: str | None, parent: str | None = None) -> Who:
    """Put the aliases where they belong, for a user id may stand in the place of a wa_id."""
    if wa_id is not None and wa_id[2:3] == "." and is_user_id(wa_id):
        return Who(user_id or wa_id, None, parent)
    return Who(user_id, wa_id, parent)


def read_who(holder: Mapping[str, Any], user_id: str, wa_id: str, parent: str) -> Who:
    """Read what an element calls its user, by the keys under which it does."""
    told_id, told_wa_id, told_parent = holder.get(user_id), holder.get(wa_id), holder.get(parent)
    if not told_id and not told_parent and is_plain(told_wa_id):
        return Who(None, told_wa_id)
    return called(
        user_id_or_none(told_id, user_id) if told_id else None,
        alias_or_none(told_wa_id, wa_id) if told_wa_id else None,
        parent_or_none(told_parent) if told_parent else None,
    )


def is_plain(wa_id: Any) -> TypeGuard[str]:
    """Tell a wa_id as nearly all are: digits alone."""
    return (
        isinstance(wa_id, str)
        and wa_id.isdecimal()
        and wa_id.isascii()
        and len(wa_id) <= MAX_DIGITS
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
    if isinstance(value, str) and value[0] == "+":
        value = value[1:]
    return usable(value, path)


def parent_or_none(value: Any) -> str | None:
    """Read a parent id where it has the form of a user id; it is a hint, and costs nothing else."""
    return value if isinstance(value, str) and is_user_id(value) else None


class Card:
    """An element of `contacts`: whom it names, and the identity hash that it holds of that user."""

    __slots__ = ("at", "hash", "told", "unreadable", "who")

    def __init__(self, named: Who, hash_: str | None, *, unreadable: bool = False) -> None:
        self.who = named
        self.hash = hash_
        self.unreadable = unreadable
        """Whether it holds a hash that can't be read; then `hash` is None."""
        self.told = False
        """Whether a message or status of this user has been read."""
        self.at: Moment | None = None
        """When, by a system message, for want of any other."""

    def repeats(self, other: "Card") -> bool:
        """Tell whether both say the same."""
        mine = self.who, self.hash, self.unreadable
        return mine == (other.who, other.hash, other.unreadable)


class Span:
    """From when to when messages and statuses speak of a hash, and how much of it was told."""

    __slots__ = ("begin", "end", "told")

    def __init__(self, first: Moment) -> None:
        self.begin = self.end = first
        self.told = {first}

    def include(self, at: Moment) -> None:
        """Reach to this time too."""
        if at < self.begin:
            self.begin = at
        elif at > self.end:
            self.end = at

    def untold(self) -> list[Moment]:
        """Give the ends that were not told yet, for they are told now."""
        ends = [at for at in (self.begin, self.end) if at not in self.told]
        self.told.update(ends)
        return ends


class Naming:
    """The contacts of one value, and the namings and hashes that were told of it already."""

    __slots__ = ("_by_alias", "_cards", "_first", "_hashes", "_named", "_spans")

    def __init__(self) -> None:
        self._cards: list[Card] = []
        self._by_alias: dict[str | None, list[Card]] = {}
        self._hashes: dict[str | None, set[str]] = {}
        self._named: dict[Who, bool] = {}
        self._first: dict[tuple[str, str, bool], Moment | None] = {}
        self._spans: dict[tuple[str, str, bool], Span] = {}

    def add(self, named: Who, hash_: str | None, *, unreadable: bool = False) -> None:
        """Take in a contact, unless it repeats another; a third hash of its user is a fault."""
        card = Card(named, hash_, unreadable=unreadable)
        user = named.strongest or named.parent
        known = self._by_alias.get(user)
        if known is not None:
            if any(card.repeats(other) for other in known):
                return
            if hash_ is not None:
                self._count(user, hash_, known)
        self._cards.append(card)
        for alias in named:
            if alias is None:
                continue
            same = self._by_alias.get(alias)
            if same is None:
                self._by_alias[alias] = [card]
            elif len(same) < MAX_CARDS:
                same.append(card)

    def _count(self, user: str | None, hash_: str, found: Iterable[Card]) -> None:
        """Count the hashes of a user who has a contact already; the first is in what was found."""
        known = self._hashes.get(user)
        if known is None:
            own = (card for card in found if (card.who.strongest or card.who.parent) == user)
            known = self._hashes[user] = {card.hash for card in own if card.hash is not None}
        if hash_ in known:
            return
        if len(known) >= MAX_HASHES:
            raise FieldError("identity_key_hash", "more than two hashes of one user")
        known.add(hash_)

    def cards_of(self, met: Who) -> Sequence[Card]:
        """Find the contacts of the user of a message or status: by user id, else by wa_id."""
        known = self._by_alias
        if not known:
            return ()
        bare = known.get(met.wa_id) or known.get(met.parent) or ()
        if met.user_id is None:
            return bare
        own = known.get(met.user_id, ())
        if own == bare:
            return own
        return [*own, *(card for card in bare if card.who.user_id is None)]

    def meet(self, met: Who, cards: Sequence[Card]) -> Who:
        """Complete what a message or status calls its user by what its contacts say."""
        if len(cards) == 1 and cards[0].who == met:
            return met
        user_id, wa_id, parent = met
        if user_id is None:
            told = {card.who.user_id for card in cards} - {None}
            user_id = told.pop() if len(told) == 1 else None
        for card in cards:
            if user_id is not None and card.who.parent == user_id and card.who.user_id:
                user_id, parent = card.who.user_id, user_id
            if card.who.user_id is None or card.who.user_id == user_id:
                wa_id = wa_id or card.who.wa_id
                parent = parent or card.who.parent
        return Who(user_id, wa_id, parent)

    def name(self, named: Who, at: Moment | None, *, creates: bool = True) -> list[Event]:
        """Tell a naming, once; one that gives no reason to keep the user only if it links two."""
        user_id, wa_id, parent = named
        if user_id is None or not (creates or wa_id):
            return []
        known = self._named.get(named)
        if known or known is creates:
            return []
        self._named[named] = creates
        return [Named(user_id, wa_id, parent, at, creates)]

    def tell(
        self, named: Who, cards: Iterable[Card], at: Moment | None, message_id: str | None
    ) -> list[Event]:
        """Tell the hashes of the user's contacts, at the time of the message or status.

        When the user is met again at another time, only the ends of that span will be told.
        """
        events: list[Event] = []
        for card in cards:
            user_id, wa_id, _ = card.who
            user = user_id or named.strongest
            if user is None:
                continue
            card.told = True
            if user_id and wa_id and (user_id, wa_id) != named[:2]:
                events += self.name(card.who, at, creates=card.hash is not None)
            if card.hash is not None:
                events += self._see(user, card.hash, at)
            elif card.unreadable:
                events.append(HashUnreadable(user, at, message_id))
        return events

    def _see(self, user: str, hash_: str, at: Moment | None) -> list[Event]:
        key = user, hash_, at is None
        if key not in self._first:
            self._first[key] = at
            return [IdentitySeen(user, hash_, at, at)]
        first = self._first[key]
        if at is not None and first is not None and at != first:
            span = self._spans.get(key)
            if span is None:
                span = self._spans[key] = Span(first)
            span.include(at)
        return []

    def tell_ends(self) -> list[Event]:
        """Tell the hashes at both ends of their spans, where a user was met at several times."""
        if not self._spans:
            return []
        return [
            IdentitySeen(user, hash_, at, at)
            for (user, hash_, _), span in self._spans.items()
            for at in span.untold()
        ]

    def untold(self) -> Sequence[Card]:
        """Give the contacts of whose user nothing else in the value spoke."""
        return [card for card in self._cards if not card.told]

    def tell_untold(
        self, cards: Iterable[Card], otherwise: Moment | None
    ) -> tuple[list[Event], int]:
        """Tell these contacts, for want of a time at another; and how many hashes are of nobody."""
        events: list[Event] = []
        of_nobody = 0
        for card in cards:
            at = card.at or otherwise
            events += self.name(card.who, at, creates=card.hash is not None)
            user = card.who.strongest
            if card.unreadable and user is not None:
                events.append(HashUnreadable(user, at))
            if card.hash is None:
                continue
            if user is None:
                of_nobody += 1
            else:
                events += self._see(user, card.hash, at)
        return events, of_nobody
