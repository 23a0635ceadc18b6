"""Whatever a destination answers, and whenever the relay starts anew, nothing is lost.

A relay is played through in steps of a second: its log grows, it is answered at random, it is
stopped and started with what was stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from service.model.pace import Pace
from service.model.relays import Entry, Result, RowState, Schedule

ANSWERS = st.sampled_from([*[Result.DELIVERED] * 6, Result.FAILED, Result.FAILED, Result.REFUSED])
USERS = st.sampled_from([("a",), ("b",), ("c",), ("a", "b")])
STEPS = st.lists(
    st.tuples(
        st.lists(USERS, max_size=4),  # what arrives
        st.lists(ANSWERS, min_size=1, max_size=8),  # how it is answered, in turn
        st.booleans(),  # whether it starts anew
        st.booleans(),  # whether what was done is stored before
    ),
    max_size=30,
)


@dataclass
class Played:
    """A relay that is played, with what is stored of it and what its destination got."""

    log: list[tuple[str, ...]] = field(default_factory=list)
    got: list[int] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)
    stored_position: int = 0
    stored: dict[int, Entry] = field(default_factory=dict)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start with what is stored."""
        self.schedule = Schedule(self.stored_position, 10**9)
        self.pace = Pace(4)
        rows = sorted(self.stored.values(), key=lambda one: one.log_id)
        self.schedule.restore(
            [replace(row, is_open=False, is_ready=False, queues=()) for row in rows],
            max(self.stored, default=0) + 1,
        )

    def read(self) -> None:
        known = {row.log_id for row in self.schedule.rows.values()}
        for id_ in range(self.schedule.read_up_to + 1, len(self.log) + 1):
            if id_ in known:
                self.schedule.skip(id_)
                continue
            names = self.log[id_ - 1]
            self.schedule.add(
                Entry(id_, frozenset(names), frozenset(names), len(names) == 1, due_at=self.now)
            )

    def store(self) -> None:
        self.stored_position = self.schedule.position
        self.stored = {id_: replace(row) for id_, row in self.schedule.rows.items()}

    def send(self, answers: Sequence[Result]) -> None:
        opened: list[Entry] = []
        while self.pace.may_begin(len(opened), self.now):
            take = self.schedule.take_probe if self.pace.is_backing_off else self.schedule.take
            entry = take(self.now)
            if entry is None:
                break
            self.pace.begin(self.now)
            opened.append(entry)
        names = [name for entry in opened for name in entry.names if entry.is_of_one]
        assert len(names) == len(set(names))
        for number, entry in enumerate(opened):
            result = answers[number % len(answers)]
            if result is Result.FAILED:
                self.pace.failed(self.now, self.now, 0.5, None)
            else:
                self.pace.succeeded()
            if result is Result.DELIVERED:
                self.got.append(entry.log_id)
            else:
                self.refused.add(entry.log_id)
            is_down = self.pace.is_backing_off
            self.schedule.record(entry, result, self.now, 0.5, is_down=is_down)
        self.check()

    def check(self) -> None:
        """Look whether all before the position was delivered, or has a row."""
        rows = {row.log_id for row in self.schedule.rows.values()}
        assert set(range(1, self.schedule.position + 1)) <= set(self.got) | rows


@given(STEPS)
def test_everything_is_delivered_in_the_end_and_each_user_s_own_in_order(
    steps: list[tuple[list[tuple[str, ...]], list[Result], bool, bool]],
) -> None:
    played = Played()
    for arrived, answers, starts_anew, is_stored in steps:
        played.log += arrived
        if is_stored:
            played.store()
        if starts_anew:
            played.begin()
        played.read()
        played.send(answers)
        played.now += 1
    for _ in range(10 * len(played.log) + 20):
        played.read()
        played.send([Result.DELIVERED])
        played.now += 3600
    assert set(played.got) == set(range(1, len(played.log) + 1))
    assert played.schedule.position == len(played.log)
    assert played.schedule.rows == {}
    for name in ("a", "b", "c"):
        own = [id_ for id_ in dict.fromkeys(played.got) if played.log[id_ - 1] == (name,)]
        assert own == sorted(own)


@given(st.lists(USERS, min_size=10, max_size=30))
def test_a_destination_that_is_down_moves_nothing_and_makes_no_rows(
    log: list[tuple[str, ...]],
) -> None:
    played = Played(log)
    for _ in range(200):
        played.read()
        played.send([Result.FAILED])
        played.now += 1
    assert played.schedule.position == 0
    assert not any(row.state is RowState.DEAD for row in played.schedule.rows.values())
    assert played.schedule.rows == {}
