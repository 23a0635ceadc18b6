"""Phone numbers as people write them, and what a spelling of one may mean.

Nothing that is computed from a number ever opens the gate: it only finds who may be meant, so that
what is known of them can close it. A WhatsApp id is told by the client alone (`5566295500` is
`5215566295500` there).
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from phonenumbers import (
    NumberParseException,
    PhoneNumberFormat,
    format_number,
    is_possible_number,
    is_valid_number,
    parse,
    region_code_for_country_code,
)

from service.model.names import usable_alias

MAX_CHARACTERS = 64
"""Longer text is no phone number, whatever its punctuation."""
_URI = "tel:"
_PLUS = ("+", "\uff0b")
_INTERNATIONAL = "00"
_PLAIN = re.compile(r"[0-9]+")
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
    `forms` are what a check of the same number may be kept under, as `canonical` gives them.
    `others` are names that are computed: the number with its country, and WhatsApp's other
    spelling of it. `has_country` is false for a number that only the account's country completes.
    `dialable` is false for what can't be a phone number.
    """

    names: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    has_country: bool = False
    dialable: bool = False


def spell(text: str, country_of: str | None) -> Spelling:
    """Return all that a text may call a user; `country_of` is as in `canonical`."""
    names = [text] if usable_alias(text) else []
    digits = own_digits(text)
    if digits is None:
        return Spelling(tuple(names), has_country=True)
    names.append(digits)
    in_full = canonical(f"+{digits}", None)
    completed = None if _has_plus(text) else canonical(text, country_of)
    forms = dict.fromkeys(form for form in (digits, completed, in_full) if form is not None)
    others = [other for form in forms for other in (form, *other_spellings(form))]
    has_country = _has_plus(text) or text in names or digits != _digits(text)
    return Spelling(
        tuple(dict.fromkeys(names)),
        tuple(forms),
        tuple(dict.fromkeys(other for other in others if other not in names)),
        has_country=has_country or completed == digits,
        dialable=completed is not None
        or (has_country and (in_full or _is_other_dialable(others)) is not None),
    )


def _is_other_dialable(others: Iterable[str]) -> bool | None:
    """Tell whether WhatsApp's other spelling is a number where this one is none, as in Mexico."""
    return any(canonical(f"+{other}", None) for other in others) or None


def spell_in_full(text: str) -> Spelling | None:
    """Return what `spell` finds without asking the numbering plans.

    Enough for a number in full whose user is known: it takes a tenth of the time. None for other
    texts.
    """
    digits = own_digits(text)
    if digits is None or not (_has_plus(text) or _PLAIN.fullmatch(text)):
        return None
    names = dict.fromkeys((text, digits) if usable_alias(text) else (digits,))
    others = [other for other in other_spellings(digits) if other not in names]
    return Spelling(tuple(names), (digits,), tuple(others), has_country=True, dialable=True)


def own_digits(text: str) -> str | None:
    """Return the digits that a text is made of, in ASCII, without 00 before a country code.

    None where it holds letters, or no digit.
    """
    digits = _digits(text)
    if digits is None or _has_plus(text) or not digits.startswith(_INTERNATIONAL):
        return digits
    return digits[len(_INTERNATIONAL) :] or None


def _digits(text: str) -> str | None:
    if len(text) > MAX_CHARACTERS:
        return None
    bare = text.strip().removeprefix(_URI)
    if _LETTER.search(bare) is not None:
        return None
    digits = _NO_DIGIT.sub("", bare)
    if not digits.isascii():
        digits = "".join(str(unicodedata.decimal(digit)) for digit in digits)
    return digits or None


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
