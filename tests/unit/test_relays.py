"""What a relay sends next, and what becomes of what could not be sent."""

from itertools import count
from typing import Any

import pytest

from service.model.relays import MIN_FAILURES, Entry, Result, RowState, Schedule, result_of

DAY = 86_400.0
NOW = 1000.0


def schedule(**more: Any) -> Schedule:
    return Schedule(0, 3 * DAY, **more)


def entry(id_: int, *names: str, kind: str = "messages", of_one: bool = True) -> Entry:
    return Entry(id_, frozenset({kind}), frozenset(names or {f"u{id_}"}), of_one, due_at=NOW)


def filled(*entries: Entry, **more: Any) -> Schedule:
    made = schedule(**more)
    for one in entries:
        made.add(one)
    return made


def take_all(made: Schedule, now: float = NOW) -> list[int]:
    found = []
    while (one := made.take(now)) is not None:
        found.append(one.log_id)
    return found


def fail(made: Schedule, one: Entry, now: float = NOW, result: Result = Result.FAILED) -> None:
    made.record(one, result, now, 0.5, is_down=False)


def deliver(made: Schedule, one: Entry) -> None:
    made.record(one, Result.DELIVERED, NOW, 0.5, is_down=False)


def taken(made: Schedule, now: float = NOW) -> Entry:
    one = made.take(now)
    assert one is not None
    return one


@pytest.mark.parametrize(
    ("status", "result"),
    [
        *((status, Result.DELIVERED) for status in (200, 201, 202, 204, 299)),
        *((status, Result.REFUSED) for status in (400, 413, 415, 422)),
        (410, Result.GONE),
        *((s, Result.FAILED) for s in (None, 301, 307, 401, 403, 404, 408, 425, 429, 500, 503)),
    ],
)
def test_what_a_status_says(status: int | None, result: Result) -> None:
    assert result_of(status) is result


def test_the_position_is_before_the_first_that_is_not_done() -> None:
    made = filled(entry(3), entry(5), entry(6))
    made.skip(9)
    assert made.position == 2
    one, two, three = taken(made), taken(made), taken(made)
    deliver(made, two)
    assert made.position == 2
    deliver(made, one)
    assert made.position == 5
    deliver(made, three)
    assert made.position == 9


def test_one_user_s_callbacks_go_one_at_a_time_and_others_at_once() -> None:
    made = filled(entry(1, "a"), entry(2, "b"), entry(3, "a"), entry(4, "a", "b"), entry(5, "c"))
    assert take_all(made) == [1, 2, 5]


def test_without_order_all_go_at_once() -> None:
    made = filled(entry(1, "a"), entry(2, "a"), ordered=False)
    assert take_all(made) == [1, 2]


def test_a_verdict_makes_a_row_at_once_and_what_is_behind_it_waits() -> None:
    made = filled(entry(1, "a"), entry(2, "b"), entry(3, "a"))
    one = taken(made)
    fail(made, one, result=Result.REFUSED)
    assert one.state is RowState.RETRYING
    made.add(entry(4, "a"))
    assert {e.log_id: e.state for e in made.rows.values()} == {
        1: RowState.RETRYING,
        3: RowState.WAITING,
        4: RowState.WAITING,
    }
    assert made.position == 1
    deliver(made, taken(made))
    assert made.position == 4


def test_a_failure_makes_a_row_only_after_three_and_only_if_another_passed() -> None:
    made = filled(entry(1, "a"), entry(2, "b"))
    one, two = taken(made), taken(made)
    for n in range(MIN_FAILURES + 2):
        fail(made, one, NOW + 10 * n)
        assert one.state is None
        one = taken(made, NOW + 10 * n + 9)
    deliver(made, two)
    fail(made, one, NOW + 100)
    assert one.state is RowState.RETRYING


def test_one_that_passed_before_its_first_failure_does_not_count() -> None:
    made = filled(entry(1, "a"), entry(2, "b"))
    one, two = taken(made), taken(made)
    deliver(made, two)
    for n in range(5):
        fail(made, one, NOW + 10 * n)
        assert one.state is None
        one = taken(made, NOW + 10 * n + 9)


def test_what_waited_goes_in_its_order_once_the_first_is_delivered() -> None:
    made = filled(entry(1, "a"), entry(2, "a"), entry(3, "a"))
    fail(made, taken(made), result=Result.REFUSED)
    delivered = []
    for n in range(3):
        one = taken(made, NOW + 100 * n + 50)
        delivered.append(one.log_id)
        deliver(made, one)
    assert delivered == [1, 2, 3]
    assert sorted(made.ended) == [1, 2, 3]
    assert made.rows == {}


