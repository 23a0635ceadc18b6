"""Erasing is done in slices, can be done again, and leaves what others rely on."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from service.dialects.shares import Share
from service.ledger.callbacks import RecordCallback
from service.ledger.erasing import EraseLinks, EraseUser
from service.ledger.identities import BlockUser, TakeDecision, UnblockUser
from service.ledger.ledger import Ledger
from service.model import shapes
from service.model.decisions import Decision, Verb
from service.model.events import (
    AliasesSeen,
    ContactChecked,
    Event,
    HashRefused,
    HashUnreadable,
    IdentitySeen,
    MessageSent,
    NumberChanged,
)
from service.model.gate import AccountStatus, judge
from service.model.policy import Policies, Policy
from service.model.timeline import Moment
from service.model.users import By, State, User, usable_alias
from service.observability.metrics import Metrics
from service.store import erasing
from service.store.contacts import form, keep_answer
from service.store.database import Database, JournalRow, RecipientQuery
from service.store.relays import DeliveryRow, save_deliveries
from service.store.restore import count_unverified, mark
from service.store.schema import (
    aliases,
    contacts,
    deliveries,
    erasures,
    events,
    idempotency,
    journal,
    message_recipients,
)
from service.store.trail import seal_next, verify
from service.store.users import find_user
from service.workers import erasing as workers
from service.workers.erasing import Eraser, UnfinishedError, Whom
from service.workers.exporting import Exporter
from tests.querying import BOTH, database_of
from tests.storing import database_at, opening, settled

POLICIES = {
    "shop": Policies((), Policy("default", mode="auto"), first_use=Policy("first"), local=True)
}
BY: By = {"kind": "key", "name": "crm"}
GONE, USER_ID, OTHER = "16315550771", "US.77100000000000000001", "16315550662"
SHARE = Share("shop", ("shop", "@meta"), "1", frozenset({"2"}))
AT = 1_600_000_000_000


@pytest.fixture(params=BOTH)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with database_of(request) as made:
        yield made


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    made = Ledger(database, POLICIES, Metrics(), max_waiting=1000)
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "ROWS", 3)
    monkeypatch.setattr(erasing, "FOUND", 2)
    monkeypatch.setattr(workers, "FOUND", 2)
    monkeypatch.setattr(erasing, "BYTES", 100)


async def come(ledger: Ledger, number: int, *names: str, seen: str | None = None) -> None:
    """Let a callback come that names somebody, perhaps with an identity."""
    messages = [{"from": name, "text": {"body": f"hello {number}"}} for name in names]
    body = json.dumps({"messages": messages}).encode()
    row = JournalRow("shop", AT, "applied", "application/json", "", "[]", body)
    moment = Moment(AT + number)
    said: list[Any] = [MessageSent(names[0], f"m{number}", moment)]
    if seen is not None:
        said += [
            AliasesSeen(USER_ID, GONE, None, moment),
            IdentitySeen(USER_ID, seen, moment, moment),
        ]
    await ledger.submit(RecordCallback("shop", AT + number, body, said, row))


async def bodies(database: Database) -> list[bytes]:
    query = select(journal.c.body).order_by(journal.c.id)
    found = await database.read(lambda connection: connection.execute(query).scalars().all())
    return [bytes(body) for body in found]


async def is_empty(database: Database, *tables: Any) -> bool:
    return not [t for t in tables if await database.read(lambda c, t=t: c.execute(select(t)).all())]  # type: ignore[misc]


def whom(alias: str) -> Whom:
    return Whom(alias, SHARE, closed=False)


async def test_what_was_cut_short_is_done_again_by_another_name(
    database: Database, ledger: Ledger
) -> None:
    await come(ledger, 0, GONE, seen="hash+A")
    for number in range(1, 8):
        await come(ledger, number, *((OTHER,) if number % 3 else (USER_ID, OTHER)))
    await settled(database)
    await database.write(partial(seal_next, now=AT))
    user_id = await ledger.submit(EraseUser("shop", GONE, BY, closed=False))
    assert await is_empty(database, aliases)
    assert any(GONE.encode() in body for body in await bodies(database)), "not searched yet"
    found = await Eraser(ledger, database).erase(whom(USER_ID), BY, None)
    assert found.counts["callbacks"] == 3
    assert found.counts["messages"] == 3
    left = await bodies(database)
    assert not [body for body in left if GONE.encode() in body or USER_ID.encode() in body]
    assert left[0] == b""
    assert sum(OTHER.encode() in body for body in left) == 7
    assert await is_empty(database, erasures)
    kept = select(message_recipients.c.alias).distinct()
    assert await database.read(lambda c: c.execute(kept).scalars().all()) == [OTHER]
    data = select(events.c.data).where(events.c.data != "{}")
    assert await database.read(lambda c: c.execute(data).all()) == []
    await settled(database)
    await database.write(partial(seal_next, now=AT))
    trail = await database.read(verify)
    assert trail.erased > 0
    assert (trail.unsealed, trail.faults) == (0, [])
    again = await ledger.submit(EraseUser("shop", GONE, BY, closed=False))
    assert again == user_id


async def take(ledger: Ledger, *events: Event, at: int = AT) -> None:
    await ledger.submit(RecordCallback("shop", at, b"{}", events))


async def known(database: Database, alias: str) -> User:
    found = await database.read(partial(find_user, account="shop", alias=alias))
    assert found is not None
    return found


async def why_not(database: Database, text: str) -> set[str]:
    """Return why the one whom a text means may not be written to."""
    data = await database.find_recipients(RecipientQuery("shop", "+16315550000", [text]))
    verdict = judge(text, data, AccountStatus(database.clock()))
    assert verdict is not None
    return {reason.code for reason in verdict.reasons}


def seen(number: int, alias: str, wa_id: str | None, hash_: str | None) -> list[Event]:
    """Return what a message says: two names of its sender, and the hash."""
    moment = Moment(AT + number)
    found: list[Event] = [AliasesSeen(alias, wa_id, None, moment)]
    return found if hash_ is None else [*found, IdentitySeen(alias, hash_, moment, moment)]


async def test_no_former_name_is_trusted_for_being_new(database: Database, ledger: Ledger) -> None:
    await come(ledger, 0, GONE, seen="hash+A")
    before = await known(database, GONE)
    assert before.identity.state is State.ACKNOWLEDGED
    await Eraser(ledger, database).erase(whom(GONE), BY, None)
    data = await database.find_recipients(RecipientQuery("shop", None, [USER_ID, GONE]))
    assert {user.id for user in data.users.values()} == {before.id}
    for number, hash_ in enumerate(("hash+A", "hash+B"), 1):
        await come(ledger, number, GONE, seen=hash_)
        found = [await known(database, alias) for alias in (GONE, USER_ID)]
        assert {user.id for user in found} == {before.id + 1}, "it is somebody new"
        assert [user.identity.state for user in found] == [State.PENDING, State.PENDING]


async def test_a_name_that_is_learned_together_with_the_erasure_is_kept_closed(
    database: Database, ledger: Ledger
) -> None:
    await take(ledger, *seen(0, USER_ID, None, "hash+A"))
    batch = [
        RecordCallback("shop", AT, b"{}", seen(1, USER_ID, GONE, "hash+A")),
        EraseUser("shop", USER_ID, BY, closed=True),
        RecordCallback("shop", AT, b"{}", seen(2, USER_ID, OTHER, None)),
    ]
    await asyncio.gather(*map(ledger.submit, batch))
    assert await why_not(database, GONE) == {"erased"}
    await take(ledger, IdentitySeen(GONE, "hash+B", Moment(AT + 3)))
    assert await why_not(database, GONE) == {"identity_pending"}


async def test_a_number_that_comes_back_with_another_user_id_is_somebody_new(
    database: Database, ledger: Ledger
) -> None:
    await take(ledger, *seen(0, USER_ID, GONE, "hash+A"))
    await ledger.submit(EraseUser("shop", GONE, BY, closed=False))
    assert await why_not(database, GONE) == set(), "it was sendable"
    await take(ledger, *seen(1, "US.2", GONE, None))
    assert await why_not(database, "US.2") == {"erased"}
    assert await why_not(database, GONE) == {"erased"}
    assert (await known(database, GONE)).user_id == "US.2"
    await take(ledger, *seen(2, USER_ID, None, None))
    assert (await known(database, USER_ID)).id != (await known(database, GONE)).id
    assert await why_not(database, USER_ID) == {"erased"}


async def test_who_turns_out_to_be_somebody_erased_waits_for_a_person(
    database: Database, ledger: Ledger
) -> None:
    parent, other = "US.ENT.9", "US.2"
    await take(ledger, AliasesSeen(USER_ID, GONE, parent, Moment(AT)))
    await take(ledger, *seen(1, other, None, "hash+A"))
    decision = Decision(Verb.ACKNOWLEDGE, "hash+A", BY)
    await ledger.submit(TakeDecision("shop", other, decision))
    await ledger.submit(EraseUser("shop", GONE, BY, closed=True))
    await take(ledger, AliasesSeen(USER_ID, None, parent, Moment(AT + 2)))
    assert await why_not(database, USER_ID) == {"erased"}
    assert await why_not(database, other) == set()
    await take(ledger, AliasesSeen(other, None, parent, Moment(AT + 3)))
    assert (await known(database, USER_ID)).id == (await known(database, other)).id
    assert await why_not(database, USER_ID) == await why_not(database, other)
    assert await why_not(database, other) == {"identity_pending"}
    await ledger.submit(TakeDecision("shop", other, decision))
    assert await why_not(database, USER_ID) == set()
    assert await why_not(database, GONE) == {"erased"}, "nobody has shown to have this one"


async def test_what_was_said_of_a_spelling_keeps_it_closed(
    database: Database, ledger: Ledger
) -> None:
    await take(ledger, ContactChecked("631 555 0771", "valid", GONE))
    await take(ledger, ContactChecked(f"+{GONE}", "invalid", None))
    assert "contact_invalid" in await why_not(database, f"+{GONE}")
    await ledger.submit(EraseUser("shop", GONE, BY, closed=False))
    assert await is_empty(database, contacts)
    for text_ in (GONE, f"+{GONE}", "631 555 0771"):
        assert await why_not(database, text_) == {"erased"}


@pytest.mark.parametrize("event", [HashRefused(GONE, None, "m1"), HashUnreadable(GONE, None, "m1")])
async def test_a_sign_of_another_identity_closes_the_gate_to_who_was_erased(
    database: Database, ledger: Ledger, event: Event
) -> None:
    await take(ledger, *seen(0, USER_ID, GONE, "hash+A"))
    await ledger.submit(EraseUser("shop", GONE, BY, closed=False))
    assert await why_not(database, GONE) == set()
    await take(ledger, event)
    assert await why_not(database, GONE) == {"erased"}


async def test_a_block_reaches_the_number_that_somebody_took_and_was_erased_by(
    database: Database, ledger: Ledger
) -> None:
    await take(ledger, NumberChanged(OTHER, GONE, Moment(AT)))
    await Eraser(ledger, database).erase(whom(GONE), BY, None)
    (link,) = (await known(database, OTHER)).links
    assert shapes.identity(await known(database, OTHER))["linked"][0]["wa_id"] == "erased"
    assert not usable_alias(link.alias)
    await ledger.submit(BlockUser("shop", OTHER, "asked us to stop", BY))
    assert await why_not(database, GONE) == {"blocked"}
    await take(ledger, *seen(1, USER_ID, GONE, None))
    assert await why_not(database, GONE) == {"blocked", "erased"}
    await ledger.submit(UnblockUser("shop", USER_ID, BY))
    assert await why_not(database, GONE) == {"erased"}


async def test_a_block_of_somebody_erased_can_be_ended(database: Database, ledger: Ledger) -> None:
    await ledger.submit(BlockUser("shop", GONE, "asked us to stop", BY))
    await ledger.submit(EraseUser("shop", GONE, BY, closed=False))
    assert await why_not(database, GONE) == {"blocked"}
    assert await ledger.submit(UnblockUser("shop", GONE, BY))
    assert await why_not(database, GONE) == set()


async def acknowledge(ledger: Ledger, alias: str, hash_: str) -> None:
    await ledger.submit(TakeDecision("shop", alias, Decision(Verb.ACKNOWLEDGE, hash_, BY)))


async def test_an_erasure_that_is_repeated_takes_nothing_of_others(
    database: Database, ledger: Ledger
) -> None:
    await take(ledger, ContactChecked("7777", "valid", None))
    await database.write(partial(form, account="shop", forms=[("7777", "")]))
    await take(ledger, IdentitySeen(GONE, "hash+A", Moment(AT)))
    user_id = await ledger.submit(EraseUser("shop", GONE, BY, closed=True))
    # Somebody else has loaded what is left of the user, which has no name.
    links = EraseLinks([user_id], frozenset(), user_id)
    await asyncio.gather(
        ledger.submit(links), ledger.submit(EraseUser("shop", GONE, BY, closed=True))
    )
    note = await database.read(partial(erasing.noted, user_id=user_id))
    assert note is not None
    assert note.names == [GONE]
    assert not await is_empty(database, contacts)


async def test_a_number_that_changed_hands_and_did_not_stays_closed(
    database: Database, ledger: Ledger
) -> None:
    await take(ledger, *seen(0, USER_ID, None, "hash+A"))
    await ledger.submit(EraseUser("shop", USER_ID, BY, closed=True))
    await take(ledger, *seen(1, "US.2", OTHER, None))
    await take(ledger, *seen(2, USER_ID, OTHER, None))
    await take(ledger, NumberChanged("US.2", USER_ID, Moment(AT + 3)))
    assert await why_not(database, USER_ID) == {"erased"}


async def test_a_held_number_stays_closed_with_who_was_acknowledged_by_another_name(
    database: Database, ledger: Ledger
) -> None:
    await take(ledger, *seen(0, USER_ID, GONE, "hash+A"))
    await ledger.submit(EraseUser("shop", GONE, BY, closed=True))
    await take(ledger, *seen(1, "US.2", None, "hash+B"))
    await acknowledge(ledger, "US.2", "hash+B")
    await take(ledger, *seen(2, "US.2", GONE, "hash+B"))
    assert await why_not(database, GONE) == {"identity_pending"}


DIALLED, ANSWERED = "2250701234567", "22501234567"
"""One number of Ivory Coast as it is dialled, and as WhatsApp may still call it."""


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_number_by_which_somebody_erased_was_found_stays_closed(
    database: Database, ledger: Ledger, *, is_known: bool
) -> None:
    """Whether somebody else is known by the digits of the number, or was erased as well."""
    await take(ledger, IdentitySeen(DIALLED, "hash+A", Moment(AT)))
    await take(ledger, IdentitySeen(ANSWERED, "hash+B", Moment(AT)))
    await ledger.submit(BlockUser("shop", ANSWERED, "asked us to stop", BY))
    await take(ledger, ContactChecked(f"+{DIALLED}", "valid", ANSWERED), at=database.clock())
    if not is_known:
        await ledger.submit(BlockUser("shop", DIALLED, "asked us to stop", BY))
        await ledger.submit(EraseUser("shop", DIALLED, BY, closed=False))
    assert await why_not(database, f"+{DIALLED}")
    await ledger.submit(EraseUser("shop", ANSWERED, BY, closed=False))
    for text_ in (DIALLED, f"+{DIALLED}", ANSWERED):
        assert await why_not(database, text_), text_


async def test_a_spelling_without_a_country_names_nobody_who_was_erased(
    database: Database, ledger: Ledger
) -> None:
    await take(ledger, ContactChecked("06315550771", "valid", GONE))
    await ledger.submit(EraseUser("shop", GONE, BY, closed=True))
    data = await database.find_recipients(RecipientQuery("shop", None, ["06315550771"]))
    assert data.users == {}
    assert await why_not(database, "06315550771") == {"erased"}, "by the country of the account"


async def test_a_restore_opens_nothing_for_who_was_erased(
    database: Database, ledger: Ledger
) -> None:
    await come(ledger, 0, GONE, seen="hash+A")
    await Eraser(ledger, database).erase(whom(GONE), BY, None)
    await database.write(partial(mark, now=AT))
    data = await database.find_recipients(RecipientQuery("shop", None, [GONE]))
    assert data.users[GONE].after_hold
    assert await database.read(count_unverified) == {}


async def test_what_a_relay_still_knows_of_a_name_is_not_written_again(
    database: Database, ledger: Ledger
) -> None:
    names = [f"shop/{GONE}", f"shop/{OTHER}"]
    row = DeliveryRow(
        "crm", 1, 1, 0, "retrying", 1, AT, None, ["messages"], names, False, 500, "500", GONE
    )
    await database.write(partial(save_deliveries, rows=[row]))
    await Eraser(ledger, database).erase(whom(GONE), BY, None)
    await database.write(partial(save_deliveries, rows=[row._replace(attempts=2)]))
    query = select(deliveries.c.names, deliveries.c.answer)
    ((text, answer),) = await database.read(lambda c: c.execute(query).all())
    assert json.loads(text) == sorted(["shop/erased", f"shop/{OTHER}"])
    assert answer is None


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two erasures read a body before either writes what is left of it."""
    left_of, both, waits = workers._left_of, threading.Barrier(2), threading.Semaphore(2)

    def after_both(*given: Any) -> Any:
        left = left_of(*given)
        if waits.acquire(blocking=False):
            both.wait(30)
        return left

    monkeypatch.setattr(workers, "_left_of", after_both)


