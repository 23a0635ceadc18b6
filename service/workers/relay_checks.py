"""What is wrong with relays: paused, behind, deliveries given up, callbacks lost to them."""

from service.model.relays import MAX_ROWS, RowState
from service.settings import Settings
from service.workers.monitoring import Finding, Subject
from service.workers.relays import GONE, TOO_MANY_ROWS, Relay

WARN_DAYS = 2.0
DAY_SECONDS = 86_400.0

_PAUSED = {
    GONE: "its destination answered 410: it is gone, and nothing is sent any more",
    TOO_MANY_ROWS: f"more than {MAX_ROWS:,} deliveries failed while others passed",
}


class RelaySubject(Subject):
    """A relay. What it holds of the journal goes after `retention.relay_days` at the latest."""

    every_seconds = 10.0

    def __init__(self, relay: Relay, settings: Settings) -> None:
        retention = settings.retention
        self.check = f"relay:{relay.name}"
        self._relay = relay
        self._late_minutes = settings.alerts.relay_behind_minutes
        self._kept_days = max(retention.journal_days, retention.relay_days)
        self._keeps_for_ever = not (retention.journal_days and retention.relay_days)

    async def look(self) -> list[Finding]:
        """Return what is wrong with it now."""
        relay = self._relay
        found = []
        if (why := _PAUSED.get(relay.paused_by or "")) is not None:
            found.append(self._finding("relay_paused", why))
        minutes = await relay.behind_seconds() / 60
        if minutes > self._late_minutes:
            detail = f"{await relay.behind():,} behind, by {int(minutes)} minutes"
            found.append(self._finding("relay_behind", detail))
        if dead := relay.counts()[RowState.DEAD]:
            found.append(self._finding("relay_dead", f"{dead:,} deliveries were given up"))
        if relay.skipped:
            what = f"{relay.skipped:,} callbacks were deleted before they were delivered"
            found.append(self._finding("relay_skipped", what))
        needed_days = await relay.needed_seconds() / DAY_SECONDS
        days_left = self._kept_days - needed_days
        if not self._keeps_for_ever and needed_days and days_left < WARN_DAYS:
            what = "callbacks that it has not delivered are deleted within two days"
            found.append(self._finding("relay_losing", what))
        return found

    def dismiss(self, code: str) -> None:
        """Count what is lost anew."""
        if code == "relay_skipped":
            self._relay.forget_skipped()

    def _finding(self, code: str, detail: str) -> Finding:
        return Finding(code, f"relay {self._relay.name}: {detail}", self._relay.name)