def test_one_of_several_users_that_fails_waits_alone() -> None:
    made = filled(entry(1, "a", "b", of_one=False), entry(2, "a"), entry(3, "b"))
    assert take_all(made) == [1]
    fail(made, made.entries[1])
    assert sorted(take_all(made)) == [2, 3]


def test_one_of_several_users_is_not_held_up_by_the_row_of_one_of_them() -> None:
    made = filled(entry(1, "a"), entry(2, "a", "b", of_one=False))
    fail(made, taken(made), result=Result.REFUSED)
    assert take_all(made) == [2]
    made.add(entry(3, "a", "c", of_one=False))
    assert take_all(made) == [3]


def test_after_its_time_a_row_is_dead_and_the_next_of_its_user_goes() -> None:
    made = filled(entry(1, "a"), entry(2, "a"))
    one = taken(made)
    fail(made, one, result=Result.REFUSED)
    now = NOW
    while one.state is not RowState.DEAD:
        now = one.due_at
        assert taken(made, now) is one
        fail(made, one, now)
    assert now >= NOW + 3 * DAY
    assert taken(made, now).log_id == 2
    assert 1 in made.rows


def test_delays_of_a_row_grow_to_an_hour() -> None:
    made = filled(entry(1))
    one, now, delays = taken(made), NOW, []
    for _ in range(20):
        fail(made, one, now, Result.REFUSED)
        delays.append(one.due_at - now)
        now = one.due_at
        taken(made, now)
    assert delays == sorted(delays)
    assert delays[-1] == 3600


def test_nothing_dies_while_the_destination_is_down() -> None:
    made = filled(entry(1))
    one = taken(made)
    fail(made, one, result=Result.REFUSED)
    made.take(NOW + 10 * DAY)
    made.record(one, Result.FAILED, NOW + 10 * DAY, 0.5, is_down=True)
    assert one.state is RowState.RETRYING


def test_a_dead_one_can_be_tried_again_and_holds_up_nobody() -> None:
    made = filled(entry(1, "a"))
    one = taken(made)
    fail(made, one, result=Result.REFUSED)
    made.take(NOW + 4 * DAY)
    fail(made, one, NOW + 4 * DAY)
    assert one.state is RowState.DEAD
    made.add(entry(2, "a"))
    now = NOW + 4 * DAY
    assert made.retry(one.delivery or 0, now)
    assert sorted(take_all(made, now)) == [1, 2]
    assert not made.retry(99, now)


def test_probes_are_of_different_kinds_and_then_of_different_callbacks() -> None:
    kinds = ["messages", "messages", "statuses", "messages", "statuses", "errors"]
    made = filled(*(entry(n + 1, kind=kind) for n, kind in enumerate(kinds)))
    probed = []
    for _ in range(9):
        one = made.take_probe(NOW)
        assert one is not None
        probed.append(one.log_id)
        fail(made, one)
    assert probed == [1, 3, 6, 2, 5, 6, 4, 3, 6]


def test_a_replay_has_an_order_of_its_own_beside_what_is_new() -> None:
    made = filled(entry(5, "a"))
    for id_ in (1, 2):
        replayed = entry(id_, "a")
        replayed.replay = 7
        made.add_replayed(replayed)
    assert take_all(made) == [5, 1]
    assert made.replaying == 2
    assert made.position == 4


def test_rows_are_taken_over_from_before_with_their_order() -> None:
    before = filled(entry(1, "a"), entry(2, "a"), entry(3, "b"))
    fail(before, taken(before), result=Result.REFUSED)
    after = schedule()
    after.read_up_to = before.position
    stored = [
        Entry(
            row.log_id,
            row.kinds,
            row.names,
            row.is_of_one,
            delivery=row.delivery,
            state=row.state,
            attempts=row.attempts,
            due_at=row.due_at,
        )
        for row in before.rows.values()
    ]
    after.restore(stored, 3)
    after.add(entry(3, "b"))
    after.add(entry(4, "a"))
    assert take_all(after) == [3]
    assert [after.rows[n].state for n in (1, 2, 3)] == ["retrying", "waiting", "waiting"]


def test_a_row_that_is_delivered_leaves_nothing_to_be_written_but_its_end() -> None:
    made = filled(entry(1))
    one = taken(made)
    fail(made, one, result=Result.REFUSED)
    assert [*made.changed] == [1]
    deliver(made, taken(made, NOW + 100))
    assert made.changed == {}
    assert made.ended == [1]


def test_delivery_ids_are_not_given_twice() -> None:
    made = schedule()
    ids = count(1)
    for _ in range(5):
        made.add(entry(next(ids)))
        one = taken(made)
        fail(made, one, result=Result.REFUSED)
        deliver(made, taken(made, NOW + 100))
    assert made.ended == [1, 2, 3, 4, 5]
