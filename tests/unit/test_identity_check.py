"""Whether the identity change check seems to be on is seen in the messages that come."""

import pytest

from service.model.account_checks import ENOUGH, IdentityCheck
from service.model.events import AliasesSeen, Event, HashUnreadable, IdentitySeen, UserWrote

USER, OTHER = "US.1", "US.2"


def wrote(user: str = USER) -> UserWrote:
    return UserWrote(user, None)


def seen(user: str = USER) -> IdentitySeen:
    return IdentitySeen(user, "DF2lS5v2W6x=", None)


def after(*callbacks: list[Event]) -> IdentityCheck:
    check = IdentityCheck()
    for arrived, events in enumerate(callbacks, start=1):
        check.note(events, arrived)
    return check


def test_nothing_is_claimed_before_enough_messages_came() -> None:
    assert not after().seems_off
    assert not after(*[[wrote()]] * (ENOUGH - 1)).seems_off


def test_enough_messages_in_a_row_without_a_hash_let_it_seem_off_since_the_first() -> None:
    check = after([seen(), wrote()], *[[wrote()]] * ENOUGH)
    assert check.seems_off
    assert (check.hash_at, check.since, check.without) == (1, 2, ENOUGH)
    assert f"last {ENOUGH} messages" in check.detail


def test_messages_of_one_callback_count_each() -> None:
    assert after([wrote(USER), wrote(OTHER)] * (ENOUGH // 2)).seems_off


@pytest.mark.parametrize(
    "last", [[seen(), wrote()], [seen()], [AliasesSeen(USER, None, None, None), seen(), wrote()]]
)
def test_one_hash_shows_that_it_is_on(last: list[Event]) -> None:
    check = after(*[[wrote()]] * ENOUGH, last)
    assert not check.seems_off
    assert check.without == 0
    assert check.since is None
    assert check.hash_at == ENOUGH + 1


def test_a_hash_that_can_not_be_read_shows_that_it_is_on_too() -> None:
    check = after(*[[wrote()]] * ENOUGH, [wrote(), HashUnreadable(USER, None)])
    assert (check.seems_off, check.without) == (False, 0)


def test_dismissed_it_is_let_be_until_the_next_message_without_a_hash() -> None:
    check = after(*[[wrote()]] * ENOUGH)
    check.dismissed = True
    assert not check.seems_off
    check.note([wrote()], ENOUGH + 1)
    assert check.seems_off


def test_a_hash_of_one_user_is_none_of_another() -> None:
    check = after([seen(USER), wrote(USER), wrote(OTHER)])
    assert check.without == 1


def test_what_is_no_message_of_a_user_does_not_count() -> None:
    assert after(*[[AliasesSeen(USER, None, None, None)]] * ENOUGH).without == 0
