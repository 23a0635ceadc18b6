"""What every database promises the gate: all that is known of recipients, by any name."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import delete, insert, text

from service.model.contacts import Contact
from service.model.decisions import Block
from service.model.recipients import LatestCheck, ManualBlock, Recipient, RecipientData
from service.model.timeline import Change, Moment
from service.model.users import Identity, Link, State, User, by_key
from service.store.database import Database, RecipientQuery, Transaction, UnavailableError
from service.store.schema import aliases, unverified
from service.store.users import find_block, put_block
from tests.querying import BOTH, database_of
from tests.storing import within

NOW = 1_600_000_000_000
WA_ID, OTHER_ID = "16315550001", "16315550002"
MANY = 1_000


@pytest.fixture(params=BOTH)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with database_of(request) as opened:
        yield opened


async def save(database: Database, wa_id: str = WA_ID, account: str = "main") -> User:
    """Save a user with everything that the gate goes by."""

    async def work(transaction: Transaction) -> User:
        moment = Moment(NOW - 9)
        user = User(
            transaction.new_user_id(),
            account,
            wa_id,
            NOW,
            Identity(
                Change("A", moment, NOW - 8, [moment], acknowledged_at=NOW - 7),
                State.HELD,
                blocked_since=NOW - 6,
            ),
            wrote_at=NOW - 5,
            links=[Link(OTHER_ID, "successor", Moment(NOW - 4))],
        )
        await transaction.save_users([user])
        return user

    return await within(database, work)


async def save_plain(
    database: Database,
    wa_id: str = WA_ID,
    state: State | None = None,
    blocked_since: int | None = None,
    **more: Any,
) -> int:
    """Save a user of whom little is known, and give its id."""
    moment = Moment(NOW - 9)

    async def work(transaction: Transaction) -> int:
        latest = None if state is None else Change("A", moment, NOW - 8, [moment])
        identity = Identity(latest, state, blocked_since=blocked_since)
        user = User(transaction.new_user_id(), "main", wa_id, NOW, identity, wrote_at=NOW - 5)
        await transaction.save_users([replace(user, **more)])
        return user.id

    return await within(database, work)


async def saved(database: Database, *contacts: tuple[str, str, str | None, int]) -> None:
    made = [Contact("main", input_, status, wa_id, at) for input_, status, wa_id, at in contacts]
    await within(database, lambda transaction: transaction.save_contacts(made))


async def known(database: Database, *asked: str, account: str = "main") -> RecipientData:
    question = RecipientQuery(account, "+16315550100", asked)
    return await database.find_recipients(question)


def told(
    checks: Mapping[str, Sequence[LatestCheck]],
) -> dict[str, list[tuple[str | None, str, int]]]:
    """Give of checks what they say."""
    return {key: [(c.wa_id, c.status, c.checked_at) for c in some] for key, some in checks.items()}


async def test_a_user_comes_with_all_that_the_gate_goes_by(database: Database) -> None:
    user = await save(database)
    found = (await known(database, WA_ID, "1")).users
    assert list(found) == [WA_ID]
    recipient = found[WA_ID]
    assert (recipient.id, recipient.wa_id, recipient.state) == (user.id, WA_ID, State.HELD)
    assert (recipient.received_at, recipient.blocked_since) == (NOW - 8, NOW - 6)
    assert (recipient.moved_to, recipient.wrote_at) == (user.links[0], NOW - 5)
    assert recipient.is_known
    assert not recipient.unverified
    assert recipient.blocked is None


@pytest.mark.parametrize("state", [None, *State])
async def test_each_state_is_told(database: Database, state: State | None) -> None:
    await save_plain(database, state=state)
    found = (await known(database, WA_ID)).users[WA_ID]
    assert (found.state, found.received_at) == (state, None if state is None else NOW - 8)
    assert found.is_known


@pytest.mark.parametrize("state", [None, State.ACKNOWLEDGED])
async def test_of_a_user_whose_identity_is_settled_all_else_is_told(
    database: Database, state: State | None
) -> None:
    link = Link(OTHER_ID, "successor", Moment(NOW - 4))
    blocked = await save_plain(database, "1", state=state, blocked_since=NOW - 6)
    moved = await save_plain(database, "2", state=state, links=[link])
    stopped = await save_plain(database, "3", state=state)
    doubtful = await save_plain(database, "4", state=state)
    plain = await save_plain(database, "5", state=state)
    block = Block("x", NOW, by_key("crm"))
    await database.write(lambda c: put_block(c, stopped, block))
    row = {"account": "main", "user_id": doubtful}
    await database.write(lambda c: c.execute(insert(unverified).values(row)))
    found = (await known(database, *"12345")).users
    rest = {"state": None, "received_at": None, "hash": None}
    assert {name: user._replace(**rest) for name, user in found.items()} == {
        "1": Recipient(blocked, "1", None, blocked_since=NOW - 6, wrote_at=NOW - 5),
        "2": Recipient(moved, "2", None, moved_to=link, wrote_at=NOW - 5),
        "3": Recipient(stopped, "3", None, wrote_at=NOW - 5, blocked=ManualBlock(NOW, None, "x")),
        "4": Recipient(doubtful, "4", None, wrote_at=NOW - 5, unverified=True),
        "5": Recipient(plain, "5", None, wrote_at=NOW - 5),
    }


async def test_a_user_of_whom_nothing_is_known_was_never_heard_of(
    database: Database,
) -> None:
    async def add(transaction: Transaction) -> None:
        user = User(transaction.new_user_id(), "main", WA_ID, NOW)
        await transaction.save_users([user])

    await within(database, add)
    assert not (await known(database, WA_ID)).users[WA_ID].is_known


async def test_each_account_has_its_own(database: Database) -> None:
    await save(database)
    other = await save(database, account="shop")
    assert (await known(database, WA_ID, account="shop")).users[WA_ID].id == other.id
    assert (await known(database, WA_ID, account="none")).users == {}


async def test_a_block_is_kept_in_the_place_of_the_one_before_until_it_is_ended(
    database: Database,
) -> None:
    user = await save(database)
    first, second = Block("x", NOW, by_key("crm")), Block("fraud", NOW + 1, by_key("crm"), NOW + 9)
    for block in (first, second):
        await database.write(lambda c, block=block: put_block(c, user.id, block))  # type: ignore[misc] # mypy infers no lambda with a default
        assert await database.read(lambda c: find_block(c, user.id)) == block
    recipient = (await known(database, WA_ID)).users[WA_ID]
    assert recipient.blocked == ManualBlock(NOW + 1, NOW + 9, "fraud")
    await database.write(lambda c: put_block(c, user.id, None))
    assert await database.read(lambda c: find_block(c, user.id)) is None
    assert (await known(database, WA_ID)).users[WA_ID].blocked is None


async def test_who_is_unverified_is_told(database: Database) -> None:
    user = await save(database)
    row = {"account": "main", "user_id": user.id}
    await database.write(lambda c: c.execute(insert(unverified).values(row)))
    assert (await known(database, WA_ID)).users[WA_ID].unverified
    await database.write(lambda c: c.execute(delete(unverified)))
    assert not (await known(database, WA_ID)).users[WA_ID].unverified


async def test_a_number_leads_to_its_user_and_to_the_newest_word_on_any_spelling(
    database: Database,
) -> None:
    await save(database)
    await saved(
        database,
        ("+1 631 555 0001", "valid", WA_ID, NOW - 9),
        ("+16315550001", "invalid", WA_ID, NOW),
        ("(631) 555-0001", "valid", WA_ID, NOW - 5),
    )
    found = await known(database, "+1 631 555 0001")
    assert told(found.checks)["+1 631 555 0001"] == [(WA_ID, "valid", NOW - 9)]
    assert {check.checked_at for check in found.newest[WA_ID]} == {NOW - 9, NOW, NOW - 5}
    assert list(found.users) == [WA_ID]


async def test_a_former_name_leads_to_the_newest_word_on_the_wa_id(
    database: Database,
) -> None:
    user = await save(database)
    row = {"account": "main", "alias": OTHER_ID, "user_id": user.id}
    await database.write(lambda c: c.execute(insert(aliases).values(row)))
    await saved(database, ("x", "valid", WA_ID, NOW), ("y", "valid", OTHER_ID, NOW + 1))
    found = await known(database, OTHER_ID)
    assert {name: known.id for name, known in found.users.items()} == {OTHER_ID: user.id}
    assert told(found.newest)[WA_ID] == [(WA_ID, "valid", NOW)]


async def formed(database: Database, *contacts: tuple[str, str, str | None, int, str]) -> None:
    made = [
        Contact("main", input_, status, wa_id, at, canonical=form)
        for input_, status, wa_id, at, form in contacts
    ]
    await within(database, lambda transaction: transaction.save_contacts(made))


async def test_a_number_that_was_never_asked_so_is_found_by_the_checks_of_all_spellings(
    database: Database,
) -> None:
    await save(database)
    await formed(
        database,
        ("+1 631 555 0001", "invalid", None, NOW - 9, WA_ID),
        ("+1 (631) 555-0001", "valid", WA_ID, NOW - 5, WA_ID),
        ("1 631 5550001", "processing", None, NOW, WA_ID),
    )
    for asked in ("631-555-0001", "+16315550001", "1 631 5550001", WA_ID):
        found = await known(database, asked)
        assert {check.checked_at for check in found.alike[WA_ID]} == {NOW - 9, NOW - 5, NOW}
        assert WA_ID in found.users


async def test_when_the_client_answered_a_check_that_was_asked_for_is_told(
    database: Database,
) -> None:
    contact = Contact("main", "x", "valid", WA_ID, NOW, answered_at=NOW - 1)
    await within(database, lambda transaction: transaction.save_contacts([contact]))
    [check] = (await known(database, "x")).checks["x"]
    assert check == LatestCheck("x", None, WA_ID, "valid", NOW, NOW - 1)


async def test_many_recipients_are_found_in_one_question(database: Database) -> None:
    many = [f"1631{n:07}" for n in range(MANY)]
    await saved(database, *((f"+{wa_id}", "valid", wa_id, NOW) for wa_id in many))
    for wa_id in (many[0], many[MANY // 2], many[-1]):
        await save(database, wa_id)
    found = await known(database, *many, *(f"+{wa_id}" for wa_id in many))
    assert set(found.users) == {many[0], many[MANY // 2], many[-1]}
    assert set(found.newest) == set(many)
    assert set(found.checks) == {f"+{wa_id}" for wa_id in many}


@pytest.mark.parametrize("odd", ["", "\x00", "\ud800", "😀", "x" * 300, "'; DROP TABLE users"])
async def test_what_can_be_no_recipient_is_not_found_and_spoils_no_other(
    database: Database, odd: str
) -> None:
    await save(database)
    found = await known(database, odd, WA_ID)
    assert (list(found.users), found.checks) == ([WA_ID], {})


async def test_texts_and_times_come_back_as_they_were_saved(database: Database) -> None:
    odd = '"[1] \\\\u0000 {} \u2028\U0001f600\x7f'
    digits, long_ago = "007", -(2**53) - 1
    late = 2**63 - 1
    await saved(database, (odd, "valid", odd, late), (digits, "invalid", None, long_ago))
    found = await known(database, odd, digits)
    assert told(found.checks) == {
        odd: [(odd, "valid", late)],
        digits: [(None, "invalid", long_ago)],
    }


async def test_questions_that_wait_are_each_answered_with_their_own(
    database: Database,
) -> None:
    users = [await save(database, f"1631{n}") for n in range(20)]

    async def ask(number: int) -> int:
        question = RecipientQuery("main", None, [f"1631{number}"])
        return (await database.find_recipients(question)).users[f"1631{number}"].id

    assert await asyncio.gather(*map(ask, range(20))) == [user.id for user in users]


async def test_a_question_that_fails_spoils_no_other(
    database: Database,
) -> None:
    await save(database)
    good = RecipientQuery("main", None, [WA_ID])
    bad = RecipientQuery("main", None, [None])  # type: ignore[list-item] # what should never come
    questions = [good, bad, good]
    found = await asyncio.gather(
        *(database.find_recipients(question) for question in questions),
        return_exceptions=True,
    )
    assert [isinstance(each, RecipientData) and len(each.users) for each in found] == [1, 0, 1]
    assert isinstance(found[1], Exception)


async def test_a_database_that_can_not_be_read_is_told(database: Database) -> None:
    async def rename(before: str, after: str) -> None:
        await database.write(lambda c: c.execute(text(f"ALTER TABLE {before} RENAME TO {after}")))

    await rename("blocks", "gone")
    with pytest.raises(UnavailableError):
        await known(database, WA_ID)
    await rename("gone", "blocks")  # other tests use the same tables
    assert not (await known(database, WA_ID)).users


async def test_what_was_committed_before_the_question_is_known(database: Database) -> None:
    for number in range(50):
        await save(database, f"1631{number}")
        assert (await known(database, f"1631{number}")).users


async def test_a_hash_and_a_user_id_are_told(database: Database) -> None:
    user_id = await save_plain(database, state=State.ACKNOWLEDGED, user_id="US.1349")
    await within(database, lambda t: t.save_aliases({("main", WA_ID): user_id}))
    found = (await known(database, WA_ID)).users[WA_ID]
    assert (found.user_id, found.hash, found.state) == ("US.1349", "A", State.ACKNOWLEDGED)


async def test_nobody_waits_for_more_recipients_of_others_than_one_lookup_may_have(
    database: Database,
) -> None:
    question = RecipientQuery("main", None, [f"1631{n}" for n in range(600)])
    asked = [asyncio.create_task(database.find_recipients(question)) for _ in range(5)]
    await asked[0]
    assert not any(task.done() for task in asked[1:])
    await asyncio.gather(*asked)


async def test_the_other_spelling_of_what_a_check_answered_is_a_name_too(
    database: Database,
) -> None:
    await saved(database, ("my customer in Sao Paulo", "valid", "5511987654321", NOW))
    await save_plain(database, "551187654321", State.HELD)
    assert list((await known(database, "my customer in Sao Paulo")).users) == ["551187654321"]
