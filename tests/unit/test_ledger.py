"""The one transaction: what waits is written together, and each is answered for itself."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest
import structlog
from sqlalchemy import Connection, func, select

from service.ledger.callbacks import (
    APPLIED,
    MAX_SLICE,
    QUARANTINED,
    RecordCallback,
    Replay,
    first_slice,
    other_slices,
    replays,
    state_of,
)
from service.ledger.identities import RecordAnswer, TakeDecision
from service.ledger.leases import (
    BeginPut,
    Lease,
    LeaseWork,
    RecordOutcome,
    RenewLeases,
    SweepIdentities,
)
from service.ledger.ledger import MAX_ENTRIES, MAX_TRIES, FullError, Ledger
from service.ledger.unit_of_work import Command, Required, UnitOfWork
from service.model.decisions import Decision, Result, Verb
from service.model.events import (
    ContactChecked,
    Event,
    Fault,
    IdentitySeen,
    NumberChanged,
    Reading,
    UserWrote,
)
from service.model.outcomes import Accepted, Answer, Answered, NoEffect, NotTried, Settled
from service.model.policy import Policies, Policy
from service.model.timeline import Moment
from service.model.users import Kind, State, User, by_key
from service.observability.metrics import Metrics
from service.store.contacts import find_contacts
from service.store.database import (
    UNIQUE_VIOLATION,
    ChangeSet,
    Clock,
    ConflictError,
    JournalRow,
    Transaction,
    UnavailableError,
)
from service.store.journal import journal_entry
from service.store.schema import journal, outbox, users
from service.store.users import audit_of, find_user, find_users
from tests.storing import AnyDatabase, MakeDatabase, opening

T = TypeVar("T")

NOW = 1_600_000_000_000
WA_ID, POISONED = "16315550001", "poison"


class Poisonous(Policies):
    """Policies with a fault in them, for one user."""

    def of(self, *names: str) -> Policy:
        if POISONED in names:
            raise RuntimeError("a fault in the rules")
        return super().of(*names)


AUTO = Poisonous((), Policy("default", "auto"))
MANUAL = Poisonous((), Policy("default"))


@dataclass
class Gated:
    """The real database, with a gate before it, and a fault of its own when told so."""

    database: AnyDatabase
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    broken: bool = False
    conflicts: int = 0
    writes: int = 0

    @property
    def clock(self) -> Clock:
        return self.database.clock

    @asynccontextmanager
    async def transaction(self, *, led: bool = False) -> AsyncIterator[Transaction]:
        self.writes += 1
        self.reached.set()
        await self.gate.wait()
        async with self.database.transaction(led=led) as transaction:
            yield transaction
            if self.broken:
                raise UnavailableError("disk I/O error")
            if self.conflicts:
                self.conflicts -= 1
                raise ConflictError(UNIQUE_VIOLATION)

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self.database.read(work)

    async def close(self) -> None:
        await self.database.close()


class Hands:
    """The time, at will."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
async def database(make_database: MakeDatabase, clock: Hands) -> AsyncIterator[Gated]:
    async with opening(make_database(clock)) as real:
        gated = Gated(real)
        gated.gate.set()
        yield gated


@pytest.fixture
async def ledger(database: Gated) -> AsyncIterator[Ledger]:
    policies = {"main": MANUAL, "auto": AUTO}
    made = Ledger(database, policies, Metrics(), max_waiting=4)
    yield made
    database.gate.set()
    await made.close()


def row(account: str = "main", body: bytes = b"{}") -> JournalRow:
    return JournalRow(account, NOW, APPLIED, "application/json", "", "{}", body)


def seen(wa_id: str = WA_ID, hash_: str = "A", at: int = NOW - 1000) -> IdentitySeen:
    return IdentitySeen(wa_id, hash_, Moment(at))


def callback(*events: Event, account: str = "main", body: bytes = b"{}") -> RecordCallback:
    return RecordCallback(account, NOW, body, events, row(account, body))


async def user_of(database: Gated, wa_id: str = WA_ID, account: str = "main") -> User | None:
    return await database.read(lambda connection: find_user(connection, account, wa_id))


async def count(database: Gated, table: Any) -> int:
    query = select(func.count()).select_from(table)
    return int(await database.read(lambda connection: connection.execute(query).scalar_one()))


