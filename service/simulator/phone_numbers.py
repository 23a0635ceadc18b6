"""Dialable formats: the digits that a number stands for (Meta's page on the contacts node)."""

from functools import cache, lru_cache

import phonenumbers

KEPT_NUMBERS = 100_000


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
    if _has_plus(number):
        is_one = _is_whole(number)
    else:
        is_one = number.country_code == home and phonenumbers.is_valid_number(number)
    if not is_one:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164).lstrip("+")


@cache
def _home(registered: str) -> tuple[int | None, str]:
    code = phonenumbers.parse(registered).country_code
    return code, phonenumbers.region_code_for_country_code(code or 0)


def _has_plus(number: phonenumbers.PhoneNumber) -> bool:
    source: int = number.country_code_source
    return source == phonenumbers.CountryCodeSource.FROM_NUMBER_WITH_PLUS_SIGN


def _is_whole(number: phonenumbers.PhoneNumber) -> bool:
    """Tell whether the length fits, and not only for a call within the same town."""
    reason: int = phonenumbers.is_possible_number_with_reason(number)
    return reason == phonenumbers.ValidationResult.IS_POSSIBLE
