"""When something happened, and a user's changes in their order: spans, repeats, splits, doubt."""

import pytest

from service.model.timeline import (
    LATEST_MS,
    MAX_SIGHTINGS,
    MAX_SKEW_MS,
    Change,
    Dating,
    Moment,
    Order,
    Precision,
    count_within,
    date_event,
    insert_earlier,
    locate,
    record_repeat,
)

ARRIVED = 1_600_000_000_000


def exact(second: float) -> Moment:
    return Moment(round(second * 1000))


def second(at: int) -> Moment:
    return Moment(at * 1000, Precision.SECOND)


def arrival(at: float) -> Moment:
    return Moment(round(at * 1000), Precision.ARRIVAL)


def change(hash_: str, *seen: Moment) -> Change:
    return Change(hash_, min(seen, key=lambda m: (m.precision, m.at)), 0, sorted(seen))


def spans(changes: list[Change]) -> list[tuple[str, int, int]]:
    return [(c.hash, c.first.at, c.last.at) for c in changes]


class TestSpan:
    def test_a_change_spans_from_its_first_sighting_to_its_last(self) -> None:
        seen = change("A", exact(10), exact(30), exact(20))
        assert (seen.first, seen.last) == (exact(10), exact(30))

    @pytest.mark.parametrize("at", [9, 10, 20, 30, 31])
    def test_it_holds_a_second_more_on_either_side(self, at: int) -> None:
        assert change("A", exact(10), exact(30)).spans(exact(at))

    @pytest.mark.parametrize("at", [8.999, 31.001])
    def test_it_holds_nothing_beyond_that_second(self, at: float) -> None:
        assert not change("A", exact(10), exact(30)).spans(exact(at))

    def test_a_timestamp_is_in_it_when_any_part_of_its_second_is(self) -> None:
        assert change("A", exact(10.5)).spans(second(9))
        assert not change("A", exact(10.5)).spans(second(8))
        assert change("A", second(10)).spans(exact(11.999))

    def test_it_grows_with_every_sighting(self) -> None:
        seen = change("A", exact(10))
        seen.absorb(exact(40))
        seen.absorb(exact(5))
        assert (seen.first, seen.last) == (exact(5), exact(40))

    def test_of_the_same_change_the_more_precise_time_is_kept(self) -> None:
        seen = change("A", arrival(10))
        seen.absorb(second(12))
        assert seen.changed == second(12)
        seen.absorb(exact(20))
        assert seen.changed == exact(20)
        seen.absorb(second(5))
        assert seen.changed == exact(20)

    @pytest.mark.parametrize("order", [(second(10), exact(10.5)), (exact(10.5), second(10))])
    def test_the_whole_second_and_the_exact_time_in_it_are_one_sighting(
        self, order: tuple[Moment, Moment]
    ) -> None:
        seen = change("A", order[0])
        seen.absorb(order[1])
        assert seen.seen == [exact(10.5)]

    def test_a_sighting_seen_before_leaves_nothing_to_be_written(self) -> None:
        seen = change("A", exact(10))
        seen.touched = False
        seen.absorb(exact(10))
        assert not seen.touched
        seen.absorb(exact(11))
        assert seen.touched

    def test_only_so_many_sightings_are_kept_the_ends_among_them(self) -> None:
        seen = change("A", exact(0))
        for at in range(1, 100):
            seen.absorb(exact(at))
        assert len(seen.seen) == MAX_SIGHTINGS
        assert (seen.first, seen.last) == (exact(0), exact(99))