async def events_of(database: Gated, user: User | None) -> list[str]:
    assert user is not None
    user_id = user.id
    found = await database.read(lambda connection: audit_of(connection, user_id))
    return [entry.event for entry in found]


async def journal_states(database: Gated) -> list[tuple[str, str | None]]:
    query = select(journal.c.state, journal.c.reason).order_by(journal.c.id)
    rows = await database.read(lambda connection: connection.execute(query).all())
    return [(state, reason) for state, reason in rows]


async def journal_ids(database: Gated) -> list[int]:
    query = select(journal.c.id).order_by(journal.c.id)
    return list(await database.read(lambda connection: connection.scalars(query).all()))


def slices(row: JournalRow, reading: Reading, request_id: str) -> list[RecordCallback]:
    first = first_slice(row, reading.events, request_id)
    return [first, *other_slices(first, reading.events)]


@dataclass
class Own:
    """An entry of the test's own."""

    result: Any = None
    error: Exception | None = None
    weight: int = 1
    led: bool = False

    async def required(self, _: Transaction) -> Required:
        return Required()

    async def claim(self, _: Transaction) -> Sequence[int]:
        return ()

    def apply(self, _: UnitOfWork) -> Any:
        if self.error is not None:
            raise self.error
        return self.result

    def fallback(self, _: Exception) -> None:
        return None


async def submit_all(ledger: Ledger, entries: Sequence[Any]) -> list[Any]:
    return await asyncio.gather(*(ledger.submit(e) for e in entries), return_exceptions=True)


class TestGroupCommit:
    async def test_what_arrives_while_one_batch_is_in_flight_makes_up_the_next(
        self, ledger: Ledger, database: Gated
    ) -> None:
        database.gate.clear()
        first = asyncio.ensure_future(ledger.submit(Own(0)))
        await database.reached.wait()
        others = [asyncio.ensure_future(ledger.submit(Own(n))) for n in range(1, 100)]
        await asyncio.sleep(0)
        assert ledger.waiting == 99
        database.gate.set()
        assert await asyncio.gather(first, *others) == list(range(100))
        assert database.writes == 2

    async def test_no_batch_takes_more_than_its_share(
        self, ledger: Ledger, database: Gated
    ) -> None:
        await submit_all(ledger, [Own() for _ in range(MAX_ENTRIES + 1)])
        assert database.writes == 2
        await submit_all(ledger, [Own(weight=1000), Own(weight=1000), Own(weight=10_000)])
        assert database.writes == 5

    async def test_entries_are_applied_in_the_order_of_their_arrival(
        self, ledger: Ledger, database: Gated
    ) -> None:
        entries = [callback(seen(hash_=f"hash-{n}", at=NOW + n)) for n in range(20)]
        await submit_all(ledger, entries)
        user = await user_of(database)
        assert user is not None
        assert (user.hash, user.identity.version) == ("hash-19", 20)

    async def test_the_same_callback_fifty_times_at_once_is_one_change_and_one_piece_of_work(
        self, ledger: Ledger, database: Gated
    ) -> None:
        await submit_all(ledger, [callback(seen(), account="auto") for _ in range(50)])
        user = await user_of(database, account="auto")
        assert user is not None
        assert await count(database, outbox) == 1
        assert (user.identity.state, user.identity.version) == (State.ACKNOWLEDGING, 1)
        assert await events_of(database, user) == ["changed", "decided"]
        assert await count(database, journal) == 50
        assert await count(database, users) == 1

    async def test_listeners_hear_of_a_commit_before_anyone_is_answered(
        self, ledger: Ledger, database: Gated
    ) -> None:
        heard: list[ChangeSet] = []
        ledger.listeners.append(heard.append)
        task = asyncio.ensure_future(ledger.submit(callback(seen(), account="auto")))
        ledger.listeners.append(lambda _: heard.append(ChangeSet()) if task.done() else None)
        await task
        (commit,) = heard
        assert commit.work == {("auto", Kind.ACKNOWLEDGE)}
        user = await user_of(database, account="auto")
        assert user is not None
        assert commit.users == {user.id}

    async def test_a_commit_that_changes_nothing_says_so(
        self, ledger: Ledger, database: Gated
    ) -> None:
        await ledger.submit(callback(seen()))
        heard: list[ChangeSet] = []
        ledger.listeners.append(heard.append)
        await ledger.submit(callback(seen()))
        [commit] = heard
        assert [row.id for row in commit.journal] == (await journal_ids(database))[1:]
        assert replace(commit, journal=[]) == ChangeSet()

    async def test_closing_writes_what_waits(self, ledger: Ledger, database: Gated) -> None:
        tasks = [asyncio.ensure_future(ledger.submit(callback(seen()))) for _ in range(3)]
        await asyncio.sleep(0)
        await ledger.close()
        assert await count(database, journal) == 3
        await asyncio.gather(*tasks)


