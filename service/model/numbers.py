"""Phone numbers as people write them, and what a spelling of one may mean.

Nothing that is computed from a number ever opens the gate: it only finds who may be meant, so that
what is known of them can close it. The WhatsApp id of a number is known to the client alone
(`5566295500` is `5215566295500` there).
"""

import re
import unicodedata
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from phonenumbers import (
    COUNTRY_CODE_TO_REGION_CODE,
    NumberParseException,
    PhoneNumberFormat,
    country_code_for_region,
    format_number,
    is_possible_number,
    is_valid_number,
    parse,
    region_code_for_country_code,
)

from service.model.users import MAX_ALIAS_CHARACTERS, is_user_id, usable_alias

MAX_CHARACTERS = 64
"""Longer text is no phone number that can be dialled, whatever its punctuation."""
MAX_TEXT = 256
"""Longer text is no recipient."""
IN_FULL = 10
"""So many digits after the country's code make a number complete: none within it has more."""
_URI = "tel:"
_PLUS = ("+", "\uff0b")
_INTERNATIONAL = "00"
_PLAIN = re.compile(r"\+?[0-9]+")
_LETTER = re.compile(r"[^\W\d_]")
_NO_DIGIT = re.compile(r"\D+")

_TWO_SPELLINGS = ("52", "54", "55")
_OTHER_SPELLINGS = (
    # Brazil: mobile numbers of two digits' area have a 9 before the eight, or not.
    (re.compile(r"(55[0-9]{2})([6-9][0-9]{7})"), r"\g<1>9\2"),
    (re.compile(r"(55[0-9]{2})9([6-9][0-9]{7})"), r"\1\2"),
    # Mexico: a 1 after the country code.
    (re.compile(r"(52)([0-9]{10})"), r"\g<1>1\2"),
    (re.compile(r"(52)1([0-9]{10})"), r"\1\2"),
    # Argentina: a 9 after the country code.
    (re.compile(r"(54)([0-9]{10})"), r"\g<1>9\2"),
    (re.compile(r"(54)9([0-9]{10})"), r"\1\2"),
)


class Spelling(NamedTuple):
    """What a text may call a user.

    `names` are what it says by itself: the text where it can be an alias, and its own digits.
    `forms` are what a check of the number may be kept under, as `canonical` gives them, and
    `completed` those of the number as the account's country completes it. `others` are all names
    that are computed: these, and WhatsApp's other spelling of each.
    """

    names: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    completed: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def spell(text: str, country_of: str | None) -> Spelling:
    """Return all that a text may call a user; `country_of` is as in `canonical`.

    A number without a country code that the account's country completes names nobody by itself:
    its own digits may be a number of somebody else elsewhere.
    """
    names = [text] if usable_alias(text) else []
    digits = own_digits(text)
    if digits is None:
        return Spelling(tuple(names), others=_as_user_id(text))
    completed = _completed(text, country_of) if text == digits or not has_country(text) else []
    if has_country(text) or not completed or digits in completed:
        names.append(digits)
    forms = (digits, *_in_full(text, digits))
    found = dict.fromkeys((*completed, *forms, digits.lstrip("0")))
    others = [other for form in found if form for other in (form, *other_spellings(form))]
    return Spelling(
        tuple(dict.fromkeys(names)),
        forms,
        tuple(completed),
        tuple(dict.fromkeys(other for other in others if other not in names)),
    )


def has_country(text: str) -> bool:
    """Return whether a number has its country code: it begins with plus or 00, or is a wa_id.

    No country code, and so no wa_id, begins with a zero.
    """
    if _has_plus(text):
        return True
    digits = _digits(text) or ""
    return digits.startswith(_INTERNATIONAL) or (text == digits and not digits.startswith("0"))


def is_dialable(text: str, country_of: str | None) -> bool:
    """Return whether a text is a phone number, also where WhatsApp alone spells it so, as 521 …."""
    if canonical(text, country_of) is not None:
        return True
    digits = own_digits(text) if has_country(text) else None
    return digits is not None and any(
        canonical(f"+{other}", None) is not None for other in (digits, *other_spellings(digits))
    )


