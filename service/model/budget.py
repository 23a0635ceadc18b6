"""How many numbers may be checked: WhatsApp bans who checks more than they write to."""

from dataclasses import dataclass

from service.model.contacts import DAY_MS


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account did within the window.

    `checks` are numbers that the client was made to check, `forced` those of them past its cache.
    Of a message the client reports that it was sent, that it was delivered, or both.
    """

    checks: int = 0
    forced: int = 0
    sent: int = 0
    delivered: int = 0

    @property
    def messages(self) -> int:
        """The messages: not every client reports each as sent, so the larger count holds."""
        return max(self.sent, self.delivered)

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.checks + other.checks,
            self.forced + other.forced,
            self.sent + other.sent,
            self.delivered + other.delivered,
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """So many checks are free within the window, and so many more for each message.

    A forced check counts `force_cost` times. From `warn_at` of the limit on there is a warning.
    """

    free_checks: int
    checks_per_message: float
    window_days: int
    force_cost: float
    warn_at: float

    def limit(self, usage: Usage) -> float:
        """Return what may be spent within the window."""
        return self.free_checks + self.checks_per_message * usage.messages

    def spent(self, usage: Usage) -> float:
        """Return what was spent within the window."""
        return usage.checks + (self.force_cost - 1) * usage.forced

    def left(self, usage: Usage) -> float:
        """Return what may still be spent, at least nothing."""
        return max(0.0, self.limit(usage) - self.spent(usage))

    def used(self, usage: Usage) -> float:
        """Return the part of the limit that was spent; a limit of nothing is all spent."""
        limit = self.limit(usage)
        return self.spent(usage) / limit if limit else 1.0

    def price(self, numbers: int, *, force: bool) -> float:
        """Return what it costs to check so many numbers."""
        return numbers * (self.force_cost if force else 1)

    def explain(self, usage: Usage) -> str:
        """Return in a sentence what was spent on what, and what the limit is."""
        return (
            f"{self.spent(usage):g} spent on {usage.checks} numbers ({usage.forced} forced) "
            f"for {usage.messages} messages within {self.window_days} days; the limit is "
            f"{self.limit(usage):g}: {self.free_checks} free, {self.checks_per_message:g} a message"
        )

    def first_day(self, now: int) -> int:
        """Return the first day of the window that ends now, in UTC days since 1970."""
        return now // DAY_MS - self.window_days + 1