class _Context(Command[dict[str, Any]]):
    """Returns what would be on a log line that is written meanwhile."""

    def apply(self, _: UnitOfWork) -> dict[str, Any]:
        return structlog.contextvars.get_contextvars()


async def test_its_log_lines_are_not_about_the_request_that_began_the_batch(
    ledger: Ledger,
) -> None:
    with structlog.contextvars.bound_contextvars(request_id="of the first"):
        found = ledger.submit(_Context())
    assert await found == {}


class TestPoison:
    async def test_a_poisonous_callback_harms_only_itself(
        self, ledger: Ledger, database: Gated
    ) -> None:
        entries = [callback(seen(f"1631555{n:04}")) for n in range(10)]
        entries.insert(5, callback(seen("4912"), seen(POISONED)))
        assert await submit_all(ledger, entries) == [None] * 11
        assert await count(database, users) == 10
        assert await user_of(database, "4912") is None
        states = await journal_states(database)
        assert sorted(states) == sorted(
            [(APPLIED, None)] * 10 + [(QUARANTINED, "the rules failed: RuntimeError")]
        )

    async def test_a_poisonous_entry_of_another_kind_is_told_to_who_asked(
        self, ledger: Ledger, database: Gated
    ) -> None:
        fault = ValueError("mine alone")
        results = await submit_all(ledger, [Own(1), Own(error=fault), callback(seen()), Own(2)])
        assert results == [1, fault, None, 2]
        assert await user_of(database) is not None

    async def test_the_ledger_goes_on_after_poison(self, ledger: Ledger) -> None:
        for _ in range(3):
            with pytest.raises(ValueError, match="mine"):
                await ledger.submit(Own(error=ValueError("mine")))
        assert await ledger.submit(Own("fine")) == "fine"
        assert ledger.available

    async def test_poison_in_a_later_slice_of_a_large_callback_quarantines_it(
        self, ledger: Ledger, database: Gated
    ) -> None:
        events = (*(seen(f"1{n}") for n in range(MAX_SLICE)), seen(POISONED))
        for entry in slices(row(), Reading(events), "request-1"):
            await ledger.submit(entry)
        assert await count(database, users) == MAX_SLICE
        assert (QUARANTINED, "the rules failed: RuntimeError") in await journal_states(database)

    async def test_a_fault_that_poisons_the_substitute_too_is_told_and_stops_nothing(
        self, ledger: Ledger
    ) -> None:
        @dataclass
        class Twice(Own):
            def fallback(self, error: Exception) -> Any:
                return Own(error=TypeError(f"again after {type(error).__name__}"))

        results = await submit_all(ledger, [Twice(error=ValueError("x")), Own("fine")])
        assert isinstance(results[0], TypeError)
        assert results[1] == "fine"


class TestWithoutADatabase:
    async def test_a_fault_of_the_database_is_told_to_all_and_nothing_is_in_effect(
        self, ledger: Ledger, database: Gated
    ) -> None:
        database.broken = True
        results = await submit_all(ledger, [callback(seen(f"1{n}")) for n in range(5)])
        assert [type(result) for result in results] == [UnavailableError] * 5
        assert not ledger.available
        assert (await count(database, users), await count(database, journal)) == (0, 0)

    async def test_it_is_no_poison_and_nothing_is_tried_one_by_one(
        self, ledger: Ledger, database: Gated
    ) -> None:
        database.broken = True
        await submit_all(ledger, [callback(seen()) for _ in range(5)])
        assert database.writes == 1

    async def test_the_ledger_goes_on_when_the_database_does(
        self, ledger: Ledger, database: Gated
    ) -> None:
        database.broken = True
        with pytest.raises(UnavailableError):
            await ledger.submit(callback(seen()))
        database.broken = False
        await ledger.submit(callback(seen()))
        assert ledger.available
        assert await user_of(database) is not None

    async def test_poison_and_a_fault_of_the_database_together_lose_nothing_silently(
        self, ledger: Ledger, database: Gated
    ) -> None:
        database.broken = True
        results = await submit_all(ledger, [callback(seen(POISONED)), callback(seen())])
        assert isinstance(results[1], UnavailableError)
        assert isinstance(results[0], UnavailableError)
        assert await count(database, journal) == 0