def new_name(text: str, country_of: str | None) -> str | None:
    """Return how to call an unknown user whom a text means; None where that is in doubt.

    A number has its country code, and no zero of its own country's calls after it.
    """
    digits = own_digits(text)
    if digits is None:
        return text if usable_alias(text) else None
    if not has_country(text):
        return digits if canonical(text, country_of) == digits else None
    in_full = canonical(f"+{digits}", None)
    return in_full or (digits if text == digits or is_dialable(text, country_of) else None)


def _in_full(text: str, digits: str) -> list[str]:
    """Return a number with its country code as E.164 has it, without a zero for calls within it.

    Plain digits are read without the numbering plans: they are most of what is asked.
    """
    if not _PLAIN.fullmatch(text):
        form = canonical(f"+{digits}", None)
        return [] if form is None else [form]
    lengths = (n for n in (1, 2, 3) if int(digits[:n]) in COUNTRY_CODE_TO_REGION_CODE)
    end = next(lengths, 0)
    return [digits[:end] + digits[end + 1 :]] if digits[end : end + 1] == "0" and end else []


def _completed(text: str, country_of: str | None) -> list[str]:
    """Return how the country of `country_of` may complete a text, be it a valid number or not.

    Old ways of dialling count too, and eight digits of Brazil. It finds who may be meant, no more.
    """
    digits = _digits(text)
    region = _region(country_of)
    if digits is None or region is None:
        return []
    country = str(country_code_for_region(region))
    if digits.startswith(country) and len(digits) >= len(country) + IN_FULL:
        return []
    found = [country + digits.lstrip("0")]
    if not _PLAIN.fullmatch(text) or digits.startswith("0"):
        with suppress(NumberParseException):
            number = parse(text.strip().removeprefix(_URI), region)
            found.append(format_number(number, PhoneNumberFormat.E164).removeprefix("+"))
    return found


def _as_user_id(text: str) -> tuple[str, ...]:
    """Return the user id that a text is in other letters: its country is in capitals."""
    upper = text[:2].upper() + text[2:]
    return (upper,) if upper != text and is_user_id(upper) else ()


def own_digits(text: str) -> str | None:
    """Return the digits that a text is made of, in ASCII, without 00 before a country code.

    None where it holds letters, no digit, or more than an alias may have.
    """
    digits = _digits(text)
    if digits is None or _has_plus(text) or not digits.startswith(_INTERNATIONAL):
        return digits
    return digits[len(_INTERNATIONAL) :] or None


def _digits(text: str) -> str | None:
    bare = text.strip().removeprefix(_URI)
    if len(bare) > MAX_TEXT or _LETTER.search(bare) is not None:
        return None
    digits = _NO_DIGIT.sub("", bare)
    if not digits.isascii():
        digits = "".join(str(unicodedata.decimal(digit)) for digit in digits)
    return digits if 0 < len(digits) <= MAX_ALIAS_CHARACTERS else None


def _has_plus(text: str) -> bool:
    return text.strip().removeprefix(_URI).lstrip("( ").startswith(_PLUS)


def other_spellings(digits: str) -> tuple[str, ...]:
    """Return the other way in which WhatsApp itself writes a number, where it has two."""
    if not digits.startswith(_TWO_SPELLINGS):
        return ()
    return tuple(
        pattern.sub(other, digits)
        for pattern, other in _OTHER_SPELLINGS
        if pattern.fullmatch(digits)
    )


def canonical(text: str, country_of: str | None) -> str | None:
    """Return the digits of a number in E.164, without the plus sign; None for what is no number.

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
    """Return the region whose rules complete a number, None where there is none to go by."""
    if country_of is None:
        return None
    try:
        country = parse(country_of, None).country_code
    except NumberParseException:
        return None
    return None if country is None else region_code_for_country_code(country)
