"""Contact checks: which wa_id a phone number has, if any (Meta's page on the contacts node)."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from service.simulator.options import Options
from service.simulator.phone_numbers import international

Status = Literal["processing", "valid", "invalid", "failed"]

ALWAYS_VALID_FROM = (2, 43)
"""From this version of the client on every check answers `valid` with a wa_id."""


def is_always_valid(version: str) -> bool:
    """Tell whether a client of a version, such as `v2.45.1`, finds every number valid."""
    return tuple(map(int, version.removeprefix("v").split("."))) >= ALWAYS_VALID_FROM


@dataclass(frozen=True, slots=True)
class Result:
    """What a check came to; a wa_id when it is valid, and perhaps while it is processing."""

    status: Status
    wa_id: str | None = None

    def of(self, text: str) -> dict[str, Any]:
        """Return the result as the wire has it, with the literal input."""
        wa_id = {} if self.wa_id is None else {"wa_id": self.wa_id}
        return {"input": text, "status": self.status, **wa_id}


@dataclass(slots=True)
class ContactChecks:
    """What checks answer, the cache of what they have answered, and how many came."""

    options: Options
    unknown: set[str] = field(default_factory=set)
    """The wa_ids, or literal inputs, of no WhatsApp user: `invalid`."""
    failing: set[str] = field(default_factory=set)
    """The wa_ids, or literal inputs, whose check fails."""
    stuck: set[str] = field(default_factory=set)
    """The wa_ids, or literal inputs, whose check never ends: `processing`, and no callback."""
    wa_ids: dict[str, str] = field(default_factory=dict)
    """The wa_id of a literal input or of a number's digits, beyond those of the options."""
    counts: Counter[str] = field(default_factory=Counter)
    """See `COUNTS`."""
    _cache: dict[str, tuple[float, Result]] = field(default_factory=dict)

    def wa_id(self, text: str) -> str | None:
        """Return the wa_id that an input leads to, user or not."""
        if text in self.wa_ids:
            return self.wa_ids[text]
        digits = self._digits(text)
        if digits is None:
            return None
        return self.wa_ids.get(digits) or self.options.wa_ids.get(digits, digits)

    def find(self, text: str) -> Result:
        """Return the final result for an input as it is now, whatever the cache has."""
        if is_always_valid(self.options.version):
            return self._valid(text)
        wa_id = self.wa_id(text)
        if wa_id is None or self._is_of(self.failing, text, wa_id) or self.is_stuck(text):
            return Result("failed")
        if self._is_of(self.unknown, text, wa_id):
            return Result("invalid")
        return Result("valid", wa_id)

    def known(self, texts: Iterable[str], *, forced: bool) -> dict[str, Result]:
        """Return what can be answered at once: what the cache has, unless a check is forced."""
        if is_always_valid(self.options.version):
            return {text: self._valid(text) for text in texts}
        if forced:
            return {}
        cached = ((text, self.cached(text)) for text in texts)
        return {text: result for text, result in cached if result is not None}

    def cached(self, text: str) -> Result | None:
        """Return the result of the last seven days for a number, in whatever spelling."""
        checked_at, result = self._cache.get(self._key(text), (0.0, None))
        age = self.options.clock() - checked_at
        return result if age < self.options.contact_cache_seconds else None

    def keep(self, results: dict[str, Result]) -> None:
        """Remember what checks came to now; a check that failed has come to nothing."""
        now = self.options.clock()
        for text, result in results.items():
            if result.status != "failed":
                self._cache[self._key(text)] = (now, result)

    def pending(self, text: str) -> Result:
        """Return the answer for an input that is being checked."""
        return Result("processing", self.wa_id(text) if self.options.processing_wa_id else None)

    def is_stuck(self, text: str) -> bool:
        """Tell whether the check of an input never ends."""
        return self._is_of(self.stuck, text, self.wa_id(text))

    def _valid(self, text: str) -> Result:
        """Find even what is no number: its digits, as nothing else could be a wa_id."""
        wa_id = self.wa_id(text) or re.sub(r"\D", "", text, flags=re.ASCII)
        return Result("valid", wa_id) if wa_id else Result("failed")

    def _is_of(self, chosen: set[str], text: str, wa_id: str | None) -> bool:
        return text in chosen or wa_id in chosen

    def _digits(self, text: str) -> str | None:
        return international(text, self.options.phone_number)

    def _key(self, text: str) -> str:
        return self._digits(text) or text


COUNTS = ("requests", "limited", "numbers", "looked_up", "forced")
"""Requests, and those of them beyond the rate limit; the numbers of the others, how many
of these were looked up rather than found in the cache, and how many of those for `force_check`.
Duplicates in one request are looked up once."""