class TestAnotherWriter:
    """A row of the batch was stored by another writer first."""

    async def test_the_batch_is_written_once_more_and_nobody_notices(
        self, ledger: Ledger, database: Gated
    ) -> None:
        database.conflicts = 2
        results = await submit_all(ledger, [callback(seen(f"1{n}")) for n in range(5)])
        assert results == [None] * 5
        assert database.writes == 3
        assert (await count(database, users), await count(database, journal)) == (5, 5)
        assert {state for state, _ in await journal_states(database)} == {APPLIED}

    async def test_after_too_many_times_the_database_is_to_blame_and_nothing_is_quarantined(
        self, ledger: Ledger, database: Gated
    ) -> None:
        database.conflicts = MAX_TRIES
        with pytest.raises(UnavailableError):
            await ledger.submit(callback(seen()))
        assert database.writes == MAX_TRIES
        assert await count(database, journal) == 0

    async def test_one_that_always_conflicts_harms_no_neighbour(
        self, ledger: Ledger, database: Gated
    ) -> None:
        database.conflicts = 2 * MAX_TRIES
        results = await submit_all(ledger, [callback(seen(f"1{n}")) for n in range(5)])
        assert [type(result) for result in results] == [ConflictError, *[type(None)] * 4]
        assert await count(database, journal) == 4


class TestWaiting:
    async def hold(self, ledger: Ledger, database: Gated, n: int) -> list[asyncio.Task[Any]]:
        """Let one batch be in flight, and so many entries wait."""
        database.gate.clear()
        database.reached.clear()
        tasks = [asyncio.ensure_future(ledger.submit(Own("first")))]
        await database.reached.wait()
        tasks += [asyncio.ensure_future(ledger.submit(Own(number))) for number in range(n)]
        await asyncio.sleep(0)
        return tasks

    async def test_beyond_the_bound_a_callback_is_turned_away_and_not_written(
        self, ledger: Ledger, database: Gated
    ) -> None:
        tasks = await self.hold(ledger, database, 3)
        assert not ledger.full
        tasks.append(asyncio.ensure_future(ledger.submit(Own("last"), bounded=True)))
        await asyncio.sleep(0)
        assert ledger.full
        with pytest.raises(FullError):
            await ledger.submit(callback(seen()), bounded=True)
        database.gate.set()
        assert await asyncio.gather(*tasks) == ["first", 0, 1, 2, "last"]
        assert await count(database, journal) == 0

    async def test_what_is_ours_is_never_turned_away(self, ledger: Ledger, database: Gated) -> None:
        tasks = await self.hold(ledger, database, 50)
        database.gate.set()
        assert len(await asyncio.gather(*tasks)) == 51

    async def test_a_client_that_went_away_does_not_stop_the_others(
        self, ledger: Ledger, database: Gated
    ) -> None:
        tasks = await self.hold(ledger, database, 5)
        for gone in (tasks[0], tasks[3]):
            gone.cancel()
        await asyncio.sleep(0)
        database.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        left = [result for result in results if not isinstance(result, asyncio.CancelledError)]
        assert left == [0, 1, 3, 4]
        assert await ledger.submit(Own("fine")) == "fine"

    async def test_one_that_went_away_does_not_stop_others_from_hearing_of_a_fault(
        self, ledger: Ledger, database: Gated
    ) -> None:
        tasks = await self.hold(ledger, database, 3)
        tasks[2].cancel()
        database.broken = True
        database.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [
            UnavailableError,
            UnavailableError,
            asyncio.CancelledError,
            UnavailableError,
        ]


