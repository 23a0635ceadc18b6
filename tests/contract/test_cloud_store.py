"""What every database keeps of users of the Cloud API: their names, and identities without hash."""

from collections.abc import AsyncIterator
from functools import partial
from itertools import permutations
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select

from service.ledger.callbacks import RecordCallback
from service.ledger.identities import BlockUser, DismissIssue, MoveToCloud, TakeDecision
from service.ledger.ledger import Ledger
from service.model.decisions import Decision, Verb
from service.model.events import (
    AliasesSeen,
    Event,
    HashRefused,
    HashUnreadable,
    IdentitySeen,
    MessageSent,
    NumberChanged,
    UserWrote,
)
from service.model.policy import Policies, Policy
from service.model.timeline import Moment, Precision
from service.model.users import State, User, by_key
from service.observability.metrics import Metrics
from service.store.accounts import account_rows
from service.store.database import Database, JournalRow, RecipientQuery
from service.store.journal import unknown_numbers
from service.store.retention import forget_recipients, has_old_recipients
from service.store.schema import aliases, contacts, message_recipients, users
from service.store.sqlite import SQLiteDatabase
from service.store.users import audit_of, find_block, find_user, history_of
from tests.querying import BOTH, database_of

NOW = 1_700_000_000_000
WA_ID, ID, OTHER_ID, PARENT = "16505551234", "US.1349", "US.2", "US.ENT.3"
POLICIES = {
    "shop": Policies((), Policy("default"), local=True, first_use=Policy("trust_first_use"))
}


@pytest.fixture(params=BOTH)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with database_of(request, clock=lambda: NOW) as opened:
        yield opened


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    made = Ledger(database, POLICIES, Metrics(), max_waiting=100)
    yield made
    await made.close()


def at(second: int) -> Moment:
    return Moment(NOW - 1_000_000 + second * 1000, Precision.SECOND)


def row(account: str) -> JournalRow:
    return JournalRow(account, NOW, "applied", "application/json", "", "[]", b"{}")


async def test_a_callback_of_several_accounts_is_a_sign_of_life_of_each(
    ledger: Ledger, database: Database
) -> None:
    several = row("@meta")
    await ledger.submit(RecordCallback("shop", NOW, b"{}", (), several))
    await ledger.submit(RecordCallback("office", NOW + 5, b"{}", (), several, keeps_row=False))
    known = await database.read(account_rows)
    assert {name: found.last_callback_at for name, found in known.items()} == {
        "shop": NOW,
        "office": NOW + 5,
    }


async def test_a_callback_of_no_account_is_a_sign_of_life_of_none(
    ledger: Ledger, database: Database
) -> None:
    await ledger.submit(RecordCallback("@meta", NOW, b"{}", (), row("@meta")))
    assert await database.read(account_rows) == {}


async def take(ledger: Ledger, *events: Event) -> None:
    await ledger.submit(RecordCallback("shop", NOW, b"{}", events))


async def find(database: Database, alias: str) -> User | None:
    return await database.read(partial(find_user, account="shop", alias=alias))


async def decide(ledger: Ledger, alias: str, hash_: str | None) -> None:
    decision = Decision(Verb.ACKNOWLEDGE, hash_, by_key("crm"))
    await ledger.submit(TakeDecision("shop", alias, decision))


async def count(database: Database, table: object) -> int:
    query = select(func.count()).select_from(table)  # type: ignore[arg-type]  any table
    return await database.read(lambda connection: connection.execute(query).scalar() or 0)


async def test_a_user_is_found_by_each_name_and_knows_them(
    ledger: Ledger, database: Database
) -> None:
    await take(ledger, AliasesSeen(ID, WA_ID, PARENT, at(1)), IdentitySeen(ID, "A", at(1)))
    for alias in (ID, WA_ID, PARENT):
        known = await find(database, alias)
        assert known is not None
        assert (known.user_id, known.wa_id, known.hash) == (ID, WA_ID, "A")
    assert await count(database, users) == 1
    assert await count(database, aliases) == 3


