"""When the signatures of an app's callbacks are an issue, and how often the log tells of them."""

from service.model.signature_check import ENOUGH, WITHIN_MS, SignatureCheck

NOW = 1_700_000_000_000
MINUTE = 60_000


def wrong(check: SignatureCheck, *at: int, missing: bool = False) -> list[int]:
    """Note wrong signatures at times after NOW; give what the log tells each time."""
    return [check.note_wrong(NOW + ms, missing=missing) for ms in at]


def test_ten_wrong_ones_within_ten_minutes_are_an_issue_since_the_tenth() -> None:
    check = SignatureCheck("meta")
    wrong(check, *(MINUTE * n for n in range(9)))
    assert check.since is None
    wrong(check, WITHIN_MS)
    assert check.since == NOW + WITHIN_MS
    wrong(check, WITHIN_MS + 1)
    assert check.since == NOW + WITHIN_MS


def test_ten_wrong_ones_in_a_longer_time_are_none() -> None:
    check = SignatureCheck("meta")
    wrong(check, *(MINUTE * 2 * n for n in range(50)))
    assert check.since is None
    wrong(check, *(MINUTE * 98 + n for n in range(ENOUGH - 1)))
    assert check.since is not None


def test_a_right_one_between_them_begins_the_count_anew_and_one_after_them_clears_it() -> None:
    check = SignatureCheck("meta")
    wrong(check, *range(9))
    check.clear()
    wrong(check, *range(9))
    assert check.since is None
    wrong(check, 9)
    assert check.since is not None
    check.clear()
    assert check.since is None
    assert check.wrong == 0


def test_those_without_any_signature_count_too_and_are_told_apart() -> None:
    check = SignatureCheck("meta")
    wrong(check, *range(8))
    wrong(check, 8, 9, missing=True)
    assert check.since is not None
    assert "10 callbacks of the app meta" in check.detail
    assert "2 of them without any" in check.detail


def test_the_log_tells_of_them_once_a_minute_with_their_number() -> None:
    check = SignatureCheck("meta")
    assert wrong(check, 0, 1, 2, MINUTE - 1, MINUTE, MINUTE + 1, 3 * MINUTE) == [
        1, 0, 0, 0, 4, 0, 2,
    ]  # fmt: skip


def test_a_clock_that_is_set_back_does_not_silence_the_log() -> None:
    check = SignatureCheck("meta")
    assert wrong(check, 0, -MINUTE) == [1, 1]
