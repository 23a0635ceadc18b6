"""Spellings of a phone number."""

import pytest

from service.model.numbers import canonical

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
