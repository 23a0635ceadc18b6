"""What several services on one PostgreSQL database keep from each other: nothing is done twice."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import chain

import pytest
from sqlalchemy import func, select

from service.ledger.callbacks import RecordCallback
from service.ledger.contacts import CountMessages, Key, Limits, PlanChecks, Planned
from service.ledger.identities import BlockUser, DismissIssue, TakeDecision
from service.ledger.leases import BeginPut, LeaseWork
from service.ledger.ledger import Ledger
from service.ledger.relays import SaveProgress, SwitchRelay
from service.ledger.unit_of_work import Command
from service.model.budget import Budget, Usage
from service.model.contacts import CheckOptions, Number
from service.model.decisions import Decision, Result, Verb
from service.model.events import AliasesSeen, ContactChecked, Event, IdentitySeen, NumberChanged
from service.model.policy import Policies, Policy
from service.model.timeline import Moment
from service.model.users import Kind, State, User, by_key
from service.observability.metrics import Metrics
from service.store.accounts import downtime, note_downtime, note_policies
from service.store.contacts import usage
from service.store.database import ConflictError, Transaction
from service.store.postgres import PostgresDatabase
from service.store.postgres_errors import DEADLOCK, OVERTAKEN
from service.store.relays import Progress, Source, ensure_relays, relay_rows
from service.store.replicas import asked, want
from service.store.restore import mark, verify_user
from service.store.schema import aliases, audit, changes, contacts, events, users
from service.store.users import audit_of, find_user, history_of
from tests.postgres import fetch
from tests.storing import opening, within

pytestmark = pytest.mark.postgres

NOW = 1_700_000_000_000
BEGAN = NOW - 30 * 86_400_000
ACCOUNT = "main"
POLICIES = {ACCOUNT: Policies((), Policy("default", "manual"))}
AT_ONCE = {ACCOUNT: Policies((), Policy("default", "auto"))}


class Replica:
    """One service: its connections, and its ledger."""

    def __init__(self, database: PostgresDatabase) -> None:
        self.database = database
        self.metrics = Metrics()
        self.ledger = Ledger(database, POLICIES, self.metrics, max_waiting=10_000)

    async def take(self, *events: Event) -> None:
        await self.ledger.submit(RecordCallback(ACCOUNT, NOW, b"{}", events))

    async def find(self, alias: str) -> User:
        found = await self.database.read(partial(find_user, account=ACCOUNT, alias=alias))
        assert found is not None
        return found

    async def count(self, table: object) -> int:
        query = select(func.count()).select_from(table)  # type: ignore[arg-type]  any table
        return await self.database.read(lambda connection: connection.execute(query).scalar() or 0)


@pytest.fixture
async def replicas(postgres_url: str) -> AsyncIterator[Sequence[Replica]]:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(3):
            database = PostgresDatabase(postgres_url)
            replica = Replica(await stack.enter_async_context(opening(database)))
            stack.push_async_callback(replica.ledger.close)
            made.append(replica)
        yield made


def seen(user: str, hash_: str, at: int) -> IdentitySeen:
    return IdentitySeen(user, hash_, Moment(BEGAN + at))


def checked(user: str, status: str = "valid") -> ContactChecked:
    """Return what a check of the user's number came to."""
    return ContactChecked(f"+{user}", status, user if status == "valid" else None)


async def spread(
    replicas: Sequence[Replica], count: int, work: Callable[[Replica, int], Awaitable[None]]
) -> None:
    """Do work for each number, at each replica some of it at once: so transactions are many."""
    numbers = iter(range(count))

    async def go_on(replica: Replica) -> None:
        for number in numbers:
            await work(replica, number)

    await asyncio.gather(*(go_on(replica) for replica in [*replicas] * 2))


def deadlocks(replicas: Sequence[Replica]) -> float:
    name, labels = "ackgate_conflicts_total", {"why": DEADLOCK}
    return sum(one.metrics.registry.get_sample_value(name, labels) or 0 for one in replicas)