class TestLargeCallbacks:
    async def test_they_are_cut_into_slices_and_kept_once(
        self, ledger: Ledger, database: Gated
    ) -> None:
        events = tuple(seen(f"1{n}") for n in range(2 * MAX_SLICE + 500))
        entries = list(slices(row(body=b"large"), Reading(events), "request-1"))
        assert [len(entry.events) for entry in entries] == [MAX_SLICE, MAX_SLICE, 500]
        assert {entry.body for entry in entries} == {b"large"}
        for entry in entries:
            await ledger.submit(entry)
        assert await count(database, users) == 2 * MAX_SLICE + 500
        assert await count(database, journal) == 1

    def test_one_without_events_is_kept_too(self) -> None:
        (entry,) = slices(row(), Reading(), "request-1")
        assert entry.row == row()

    def test_its_weight_is_what_it_makes_the_database_do(self) -> None:
        assert callback().weight == 1
        assert callback(seen(), seen()).weight == 3


class TestCallbacks:
    async def test_every_kind_of_event_takes_effect(self, ledger: Ledger, database: Gated) -> None:
        await ledger.submit(
            callback(
                seen(),
                UserWrote(WA_ID, Moment(NOW)),
                NumberChanged(WA_ID, "4912", Moment(NOW)),
                ContactChecked("+1 631", "valid", WA_ID),
            )
        )
        known = await database.read(lambda c: find_users(c, "main", [WA_ID, "4912"]))
        assert [x.alias for x in known[WA_ID].links] == ["4912"]
        assert [x.alias for x in known["4912"].links] == [WA_ID]
        assert known[WA_ID].wrote_at is not None
        found = await database.read(lambda c: find_contacts(c, "main", inputs=["+1 631"]))
        contact = found["+1 631"]
        assert (contact.status, contact.wa_id) == ("valid", WA_ID)

    async def test_a_contact_check_delivered_again_moves_nothing(
        self, ledger: Ledger, database: Gated, clock: Hands
    ) -> None:
        first = callback(ContactChecked("+1", "valid", None), body=b"first")
        second = callback(ContactChecked("+1", "invalid", None), body=b"second")
        for entry in (first, second, first):
            clock.now += 1000
            await ledger.submit(entry)
        found = await database.read(lambda c: find_contacts(c, "main", inputs=["+1"]))
        assert found["+1"].status == "invalid"

    async def test_accounts_do_not_share_users(self, ledger: Ledger, database: Gated) -> None:
        await submit_all(ledger, [callback(seen()), callback(seen(hash_="B"), account="auto")])
        one, other = await user_of(database), await user_of(database, account="auto")
        assert one is not None
        assert other is not None
        assert (one.hash, other.hash) == ("A", "B")
        assert one.id != other.id

    async def test_for_an_account_without_a_policy_everything_waits_for_a_person(
        self, ledger: Ledger, database: Gated
    ) -> None:
        await ledger.submit(callback(seen(), account="removed"))
        user = await user_of(database, account="removed")
        assert user is not None
        assert user.identity.state is State.PENDING

    def test_the_journal_says_what_could_not_be_read(self) -> None:
        faults = tuple(Fault(f"messages[{n}]", "not an object") for n in range(2))
        assert state_of(Reading()) == (APPLIED, None)
        assert state_of(Reading(faults=faults)) == (
            QUARANTINED,
            "messages[0]: not an object; messages[1]: not an object",
        )


class TestReplays:
    async def test_what_was_not_understood_takes_effect_when_it_is_read_again(
        self, ledger: Ledger, database: Gated
    ) -> None:
        await ledger.submit(callback(body=b"body"))
        [id_] = await journal_ids(database)
        replay = Replay(id_, by_key("admin"), APPLIED, None)
        for entry in replays("main", NOW, b"body", Reading((seen(),)), replay):
            await ledger.submit(entry)
        found = await database.read(lambda connection: journal_entry(connection, id_))
        assert found is not None
        assert (found.state, found.replayed_at) == (APPLIED, NOW)
        assert await user_of(database) is not None
        assert await count(database, journal) == 1

    async def test_replaying_what_was_understood_changes_nothing(
        self, ledger: Ledger, database: Gated, clock: Hands
    ) -> None:
        await ledger.submit(callback(seen(), body=b"body"))
        before = await user_of(database)
        clock.now += 60_000
        [id_] = await journal_ids(database)
        replay = Replay(id_, by_key("admin"), APPLIED, None)
        for entry in replays("main", NOW, b"body", Reading((seen(),)), replay):
            await ledger.submit(entry)
        assert await user_of(database) == before

    async def test_a_replay_that_the_rules_fail_on_is_quarantined(
        self, ledger: Ledger, database: Gated
    ) -> None:
        await ledger.submit(callback(body=b"body"))
        [id_] = await journal_ids(database)
        replay = Replay(id_, by_key("admin"), APPLIED, None)
        entry = RecordCallback("main", NOW, b"body", (seen(POISONED),), replay=replay)
        await ledger.submit(entry)
        assert await journal_states(database) == [(QUARANTINED, "the rules failed: RuntimeError")]