async def test_a_user_may_have_a_user_id_alone(ledger: Ledger, database: Database) -> None:
    await take(ledger, IdentitySeen(ID, "A", at(1)), UserWrote(ID, at(1)))
    await take(ledger, IdentitySeen(ID, "B", at(5)))
    known = await find(database, ID)
    assert known is not None
    assert (known.user_id, known.wa_id, known.alias) == (ID, None, ID)
    assert (known.hash, known.identity.state) == ("B", State.PENDING)
    assert await count(database, aliases) == 1


async def test_a_wa_id_that_gets_a_user_id_stays_the_same_user(
    ledger: Ledger, database: Database
) -> None:
    await take(ledger, IdentitySeen(WA_ID, "A", at(1)))
    await take(ledger, AliasesSeen(ID, WA_ID, None, at(2)), IdentitySeen(ID, "B", at(2)))
    known = await find(database, WA_ID)
    assert known is not None
    assert (known.hash, known.identity.state, known.user_id) == ("B", State.PENDING, ID)
    assert await count(database, users) == 1


def in_status(user_id: str, wa_id: str, second: int) -> AliasesSeen:
    """Name a user as a status does, which is no reason to keep one."""
    return AliasesSeen(user_id, wa_id, None, at(second), creates=False)


async def test_a_status_links_the_names_of_who_was_known_by_one(
    ledger: Ledger, database: Database
) -> None:
    await take(ledger, IdentitySeen(WA_ID, "A", at(1)))
    await take(ledger, in_status(ID, WA_ID, 2))
    known = await find(database, ID)
    assert known is not None
    assert (known.user_id, known.wa_id, known.hash) == (ID, WA_ID, "A")


async def test_a_status_of_a_stranger_keeps_nobody(ledger: Ledger, database: Database) -> None:
    await take(ledger, in_status(ID, WA_ID, 2))
    assert await count(database, users) == await count(database, aliases) == 0


async def test_a_status_that_says_nothing_new_leaves_its_user_alone(
    ledger: Ledger, database: Database
) -> None:
    await take(ledger, AliasesSeen(ID, WA_ID, None, at(1)), IdentitySeen(ID, "A", at(1)))
    before = await find(database, ID)
    await take(ledger, in_status(ID, WA_ID, 2))
    await take(ledger, in_status(ID, WA_ID, 0))
    assert await find(database, ID) == before


async def test_names_in_statuses_are_heeded_in_the_batch_that_tells_more_of_their_users(
    ledger: Ledger, database: Database
) -> None:
    """The number goes from one to another, and back by the word of a status alone."""
    await take(ledger, AliasesSeen(ID, WA_ID, None, at(1)), IdentitySeen(ID, "A", at(1)))
    await take(
        ledger,
        AliasesSeen(OTHER_ID, WA_ID, None, at(5)),
        IdentitySeen(OTHER_ID, "B", at(5)),
        in_status(ID, WA_ID, 9),
    )
    known = await find(database, WA_ID)
    assert known is not None
    assert (known.user_id, known.hash) == (ID, "A")


async def test_one_status_that_says_something_has_the_others_of_its_batch_heeded(
    ledger: Ledger, database: Database
) -> None:
    await take(ledger, AliasesSeen(ID, WA_ID, None, at(1)), IdentitySeen(ID, "A", at(1)))
    await take(ledger, in_status(ID, "16505550000", 5), in_status(ID, WA_ID, 9))
    known = await find(database, ID)
    assert known is not None
    assert known.wa_id == WA_ID
    assert await count(database, aliases) == 3


async def test_a_number_that_changes_hands_leads_to_who_has_it_now(
    ledger: Ledger, database: Database
) -> None:
    await take(ledger, AliasesSeen(ID, WA_ID, None, at(1)), IdentitySeen(ID, "A", at(1)))
    await take(
        ledger, AliasesSeen(OTHER_ID, WA_ID, None, at(9)), IdentitySeen(OTHER_ID, "B", at(9))
    )
    await take(ledger, AliasesSeen(ID, WA_ID, None, at(1)), IdentitySeen(ID, "A", at(1)))
    before, now = await find(database, ID), await find(database, WA_ID)
    assert before is not None
    assert now is not None
    assert (before.wa_id, before.hash) == (None, "A")
    assert (now.user_id, now.hash, now.identity.state) == (OTHER_ID, "B", State.PENDING)