class TestPlace:
    @pytest.mark.parametrize("at", [1, 20, 30, 500])
    def test_the_latest_hash_again_is_the_same_change(self, at: int) -> None:
        latest = change("A", exact(10), exact(30))
        assert locate(latest, [], "A", exact(at)) is Order.REPEAT

    def test_the_latest_hash_from_before_another_one_is_an_earlier_change(self) -> None:
        latest, history = change("A", exact(50)), [change("B", exact(30))]
        assert locate(latest, history, "A", exact(10)) is Order.EARLIER
        assert locate(latest, history, "A", exact(40)) is Order.REPEAT

    def test_a_hash_within_its_own_span_in_the_history_is_a_repeat(self) -> None:
        latest, history = change("B", exact(50)), [change("A", exact(10), exact(30))]
        for at in (9, 10, 20, 30, 31):
            assert locate(latest, history, "A", exact(at)) is Order.REPEAT

    def test_a_change_is_later_only_after_the_whole_span_of_the_latest(self) -> None:
        latest = change("A", exact(10), exact(30))
        assert locate(latest, [], "B", exact(30.001)) is Order.LATER
        assert locate(latest, [], "B", exact(29.999)) is Order.EARLIER
        assert locate(latest, [], "B", exact(5)) is Order.EARLIER

    def test_a_hash_that_comes_again_after_the_span_of_the_other_is_later(self) -> None:
        latest, history = change("B", exact(30)), [change("A", exact(10))]
        assert locate(latest, history, "A", exact(40)) is Order.LATER

    @pytest.mark.parametrize(
        ("latest", "sighted"),
        [
            (exact(10), exact(10)),
            (second(10), second(10)),
            (second(10), exact(10.5)),
            (exact(10.5), second(10)),
            (second(10), exact(10)),
            (second(10), exact(10.999)),
        ],
    )
    def test_what_cant_be_told_from_the_end_of_the_latest_is_in_doubt(
        self, latest: Moment, sighted: Moment
    ) -> None:
        assert locate(change("A", latest), [], "B", sighted) is Order.AMBIGUOUS

    def test_the_next_second_and_the_one_before_leave_no_doubt(self) -> None:
        assert locate(change("A", second(10)), [], "B", second(11)) is Order.LATER
        assert locate(change("A", second(10)), [], "B", second(9)) is Order.EARLIER


class TestEarlier:
    def insert(self, latest: Change, history: list[Change], hash_: str, at: Moment) -> int:
        return len(insert_earlier(latest, history, change(hash_, at)))

    def test_it_is_one_entry_in_the_history_sorted_by_time(self) -> None:
        latest, history = change("D", exact(50)), [change("A", exact(10)), change("C", exact(30))]
        assert self.insert(latest, history, "B", exact(20)) == 1
        assert self.insert(latest, history, "Z", exact(5)) == 1
        assert [c.hash for c in history] == ["Z", "A", "B", "C"]

    def test_within_the_span_of_the_latest_it_parts_that(self) -> None:
        latest = change("A", exact(10), exact(20), exact(40))
        history: list[Change] = []
        assert self.insert(latest, history, "B", exact(30)) == 2
        assert spans([*history, latest]) == [
            ("A", 10_000, 20_000),
            ("B", 30_000, 30_000),
            ("A", 40_000, 40_000),
        ]
        assert latest.changed == exact(40)

    def test_within_the_span_of_one_in_the_history_it_parts_that(self) -> None:
        latest, history = change("C", exact(50)), [change("A", exact(10), exact(40))]
        assert self.insert(latest, history, "B", exact(30)) == 2
        assert [c.hash for c in history] == ["A", "B", "A"]

    @pytest.mark.parametrize("at", [30, 45])
    def test_beside_a_change_of_the_same_hash_it_only_grows_that(self, at: int) -> None:
        latest, history = change("C", exact(50)), [change("A", exact(10)), change("B", exact(40))]
        hash_ = "A" if at == 30 else "B"
        assert self.insert(latest, history, hash_, exact(at)) == 0
        assert [c.hash for c in history] == ["A", "B"]
        grown = history[0] if hash_ == "A" else history[1]
        assert grown.last == exact(at)

    def test_before_the_latest_of_the_same_hash_it_grows_the_latest(self) -> None:
        latest, history = change("C", exact(50)), [change("A", exact(10))]
        assert self.insert(latest, history, "C", exact(30)) == 0
        assert latest.first == exact(30)

    def test_within_the_span_of_another_it_is_no_part_of_what_follows(self) -> None:
        latest, history = change("B", exact(50)), [change("A", exact(10), exact(40))]
        assert self.insert(latest, history, "B", exact(30)) == 2
        assert [c.hash for c in (*history, latest)] == ["A", "B", "A", "B"]
        assert latest.first == exact(50)

    @pytest.mark.parametrize("at", [10, 40])
    def test_at_the_very_end_of_another_span_it_parts_nothing(self, at: int) -> None:
        latest, history = change("C", exact(50)), [change("A", exact(10), exact(40))]
        assert self.insert(latest, history, "B", exact(at)) == 1
        assert sorted(c.hash for c in history) == ["A", "B"]

    def test_the_parts_keep_the_best_time_of_their_own_sightings(self) -> None:
        latest = change("A", second(10), exact(12), second(40))
        history: list[Change] = []
        insert_earlier(latest, history, change("B", exact(30)))
        assert history[0].changed == exact(12)
        assert latest.changed == second(40)