def decision(hash_: str = "A", verb: Verb = Verb.ACKNOWLEDGE) -> TakeDecision:
    return TakeDecision("main", WA_ID, Decision(verb, hash_, by_key("crm")), "request-1")


class TestDecisions:
    async def test_a_decision_is_answered_with_its_result_and_the_user(
        self, ledger: Ledger, database: Gated
    ) -> None:
        await ledger.submit(callback(seen()))
        result, user = await ledger.submit(decision())
        assert result is Result.TAKEN
        assert user is not None
        assert user.identity.state is State.ACKNOWLEDGING
        stored = await user_of(database)
        assert stored is not None
        assert stored.identity.state is State.ACKNOWLEDGING
        assert await count(database, outbox) == 1

    async def test_a_user_never_heard_of_is_not_made_up(
        self, ledger: Ledger, database: Gated
    ) -> None:
        assert await ledger.submit(decision()) == (Result.NO_IDENTITY, None)
        assert await count(database, users) == 0

    async def test_another_hash_is_refused_with_the_user_as_it_is(self, ledger: Ledger) -> None:
        await ledger.submit(callback(seen()))
        result, user = await ledger.submit(decision("B"))
        assert result is Result.ANOTHER_HASH
        assert user is not None
        assert user.hash == "A"


class TestRefreshes:
    async def test_an_answer_makes_an_identity_known(self, ledger: Ledger, database: Gated) -> None:
        answer = Answer("A", None, acknowledged=True)
        refreshed = await ledger.submit(RecordAnswer("main", WA_ID, 0, answer))
        assert refreshed.user is not None
        assert refreshed.user.identity.state is State.ACKNOWLEDGED
        assert await user_of(database) is not None

    async def test_no_identity_there_makes_up_no_user(
        self, ledger: Ledger, database: Gated
    ) -> None:
        refreshed = await ledger.submit(RecordAnswer("main", WA_ID, 0, None))
        assert (refreshed.user, refreshed.changed) == (None, False)
        assert await count(database, users) == 0

    async def test_an_answer_from_before_a_change_is_to_be_asked_for_again(
        self, ledger: Ledger
    ) -> None:
        await ledger.submit(callback(seen()))
        answer = Answer("B", None, acknowledged=True)
        refreshed = await ledger.submit(RecordAnswer("main", WA_ID, 0, answer))
        assert refreshed.changed
        assert refreshed.user is not None
        assert refreshed.user.hash == "A"


async def lease(ledger: Ledger, *holders: str, account: str = "auto") -> list[Lease]:
    return await ledger.submit(LeaseWork(account, Kind.ACKNOWLEDGE, list(holders)))


