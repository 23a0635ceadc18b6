"""Contact checks: which wa_id a phone number has, if any (Meta's page on the contacts node)."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, Literal

import phonenumbers

from service.simulator.options import Options

Status = Literal["processing", "valid", "invalid", "failed"]

ALWAYS_VALID_FROM = (2, 43)
"""From this version of the client on every check answers `valid` with a wa_id."""
KEPT_NUMBERS = 100_000

COUNTS = ("requests", "limited", "numbers", "looked_up", "forced")
"""Requests, and those of them beyond the rate limit; the numbers of the others, how many
of these were looked up rather than found in the cache, and how many of those for `force_check`.
Duplicates in one request are looked up once."""


def is_always_valid(version: str) -> bool:
    """Return whether a client of a version, such as `v2.45.1`, finds every number valid."""
    return tuple(map(int, version.removeprefix("v").split("."))) >= ALWAYS_VALID_FROM


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a check; a wa_id when it is valid, and perhaps while it is processing."""

    status: Status
    wa_id: str | None = None

    def as_json(self, text: str) -> dict[str, Any]:
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
        digits = international(text, self.options.phone_number)
        if digits is None:
            return None
        return self.wa_ids.get(digits) or self.options.wa_ids.get(digits, digits)

    def find(self, text: str) -> Result:
        """Return the final result for an input as it is now, whatever the cache has."""
        if is_always_valid(self.options.version):
            return self._valid(text)
        wa_id = self.wa_id(text)
        if wa_id is None or not self.failing.isdisjoint((text, wa_id)) or self.is_stuck(text):
            return Result("failed")
        if not self.unknown.isdisjoint((text, wa_id)):
            return Result("invalid")
        return Result("valid", wa_id)

    def known(self, texts: Iterable[str], *, forced: bool) -> dict[str, Result]:
        """Return what can be answered at once: what the cache has, unless a check is forced."""
        if is_always_valid(self.options.version):
            return {text: self._valid(text) for text in texts}
        if forced:
            return {}
        since = self.options.clock() - self.options.contact_cache_seconds
        cached = ((text, self._cache.get(self._key(text))) for text in texts)
        return {text: found[1] for text, found in cached if found and found[0] > since}

    def keep(self, results: dict[str, Result]) -> None:
        """Remember the outcomes of checks for later; a check that failed has none."""
        now = self.options.clock()
        for text, result in results.items():
            if result.status != "failed":
                self._cache[self._key(text)] = (now, result)

    def pending(self, text: str) -> Result:
        """Return the answer for an input that is being checked."""
        return Result("processing", self.wa_id(text) if self.options.processing_wa_id else None)

    def is_stuck(self, text: str) -> bool:
        """Return whether the check of an input never ends."""
        return not self.stuck.isdisjoint((text, self.wa_id(text)))

    def _valid(self, text: str) -> Result:
        """Return a wa_id even for what is no number: its digits."""
        wa_id = self.wa_id(text) or re.sub(r"\D", "", text, flags=re.ASCII)
        return Result("valid", wa_id) if wa_id else Result("failed")

    def _key(self, text: str) -> str:
        return international(text, self.options.phone_number) or text


@lru_cache(maxsize=KEPT_NUMBERS)
def international(text: str, registered: str) -> str | None:
    """Return a dialable number's digits with country code, None when it can't be a number.

    Without a plus sign the country is that of the registered number, and what is no number there
    fails, even where it is one elsewhere, or is dialled with the prefix for calls abroad.
    """
    home, region = _home(registered)
    try:
        number = phonenumbers.parse(text, region, keep_raw_input=True)
    except phonenumbers.NumberParseException:
        return None
    if number.country_code_source == phonenumbers.CountryCodeSource.FROM_NUMBER_WITH_PLUS_SIGN:
        # The length fits, and not only for a call within the same town.
        reason = phonenumbers.is_possible_number_with_reason(number)
        is_number = reason == phonenumbers.ValidationResult.IS_POSSIBLE
    else:
        is_number = number.country_code == home and phonenumbers.is_valid_number(number)
    if not is_number:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164).lstrip("+")


@cache
def _home(registered: str) -> tuple[int | None, str]:
    code = phonenumbers.parse(registered).country_code
    return code, phonenumbers.region_code_for_country_code(code or 0)
