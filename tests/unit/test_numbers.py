"""Spellings of a phone number."""

import pytest

from service.model.numbers import canonical, other_spellings, own_digits, spell, spell_in_full

US = "+16315550100"
INDIA = "+919800000000"


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
        ("1" * 65, None),
    ],
)
def test_the_own_digits_of_a_text_are_read_whatever_stands_between_them(
    text: str, digits: str | None
) -> None:
    assert own_digits(text) == digits


@pytest.mark.parametrize(
    "text",
    ["16315550241", "+16315550241", "0016315550241", "5511965550361", "+1 (631) 555-0241"],
)
def test_a_number_in_full_means_the_same_with_and_without_the_numbering_plans(text: str) -> None:
    plainly, fully = spell_in_full(text), spell(text, US)
    assert plainly is not None
    assert set(plainly.names) == set(fully.names)
    assert set(plainly.forms) <= set(fully.forms)
    assert set(plainly.others) <= set(fully.others)


@pytest.mark.parametrize("text", ["1 631 555 0241", "US.1349", "+", "", "\u0661", "1" * 65])
def test_what_is_not_a_number_in_full_takes_the_numbering_plans(text: str) -> None:
    assert spell_in_full(text) is None


def test_a_number_without_its_country_may_be_of_another() -> None:
    national = spell("(631) 555-0241", US)
    assert (national.names, national.others) == (("6315550241",), ("16315550241",))
    assert not national.has_country
    assert all(spell(text, US).has_country for text in ("+1 631 555 0241", "16315550241", "US.1"))