async def test_of_two_first_callbacks_of_a_new_user_both_are_in_effect_and_there_is_one_user(
    replicas: Sequence[Replica],
) -> None:
    one, other, _ = replicas
    for number in range(100):
        user = f"1631555{number:04}"
        await asyncio.gather(one.take(seen(user, "A", 0)), other.take(seen(user, "B", 60_000)))
        found = await one.find(user)
        history = await one.database.read(partial(history_of, user_id=found.id))
        assert (found.hash, [entry.hash for entry in history]) == ("B", ["A"])
    assert await one.count(users) == await one.count(aliases) == 100


async def test_the_same_callback_at_several_at_once_has_one_effect(
    replicas: Sequence[Replica],
) -> None:
    user = "16315550001"
    for number in range(100):
        event = seen(user, f"hash {number}", number * 60_000)
        await asyncio.gather(*(replica.take(event) for replica in replicas))
    assert await replicas[0].count(users) == 1
    assert await replicas[0].count(changes) == 99
    found = await replicas[0].find(user)
    told = await replicas[0].database.read(partial(audit_of, user_id=found.id))
    assert Counter(entry.event for entry in told) == {"changed": 100, "superseded": 99}


async def test_the_result_of_a_new_contact_at_several_at_once_is_told_once(
    replicas: Sequence[Replica],
) -> None:
    for number in range(100):
        result = checked(f"1631555{number:04}")
        await asyncio.gather(*(replica.take(result) for replica in replicas))
    assert await replicas[0].count(contacts) == await replicas[0].count(events) == 100


async def test_callbacks_about_the_same_users_in_any_order_wait_and_never_for_each_other(
    replicas: Sequence[Replica],
) -> None:
    chance = random.Random(480)
    names = [f"1631555{number:04}" for number in range(20)]
    delivered: dict[str, list[str]] = {name: [] for name in names}

    async def deliver(replica: Replica, number: int) -> None:
        chosen = chance.sample(names, 6)
        for name in chosen:
            delivered[name].append(f"hash {number:03}")
        await replica.take(*(seen(name, f"hash {number:03}", number * 60_000) for name in chosen))

    await spread(replicas, 300, deliver)
    assert deadlocks(replicas) == 0
    for name in names:
        found = await replicas[0].find(name)
        history = await replicas[0].database.read(partial(history_of, user_id=found.id))
        assert [*(entry.hash for entry in reversed(history)), found.hash] == delivered[name]


async def test_users_who_turn_out_to_be_linked_at_several_at_once_make_no_deadlock(
    replicas: Sequence[Replica],
) -> None:
    chance = random.Random(480)
    names = [f"1631555{number:04}" for number in range(10)]
    ids = [f"US.{number}" for number in range(10)]

    async def deliver(replica: Replica, number: int) -> None:
        event: Event
        if number % 2:
            old, new = chance.sample(names, 2)
            event = NumberChanged(old, new, Moment(BEGAN + number * 1000))
        else:
            event = AliasesSeen(
                chance.choice(ids), chance.choice(names), None, Moment(BEGAN + number * 1000)
            )
        await replica.take(event)

    await spread(replicas, 150, deliver)
    assert deadlocks(replicas) == 0
    assert await replicas[0].count(aliases) == 20


async def test_a_piece_of_work_is_leased_once_whatever_the_others_commit(
    replicas: Sequence[Replica],
) -> None:
    one, *others = replicas
    await one.database.lead()
    one.ledger.policies = AT_ONCE
    names = [f"1631555{number:04}" for number in range(60)]
    for name in names:
        await one.take(seen(name, "A", 0))
        await one.take(seen(name, "B", 60_000))

    async def lease(number: int) -> list[int]:
        holders = [f"{number} {n}" for n in range(10)]
        leased = await one.ledger.submit(LeaseWork(ACCOUNT, Kind.ACKNOWLEDGE, holders))
        return [lease.user_id for lease in leased]

    async def repeat(replica: Replica) -> None:
        for name in names:
            await replica.take(seen(name, "B", 60_000))

    repeating = [asyncio.create_task(repeat(replica)) for replica in others]
    leased: list[int] = []
    async with asyncio.timeout(30):
        while len(leased) < 60:
            some = await asyncio.gather(*(lease(number) for number in range(9)))
            leased += chain.from_iterable(some)
    await asyncio.gather(*repeating)
    assert len(set(leased)) == len(leased) == 60