async def erase_both(ledger: Ledger, database: Database, other: Database) -> None:
    await come(ledger, 0, GONE, OTHER, "16315550553", seen="hash+A")
    await settled(database)
    erasers = Eraser(ledger, database), Eraser(ledger, other)
    calls = (e.erase(whom(n), BY, None) for e, n in zip(erasers, (GONE, OTHER), strict=True))
    await asyncio.gather(*calls)
    (body,) = await bodies(database)
    assert [one["from"] for one in json.loads(body)["messages"]] == ["16315550553"]
    assert await is_empty(database, erasures)


@pytest.mark.usefixtures("together")
async def test_two_erasures_at_once_bring_nothing_back(database: Database, ledger: Ledger) -> None:
    await erase_both(ledger, database, database)


@pytest.mark.postgres
@pytest.mark.usefixtures("together")
async def test_nor_do_two_replicas(postgres_url: str) -> None:
    async with (
        opening(database_at(postgres_url)) as one,
        opening(database_at(postgres_url)) as other,
    ):
        ledger = Ledger(one, POLICIES, Metrics(), max_waiting=1000)
        await erase_both(ledger, one, other)
        await ledger.close()


async def test_an_erasure_that_is_asked_for_again_meanwhile_is_not_forgotten(
    database: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await come(ledger, 0, GONE, seen="hash+A")
    await settled(database)
    first = Eraser(ledger, database)
    end, is_first = erasing.end, iter([True])

    def after_another(connection: Any, **given: Any) -> None:
        if next(is_first, False):
            erasing.begin(connection, "shop", given["user_id"], ["16315550553"], now=AT)
        end(connection, **given)

    monkeypatch.setattr(erasing, "end", after_another)
    await first.erase(whom(GONE), BY, None)
    (left,) = await database.read(erasing.unfinished)
    noted = await database.read(partial(erasing.noted, user_id=left.user_id))
    assert noted is not None
    assert {GONE, "16315550553"} <= {*noted.names}
    await first.resume(lambda _: SHARE)
    assert await is_empty(database, erasures)


async def test_the_leader_finishes_what_was_cut_short(database: Database, ledger: Ledger) -> None:
    await come(ledger, 0, GONE, seen="hash+A")
    await settled(database)
    await ledger.submit(EraseUser("shop", GONE, BY, closed=False))
    assert GONE.encode() in (await bodies(database))[0]
    erasers = [Eraser(ledger, database) for _ in range(2)]
    running = [asyncio.create_task(eraser.run(lambda _: SHARE)) for eraser in erasers]
    while not await is_empty(database, erasures):
        await asyncio.sleep(0.01)
    assert await bodies(database) == [b""]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_one_that_fails_does_not_stop_the_others(
    database: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (GONE, OTHER):
        await ledger.submit(EraseUser("shop", name, BY, closed=False))
    finish, is_first = Eraser.finish, iter([True])

    async def fails_once(*given: Any) -> Any:
        if next(is_first, False):
            raise ValueError("a fault of the first one's")
        return await finish(*given)

    monkeypatch.setattr(Eraser, "finish", fails_once)
    await Eraser(ledger, database).resume(lambda _: SHARE)
    assert len(await database.read(erasing.unfinished)) == 1


async def test_one_that_runs_here_is_not_run_twice(
    database: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id = await ledger.submit(EraseUser("shop", GONE, BY, closed=False))
    eraser = Eraser(ledger, database)
    settles, goes_on = [], asyncio.Event()

    async def settle(_: Eraser) -> None:
        settles.append(1)
        if len(settles) == 1:
            await goes_on.wait()

    monkeypatch.setattr(Eraser, "_settle", settle)
    running = asyncio.create_task(eraser.finish(user_id, SHARE))
    while not settles:
        await asyncio.sleep(0)
    await eraser.resume(lambda _: SHARE)
    goes_on.set()
    await running
    assert settles == [1]


@pytest.mark.postgres
async def test_an_open_transaction_does_not_hold_an_erasure_for_ever(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "SETTLED_WITHIN_SECONDS", 0.3)
    async with (
        opening(database_at(postgres_url)) as database,
        opening(database_at(postgres_url)) as other,
    ):
        ledger = Ledger(database, POLICIES, Metrics(), max_waiting=1000)
        await come(ledger, 0, GONE, seen="hash+A")
        eraser = Eraser(ledger, database)
        async with other.transaction() as transaction:
            take = text("SELECT pg_current_xact_id()")
            await transaction.run(lambda connection: connection.execute(take))
            with pytest.raises(UnfinishedError):
                await eraser.erase(whom(GONE), BY, None)
            await eraser.resume(lambda _: SHARE)
            assert not await is_empty(database, erasures)
        await eraser.resume(lambda _: SHARE)
        assert await bodies(database) == [b""]
        assert await is_empty(database, erasures)
        await ledger.close()


async def test_the_same_number_at_another_account_keeps_its_name(
    database: Database, ledger: Ledger
) -> None:
    row = DeliveryRow(
        "crm", 1, 1, 0, "retrying", 1, AT, None, ["messages"], [], False, 500, "500", "answer"
    )
    rows = [
        row._replace(id=1, names=[f"outlet/{GONE}"]),
        row._replace(id=2, names=[f"shop/{GONE}"]),
        row._replace(id=3, names=[GONE]),
    ]
    await database.write(partial(save_deliveries, rows=rows))
    found = await Eraser(ledger, database).erase(whom(GONE), BY, None)
    assert found.counts["deliveries"] == 2
    query = select(deliveries.c.names, deliveries.c.answer).order_by(deliveries.c.id)
    for _ in range(2):
        kept = await database.read(lambda c: c.execute(query).all())
        assert [json.loads(one.names) for one in kept] == [
            [f"outlet/{GONE}"],
            ["shop/erased"],
            ["erased"],
        ]
        assert [one.answer for one in kept] == ["answer", None, None]
        await database.write(partial(save_deliveries, rows=rows))


async def test_an_answer_that_comes_while_erasing_is_not_kept(
    database: Database, ledger: Ledger
) -> None:
    about = json.dumps({"contacts": [{"input": GONE}]})
    row = {"account": "shop", "caller": "crm", "digest": "d", "created_at": AT}
    keys = {"open": None, "about": about, "other": "{}", "later": None}
    rows = [row | {"key": key, "answer": answer} for key, answer in keys.items()]
    rows[3]["created_at"] = AT * 2
    rows.append(row | {"account": "outlet", "key": "outlet", "answer": about})
    await database.write(lambda c: c.execute(insert(idempotency), rows))
    found = await Eraser(ledger, database).erase(whom(GONE), BY, None)
    assert found.counts["answers"] == 2
    late = partial(keep_answer, account="shop", caller="crm", key="open", answer=about)
    await database.write(late)
    left = select(idempotency.c.key).order_by(idempotency.c.key)
    kept = await database.read(lambda c: [*c.execute(left).scalars()])
    assert kept == ["later", "other", "outlet"]


async def test_an_event_about_a_longer_number_stays(database: Database, ledger: Ledger) -> None:
    await come(ledger, 0, f"{GONE}9")
    event = {"account": "shop", "at": AT, "type": "identity.pending", "data": "{}"}
    rows = [event | {"id": 1, "names": f'["{GONE}9"]'}, event | {"id": 2, "names": f'["{GONE}"]'}]
    rows.append(event | {"id": 3, "names": "[]"})
    await database.write(lambda c: c.execute(insert(events), rows))
    await Eraser(ledger, database).erase(whom(GONE), BY, None)
    query = select(events.c.names).order_by(events.c.id)
    assert await database.read(lambda c: [*c.execute(query).scalars()]) == [f'["{GONE}9"]', "[]"]


def change(number: str, name: str) -> dict[str, Any]:
    value = {"metadata": {"phone_number_id": number}, "messages": [{"from": name}]}
    return {"field": "messages", "value": value}


async def test_what_is_of_another_account_of_the_app_stays(
    database: Database, ledger: Ledger
) -> None:
    body = {"entry": [{"changes": [change("1", GONE), change("2", GONE), change("1", OTHER)]}]}
    theirs = {"entry": [{"changes": [change("2", GONE)]}]}
    for value in (body, theirs):
        raw = json.dumps(value).encode()
        row = JournalRow("@meta", AT, "applied", "application/json", "", "[]", raw)
        await ledger.submit(RecordCallback("shop", AT, raw, (), row))
    await settled(database)
    told = b"".join([piece async for piece in Exporter(database).export(whom(GONE))])
    assert [one["elements"] for one in json.loads(told)["callbacks"]] == [[{"from": GONE}]]
    found = await Eraser(ledger, database).erase(whom(GONE), BY, None)
    assert found.counts["callbacks"] == 1
    left, whole = await bodies(database)
    emptied = change("1", GONE)
    emptied["value"]["messages"] = []
    kept = [emptied, change("2", GONE), change("1", OTHER)]
    assert json.loads(left)["entry"] == [{"changes": kept}]
    assert json.loads(whole) == theirs