async def test_two_who_turn_out_to_be_one_keep_history_audit_trail_and_block(
    ledger: Ledger, database: Database
) -> None:
    await take(ledger, IdentitySeen(WA_ID, "A", at(1)))
    await take(ledger, IdentitySeen(WA_ID, "B", at(2)))
    await ledger.submit(BlockUser("shop", WA_ID, "a person said so", by_key("crm")))
    await take(ledger, IdentitySeen(ID, "C", at(3)))
    merged = await find(database, WA_ID)
    assert merged is not None
    await take(ledger, AliasesSeen(ID, WA_ID, None, at(4)))
    known = await find(database, WA_ID)
    assert known is not None
    assert known.id != merged.id
    assert (await find(database, ID)) == known
    assert (known.hash, known.identity.state) == ("C", State.PENDING)
    history = await database.read(partial(history_of, user_id=known.id))
    assert [(c.hash, c.outcome) for c in history] == [("B", "superseded"), ("A", "superseded")]
    trail = await database.read(partial(audit_of, user_id=known.id))
    assert {"first_use", "changed", "blocked", "merged"} <= {entry.event for entry in trail}
    kept = await database.read(partial(find_block, user_id=known.id))
    assert kept is not None


async def test_both_may_be_new_in_the_callback_that_tells_that_they_are_one(
    ledger: Ledger, database: Database
) -> None:
    await take(
        ledger,
        IdentitySeen(WA_ID, "A", at(1)),
        IdentitySeen(ID, "A", at(2)),
        AliasesSeen(ID, WA_ID, PARENT, at(3)),
    )
    known = await find(database, WA_ID)
    assert known is not None
    assert known == await find(database, ID) == await find(database, PARENT)
    assert (known.hash, known.identity.state) == ("A", State.ACKNOWLEDGED)


async def test_an_identity_whose_hash_is_not_known_is_kept_until_it_is_told(
    ledger: Ledger, database: Database
) -> None:
    await take(ledger, IdentitySeen(WA_ID, "A", at(1)))
    await take(ledger, HashRefused(WA_ID, at(2_000), "wamid.1"))
    known = await find(database, WA_ID)
    assert known is not None
    assert (known.hash, known.identity.state) == (None, State.PENDING)
    await decide(ledger, WA_ID, None)
    known = await find(database, WA_ID)
    assert known is not None
    assert (known.hash, known.identity.state) == (None, State.AWAITING_HASH)
    await take(ledger, IdentitySeen(WA_ID, "B", at(2_010)))
    known = await find(database, WA_ID)
    assert known is not None
    assert known.identity.latest is not None
    assert (known.hash, known.identity.state) == ("B", State.ACKNOWLEDGED)
    assert known.identity.latest.decided_by == by_key("crm")


async def test_a_hash_that_becomes_known_takes_the_place_of_the_unknown_one(
    ledger: Ledger, database: Database
) -> None:
    await take(ledger, IdentitySeen(WA_ID, "A", at(1)))
    await take(ledger, HashRefused(WA_ID, at(2_000), None))
    await take(ledger, IdentitySeen(WA_ID, "B", at(2_010)))
    known = await find(database, WA_ID)
    assert known is not None
    history = await database.read(partial(history_of, user_id=known.id))
    assert [c.hash for c in history] == ["A"]


@pytest.mark.parametrize("together", [True, False])
async def test_a_refused_message_is_known_by_its_id_alone(
    ledger: Ledger, database: Database, *, together: bool
) -> None:
    await take(ledger, IdentitySeen(ID, "A", at(1)))
    sent = MessageSent(ID, "wamid.1", at(1_999))
    unnamed = HashRefused(None, at(2_000), "wamid.1")
    if together:
        await take(ledger, sent, unnamed)
    else:
        await take(ledger, sent)
        await take(ledger, unnamed)
    known = await find(database, ID)
    assert known is not None
    assert (known.hash, known.identity.state) == (None, State.PENDING)