async def test_a_put_begins_at_one_or_is_held_at_another(replicas: Sequence[Replica]) -> None:
    one, other, _ = replicas
    one.ledger.policies = AT_ONCE
    for number in range(60):
        name = f"1631555{number:04}"
        await one.take(seen(name, "A", 0))
        (lease,) = await one.ledger.submit(LeaseWork(ACCOUNT, Kind.ACKNOWLEDGE, [name]))
        hold = TakeDecision(ACCOUNT, name, Decision(Verb.HOLD, "A", by_key("other")))
        begun, (result, _) = await asyncio.gather(
            one.ledger.submit(BeginPut(lease)), other.ledger.submit(hold)
        )
        found = await one.find(name)
        if begun:
            assert (result, found.identity.state) == (Result.TOO_LATE, State.ACKNOWLEDGING)
        else:
            assert (result, found.identity.state) == (Result.TAKEN, State.HELD)


async def test_of_two_decisions_at_once_both_are_taken_and_the_last_in_the_audit_trail_holds(
    replicas: Sequence[Replica],
) -> None:
    hold = Decision(Verb.HOLD, "A", by_key("one"))
    let = Decision(Verb.ACKNOWLEDGE, "A", by_key("other"))
    decided = {"one": State.HELD, "other": State.ACKNOWLEDGING}
    for number in range(100):
        user = f"1631555{number:04}"
        await replicas[0].take(seen(user, "A", 0))
        await asyncio.gather(
            replicas[0].ledger.submit(TakeDecision(ACCOUNT, user, hold)),
            replicas[1].ledger.submit(TakeDecision(ACCOUNT, user, let)),
        )
        found = await replicas[2].find(user)
        told = await replicas[2].database.read(partial(audit_of, user_id=found.id))
        deciders = [entry.by["name"] for entry in told if entry.by is not None]
        assert sorted(deciders) == [*decided]
        assert found.identity.state is decided[deciders[-1]]


async def test_what_began_before_another_wrote_the_same_user_or_contact_begins_anew(
    replicas: Sequence[Replica],
) -> None:
    """Else the logs, which are in the order of beginnings, would tell it as what came first."""
    one, other, _ = replicas
    user = "16315550001"
    await one.take(seen(user, "A", 0), checked(user))

    async def load_late(transaction: Transaction) -> None:
        await other.take(seen(user, "B", 60_000))
        await transaction.load_users([(ACCOUNT, user)], ())

    async def load_contact_late(transaction: Transaction) -> None:
        await other.take(checked(user, "invalid"))
        await transaction.load_contacts([(ACCOUNT, f"+{user}")])

    for work in (load_late, load_contact_late):
        with pytest.raises(ConflictError, match=OVERTAKEN):
            await within(one.database, work)


async def test_who_is_blocked_is_written_so_that_an_earlier_beginning_is_known(
    replicas: Sequence[Replica],
) -> None:
    """What is told of a user need not change the identity."""
    one, other, _ = replicas
    user = "16315550001"
    await one.take(seen(user, "A", 0))

    async def load_late(transaction: Transaction) -> None:
        await other.ledger.submit(BlockUser(ACCOUNT, user, "asked us to stop", by_key("crm")))
        await transaction.load_users([(ACCOUNT, user)], ())

    with pytest.raises(ConflictError, match=OVERTAKEN):
        await within(one.database, load_late)


async def test_whom_the_gate_was_asked_about_is_noted_without_waiting_for_those_just_verified(
    replicas: Sequence[Replica],
) -> None:
    """In whatever order they are verified: so neither waits for the other."""
    one, other, _ = replicas
    ids = []
    for name in ("16315550001", "16315550002", "16315550003"):
        await one.take(seen(name, "A", 0))
        ids.append((await one.find(name)).id)
    await one.database.write(partial(mark, now=NOW))
    first, second, third = ids
    async with one.database.transaction() as transaction:
        await transaction.run(partial(verify_user, account=ACCOUNT, user_id=second))
        await other.database.write(partial(want, account=ACCOUNT, user_ids=ids, now=NOW))
        await transaction.run(partial(verify_user, account=ACCOUNT, user_id=first))
    assert (await one.database.read(asked)).wanted == {ACCOUNT: [third]}


