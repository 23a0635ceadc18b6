"""Phone numbers as people write them, and the one form that spellings of a number share.

The canonical form finds what is already known of a number. It is never a WhatsApp id: those only
ever come from the client (`5566295500` is `5215566295500` there).
"""

from functools import lru_cache

from phonenumbers import (
    NumberParseException,
    PhoneNumberFormat,
    format_number,
    is_possible_number,
    is_valid_number,
    parse,
    region_code_for_country_code,
)

MAX_CHARACTERS = 64
"""Longer text is no phone number, whatever its punctuation."""
_URI = "tel:"
_PLUS = ("+", "\uff0b")


def canonical(text: str, country_of: str | None) -> str | None:
    """Give the digits of a number in E.164, without the plus sign; None for what can't be dialled.

    `country_of` is a number with a plus sign, whose country holds where `text` has none: Meta's
    page on the contacts node, "Phone Number Formats". A number of another country fails then.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    return _canonical(text.strip(), country_of)


@lru_cache(maxsize=4096)
def _canonical(text: str, country_of: str | None) -> str | None:
    digits = text.removeprefix(_URI)
    if any(character.isalpha() for character in digits):
        return None
    has_plus = digits.startswith(_PLUS)
    region = None if has_plus else _region(country_of)
    if region is None and not has_plus:
        return None
    try:
        number = parse(digits, region)
    except NumberParseException:
        return None
    is_one = is_possible_number if has_plus else is_valid_number
    if number.extension is not None or not is_one(number):
        return None
    return format_number(number, PhoneNumberFormat.E164).removeprefix("+")


@lru_cache(maxsize=256)
def _region(country_of: str | None) -> str | None:
    """Give the region whose rules complete a number, None where there is none to go by."""
    if country_of is None:
        return None
    try:
        country = parse(country_of, None).country_code
    except NumberParseException:
        return None
    return None if country is None else region_code_for_country_code(country)
