"""Contact checks: the newest arrival wins, a redelivery moves nothing."""

from dataclasses import replace

import pytest

from service.model.contacts import DAY_MS, MAX_DIGESTS, Check, Contact, apply_result
from service.model.events import ContactChecked

NOW = 1_600_000_000_000
INPUT, WA_ID = "+1 631 555 1001", "16315551001"


def checked(status: str = "valid", wa_id: str | None = WA_ID) -> ContactChecked:
    return ContactChecked(INPUT, status, wa_id)


def take_first(status: str = "valid", wa_id: str | None = WA_ID) -> Contact:
    contact = apply_result(None, "main", checked(status, wa_id), "first", NOW)
    assert contact is not None
    return contact


def test_a_result_that_nobody_asked_for_is_kept() -> None:
    contact = take_first()
    assert (contact.account, contact.input, contact.status) == ("main", INPUT, "valid")
    assert (contact.wa_id, contact.checked_at) == (WA_ID, NOW)


def test_the_newest_arrival_wins() -> None:
    later = apply_result(take_first(), "main", checked("invalid", None), "second", NOW + 5)
    assert later is not None
    assert (later.status, later.checked_at) == ("invalid", NOW + 5)


def test_a_byte_identical_redelivery_moves_nothing() -> None:
    second = apply_result(take_first(), "main", checked("invalid", None), "second", NOW + 5)
    assert apply_result(second, "main", checked(), "first", NOW + 10) is None
    assert apply_result(second, "main", checked("invalid", None), "second", NOW + 10) is None


def test_a_wa_id_stays_known_when_a_later_result_carries_none() -> None:
    later = apply_result(take_first(), "main", checked("invalid", None), "second", NOW + 5)
    assert later is not None
    assert later.wa_id == WA_ID


def test_a_new_wa_id_takes_the_place_of_the_old_one() -> None:
    later = apply_result(take_first(), "main", checked(wa_id="5215566295500"), "second", NOW + 5)
    assert later is not None
    assert later.wa_id == "5215566295500"


def test_seven_days_after_its_check_a_contact_is_stale() -> None:
    assert take_first().expires_at == NOW + 7 * DAY_MS


def test_two_results_in_one_body_both_count_and_the_last_one_wins() -> None:
    later = apply_result(take_first("processing"), "main", checked("valid"), "first", NOW)
    assert later is not None
    assert later.status == "valid"


def test_a_callback_that_is_read_again_does_not_undo_a_newer_one() -> None:
    newest = apply_result(take_first(), "main", checked("invalid"), "second", NOW + 5)
    assert apply_result(newest, "main", checked("processing"), "third", NOW + 4) is None


def test_only_so_many_redeliveries_are_remembered() -> None:
    contact = take_first()
    for n in range(100):
        taken = apply_result(contact, "main", checked(), f"digest-{n}", NOW + n)
        assert taken is not None
        contact = taken
    assert len(contact.digests) == MAX_DIGESTS
    assert apply_result(contact, "main", checked(), "digest-99", NOW + 200) is None


def asked(contact: Contact, at: int = NOW) -> Contact:
    return replace(contact, check=Check(at, at + 60_000, 1))


def test_while_an_answer_is_fresh_what_nobody_asked_for_can_only_make_it_invalid() -> None:
    answered = apply_result(asked(take_first("processing")), "main", checked(), "second", NOW + 1)
    assert answered is not None
    assert answered.answered_at == NOW + 1
    assert apply_result(answered, "main", checked(wa_id="999"), "third", NOW + 2) is None
    invalid = apply_result(answered, "main", checked("invalid", "999"), "fourth", NOW + 3)
    assert invalid is not None
    assert (invalid.status, invalid.wa_id, invalid.answered_at) == ("invalid", WA_ID, NOW + 1)
    assert apply_result(invalid, "main", checked(), "fifth", NOW + 4) is None
    later = apply_result(invalid, "main", checked(wa_id="999"), "sixth", NOW + 1 + 7 * DAY_MS)
    assert later is not None
    assert (later.status, later.wa_id) == ("valid", "999")


def test_an_answer_to_a_check_that_was_asked_for_always_counts() -> None:
    answered = apply_result(take_first(), "main", checked("invalid", None), "", NOW + 1)
    assert answered is not None
    again = apply_result(asked(answered, NOW + 2), "main", checked(wa_id="999"), "second", NOW + 3)
    assert again is not None
    assert (again.status, again.wa_id, again.answered_at) == ("valid", "999", NOW + 3)


@pytest.mark.parametrize("status", ["valid", "invalid"])
def test_a_check_that_ends_failed_leaves_what_was_known(status: str) -> None:
    known = take_first(status)
    assert apply_result(known, "main", checked("failed", None), "second", NOW + 5) is None
    ended = apply_result(asked(known, NOW + 4), "main", checked("failed", None), "second", NOW + 5)
    assert ended is not None
    assert (ended.status, ended.wa_id, ended.checked_at) == (status, WA_ID, NOW)
    assert (ended.check, ended.unanswered_since) == (None, NOW + 4)


def test_what_was_never_answered_ends_failed() -> None:
    ended = apply_result(
        asked(take_first("processing")), "main", checked("failed"), "second", NOW + 5
    )
    assert ended is not None
    assert (ended.status, ended.answered_at) == ("failed", None)
