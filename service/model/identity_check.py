"""Whether a number's identity change check seems to be on: Graph does not tell, callbacks do."""

from collections.abc import Iterable
from dataclasses import dataclass

from service.model.events import Event, HashUnreadable, IdentitySeen, UserWrote

ENOUGH = 20
"""So many messages in a row without a hash are no chance: every ordinary message brings it."""


@dataclass(slots=True)
class IdentityCheck:
    """What the messages of users that came for one account tell of it; times are Unix ms.

    `hash_at` is when the last identity hash came, `without` counts the messages since then, which
    brought none, and `since` is when the first of them came; `dismissed` that a person let it be,
    until the next. In memory: it begins anew with each start, and is known again after a few
    messages.
    """

    hash_at: int | None = None
    without: int = 0
    since: int | None = None
    dismissed: bool = False

    def note(self, events: Iterable[Event], arrived: int) -> None:
        """Note the events of one callback; a user's hash stands before what the user wrote."""
        told = ""
        for event in events:
            if isinstance(event, IdentitySeen | HashUnreadable):
                told = event.user
                self.hash_at, self.without, self.since = arrived, 0, None
            elif isinstance(event, UserWrote) and event.user != told:
                self.without += 1
                self.since = self.since or arrived
                self.dismissed = False

    @property
    def seems_off(self) -> bool:
        """Whether enough messages came without a hash."""
        return self.without >= ENOUGH and not self.dismissed

    @property
    def detail(self) -> str:
        """Say why it seems to be off."""
        return (
            f"the last {self.without} messages of users brought no identity hash: the identity "
            "change check seems to be off, so nobody is told when an identity changes"
        )
