"""Messages of the business that callbacks tell of, counted in memory and written now and then.

Statuses are most of all callbacks. What they tell for the budget and for the freshness of contacts
is worth a row a user every few hours, and no write of its own: so they are gathered here.
"""

from service.model.budget import Usage
from service.model.events import Reading

MAX_WA_IDS = 50_000
"""Users kept between two times of writing: beyond them, messages are counted alone."""


class Tally:
    """What is not yet written, for each account. It lives on the event loop alone."""

    def __init__(self) -> None:
        self._counted: dict[str, Usage] = {}
        self._wa_ids: dict[str, set[str]] = {}

    def note(self, account: str, reading: Reading) -> None:
        """Count the messages that a callback told of, once it is kept."""
        sent, delivered = reading.sent, reading.delivered
        known = self._counted.get(account, Usage())
        self._counted[account] = Usage(
            0, 0, known.sent + len(sent), known.delivered + len(delivered)
        )
        wa_ids = self._wa_ids.setdefault(account, set())
        if len(wa_ids) < MAX_WA_IDS:
            wa_ids.update(sent, delivered)

    def counted(self, account: str) -> Usage:
        """Give what is not yet written."""
        return self._counted.get(account, Usage())

    def take(self, account: str) -> tuple[Usage, set[str]]:
        """Give what is not yet written, and forget it."""
        return self._counted.pop(account, Usage()), self._wa_ids.pop(account, set())