class TestRepeat:
    def test_the_latest_grows_with_whatever_is_seen_of_it(self) -> None:
        latest = change("A", exact(10))
        record_repeat(latest, [], "A", exact(99))
        assert latest.last == exact(99)

    def test_one_in_the_history_is_told_more_precisely_but_does_not_grow(self) -> None:
        latest, history = change("B", exact(50)), [change("A", second(10), second(20))]
        record_repeat(latest, history, "A", exact(10.25))
        assert history[0].changed == exact(10.25)
        record_repeat(latest, history, "A", exact(21.5))
        assert history[0].last == second(20)

    def test_what_is_in_nobodys_span_changes_nothing(self) -> None:
        latest, history = change("B", exact(50)), [change("A", exact(10))]
        record_repeat(latest, history, "A", exact(9.5))
        assert history[0].seen == [exact(10)]


class TestCount:
    def test_the_latest_counts_and_every_change_in_the_window_before_it(self) -> None:
        latest = change("D", exact(100))
        history = [change("A", exact(39)), change("B", exact(41)), change("C", exact(99))]
        assert count_within(latest, history, 60) == 3
        assert count_within(latest, history, 1) == 1
        assert count_within(latest, [], 60) == 1

    def test_what_lies_just_outside_the_window_does_not_count(self) -> None:
        assert count_within(change("B", exact(100)), [change("A", exact(40))], 60) == 1
        assert count_within(change("B", exact(100)), [change("A", exact(40.001))], 60) == 2

    def test_nobody_counts_further_than_asked(self) -> None:
        history = [change("A", exact(at)) for at in range(50, 99)]
        assert count_within(change("B", exact(100)), history, 60) == 50
        assert count_within(change("B", exact(100)), history, 60, most=4) == 4
        assert count_within(change("B", exact(100)), history, 3, most=4) == 2
        assert count_within(change("B", exact(100)), history, 60, most=1) == 1

    def test_one_that_began_before_the_window_counts_by_when_it_changed(self) -> None:
        began = change("A", second(39), exact(39.5), second(45))
        assert count_within(change("B", exact(99)), [began], 60) == 2


def test_a_timestamp_stands_for_its_whole_second() -> None:
    assert second(5).until == 5_999
    assert Moment(5_000).until == 5_000
    assert Moment(5_000, Precision.ARRIVAL).until == 5_000


def test_a_moment_is_after_another_only_when_it_surely_is() -> None:
    assert Moment(6_000).after(second(5))
    assert not Moment(5_999).after(second(5))
    assert second(6).after(second(5))
    assert not second(5).after(Moment(5_000))
    assert not Moment(5_000).after(Moment(5_000))


def test_the_more_precise_moment_is_the_better_one_and_then_the_earlier() -> None:
    assert Moment(9_000).better(second(5))
    assert second(5).better(Moment(4_000, Precision.ARRIVAL))
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
    assert date_event(second(1), ARRIVED) == Dating(second(1))


def test_the_latest_moment_is_the_last_that_rfc_3339_can_write() -> None:
    assert LATEST_MS == 253_402_300_799_999
