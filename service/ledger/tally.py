"""Messages of the business that callbacks tell of, counted in memory and written now and then.

Statuses are most of all callbacks. What they tell for the budget and for the freshness of contacts
is worth a row a user every few hours, and no write of its own: so they are gathered here.
"""

from collections import defaultdict

from service.model.budget import Usage
from service.model.events import Reading

MAX_WA_IDS = 50_000
"""Users kept between two times of writing: beyond them, messages are counted alone."""


class _Counted:
    """What is not yet written of one account."""

    __slots__ = ("delivered", "sent", "wa_ids")

    def __init__(self) -> None:
        self.sent = self.delivered = 0
        self.wa_ids: set[str] = set()


class Tally:
    """What is not yet written, for each account. It lives on the event loop alone."""

    def __init__(self) -> None:
        self._accounts: defaultdict[str, _Counted] = defaultdict(_Counted)

    def note(self, account: str, reading: Reading) -> None:
        """Count the messages that a callback told of, once it is kept."""
        sent, delivered = reading.sent, reading.delivered
        counted = self._accounts[account]
        counted.sent += len(sent)
        counted.delivered += len(delivered)
        if len(counted.wa_ids) < MAX_WA_IDS:
            counted.wa_ids.update(sent, delivered)

    def counted(self, account: str) -> Usage:
        """Give what is not yet written."""
        counted = self._accounts[account]
        return Usage(sent=counted.sent, delivered=counted.delivered)

    def take(self, account: str) -> tuple[Usage, set[str]]:
        """Give what is not yet written, and forget it."""
        usage = self.counted(account)
        return usage, self._accounts.pop(account, _Counted()).wa_ids
