"""What is wrong with relays: paused, behind, deliveries given up, callbacks lost to them."""

from collections.abc import Iterable

from service.ledger.ledger import Ledger
from service.model.account_checks import Issue
from service.model.relays import MAX_ROWS, RowState
from service.settings import RetentionSettings
from service.workers.monitoring import Finding, Subject
from service.workers.relays import GONE, TOO_MANY_ROWS, Relay

BEHIND_SECONDS = 900.0
WARN_DAYS = 2.0
DAY_SECONDS = 86_400.0

_PAUSED = {
    GONE: "its destination answered 410: it is gone, and nothing is sent any more",
    TOO_MANY_ROWS: f"more than {MAX_ROWS:,} deliveries failed while others passed",
}


class RelaySubject(Subject):
    """A relay. What it holds of the journal goes after `retention.relay_days` at the latest."""

    every_seconds = 10.0

    def __init__(self, relay: Relay, ledger: Ledger, retention: RetentionSettings) -> None:
        self.check = f"relay:{relay.name}"
        self._relay = relay
        self._ledger = ledger
        self._kept_days = max(retention.journal_days, retention.relay_days)
        self._keeps_for_ever = not (retention.journal_days and retention.relay_days)
        self._behind_seconds = 0.0
        self._needed_seconds = 0.0

    async def look(self) -> list[Finding]:
        """Find out how long it is behind, and how old the oldest is that it needs."""
        self._behind_seconds = await self._relay.behind_seconds()
        self._needed_seconds = await self._relay.needed_seconds()
        return []

    def noticed(self) -> Iterable[Issue]:
        """Return what is wrong with it now."""
        relay, now = self._relay, self._ledger.clock()
        if (why := _PAUSED.get(relay.paused_by or "")) is not None:
            yield self._issue("relay_paused", now, why)
        if self._behind_seconds > BEHIND_SECONDS:
            since = now - round(1000 * self._behind_seconds)
            minutes = int(self._behind_seconds // 60)
            yield self._issue(
                "relay_behind", since, f"{relay.behind:,} behind, by {minutes} minutes"
            )
        if dead := relay.counts()[RowState.DEAD]:
            yield self._issue("relay_dead", now, f"{dead:,} deliveries were given up")
        if relay.skipped:
            what = f"{relay.skipped:,} callbacks were deleted before they were delivered"
            yield self._issue("relay_skipped", now, what)
        days_left = self._kept_days - self._needed_seconds / DAY_SECONDS
        if not self._keeps_for_ever and self._needed_seconds and days_left < WARN_DAYS:
            what = "callbacks that it has not delivered are deleted within two days"
            yield self._issue("relay_losing", now, what)

    def dismiss(self, code: str) -> None:
        """Count what is lost anew."""
        if code == "relay_skipped":
            self._relay.forget_skipped()

    def _issue(self, code: str, since: int, detail: str) -> Issue:
        return Issue(code, None, since, f"relay {self._relay.name}: {detail}", self._relay.name)
