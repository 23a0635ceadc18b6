"""Contact checks: which wa_id a phone number has, if any (Meta's page on the contacts node)."""

from dataclasses import dataclass, field
from typing import Any, Literal

import phonenumbers

from service.simulator.options import Options

Status = Literal["valid", "invalid", "failed"]


def international(text: str, registered: str) -> str | None:
    """Return a dialable number's digits with country code, None when it can't be a number.

    Without a plus sign the country is that of the registered number, and what is no number there
    fails, even where it is one elsewhere.
    """
    country = phonenumbers.parse(registered).country_code
    region = phonenumbers.region_code_for_country_code(country or 0)
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    has_plus = text.lstrip().startswith("+")
    is_one = phonenumbers.is_possible_number if has_plus else phonenumbers.is_valid_number
    if not is_one(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164).lstrip("+")


@dataclass(slots=True)
class ContactChecks:
    """What checks answer, and the cache of what they have answered."""

    options: Options
    unknown: set[str] = field(default_factory=set)
    """The wa_ids, or literal inputs, of no WhatsApp user: `invalid`."""
    failing: set[str] = field(default_factory=set)
    """The wa_ids, or literal inputs, whose check fails."""
    wa_ids: dict[str, str] = field(default_factory=dict)
    """The wa_id of a literal input or of a number's digits, beyond those of the options."""
    _checked: dict[str, float] = field(default_factory=dict)

    def wa_id(self, text: str) -> str | None:
        """Return the wa_id that an input leads to, user or not."""
        if text in self.wa_ids:
            return self.wa_ids[text]
        digits = international(text, self.options.phone_number)
        if digits is None:
            return None
        return self.wa_ids.get(digits) or self.options.wa_ids.get(digits, digits)

    def result(self, text: str) -> dict[str, Any]:
        """Return the final result for one input, which is kept literally."""
        wa_id = self.wa_id(text)
        if wa_id is None or not self.failing.isdisjoint((text, wa_id)):
            return {"input": text, "status": "failed"}
        if not self.unknown.isdisjoint((text, wa_id)):
            return {"input": text, "status": "invalid"}
        return {"input": text, "status": "valid", "wa_id": wa_id}

    def is_cached(self, text: str) -> bool:
        """Tell whether an input was checked within the last seven days."""
        checked_at = self._checked.get(text)
        age = self.options.contact_cache_seconds
        return checked_at is not None and self.options.clock() - checked_at < age

    def keep(self, texts: list[str]) -> None:
        """Remember that inputs were checked now."""
        self._checked.update(dict.fromkeys(texts, self.options.clock()))
