"""Who the elements of one value of the Cloud API speak of.

A value names a user in more than one place: in `contacts[]`, where the hash is, and in the message
or status beside it, where the time is. Either may lack one of the aliases that the other has.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from service.dialects.fields import usable
from service.model.events import Event, IdentitySeen, Named
from service.model.moments import Moment
from service.model.names import is_user_id, usable_alias

MAX_CARDS = 8
"""Contacts of one value that may speak of the same user; what is beyond keeps its own time."""


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
    return called(
        alias_or_none(told_id, user_id) if told_id else None,
        alias_or_none(told_wa_id, wa_id) if told_wa_id else None,
        parent_or_none(told_parent) if told_parent else None,
    )


def alias_or_none(value: Any, path: str) -> str | None:
    """Read what names a user: empty is missing, and a plus before a number is dropped."""
    if not value:
        return None
    if isinstance(value, str) and value[0] == "+":
        value = value[1:]
    return usable(value, path)


def parent_or_none(value: Any) -> str | None:
    """Read a parent id where it is usable; it is a hint, and costs nothing else."""
    return value if isinstance(value, str) and usable_alias(value) else None


class Card:
    """An element of `contacts`: whom it names, and the identity hash that it holds of that user."""

    __slots__ = ("at", "hash", "told", "who")

    def __init__(self, named: Who, hash_: str | None) -> None:
        self.who = named
        self.hash = hash_
        self.told: set[Moment | None] = set()
        """When, by the messages and statuses of this user that have been read so far."""
        self.at: Moment | None = None
        """When, by a system message, for want of any other."""


class Naming:
    """The contacts of one value, and the namings that were told of it already."""

    __slots__ = ("_by_alias", "_cards", "_named")

    def __init__(self) -> None:
        self._cards: list[Card] = []
        self._by_alias: dict[str | None, list[Card]] = {}
        self._named: dict[Who, bool] = {}

    def add(self, named: Who, hash_: str | None) -> None:
        """Take in a contact."""
        card = Card(named, hash_)
        self._cards.append(card)
        for alias in named:
            if alias is None:
                continue
            same = self._by_alias.get(alias)
            if same is None:
                self._by_alias[alias] = [card]
            elif len(same) < MAX_CARDS:
                same.append(card)

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

    def name(self, named: Who, at: Moment | None, *, heard_of: bool = True) -> list[Event]:
        """Tell a naming, once; one that gives no reason to keep the user only if it links two."""
        user_id, wa_id, parent = named
        if user_id is None or not (heard_of or wa_id):
            return []
        known = self._named.get(named)
        if known or known is heard_of:
            return []
        self._named[named] = heard_of
        return [Named(user_id, wa_id, parent, at, heard_of)]

    def tell(self, named: Who, cards: Iterable[Card], at: Moment | None) -> list[Event]:
        """Tell the hashes of the user's contacts, at the time of the message or status."""
        events: list[Event] = []
        for card in cards:
            user_id, wa_id, _ = card.who
            user = user_id or named.strongest
            if user is None or at in card.told:
                continue
            card.told.add(at)
            if user_id and wa_id and (user_id, wa_id) != named[:2]:
                events += self.name(card.who, at, heard_of=card.hash is not None)
            if card.hash is not None:
                events.append(IdentitySeen(user, card.hash, at, at))
        return events

    def untold(self) -> tuple[list[Event], int]:
        """Tell what nothing else in the value spoke of; and how many hashes are of nobody."""
        events: list[Event] = []
        of_nobody = 0
        for card in self._cards:
            if card.told:
                continue
            events += self.name(card.who, card.at, heard_of=card.hash is not None)
            user = card.who.strongest
            if card.hash is not None and user is not None:
                events.append(IdentitySeen(user, card.hash, card.at, card.at))
            of_nobody += card.hash is not None and user is None
        return events, of_nobody
