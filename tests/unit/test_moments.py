"""When something happened: what is believed, and how well it is known."""

from service.model.timeline import LATEST_MS, MAX_SKEW_MS, Dating, Moment, Precision, date_event

ARRIVED = 1_600_000_000_000


def second(at: int) -> Moment:
    return Moment(at, Precision.SECOND)


def test_a_timestamp_stands_for_its_whole_second() -> None:
    assert second(5_000).until == 5_999
    assert Moment(5_000).until == 5_000
    assert Moment(5_000, Precision.ARRIVAL).until == 5_000


def test_a_moment_is_after_another_only_when_it_surely_is() -> None:
    assert Moment(6_000).after(second(5_000))
    assert not Moment(5_999).after(second(5_000))
    assert second(6_000).after(second(5_000))
    assert not second(5_000).after(Moment(5_000))
    assert not Moment(5_000).after(Moment(5_000))


def test_the_more_precise_moment_is_the_better_one_and_then_the_earlier() -> None:
    assert Moment(9_000).better(second(5_000))
    assert second(5_000).better(Moment(4_000, Precision.ARRIVAL))
    assert Moment(4_999).better(Moment(5_000))
    assert not Moment(5_000).better(Moment(5_000))


def test_without_an_event_time_the_arrival_counts() -> None:
    assert date_event(None, ARRIVED) == Dating(Moment(ARRIVED, Precision.ARRIVAL))


def test_an_event_time_up_to_five_minutes_ahead_of_the_arrival_is_believed() -> None:
    claimed = Moment(ARRIVED + MAX_SKEW_MS)
    assert MAX_SKEW_MS == 300_000
    assert date_event(claimed, ARRIVED) == Dating(claimed)


def test_an_event_time_more_than_five_minutes_ahead_gives_way_to_the_arrival() -> None:
    claimed = ARRIVED + MAX_SKEW_MS + 1
    assert date_event(Moment(claimed), ARRIVED) == Dating(
        Moment(ARRIVED, Precision.ARRIVAL), claimed
    )


def test_an_old_event_time_is_believed_however_late_it_arrives() -> None:
    assert date_event(second(1_000), ARRIVED) == Dating(second(1_000))


def test_the_latest_moment_is_the_last_that_rfc_3339_can_write() -> None:
    assert LATEST_MS == 253_402_300_799_999
