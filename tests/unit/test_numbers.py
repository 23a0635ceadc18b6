"""Spellings of a phone number."""

import pytest

from service.model.numbers import (
    canonical,
    has_country,
    new_name,
    other_spellings,
    own_digits,
    spell,
)

US = "+16315550100"
INDIA = "+919800000000"
BRAZIL = "+551130000000"


@pytest.mark.parametrize(
    "text",
    [
        "+1 631 555 1001",
        "+16315551001",
        "+1 (631) 555-1001",
        "(631) 555-1001",
        "631.555.1001",
        "1 631 555 1001",
        "tel:+1-631-555-1001",
        "  +1/631/5551001 ",
        "\uff0b1 631 555 1001",
        "011 1 631 555 1001",
    ],
)
def test_spellings_of_a_number_share_one_form(text: str) -> None:
    assert canonical(text, US) == "16315551001"


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("98123 45678", "919812345678"),
        ("09812345678", "919812345678"),
        ("919812345678", "919812345678"),
        ("+1 (516) 283-7151", "15162837151"),
        ("+54 9 11 5612-1008", "5491156121008"),
        ("1-516-283-7151", None),
        ("5162837151", None),
    ],
)
def test_without_a_plus_sign_the_canonical_form_has_the_country_of_the_account(
    text: str, form: str | None
) -> None:
    assert canonical(text, INDIA) == form


@pytest.mark.parametrize(
    "text",
    ["", "+", "hello", "+163155588", "call +16315551001", "+1 631 555 1001 ext. 5", "9" * 65],
)
def test_what_cannot_be_dialled_has_no_form(text: str) -> None:
    assert canonical(text, US) is None


@pytest.mark.parametrize("country_of", [None, "", "nonsense", "+999123"])
def test_without_a_country_only_a_plus_sign_tells(country_of: str | None) -> None:
    assert canonical("6315551001", country_of) is None
    assert canonical("+16315551001", country_of) == "16315551001"


def test_leading_zeros_that_belong_to_the_number_stay() -> None:
    assert canonical("+39 06 1234 5678", US) == "390612345678"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("551155550361", None),
        ("551165550361", "5511965550361"),
        ("551195550361", "5511995550361"),
        ("525566295500", "5215566295500"),
        ("541156121008", "5491156121008"),
        ("16315550241", None),
        ("5511555503610", None),
        ("55119655503610", None),
    ],
)
def test_whatsapp_s_other_spelling_of_a_number_leads_there_and_back(
    one: str, other: str | None
) -> None:
    assert other_spellings(one) == (() if other is None else (other,))
    if other is not None:
        assert other_spellings(other) == (one,)


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("+16315550241", "16315550241"),
        ("+1 631-555-0241", "16315550241"),
        ("0016315550241", "16315550241"),
        ("00 1 631 555 0241", "16315550241"),
        ("+0016315550241", "0016315550241"),
        ("tel:+1-631-555-0241", "16315550241"),
        ("\u202a+1 (631) 555\u20110241\u202c", "16315550241"),
        ("\uff0b\uff11\uff16\uff13\uff11", "1631"),
        ("\u0661\u0666\u0663", "163"),
        ("call 1631", None),
        ("US.1349", None),
        ("00", None),
        ("+", None),
        ("1" * 141, None),
        ("1" + "-" * 256, None),
    ],
)
def test_the_own_digits_of_a_text_are_read_whatever_stands_between_them(
    text: str, digits: str | None
) -> None:
    assert own_digits(text) == digits


@pytest.mark.parametrize(
    ("text", "country_of", "meant"),
    [
        ("(479) 555-1234", US, "14795551234"),
        ("4795551234", US, "14795551234"),
        ("(631) 555-0241", US, "16315550241"),
        ("1 631 555 0241", "+4930123456", "16315550241"),
        ("+44 (0)20 7946 0018", None, "442079460018"),
        ("+4402079460018", None, "442079460018"),
        ("4402079460018", None, "442079460018"),
        ("011551185550361", US, "551185550361"),
        ("016315551001", US, "16315551001"),
        ("00016315551001", None, "16315551001"),
        ("1185550361", BRAZIL, "551185550361"),
        ("01185550361", BRAZIL, "5511985550361"),
        ("0151185550361", BRAZIL, "551185550361"),
        ("5599990001", BRAZIL, "5555999990001"),
        ("15512345678", "+525512345678", "525512345678"),
        ("5550783882", US, "15550783882"),
        ("us.1001", None, "US.1001"),
    ],
)
def test_what_may_be_meant_is_found_whatever_way_a_number_is_dialled(
    text: str, country_of: str | None, meant: str
) -> None:
    spelling = spell(text, country_of)
    assert meant in (*spelling.names, *spelling.others)


def test_a_number_that_the_account_s_country_completes_names_nobody_by_itself() -> None:
    for text in ("(631) 555-0241", "(479) 555-1234"):
        assert spell(text, US).names == ()
    assert spell("1 631 555 0241", US).names == ("16315550241",)
    assert spell("6315550241", US).names == ("6315550241",)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("+1 631 555 0241", True),
        ("0016315550241", True),
        ("16315550241", True),
        ("016315550241", False),
        ("1 631 555 0241", False),
        ("(631) 555-0241", False),
        ("0151-23456789", False),
    ],
)
def test_a_country_code_is_told_by_a_plus_sign_by_00_or_by_digits_alone(
    text: str, has: bool
) -> None:
    assert has_country(text) is has


@pytest.mark.parametrize(
    ("text", "country_of", "name"),
    [
        ("16315550241", None, "16315550241"),
        ("US.1349", None, "US.1349"),
        ("+1 631-555-0241", None, "16315550241"),
        ("001 631 555 0241", None, "16315550241"),
        ("+44 (0)20 7946 0958", None, "442079460958"),
        ("4402079460958", None, "442079460958"),
        ("5215566295500", None, "5215566295500"),
        ("1631", None, "1631"),
        ("+52 1 55 6629 5500", None, "5215566295500"),
        ("1 631 555 0241", US, "16315550241"),
        ("1 631 555 0241", None, None),
        ("(631) 555-0241", US, None),
        ("0151-23456789", "+4930123456", None),
        ("015123456789", "+4930123456", None),
        ("+1 (631) 555", US, None),
        ("no number", US, None),
    ],
)
def test_a_user_never_heard_of_is_called_by_a_number_in_full_or_by_nothing(
    text: str, country_of: str | None, name: str | None
) -> None:
    assert new_name(text, country_of) == name
