"""What the client keeps beside its users: application settings, logins, and rate limits."""

import secrets
from collections import deque
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.simulator.delivery import Callback
from service.simulator.options import Options

CONCURRENCIES = (6, 12, 18, 24)
TOKEN_BYTES = 24


class Webhooks(BaseModel):
    """Where callbacks go: one URL per client."""

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    url: str | None = None
    max_concurrent_requests: int = Field(default=6, ge=1)


class ApplicationSettings(BaseModel):
    """What GET shows and PATCH changes (Meta's page on the settings).

    Unknown keys are kept as they are. The settings decide where callbacks go, and how.
    """

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    show_security_notifications: bool = False
    notify_user_change_number: bool = True
    callback_persist: bool = True
    callback_backoff_delay_ms: int = Field(default=3000, ge=1)
    max_callback_backoff_delay_ms: int = Field(default=900_000, ge=1)
    webhooks: Webhooks = Field(default_factory=Webhooks)

    @classmethod
    def initial(cls, options: Options) -> "ApplicationSettings":
        """Return the settings that a simulator starts with."""
        return cls(
            show_security_notifications=options.show_security_notifications,
            callback_backoff_delay_ms=max(1, round(options.retry_base_seconds * 1000)),
            max_callback_backoff_delay_ms=max(1, round(options.retry_cap_seconds * 1000)),
            webhooks=Webhooks(
                url=options.webhook_url, max_concurrent_requests=options.max_concurrent_requests
            ),
        )

    def changed(self, values: dict[str, Any]) -> "ApplicationSettings":
        """Return the settings with a part changed; ValueError for a value that can't be."""
        before = self.model_dump()
        webhooks = before["webhooks"] | (values.get("webhooks") or {})
        return ApplicationSettings.model_validate(before | values | {"webhooks": webhooks})

    @property
    def concurrency(self) -> int:
        """How many callbacks are delivered at once."""
        return self.webhooks.max_concurrent_requests

    def retry_seconds(self, attempts: int) -> float:
        """Return the pause after so many failed attempts: linear, and capped."""
        delay_ms = attempts * self.callback_backoff_delay_ms
        return min(delay_ms, self.max_callback_backoff_delay_ms) / 1000

    def url_for(self, _callback: Callback) -> str | None:
        """Return where callbacks go: all to one URL."""
        return self.webhooks.url

    def headers_for(self, _callback: Callback) -> dict[str, str]:
        """Return no headers: callbacks are unsigned."""
        return {}


class Logins:
    """The password, and the tokens, of which several live at once (Meta's page on users)."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._clock = options.clock
        self._wrong: deque[float] = deque()
        self.tokens: dict[str, float] = {}
        """When each token expires, in Unix seconds."""
        self.succeeded = 0
        self.refused = 0

    def log_in(self) -> tuple[str, float]:
        """Return a new token, and when it expires in Unix seconds."""
        now = self._clock()
        self.tokens = {token: until for token, until in self.tokens.items() if until > now}
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self.tokens[token] = now + self._options.token_seconds
        self.succeeded += 1
        self._wrong.clear()
        return token, self.tokens[token]

    def is_right(self, username: str, password: str) -> bool:
        """Return whether name and password are right; wrong ones are counted."""
        if (username, password) == (self._options.username, self._options.password):
            return True
        self.refused += 1
        self._wrong.append(self._clock())
        return False

    def too_many(self) -> bool:
        """Return whether so many logins were wrong of late that every further one is refused."""
        while self._wrong and self._wrong[0] <= self._clock() - self._options.wrong_login_seconds:
            self._wrong.popleft()
        return len(self._wrong) >= self._options.max_wrong_logins

    def is_valid(self, token: str) -> bool:
        """Return whether a token was issued and hasn't expired."""
        return self.tokens.get(token, 0) > self._clock()

    def expire(self) -> int:
        """Let every token expire; return how many."""
        count = len(self.tokens)
        self.tokens.clear()
        return count


class RateLimit:
    """A bucket of `burst` permits, refilled at `per_second`."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._permits = float(burst)
        self._at = clock()

    def allows(self) -> bool:
        """Take one permit; return False when none is left."""
        now = self._clock()
        refilled = self._permits + (now - self._at) * self._per_second
        self._permits, self._at = min(float(self._burst), refilled), now
        if self._permits < 1:
            return False
        self._permits -= 1
        return True