class TestLeases:
    async def test_each_holder_gets_one_piece_of_due_work(self, ledger: Ledger) -> None:
        await ledger.submit(callback(*(seen(f"1{n}") for n in range(3)), account="auto"))
        first = await lease(ledger, "a", "b")
        assert [task.holder for task in first] == ["a", "b"]
        assert [task.hash for task in first] == ["A", "A"]
        second = await lease(ledger, "c", "d")
        assert [task.holder for task in second] == ["c"]
        assert len({task.user_id for task in first + second}) == 3

    async def test_work_that_is_asked_for_twice_in_one_batch_is_leased_once(
        self, ledger: Ledger
    ) -> None:
        await ledger.submit(callback(seen(), account="auto"))
        first, second = await asyncio.gather(lease(ledger, "a"), lease(ledger, "b"))
        assert [task.holder for task in first + second] == ["a"]

    async def test_an_earlier_try_that_may_have_begun_is_marked(
        self, ledger: Ledger, clock: Hands
    ) -> None:
        await ledger.submit(callback(seen(), account="auto"))
        (task,) = await lease(ledger, "a")
        assert not task.begun
        assert await ledger.submit(BeginPut(task))
        clock.now += 10_001
        (again,) = await lease(ledger, "b")
        assert again.begun
        assert await ledger.submit(RecordOutcome(task, Accepted())) is Settled.NOT_OURS
        assert await ledger.submit(RecordOutcome(again, Accepted())) is Settled.TAKEN

    async def test_a_lease_alone_marks_no_try(self, ledger: Ledger, clock: Hands) -> None:
        await ledger.submit(callback(seen(), account="auto"))
        (task,) = await lease(ledger, "a")
        clock.now += 10_001
        (again,) = await lease(ledger, "b")
        assert not again.begun
        assert not await ledger.submit(BeginPut(task))
        assert await ledger.submit(BeginPut(again))

    @pytest.mark.parametrize("by", ["a hold", "another hash", "another hash and this one again"])
    async def test_what_is_committed_before_a_put_begins_stops_it(
        self, ledger: Ledger, database: Gated, by: str
    ) -> None:
        ledger.policies = {"auto": Policies((), Policy("default", "auto", max_changes=100))}
        await ledger.submit(callback(seen(), account="auto"))
        (task,) = await lease(ledger, "a")
        if by == "a hold":
            held = TakeDecision("auto", WA_ID, Decision(Verb.HOLD, "A", by_key("crm")), None)
            assert (await ledger.submit(held))[0] is Result.TAKEN
        else:
            await ledger.submit(callback(seen(hash_="B", at=NOW), account="auto"))
        if by.endswith("again"):
            await ledger.submit(callback(seen(hash_="A", at=NOW + 1), account="auto"))
        assert not await ledger.submit(BeginPut(task))
        assert await ledger.submit(RecordOutcome(task, NotTried())) is Settled.NOT_OURS
        user = await user_of(database, account="auto")
        assert user is not None
        if by == "a hold":
            assert (user.identity.state, user.identity.work) == (State.HELD, None)
            return
        (again,) = await lease(ledger, "b")
        assert (again.hash, again.begun) == (user.hash, False)

    async def test_a_put_that_has_begun_is_not_held(self, ledger: Ledger) -> None:
        await ledger.submit(callback(seen(), account="auto"))
        (task,) = await lease(ledger, "a")
        hold = TakeDecision("auto", WA_ID, Decision(Verb.HOLD, "A", by_key("crm")), None)
        begun, (result, _) = await asyncio.gather(
            ledger.submit(BeginPut(task)), ledger.submit(hold)
        )
        assert (begun, result) == (True, Result.TOO_LATE)

    async def test_a_renewed_lease_lasts_longer_and_an_expired_one_is_not_renewed(
        self, ledger: Ledger, clock: Hands
    ) -> None:
        await ledger.submit(callback(seen(), account="auto"))
        (task,) = await lease(ledger, "a")
        clock.now += 9_000
        await ledger.submit(RenewLeases((task,)))
        clock.now += 9_000
        assert await lease(ledger, "b") == []
        clock.now += 1_000
        await ledger.submit(RenewLeases((task,)))
        (again,) = await lease(ledger, "b")
        assert again.holder == "b"

    async def test_a_renewed_lease_is_no_news_of_its_user(self, ledger: Ledger) -> None:
        await ledger.submit(callback(seen(), account="auto"))
        (task,) = await lease(ledger, "a")
        heard: list[ChangeSet] = []
        ledger.listeners.append(heard.append)
        assert await ledger.submit(RenewLeases((task,))) == [task]
        assert [commit.users for commit in heard] == [set()]

    async def test_a_result_is_written_only_for_the_hash_it_was_leased_for(
        self, ledger: Ledger, database: Gated
    ) -> None:
        await ledger.submit(callback(seen(), account="auto"))
        (task,) = await lease(ledger, "a")
        await ledger.submit(callback(seen(hash_="B", at=NOW), account="auto"))
        assert await ledger.submit(RecordOutcome(task, Accepted())) is Settled.NOT_OURS
        user = await user_of(database, account="auto")
        assert user is not None
        assert (user.hash, user.identity.state) == ("B", State.ACKNOWLEDGING)

    async def test_work_given_back_is_leased_again_when_it_is_due(
        self, ledger: Ledger, clock: Hands
    ) -> None:
        await ledger.submit(callback(seen(), account="auto"))
        (task,) = await lease(ledger, "a")
        await ledger.submit(RecordOutcome(task, NoEffect("503")))
        assert await lease(ledger, "b") == []
        clock.now += 1_300
        (again,) = await lease(ledger, "b")
        assert not again.begun
        await ledger.submit(RecordOutcome(again, NotTried(again.begun)))
        assert len(await lease(ledger, "c")) == 1

    async def test_work_that_the_rules_fail_on_keeps_no_other_from_being_done(
        self, ledger: Ledger, clock: Hands, database: Gated
    ) -> None:
        delayed = Policies((), Policy("default", "auto", delay_seconds=5))
        ledger.policies = {"auto": delayed}
        await ledger.submit(callback(seen(POISONED), seen("1"), account="auto"))
        ledger.policies = {"auto": AUTO}
        clock.now += 5_000
        tasks = await lease(ledger, "a", "b")
        assert [task.wa_id for task in tasks] == ["1"]
        fallback = await user_of(database, POISONED, "auto")
        assert fallback is not None
        assert fallback.identity.state is State.SCHEDULED
        assert await count(database, outbox) == 2
        assert await lease(ledger, "c") == []

    async def test_an_account_gets_only_its_own_work(self, ledger: Ledger) -> None:
        await ledger.submit(callback(seen(), account="auto"))
        assert await lease(ledger, "a", account="main") == []

    async def test_a_question_is_settled_by_the_answer(
        self, ledger: Ledger, database: Gated
    ) -> None:
        claim = IdentitySeen(WA_ID, "A", Moment(NOW - 1000), Moment(NOW), acknowledged=True)
        await ledger.submit(callback(claim))
        (task,) = await ledger.submit(LeaseWork("main", Kind.ASK, ["a"]))
        assert (task.kind, task.reason) == (Kind.ASK, "claimed")
        told = Answered(Answer("A", None, acknowledged=True))
        assert await ledger.submit(RecordOutcome(task, told)) is Settled.TAKEN
        user = await user_of(database)
        assert user is not None
        assert user.identity.state is State.ACKNOWLEDGED
        assert await count(database, outbox) == 0

    async def test_a_question_is_not_settled_like_a_put(self, ledger: Ledger) -> None:
        claim = IdentitySeen(WA_ID, "A", Moment(NOW - 1000), Moment(NOW), acknowledged=True)
        await ledger.submit(callback(claim))
        (task,) = await ledger.submit(LeaseWork("main", Kind.ASK, ["a"]))
        with pytest.raises(TypeError):
            await ledger.submit(RecordOutcome(task, Accepted()))


