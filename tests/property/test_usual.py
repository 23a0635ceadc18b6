"""The gate's short way, for those who are as usual, gives the answer of the long one."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from service.api.gate import View
from service.model.blocks import Block
from service.model.contacts import FRESH_MS, Contact
from service.model.gate import Reason, Rules, Situation, Verdict, judge_usual
from service.model.moments import Moment
from service.model.timeline import Change
from service.model.users import Link, State, User, by_key
from service.store.blocks import put_block
from service.store.database import Known, Question, Transaction
from service.store.sqlite import SQLiteDatabase
from service.store.tables import unverified

NOW = 1_600_000_000_000
STALE = NOW - FRESH_MS
WA_IDS = ("16315550001", "16315550002")
INPUTS = (*WA_IDS, *(f"+{wa_id}" for wa_id in WA_IDS), "+1 631 555 0001")
ASKED = (*INPUTS, "+1 (631) 555-0001", "US.1", "no number")
MOMENT = Moment(NOW - 9)
TIMES = st.sampled_from((NOW, NOW - 1, STALE + 1, STALE))


def mostly(value: object, *others: object) -> st.SearchStrategy[object]:
    """One thing is enough to be unusual, so that it must be rare."""
    return st.sampled_from((*[value] * 9, *others))


users = st.builds(
    User,
    id=st.just(0),
    account=st.just("main"),
    wa_id=st.sampled_from(WA_IDS),
    created_at=st.just(NOW),
    state=mostly(State.ACKNOWLEDGED, None, *State),
    wrote_at=st.none() | TIMES,
    checked_at=st.none() | TIMES,
    blocked_since=mostly(None, NOW - 6),
    links=mostly([], [Link(WA_IDS[1], "successor", MOMENT)]),
    user_id=mostly(None, "US.1"),
)
contacts = st.builds(
    Contact,
    account=st.just("main"),
    input=st.sampled_from(INPUTS),
    status=mostly("valid", "invalid", "invalid", "processing"),
    wa_id=st.sampled_from(WA_IDS) | st.none(),
    checked_at=TIMES,
    canonical=st.sampled_from((WA_IDS[0], None)),
)
situations = st.builds(
    Situation,
    now=st.just(NOW),
    unreachable_since=mostly(None, NOW - 1),
    restored_at=mostly(None, *[NOW - 1] * 9),
    catching_up=mostly(None, Reason("catching_up", NOW - 1, until=NOW + 1)),
    rules=st.sampled_from((Rules(), Rules(block=frozenset({"catching_up", "contact_stale"})))),
)


class World:
    """A database that keeps what a test puts there until the test's next example."""

    def __init__(self, path: Path) -> None:
        self._runner = asyncio.Runner()
        self._database = self._runner.run(self._opened(path))

    @staticmethod
    async def _opened(path: Path) -> SQLiteDatabase:
        database = SQLiteDatabase(path)
        await database.open()
        return database

    def put(
        self, given: list[tuple[User, Block | None, bool]], contacts: list[Contact]
    ) -> list[User]:
        """Let nothing be known but this."""
        return self._runner.run(self._database.write(lambda t: _put(t, given, contacts)))

    def known(self, fresh_since: int | None) -> Known:
        """Ask about everybody."""
        question = Question("main", "+16315550100", ASKED, fresh_since=fresh_since)
        return self._runner.run(self._database.look_up(question, lambda found: found))

    def close(self) -> None:
        """Let go of the database."""
        self._runner.run(self._database.close())
        self._runner.close()


def _put(
    transaction: Transaction, given: list[tuple[User, Block | None, bool]], contacts: list[Contact]
) -> list[User]:
    for table in ("unverified", "blocks", "aliases", "users", "contacts"):
        transaction.connection.exec_driver_sql(f"DELETE FROM {table}")
    saved = []
    for user, block, in_doubt in given:
        latest = None if user.state is None else Change("A", MOMENT, NOW - 8, [MOMENT])
        id_ = transaction.new_user_id()
        one = replace(user, id=id_, latest=latest, is_new=True, changed=True)
        transaction.save_users([one])
        if one.user_id is not None:
            transaction.save_aliases({("main", one.wa_id or ""): id_, ("main", one.user_id): id_})
        put_block(transaction.connection, id_, block)
        if in_doubt:
            row = {"account": "main", "user_id": id_}
            transaction.connection.execute(insert(unverified).values(row))
        saved.append(one)
    transaction.save_contacts({contact.input: contact for contact in contacts}.values())
    return saved


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "ackgate.db")
    yield made
    made.close()


def verdicts(known: Known, situation: Situation) -> dict[str, Verdict | None]:
    view = View(Question("main", "+16315550100", ASKED), known, situation, judge_usual(situation))
    return {asked: view.judge(asked) for asked in ASKED}


@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            users, mostly(None, Block("x", NOW, by_key("crm"), NOW + 9)), mostly(False, True)
        ),
        max_size=2,
        unique_by=(lambda known: known[0].wa_id, lambda known: known[0].user_id or known[0].wa_id),
    ),
    st.lists(contacts, max_size=4),
    situations,
)
def test_what_is_told_briefly_is_judged_as_what_is_told_in_full(
    world: World,
    known: list[tuple[User, Block | None, bool]],
    checks: list[Contact],
    situation: Situation,
) -> None:
    world.put(known, checks)
    briefly, fully = world.known(situation.fresh_since), world.known(None)
    assert not fully.usual
    told = verdicts(briefly, situation)
    expected = verdicts(fully, situation)
    for asked, verdict in expected.items():
        assert told[asked] == verdict, asked


PLAIN = User(0, "main", WA_IDS[0], NOW, state=State.ACKNOWLEDGED)
VALID = Contact("main", "+16315550001", "valid", WA_IDS[0], NOW - 9)


def test_most_are_as_usual(world: World) -> None:
    world.put([(PLAIN, None, False)], [VALID])
    known = world.known(STALE)
    assert known.usual == dict.fromkeys((WA_IDS[0], "+16315550001"), WA_IDS[0])
    assert not known.users
    assert not known.newest


@pytest.mark.parametrize(
    ("status", "wa_id", "later", "usual"),
    [
        ("invalid", WA_IDS[0], 1, False),
        ("invalid", WA_IDS[0], -1, True),
        ("invalid", None, 1, True),
        ("processing", WA_IDS[0], 1, True),
    ],
)
def test_the_newest_word_on_the_wa_id_counts(
    world: World, status: str, wa_id: str | None, later: int, usual: bool
) -> None:
    other = Contact("main", "+1 631 555 0001", status, wa_id, VALID.checked_at + later)
    world.put([(PLAIN, None, False)], [VALID, other])
    assert (WA_IDS[0] in world.known(STALE).usual) == usual
