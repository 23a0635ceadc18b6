"""What can name a user, and what can be an identity hash."""

import pytest

from service.model.users import usable_alias, usable_hash


@pytest.mark.parametrize("alias", ["1", "16315553601", "user.name_x-1", "A" * 140, "0-"])
def test_letters_digits_dot_underscore_and_hyphen_name_a_user(alias: str) -> None:
    assert usable_alias(alias)


@pytest.mark.parametrize(
    "alias",
    [
        "",
        "A" * 141,
        ".hidden",
        "-1",
        "_x",
        "a/b",
        "a b",
        "+1631",
        "1\n",
        "1\x00",
        "é",
        "٣",
        "\ud800",
    ],
)
def test_anything_else_names_nobody(alias: str) -> None:
    assert not usable_alias(alias)


@pytest.mark.parametrize("hash_", ["R", "Rc/eg9Rl0JA=", "with a space", "é", "x" * 1024])
def test_a_hash_is_opaque_and_printable(hash_: str) -> None:
    assert usable_hash(hash_)


@pytest.mark.parametrize("hash_", ["", "x" * 1025, "a\nb", "a\x00b", "\ud800", "\u200b", "a\tb"])
def test_what_is_empty_too_long_or_not_printable_is_no_hash(hash_: str) -> None:
    assert not usable_hash(hash_)
