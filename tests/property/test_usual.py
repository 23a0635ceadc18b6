"""The gate's short way, for those who are as usual, gives the answer of the long one."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from service.api.gate import View, _answer
from service.model.blocks import Block
from service.model.contacts import FRESH_MS, Contact
from service.model.gate import Reason, Rules, Situation, Verdict
from service.model.moments import Moment
from service.model.timeline import Change
from service.model.users import Link, State, User, by_key
from service.store.blocks import put_block
from service.store.database import Known, Question, Transaction
from service.store.sqlite import SQLiteDatabase
from service.store.tables import unverified

NOW = 1_600_000_000_000
STALE = NOW - FRESH_MS
COUNTRY_OF = "+16315550100"
WA_IDS = ("16315550001", "16315550002")
ODD = ("+1\u00a0631 555\u20110001", '"', "[1]", "\u0661\u0666", "\x01", "0016315550001", "US.1")
INPUTS = (*WA_IDS, *(f"+{wa_id}" for wa_id in WA_IDS), "+1 631 555 0001")
UNKNOWN = ("+1 (631) 555-0001", "US.1", "no number", "\ud800", "nul\0", "", "6315550001")
ASKED = (*INPUTS, *ODD[:-1], *UNKNOWN)
MOMENT = Moment(NOW - 9)
TIMES = st.sampled_from((NOW, NOW - 1, STALE + 1, STALE))
Given = tuple[User, Block | None, bool]


def mostly(value: object, *others: object) -> st.SearchStrategy[object]:
    """One thing is enough to be unusual, so that it must be rare."""
    return st.sampled_from((*[value] * 9, *others))


users = st.builds(
    User,
    id=st.just(0),
    account=mostly("main", "other"),
    wa_id=st.sampled_from(WA_IDS),
    created_at=st.just(NOW),
    state=mostly(State.ACKNOWLEDGED, None, *State),
    wrote_at=st.none() | TIMES,
    checked_at=st.none() | TIMES,
    blocked_since=mostly(None, NOW - 6),
    links=mostly([], [Link(WA_IDS[1], "successor", MOMENT)]),
    user_id=mostly(None, "US.1"),
) | st.builds(
    User,
    id=st.just(0),
    account=st.just("main"),
    wa_id=st.none(),
    created_at=st.just(NOW),
    state=mostly(State.ACKNOWLEDGED, None),
    user_id=st.just("US.1"),
)
blocks = mostly(None, *(Block("x", NOW, by_key("crm"), end) for end in (None, NOW + 9, NOW - 1)))
contacts = st.builds(
    Contact,
    account=mostly("main", "other"),
    input=st.sampled_from(INPUTS) | st.sampled_from((*INPUTS, *ODD)),
    status=mostly("valid", "invalid", "invalid", "processing", "failed"),
    wa_id=st.sampled_from(WA_IDS) | st.sampled_from((None, "0016315550001", "US.1")),
    checked_at=TIMES,
    canonical=st.sampled_from((WA_IDS[0], None)),
)
situations = st.builds(
    Situation,
    now=st.sampled_from((NOW, NOW, NOW - 1, NOW + 1)),
    unreachable_since=mostly(None, NOW - 1),
    restored_at=mostly(None, *[NOW - 1] * 9),
    catching_up=mostly(None, Reason("catching_up", NOW - 1, until=NOW + 1)),
    rules=st.sampled_from(
        (
            Rules(),
            Rules(block=frozenset({"catching_up", "contact_stale", "contact_unknown"})),
            Rules(warn=frozenset({"identity_pending", "contact_invalid", "blocked"})),
        )
    ),
)
questions = st.tuples(
    st.sampled_from(("main", "main", "other")),
    st.just(ASKED) | st.lists(st.sampled_from(ASKED), max_size=5),
    situations,
    mostly(False, True),
)
Asking = tuple[str, Sequence[str], Situation, bool]
Answer = tuple[list[Verdict | None], list[int]]


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

    def put(self, given: list[Given], contacts: list[Contact]) -> None:
        """Let nothing be known but this."""
        self._runner.run(self._database.write(lambda t: _put(t, given, contacts)))

    def known(self, fresh_since: int | None) -> Known:
        """Ask about everybody."""
        question = Question("main", COUNTRY_OF, ASKED, fresh_since=fresh_since)
        return self._runner.run(self._database.look_up(question, lambda found: found))

    def answers(self, asking: list[Asking], *, briefly: bool) -> list[Answer]:
        """Ask as the gate does, all at once: the questions are gathered."""
        return self._runner.run(self._ask_all(asking, briefly))

    async def _ask_all(self, asking: list[Asking], briefly: bool) -> list[Answer]:
        return await asyncio.gather(*[self._ask(one, briefly) for one in asking])

    async def _ask(self, asking: Asking, briefly: bool) -> Answer:
        account, asked, situation, cloud = asking
        since = situation.fresh_since if briefly and not cloud else None
        question = Question(account, COUNTRY_OF, asked, cloud, since)
        then = partial(_answer, _verdicts, question, situation)
        return await self._database.look_up(question, then)

    def close(self) -> None:
        """Let go of the database."""
        self._runner.run(self._database.close())
        self._runner.close()


def _verdicts(view: View) -> list[Verdict | None]:
    return [view.judge(asked) for asked in view.question.asked]


def _put(transaction: Transaction, given: list[Given], contacts: list[Contact]) -> None:
    for table in ("unverified", "blocks", "aliases", "users", "contacts"):
        transaction.connection.exec_driver_sql(f"DELETE FROM {table}")
    for user, block, in_doubt in given:
        latest = None if user.state is None else Change("A", MOMENT, NOW - 8, [MOMENT])
        id_ = transaction.new_user_id()
        one = replace(user, id=id_, latest=latest, is_new=True, changed=True)
        transaction.save_users([one])
        if one.user_id is not None:
            names = filter(None, (one.wa_id, one.user_id))
            transaction.save_aliases({(one.account, alias): id_ for alias in names})
        put_block(transaction.connection, id_, block)
        if in_doubt:
            row = {"account": one.account, "user_id": id_}
            transaction.connection.execute(insert(unverified).values(row))
    kept = {(contact.account, contact.input): contact for contact in contacts}
    transaction.save_contacts(kept.values())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "ackgate.db")
    yield made
    made.close()


PLAIN = User(0, "main", WA_IDS[0], NOW, state=State.ACKNOWLEDGED)
VALID = Contact("main", "+16315550001", "valid", WA_IDS[0], NOW - 9)
CALM = Situation(NOW, restored_at=NOW - 1)
ALL: Asking = ("main", ASKED, CALM, False)


@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(users, blocks, mostly(False, True)),
        max_size=3,
        unique_by=(
            lambda given: (given[0].account, given[0].wa_id),
            lambda given: (given[0].account, given[0].user_id or given[0].wa_id),
        ),
    ),
    st.lists(contacts, max_size=5),
    st.lists(questions, min_size=1, max_size=4),
)
@example([(PLAIN, None, False)], [replace(VALID, checked_at=STALE)], [ALL])
@example(  # fresh for the one, not for the other
    [(PLAIN, None, False)],
    [replace(VALID, checked_at=STALE)],
    [ALL, ("main", ASKED, CALM._replace(now=NOW - 1), False)],
)
@example(  # the client tells of one user, and the number itself is another's
    [(PLAIN, None, False), (replace(PLAIN, wa_id=WA_IDS[1], state=State.HELD), None, False)],
    [replace(VALID, input=WA_IDS[1])],
    [ALL],
)
@example(  # by the account's own checks, blocks and doubts, not by another's
    [(PLAIN, None, False), (replace(PLAIN, account="other"), Block("x", NOW, by_key("crm")), True)],
    [
        VALID,
        replace(VALID, input="+1 631 555 0001", status="invalid", checked_at=NOW - 1),
        replace(VALID, account="other", checked_at=NOW),
    ],
    [ALL, ("other", ASKED, CALM, False)],
)
@example(  # a check that is invalid and newer, of another spelling
    [(PLAIN, None, False)],
    [VALID, replace(VALID, input="+1 631 555 0001", status="invalid", checked_at=NOW)],
    [ALL],
)
def test_what_is_told_briefly_and_to_many_is_judged_as_what_is_told_in_full_to_each(
    world: World, known: list[Given], checks: list[Contact], asking: list[Asking]
) -> None:
    world.put(known, checks)
    told = world.answers(asking, briefly=True)
    for one, answer in zip(asking, told, strict=True):
        assert [answer] == world.answers([one], briefly=False), one


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