async def test_a_refused_message_is_known_by_its_id_where_its_name_leads_to_nobody(
    ledger: Ledger, database: Database
) -> None:
    await take(ledger, IdentitySeen(ID, "A", at(1)), MessageSent(ID, "wamid.1", at(1_999)))
    await take(ledger, HashRefused("16509999999", at(2_000), "wamid.1"))
    known = await find(database, ID)
    assert known is not None
    assert known.identity.state is State.PENDING


async def test_a_refused_message_that_nobody_knows_keeps_nobody(
    ledger: Ledger, database: Database
) -> None:
    await take(ledger, HashRefused(None, at(1), "wamid.1"), HashRefused(ID, at(1), None))
    assert await count(database, users) == 0


async def test_a_link_leads_to_the_new_user_id(ledger: Ledger, database: Database) -> None:
    await take(ledger, IdentitySeen(ID, "A", at(1)))
    await take(ledger, NumberChanged(ID, OTHER_ID, at(5)))
    old, new = await find(database, ID), await find(database, OTHER_ID)
    assert old is not None
    assert new is not None
    assert [x.alias for x in old.links] == [OTHER_ID]
    assert [x.alias for x in new.links] == [ID]


async def test_notes_of_whom_messages_were_for_are_forgotten_when_old(
    ledger: Ledger, database: Database
) -> None:
    await take(ledger, *(MessageSent(ID, f"wamid.{n}", at(1)) for n in range(5)))
    assert not await database.read(partial(has_old_recipients, before=NOW))
    assert await database.read(partial(has_old_recipients, before=NOW + 1))
    assert await database.write(lambda c: forget_recipients(c, NOW + 1, 3)) == 3
    assert await database.write(lambda c: forget_recipients(c, NOW + 1, 3)) == 2
    assert await count(database, message_recipients) == 0


async def test_a_check_that_is_open_when_its_account_moves_is_given_up(
    ledger: Ledger, database: Database
) -> None:
    def row(account: str, input_: str, status: str, due_at: int | None) -> dict[str, object]:
        return {
            "account": account,
            "input": input_,
            "status": status,
            "checked_at": NOW,
            "digests": "[]",
            "asked_at": due_at,
            "due_at": due_at,
            "attempts": due_at and 1,
            "forced": due_at and False,
        }

    rows = [
        row("shop", "never answered", "processing", NOW),
        row("shop", "asked again", "valid", NOW),
        row("shop", "not open", "invalid", None),
        row("main", "of another", "processing", NOW),
    ]
    await database.write(lambda c: c.execute(insert(contacts), rows))
    await ledger.submit(MoveToCloud("shop"))
    query = select(contacts.c.input, contacts.c.status, contacts.c.due_at).order_by(contacts.c.id)
    found = await database.read(lambda connection: connection.execute(query).fetchall())
    assert [tuple(one) for one in found] == [
        ("never answered", "failed", None),
        ("asked again", "valid", None),
        ("not open", "invalid", None),
        ("of another", "processing", NOW),
    ]


async def test_a_hash_of_a_stranger_that_can_not_be_read_keeps_nobody(
    ledger: Ledger, database: Database
) -> None:
    await take(ledger, HashUnreadable(WA_ID, None, "wamid.1"))
    assert await find(database, WA_ID) is None
    assert await count(database, users) == 0


async def test_an_unknown_number_is_dismissed_up_to_the_newest_callback(
    ledger: Ledger, database: Database
) -> None:
    async def come(*reasons: str) -> None:
        for reason in reasons:
            row = JournalRow("@meta", NOW, "quarantined", "", "", "[]", b"{}", reason)
            await ledger.submit(RecordCallback("@meta", NOW, b"{}", (), row))

    async def found(app: str = "@meta") -> list[tuple[str | None, int]]:
        return [*await database.read(lambda c: unknown_numbers(c, app, ["@meta"]))]

    async def dismiss(subject: str | None) -> None:
        await ledger.submit(DismissIssue("@meta", "unknown_number", subject, by_key("crm")))

    await come(
        "no account has the number 22; no account has the number 111",
        "no account has this number; entry: missing",
        "no account has the number 22",
        "messages[0]: no account hash",
    )
    assert await found() == [(None, 1), ("111", 1), ("22", 2)]
    await dismiss("22")
    await dismiss(None)
    assert await found() == [("111", 1)]
    assert await found("@other") == [(None, 1), ("111", 1), ("22", 2)]
    await come("no account has the number 22")
    assert await found() == [("111", 1), ("22", 1)]
    await dismiss("22")
    assert await found() == [("111", 1)]


