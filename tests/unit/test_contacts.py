"""Contact checks: the newest arrival wins, a redelivery moves nothing."""

from service.model.contacts import DAY_MS, MAX_DIGESTS, Contact, take
from service.model.events import ContactChecked

NOW = 1_600_000_000_000
INPUT, WA_ID = "+1 631 555 1001", "16315551001"


def checked(status: str = "valid", wa_id: str | None = WA_ID) -> ContactChecked:
    return ContactChecked(INPUT, status, wa_id)


def take_first(status: str = "valid", wa_id: str | None = WA_ID) -> Contact:
    contact = take(None, "main", checked(status, wa_id), "first", NOW)
    assert contact is not None
    return contact


def test_a_result_that_nobody_asked_for_is_kept() -> None:
    contact = take_first()
    assert (contact.account, contact.input, contact.status) == ("main", INPUT, "valid")
    assert (contact.wa_id, contact.checked_at) == (WA_ID, NOW)


def test_the_newest_arrival_wins() -> None:
    later = take(take_first(), "main", checked("invalid", None), "second", NOW + 5)
    assert later is not None
    assert (later.status, later.checked_at) == ("invalid", NOW + 5)


def test_a_byte_identical_redelivery_moves_nothing() -> None:
    second = take(take_first(), "main", checked("invalid", None), "second", NOW + 5)
    assert take(second, "main", checked(), "first", NOW + 10) is None
    assert take(second, "main", checked("invalid", None), "second", NOW + 10) is None


def test_a_wa_id_stays_known_when_a_later_result_carries_none() -> None:
    later = take(take_first(), "main", checked("invalid", None), "second", NOW + 5)
    assert later is not None
    assert later.wa_id == WA_ID


def test_a_new_wa_id_takes_the_place_of_the_old_one() -> None:
    later = take(take_first(), "main", checked(wa_id="5215566295500"), "second", NOW + 5)
    assert later is not None
    assert later.wa_id == "5215566295500"


def test_seven_days_after_its_check_a_contact_is_stale() -> None:
    assert take_first().expires_at == NOW + 7 * DAY_MS


def test_two_results_in_one_body_both_count_and_the_last_one_wins() -> None:
    later = take(take_first("processing"), "main", checked("valid"), "first", NOW)
    assert later is not None
    assert later.status == "valid"


def test_a_callback_that_is_read_again_does_not_undo_a_newer_one() -> None:
    newest = take(take_first(), "main", checked("invalid"), "second", NOW + 5)
    assert take(newest, "main", checked("processing"), "third", NOW + 4) is None


def test_only_so_many_redeliveries_are_remembered() -> None:
    contact = take_first()
    for n in range(100):
        taken = take(contact, "main", checked(), f"digest-{n}", NOW + n)
        assert taken is not None
        contact = taken
    assert len(contact.digests) == MAX_DIGESTS
    assert take(contact, "main", checked(), "digest-99", NOW + 200) is None
