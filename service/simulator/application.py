"""The application settings, as far as the client behaves by them (Meta's page on the settings)."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.simulator.delivery import Callback
from service.simulator.options import Options

CONCURRENCIES = (6, 12, 18, 24)


class Webhooks(BaseModel):
    """Where callbacks go: one URL per client."""

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    url: str | None = None
    max_concurrent_requests: int = Field(default=6, ge=1)


class ApplicationSettings(BaseModel):
    """What GET shows and PATCH changes; unknown keys are kept as they are."""

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    show_security_notifications: bool = False
    notify_user_change_number: bool = True
    callback_persist: bool = True
    callback_backoff_delay_ms: int = Field(default=3000, ge=1)
    max_callback_backoff_delay_ms: int = Field(default=900_000, ge=1)
    webhooks: Webhooks = Field(default_factory=Webhooks)

    def retry_seconds(self, attempts: int) -> float:
        """Return the pause after so many failed attempts: linear, and capped."""
        delay_ms = attempts * self.callback_backoff_delay_ms
        return min(delay_ms, self.max_callback_backoff_delay_ms) / 1000

    @property
    def concurrency(self) -> int:
        """How many callbacks are delivered at once."""
        return self.webhooks.max_concurrent_requests

    def url_for(self, _callback: Callback) -> str | None:
        """Return where callbacks go: all to one URL."""
        return self.webhooks.url

    def headers_for(self, _callback: Callback) -> dict[str, str]:
        """Return no headers: callbacks are unsigned."""
        return {}

    def changed(self, values: dict[str, Any]) -> "ApplicationSettings":
        """Return the settings with a part changed; ValueError for a value that can't be."""
        before = self.model_dump()
        webhooks = before["webhooks"] | (values.get("webhooks") or {})
        return ApplicationSettings.model_validate(before | values | {"webhooks": webhooks})


def initial(options: Options) -> ApplicationSettings:
    """Return the settings that a simulator starts with."""
    return ApplicationSettings(
        show_security_notifications=options.show_security_notifications,
        callback_backoff_delay_ms=max(1, round(options.retry_base_seconds * 1000)),
        max_callback_backoff_delay_ms=max(1, round(options.retry_cap_seconds * 1000)),
        webhooks=Webhooks(
            url=options.webhook_url, max_concurrent_requests=options.max_concurrent_requests
        ),
    )