STORY: list[list[Event]] = [
    [AliasesSeen(ID, WA_ID, None, at(1)), IdentitySeen(ID, "A", at(1))],
    [AliasesSeen(OTHER_ID, WA_ID, None, at(9)), IdentitySeen(OTHER_ID, "B", at(9))],
    [AliasesSeen("US.3", WA_ID, None, at(19)), UserWrote("US.3", at(19))],
    [IdentitySeen("US.3", "B", at(29))],
    [NumberChanged(ID, "16505550000", at(5))],
]


@pytest.mark.parametrize("order", list(permutations(range(len(STORY))))[::7])
async def test_what_is_kept_between_callbacks_makes_no_difference_to_who_is_who(
    ledger: Ledger, database: Database, tmp_path: Path, order: tuple[int, ...]
) -> None:
    """Told in one callback everything is in memory, told in several it is read again each time."""

    for number in order:
        await take(ledger, *STORY[number])
    other = SQLiteDatabase(tmp_path / "other.db", clock=lambda: NOW)
    await other.open()
    at_once = Ledger(other, POLICIES, Metrics(), max_waiting=100)
    await take(at_once, *(event for number in order for event in STORY[number]))
    await at_once.close()
    try:
        assert await everybody(database) == await everybody(other)
    finally:
        await other.close()


async def everybody(database: Database) -> list[object]:
    """Give whom each name leads to, and what the gate goes by of that user."""
    names = (ID, OTHER_ID, "US.3", WA_ID, "16505550000")
    found = [await find(database, alias) for alias in names]
    users_found = [user for user in found if user is not None]
    assert len(users_found) == len(names)
    return [
        (
            user.wa_id,
            user.user_id,
            user.hash,
            user.identity.state,
            user.moved_to and user.moved_to.alias,
            sorted((x.relation, x.alias) for x in user.links),
            [c.hash for c in await database.read(partial(history_of, user_id=user.id))],
            await database.read(partial(find_block, user_id=user.id)) is not None,
        )
        for user in users_found
    ]


async def test_who_turns_out_to_be_somebody_who_turns_out_to_be_a_third_is_the_third(
    ledger: Ledger, database: Database
) -> None:
    for number in range(1, 5):
        await take(ledger, IdentitySeen(f"US.{number}", "A", at(number)))
    await ledger.submit(BlockUser("shop", "US.1", "a person said so", by_key("crm")))
    for number in range(1, 5):
        named = AliasesSeen(f"US.{number}", WA_ID, None, at(10 + number))
        await take(ledger, named, IdentitySeen(f"US.{number}", "A", at(10 + number)))
    found = [await find(database, alias) for alias in (WA_ID, "US.1", "US.2", "US.3", "US.4")]
    assert found[0] is not None
    assert all(user == found[0] for user in found)
    assert (found[0].user_id, found[0].hash) == ("US.4", "A")
    trail = await database.read(partial(audit_of, user_id=found[0].id))
    assert [entry.event for entry in trail].count("first_use") == 4
    assert await database.read(partial(find_block, user_id=found[0].id)) is not None


async def test_it_is_kept_since_when_it_is_known_who_has_a_number(
    ledger: Ledger, database: Database
) -> None:
    await take(ledger, NumberChanged(WA_ID, "16505550000", at(1)))
    await take(ledger, IdentitySeen(WA_ID, "B", at(9)))
    query = RecipientQuery("shop", None, [WA_ID])
    before = (await database.find_recipients(query)).users[WA_ID]
    await decide(ledger, WA_ID, "B")
    after = (await database.find_recipients(query)).users[WA_ID]
    assert (before.moved_to is None, after.moved_to is None) == (False, True)
    known = await find(database, WA_ID)
    assert known is not None
    assert known.owner_since == at(9).at