async def test_of_two_first_downtimes_that_are_noted_at_once_the_one_that_lasts_longer_holds(
    postgres_url: str, replicas: Sequence[Replica]
) -> None:
    one, other, _ = replicas
    is_waiting = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    short = partial(note_downtime, since=NOW, until=NOW + 100)
    async with asyncio.timeout(30):
        async with one.database.transaction() as transaction:
            await transaction.run(partial(note_downtime, since=NOW, until=NOW + 900))
            noting = asyncio.create_task(other.database.write(short))
            while await fetch(postgres_url, is_waiting) == [(0,)]:
                await asyncio.sleep(0.01)
        await noting
    assert await one.database.read(downtime) == (NOW, NOW + 900)


async def test_a_policy_that_changed_is_noted_once_by_replicas_that_start_together(
    replicas: Sequence[Replica],
) -> None:
    for policy in ("{}", '{"mode": "auto"}'):
        note = partial(note_policies, policies=[(ACCOUNT, policy), ("other", policy)], now=NOW)
        await asyncio.gather(*(replica.database.write(note) for replica in replicas))
    query = select(audit.c.account).where(audit.c.event == "policy_changed")
    noted = await replicas[0].database.read(lambda c: sorted(c.execute(query).scalars()))
    assert noted == [ACCOUNT, "other"]


async def test_relays_are_made_once_by_replicas_that_start_together(
    replicas: Sequence[Replica],
) -> None:
    for source in ("callbacks", "events"):
        ensure = partial(ensure_relays, sources={"crm": source, "bot": source})
        await asyncio.gather(*(replica.database.write(ensure) for replica in replicas))
        found = await replicas[0].database.read(relay_rows)
        assert [(row.name, row.source) for row in found] == [("bot", source), ("crm", source)]


async def test_what_commands_write_in_whatever_order_makes_no_deadlock(
    replicas: Sequence[Replica],
) -> None:
    names = ("one", "other", "a third")
    sources: dict[str, Source] = dict.fromkeys(names, "callbacks")
    await replicas[0].database.write(partial(ensure_relays, sources=sources))
    chance = random.Random(480)

    async def write(replica: Replica, number: int) -> None:
        commands: list[Command[None]] = []
        for name in chance.sample(names, 3):
            commands += [
                CountMessages(name, Usage(sent=1), ()),
                SwitchRelay(name, by_key("local"), paused=number % 2 == 0),
                DismissIssue(name, "database_created", None, by_key("local")),
            ]
        commands += [SaveProgress(n, Progress(0, 0, ()), NOW) for n in chance.sample(names, 3)]
        commands = [one for one in commands if not one.led or replica is replicas[0]]
        await asyncio.gather(*(replica.ledger.submit(one) for one in commands))

    await spread(replicas, 60, write)
    assert deadlocks(replicas) == 0
    for name in names:
        used = await replicas[0].database.read(partial(usage, account=name, first_day=0))
        assert used.sent == 60


async def test_a_request_at_several_at_once_is_paid_once(replicas: Sequence[Replica]) -> None:
    limits = Limits(Budget(1000, 0, 30, 1, 1), require_opt_in=False, unwritten=Usage())
    asking = CheckOptions(wait=True, force=False, patience_ms=1000)
    day = partial(usage, account=ACCOUNT, first_day=0)
    for number in range(50):
        numbers = [Number(f"+1631555{number:04}", f"1631555{number:04}")]
        key = Key("crm", f"request {number}", "digest")
        plans = await asyncio.gather(
            *(
                one.ledger.submit(PlanChecks(ACCOUNT, numbers, asking, limits, key))
                for one in replicas
            )
        )
        assert all(isinstance(plan, Planned) for plan in plans)
        assert (await replicas[0].database.read(day)).checks == number + 1
    assert deadlocks(replicas) == 0