class TestTheSweep:
    async def test_it_asks_about_what_stays_unacknowledged_and_not_twice(
        self, ledger: Ledger, clock: Hands
    ) -> None:
        await ledger.submit(callback(*(seen(f"1{n}") for n in range(3))))
        clock.now += 60_000
        assert await ledger.submit(SweepIdentities("main", clock(), 2)) == 2
        assert await ledger.submit(SweepIdentities("main", clock(), 2)) == 1
        assert await ledger.submit(SweepIdentities("main", clock(), 2)) == 0
        tasks = await ledger.submit(LeaseWork("main", Kind.ASK, ["a", "b", "c", "d"]))
        assert [task.reason for task in tasks] == ["sweep"] * 3

    async def test_it_leaves_alone_what_was_asked_about_of_late(
        self, ledger: Ledger, clock: Hands
    ) -> None:
        await ledger.submit(callback(seen()))
        assert await ledger.submit(SweepIdentities("main", clock(), 10)) == 0
        assert await ledger.submit(SweepIdentities("auto", clock() + 1, 10)) == 0


class TestGathering:
    async def test_all_who_are_about_to_submit_share_one_commit(
        self, ledger: Ledger, database: Gated
    ) -> None:
        async def sender(turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await ledger.submit(callback(seen(f"1631555{turns:04}")))

        await asyncio.gather(*(sender(turns) for turns in range(20)))
        assert await count(database, users) == 20
        assert database.writes == 1

    async def test_it_waits_for_nobody_who_is_not_there(
        self, ledger: Ledger, database: Gated
    ) -> None:
        for turn in range(3):
            await ledger.submit(callback(seen(f"1631555{turn:04}")))
        assert database.writes == 3
