"""Whether the other side answers, as of its last call: known to health, the gate and metrics."""

import time
from dataclasses import dataclass

import structlog
from prometheus_client import Gauge

from service.whatsapp.errors import CallError, LoginRefusedError

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Reachability:
    """Whether an account's client, or the Cloud API, answers; times are Unix milliseconds."""

    account: str
    gauge: Gauge
    gateway: str = "unknown"
    unreachable_since: int | None = None
    last_error: str | None = None

    def note_failure(self, error: CallError) -> None:
        """Note a call that came to nothing."""
        self.last_error = str(error)
        self.gauge.set(0)
        if self.unreachable_since is None:
            self.unreachable_since = time.time_ns() // 1_000_000
            refused = isinstance(error, LoginRefusedError)
            log.warning("client unreachable", account=self.account, error=str(error), login=refused)

    def note_reply(self) -> None:
        """Note an answer."""
        self.gauge.set(1)
        if self.unreachable_since is not None:
            log.info("client reachable again", account=self.account)
        self.unreachable_since = self.last_error = None
