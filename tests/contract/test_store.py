"""What every database promises, whichever it is; and, below, what a SQLite file does besides."""

import asyncio
import dataclasses
import shlex
import sqlite3
import stat
import subprocess
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, insert, select

from service.model.contacts import Contact
from service.model.timeline import LATEST_MS, Change, Moment, Precision
from service.model.users import AuditEntry, Identity, Kind, Link, State, User, Work, by_key
from service.store import upgrades
from service.store.accounts import account_rows
from service.store.database import (
    ChangeSet,
    ConflictError,
    JournalRow,
    StoreError,
    Transaction,
    UnavailableError,
    wall_clock,
)
from service.store.journal import is_kept, journal_entry, list_journal, newest_entry
from service.store.loaded import MAX_HISTORY
from service.store.schema import accounts, aliases, contacts, metadata, users
from service.store.sqlite import SQLiteDatabase
from service.store.users import audit_of, find_user, history_of, list_audit
from tests.querying import BOTH
from tests.storing import AnyDatabase as Database
from tests.storing import MakeDatabase, database_at, opening, url_on, within

NOW = 1_600_000_000_000
WA_ID, OTHER_ID = "16315550001", "16315550002"


@pytest.fixture(params=BOTH)
def make(request: pytest.FixtureRequest) -> MakeDatabase:
    """Give a way to the same database, again and again, before it is opened."""
    return partial(database_at, url_on(request.param, request))


@pytest.fixture
async def database(make: MakeDatabase) -> AsyncIterator[Database]:
    async with opening(make()) as opened:
        yield opened


def new_user(transaction: Transaction, wa_id: str = WA_ID, account: str = "main") -> User:
    return User(transaction.new_user_id(), account, wa_id, NOW)


def change(hash_: str = "A", at: int = NOW, outcome: str | None = None) -> Change:
    return Change(hash_, Moment(at), at, [Moment(at)], outcome=outcome)


async def save(database: Database, wa_id: str = WA_ID, **fields: Any) -> int:
    """Save a new user with these fields; give its id."""

    async def work(transaction: Transaction) -> int:
        user = new_user(transaction, wa_id, fields.pop("account", "main"))
        set_fields(user, fields)
        await transaction.save_users([user])
        return user.id

    return await within(database, work)


def set_fields(user: User, values: Mapping[str, Any]) -> None:
    """Set fields of a user, or of the user's identity where it is the identity that has them."""
    of_identity = {field.name for field in dataclasses.fields(Identity)}
    for name, value in values.items():
        setattr(user.identity if name in of_identity else user, name, value)


async def load(database: Database, wa_id: str = WA_ID, account: str = "main") -> User:
    key = account, wa_id
    found = await within(database, lambda transaction: transaction.load_users([key], []))
    return found[key]


async def change_user(
    database: Database, alter: Callable[[User], None], wa_id: str = WA_ID
) -> None:
    """Load a user, let it be altered, and save it, as the ledger does."""

    async def work(transaction: Transaction) -> None:
        user = (await transaction.load_users([("main", wa_id)], []))["main", wa_id]
        alter(user)
        await transaction.save_users([user])

    await within(database, work)


async def count(database: Database, table: Any) -> int:
    query = select(func.count()).select_from(table)
    return int(await database.read(lambda connection: connection.execute(query).scalar_one()))


async def history_count(database: Database, user_id: int) -> int:
    query = select(users.c.history_count).where(users.c.id == user_id)
    return int(await database.read(lambda connection: connection.execute(query).scalar_one()))


def kept_of(change: Change) -> tuple[Any, ...]:
    return (
        change.hash,
        change.changed,
        change.received_at,
        change.seen,
        change.claims,
        change.outcome,
        change.decided_by,
        change.decided_at,
        change.acknowledged_at,
    )


def kept(user: User) -> dict[str, Any]:
    """Give what has to come back of a user, without the ledger's own notes."""
    names = ("id", "account", "wa_id", "created_at", "blocked_ids", "links", "wrote_at")
    identity = user.identity
    latest = identity.latest and kept_of(identity.latest)
    return {name: getattr(user, name) for name in names} | {
        "identity": dataclasses.replace(identity, latest=None),
        "latest": latest,
        "history": [kept_of(entry) for entry in user.history],
    }


times = st.integers(0, LATEST_MS)
maybe_times = st.none() | times
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
hashes = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1, max_size=40)
wa_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True)
moments = st.builds(Moment, times, st.sampled_from(Precision))
deciders = st.none() | st.builds(by_key, texts, st.none() | texts)
links = st.builds(Link, wa_ids, st.sampled_from(["successor", "predecessor"]), moments)
works = st.builds(
    Work,
    kind=st.just(Kind.ACKNOWLEDGE),
    due_at=times,
    hash=st.none() | hashes,
    reason=texts,
    request_id=st.none() | texts,
    attempts=st.integers(0, 10**6),
    refusals=st.integers(0, 3),
    begun=st.booleans(),
    holder=st.none() | texts,
    lease_until=maybe_times,
)


def changes(outcomes: st.SearchStrategy[Any]) -> st.SearchStrategy[Change]:
    return st.builds(
        Change,
        hash=hashes,
        changed=moments,
        received_at=times,
        seen=st.lists(moments, min_size=1, max_size=4).map(sorted),
        claims=st.lists(times, max_size=2),
        outcome=outcomes,
        decided_by=deciders,
        decided_at=maybe_times,
        acknowledged_at=maybe_times,
    )


def _as_question(work: Work) -> Work:
    work.kind = Kind.ASK
    return work


past = changes(st.sampled_from(["superseded", "disputed"]))


def _with_state_where_latest(fields: dict[str, Any]) -> dict[str, Any]:
    """Give a user a state where there is an identity, and only there."""
    return fields if fields["latest"] is not None else fields | {"state": None}


known_users = st.fixed_dictionaries(
    {
        "latest": st.none() | changes(st.none()),
        "history": st.lists(past, max_size=4).map(
            lambda found: sorted(found, key=lambda entry: entry.first.at)
        ),
        "state": st.sampled_from(State),
        "version": st.integers(0, 10**6),
        "updated_at": maybe_times,
        "due_at": maybe_times,
        "attempts": st.integers(0, 10**6),
        "last_error": st.none() | texts,
        "after_hold": st.booleans(),
        "disputed": st.booleans(),
        "confirmed_at": maybe_times,
        "checked_at": maybe_times,
        "blocked_since": maybe_times,
        "blocked_ids": st.lists(texts, max_size=3),
        "links": st.lists(links, max_size=3),
        "wrote_at": maybe_times,
        "work": st.none() | works,
        "ask": st.none() | works.map(_as_question),
    }
).map(_with_state_where_latest)


class TestUsers:
    def test_whatever_is_saved_of_a_user_comes_back(self, make: MakeDatabase) -> None:
        # An example is four transactions, and there are two databases.
        @settings(suppress_health_check=[HealthCheck.too_slow], max_examples=100)
        @given(known_users, known_users)
        def check(first: dict[str, Any], second: dict[str, Any]) -> None:
            async def work(transaction: Transaction) -> User:
                user = new_user(transaction, f"user{transaction.new_user_id()}")
                set_fields(user, first)
                await transaction.save_users([user])
                return user

            async def again(transaction: Transaction) -> User:
                user = (await transaction.load_users([], [saved.id]))["main", saved.wa_id]
                history = user.history
                set_fields(user, second)
                user.history = sorted(
                    [*history, *second["history"]], key=lambda entry: entry.first.at
                )
                await transaction.save_users([user])
                return user

            saved = runner.run(within(database, work))
            assert kept(runner.run(load(database, saved.wa_id))) == kept(saved)
            changed = runner.run(within(database, again))
            assert kept(runner.run(load(database, saved.wa_id))) == kept(changed)

        with asyncio.Runner() as runner:
            database = make()
            runner.run(database.open())
            try:
                check()
            finally:
                runner.run(database.close())

    async def test_everything_is_there_after_the_database_was_closed(
        self, make: MakeDatabase
    ) -> None:
        entries = [change("Z", 5, "x")]
        async with opening(make()) as database:
            await save(database, latest=change(), state=State.PENDING, history=entries)
            before = kept(await load(database))
        async with opening(make()) as again:
            assert kept(await load(again)) == before

    async def test_a_user_is_found_under_every_alias(self, database: Database) -> None:
        user_id = await save(database)
        row = {"account": "main", "alias": "US.1234", "user_id": user_id}
        await database.write(lambda c: c.execute(insert(aliases).values(row)))
        wanted = [("main", "US.1234"), ("main", "unknown"), ("other", WA_ID)]
        found = await within(database, lambda t: t.load_users(wanted, []))
        assert found.keys() == {("main", "US.1234"), ("main", WA_ID)}
        assert found["main", "US.1234"] is found["main", WA_ID]
        by_alias = await database.read(lambda c: find_user(c, "main", "US.1234"))
        assert by_alias is not None
        assert by_alias.id == user_id

    async def test_a_user_is_one_object_however_it_was_asked_for(self, database: Database) -> None:
        user_id = await save(database)
        found = await within(database, lambda t: t.load_users([("main", WA_ID)], [user_id]))
        assert list(found) == [("main", WA_ID)]

    async def test_many_users_are_loaded_at_once(self, database: Database) -> None:
        async def work(transaction: Transaction) -> None:
            made = [new_user(transaction, f"1{n}") for n in range(1_200)]
            for user in made:
                user.history = [change("A", 5, "superseded")]
                user.identity.work = Work(Kind.ACKNOWLEDGE, NOW, "A")
            await transaction.save_users(made)

        await within(database, work)
        wanted = [("main", f"1{n}") for n in range(1_200)]
        found = await within(database, lambda transaction: transaction.load_users(wanted, []))
        assert len(found) == 1_200
        assert all(len(user.history) == 1 and user.identity.work for user in found.values())

    async def test_the_same_wa_id_at_two_accounts_is_two_users(self, database: Database) -> None:
        one = await save(database)
        other = await save(database, account="shop")
        assert one != other
        assert (await load(database, account="shop")).id == other

    async def test_two_users_never_share_an_alias(self, database: Database) -> None:
        await save(database)
        with pytest.raises(ConflictError):
            await save(database)
        assert await count(database, users) == 1

    async def test_a_contact_that_another_writer_stored_first_is_a_conflict(
        self, database: Database
    ) -> None:
        row = {"account": "main", "input": "1", "status": "valid", "checked_at": NOW, "digests": ""}
        await database.write(lambda connection: connection.execute(insert(contacts), [row]))
        with pytest.raises(ConflictError):
            await database.write(lambda connection: connection.execute(insert(contacts), [row]))

    async def test_what_differs_is_written_and_told_and_what_does_not_is_neither(
        self, database: Database
    ) -> None:
        work = Work(Kind.ACKNOWLEDGE, NOW, "A")
        user_id = await save(
            database,
            latest=change(),
            state=State.PENDING,
            history=[change("Z", 5, "superseded")],
            work=work,
        )
        other_id = await save(database, OTHER_ID)

        async def saved(alter: Callable[[User], None]) -> ChangeSet:
            async with database.transaction() as transaction:
                found = await transaction.load_users([("main", WA_ID), ("main", OTHER_ID)], [])
                alter(found["main", WA_ID])
                return await transaction.save_users(found.values())

        def lease(user: User, until: int) -> None:
            assert user.identity.work is not None
            user.identity.work.holder, user.identity.work.lease_until = "holder", until

        def attempt(user: User) -> None:
            user.identity.attempts = 7

        mine = ChangeSet(users={user_id})
        assert await saved(lambda _: None) == ChangeSet()
        assert await saved(attempt) == mine
        assert (await load(database)).identity.attempts == 7
        assert await saved(lambda user: user.history[0].absorb(Moment(9))) == mine
        assert await saved(lambda user: user.record(AuditEntry(NOW, "held"))) == mine
        assert await saved(lambda user: lease(user, NOW + 1)) == mine
        assert await saved(lambda user: lease(user, NOW + 2)) == ChangeSet(), "a renewed lease"
        done = await saved(lambda user: setattr(user.identity, "work", None))
        assert done == mine
        again = await saved(lambda user: setattr(user.identity, "work", work))
        assert again == ChangeSet(users={user_id}, work={("main", Kind.ACKNOWLEDGE)})
        assert other_id not in again.users

    async def test_ids_go_on_where_they_ended(self, make: MakeDatabase) -> None:
        async with opening(make()) as database:
            first = await save(database)
        async with opening(make()) as again:
            assert await save(again, "4912") > first


class TestHistory:
    async def test_an_entry_is_changed_in_its_place(self, database: Database) -> None:
        await save(database, latest=change("B"), history=[change("A", 5, "superseded")])

        def alter(user: User) -> None:
            user.history[0].absorb(Moment(9))
            user.history.insert(0, change("Z", 1, "superseded"))

        await change_user(database, alter)
        history = (await load(database)).history
        assert [(c.hash, [m.at for m in c.seen]) for c in history] == [("Z", [1]), ("A", [5, 9])]

    async def test_an_entry_that_is_the_latest_again_is_gone_from_it(
        self, database: Database
    ) -> None:
        entries = [change("A", 5, "superseded"), change("B", 9, "disputed")]
        await save(database, latest=change("C"), history=entries)

        def alter(user: User) -> None:
            user.history.pop()

        await change_user(database, alter)
        loaded = await load(database)
        assert [c.hash for c in loaded.history] == ["A"]
        assert await history_count(database, loaded.id) == 1

    async def test_the_rules_look_at_the_newest_thousand_and_all_are_kept(
        self, database: Database
    ) -> None:
        entries = [change(f"hash-{n}", n, "superseded") for n in range(MAX_HISTORY + 100)]
        user_id = await save(database, latest=change(), history=entries)
        loaded = await load(database)
        assert [c.hash for c in loaded.history] == [f"hash-{n}" for n in range(100, 1_100)]
        await change_user(database, lambda user: user.history.append(change("Z", NOW, "x")))
        loaded = await load(database)
        assert len(loaded.history) == MAX_HISTORY
        assert await history_count(database, user_id) == 1_101
        newest = await database.read(lambda c: history_of(c, user_id, limit=2_000))
        assert len(newest) == 1_101
        assert [c.hash for c in newest[:2]] == ["Z", "hash-1099"]


class TestOutbox:
    async def test_work_that_is_done_is_gone(self, database: Database) -> None:
        await save(database, work=Work(Kind.ACKNOWLEDGE, NOW, "A"), ask=Work(Kind.ASK, NOW))

        def done(user: User) -> None:
            user.identity.work = None

        await change_user(database, done)
        loaded = await load(database)
        assert loaded.identity.work is None
        assert loaded.identity.ask is not None

    async def due(
        self,
        database: Database,
        now: int = NOW,
        limit: int = 10,
        kind: Kind = Kind.ACKNOWLEDGE,
        account: str = "main",
    ) -> list[int]:
        database.clock = lambda: now
        return await within(database, lambda t: t.due(account, kind, limit))

    async def test_what_is_due_comes_the_longest_due_first(self, database: Database) -> None:
        ids = [
            await save(database, f"1{n}", work=Work(Kind.ACKNOWLEDGE, NOW + due, "A"))
            for n, due in enumerate((0, -20, -10, 1))
        ]
        assert await self.due(database) == [ids[1], ids[2], ids[0]]
        assert await self.due(database, limit=2) == [ids[1], ids[2]]
        assert await self.due(database, now=NOW + 1) == [ids[1], ids[2], ids[0], ids[3]]

    async def test_each_kind_and_each_account_has_its_own(self, database: Database) -> None:
        asked = await save(database, "1", ask=Work(Kind.ASK, NOW))
        other = await save(database, "1", account="shop", work=Work(Kind.ACKNOWLEDGE, NOW, "A"))
        assert await self.due(database) == []
        assert await self.due(database, kind=Kind.ASK) == [asked]
        assert await self.due(database, account="shop") == [other]

    async def test_what_is_in_somebodys_hands_is_not_due_until_the_lease_ends(
        self, database: Database
    ) -> None:
        work = Work(Kind.ACKNOWLEDGE, NOW, "A", holder="holder", lease_until=NOW + 10)
        user_id = await save(database, work=work)
        assert await self.due(database, NOW + 9) == []
        assert await self.due(database, NOW + 10) == [user_id]

    async def test_a_renewed_lease_is_kept(self, database: Database) -> None:
        work = Work(Kind.ACKNOWLEDGE, NOW, "A", holder="holder", lease_until=NOW + 10)
        await save(database, work=work)

        def renew(user: User) -> None:
            assert user.identity.work is not None
            user.identity.work.lease_until = NOW + 20

        await change_user(database, renew)
        assert await self.due(database, NOW + 19) == []
        loaded = await load(database)
        assert loaded.identity.work is not None
        assert loaded.identity.work.held_by("holder", NOW + 19)


class TestContacts:
    def contact(self, **others: Any) -> Contact:
        fields = {"account": "main", "input": "+1 631", "status": "valid", "wa_id": WA_ID}
        return Contact(**(fields | {"checked_at": NOW, "digests": ("a", "b")} | others))

    async def saved(
        self, database: Database, contacts: Collection[Contact], *inputs: str
    ) -> dict[tuple[str, str], Contact]:
        async with database.transaction() as transaction:
            await transaction.load_contacts([(one.account, one.input) for one in contacts])
            await transaction.save_contacts(contacts)
        keys = [(account, input_) for account in ("main", "shop") for input_ in inputs]
        return await within(database, lambda transaction: transaction.load_contacts(keys))

    @pytest.mark.parametrize("input_", ["+1 631", "ä😀\n", "x" * 256, "'; DROP TABLE users"])
    async def test_they_come_back_by_their_literal_input(
        self, database: Database, input_: str
    ) -> None:
        contact = self.contact(input=input_, wa_id=None, digests=())
        assert await self.saved(database, [contact], input_, "+2") == {("main", input_): contact}

    async def test_the_newest_takes_the_place_of_the_one_before(self, database: Database) -> None:
        await self.saved(database, [self.contact()])
        newest = self.contact(status="invalid", wa_id=None, checked_at=NOW + 1, digests=("c",))
        assert await self.saved(database, [newest], "+1 631") == {("main", "+1 631"): newest}

    async def test_each_account_has_its_own(self, database: Database) -> None:
        both = [self.contact(), self.contact(account="shop", status="invalid")]
        found = await self.saved(database, both, "+1 631")
        assert [contact.status for contact in found.values()] == ["valid", "invalid"]


class TestJournalAndAudit:
    def row(self, **others: Any) -> JournalRow:
        fields = {"account": "main", "received_at": NOW, "state": "applied", "reason": None}
        fields |= {"content_type": "application/json", "content_encoding": "", "headers": "{}"}
        return JournalRow(**(fields | {"body": b"{}"} | others))

    async def test_a_callback_is_kept_as_it_came(self, database: Database) -> None:
        body = bytes(range(256)) * 10
        row = self.row(
            body=body, state="quarantined", reason="no JSON", headers='{"x-a":"ä"}',
            content_type="text/plain", content_encoding="gzip",
        )  # fmt: skip
        await within(database, lambda transaction: transaction.add_journal([row]))
        entry = await database.read(lambda c: journal_entry(c, newest_entry(c)))
        assert entry is not None
        assert bytes(entry.body) == body
        found = (entry.state, entry.reason, entry.headers, entry.content_type)
        assert found == (row.state, row.reason, row.headers, row.content_type)
        assert (entry.received_at, entry.replayed_at) == (NOW, None)

    async def test_callbacks_keep_the_order_in_which_they_came(self, database: Database) -> None:
        rows = [self.row(received_at=NOW - n, reason=str(n)) for n in range(5)]
        await within(database, lambda transaction: transaction.add_journal(rows))
        listed = await database.read(lambda c: list_journal(c, None, "main", 0, 100))
        assert [entry.reason for entry in listed] == ["0", "1", "2", "3", "4"]

    async def test_the_first_and_the_last_callback_of_an_account_are_known(
        self, database: Database
    ) -> None:
        await within(database, lambda t: t.add_journal([self.row(), self.row(received_at=NOW + 9)]))
        database.clock = lambda: wall_clock() + 1_000  # more often it may not be written
        await within(database, lambda t: t.add_journal([self.row(received_at=NOW + 20)]))
        known = await database.read(account_rows)
        main = known["main"]
        assert (main.first_callback_at, main.last_callback_at) == (NOW, NOW + 20)

    async def test_what_we_sent_ourselves_is_kept_and_is_no_callback_of_the_client(
        self, database: Database
    ) -> None:
        mine = self.row(state="synthetic", received_at=NOW + 99, body=b"mine")
        await within(database, lambda t: t.add_journal([self.row(), mine]))
        main = (await database.read(account_rows))["main"]
        assert (main.first_callback_at, main.last_callback_at) == (NOW, NOW)
        await within(database, lambda t: t.add_journal([mine]))
        assert (await database.read(account_rows))["main"].last_callback_at == NOW
        listed = await database.read(lambda c: list_journal(c, "synthetic", "main", 0, 100))
        assert len(listed) == 2

    async def test_what_was_sent_to_the_endpoint_is_found_by_its_body_after_an_entry(
        self, database: Database
    ) -> None:
        assert await database.read(newest_entry) == 0
        mine = self.row(state="synthetic", body=b"mine")
        theirs = self.row(state="applied", body=b"theirs")
        await within(database, lambda t: t.add_journal([mine, theirs]))
        newest = await database.read(newest_entry)
        for account, body, after, kept in (
            ("main", b"mine", 0, True),
            ("main", b"mine", newest - 1, False),
            ("main", b"other", 0, False),
            ("main", b"theirs", 0, False),
            ("other", b"mine", 0, False),
        ):
            found = await database.read(partial(is_kept, account=account, body=body, after=after))
            assert found is kept

    async def test_audit_entries_come_back_in_their_order(self, database: Database) -> None:
        entries = [
            AuditEntry(NOW, "changed", "A"),
            AuditEntry(
                NOW - 5, "decided", "ä", by_key("crm", "anna"), "why", "note", {"method": "call"}
            ),
            AuditEntry(NOW, "failed", None, None, None, "", None),
        ]
        user_id = await save(database, audit=list(entries))
        await change_user(database, lambda user: user.record(AuditEntry(NOW + 1, "held", "A")))
        found = await database.read(lambda connection: audit_of(connection, user_id))
        assert found == [*entries, AuditEntry(NOW + 1, "held", "A")]

    async def test_audit_entries_may_be_of_no_user(self, database: Database) -> None:
        entry = AuditEntry(NOW, "replayed", by=by_key("admin"))
        await within(database, lambda t: t.add_audit([("main", entry)]))
        (found,) = await database.read(lambda c: list_audit(c, "main", None, 0, 10))
        assert (found.event, found.user_id, found.wa_id) == ("replayed", None, None)


class TestTransactions:
    async def test_whatever_the_work_raises_passes_through_and_leaves_nothing(
        self, database: Database
    ) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.save_users([new_user(transaction)])
            await transaction.add_journal([TestJournalAndAudit().row()])
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await within(database, work)
        assert await count(database, users) == 0
        assert await count(database, accounts) == 0
        await save(database)
        assert await count(database, users) == 1

    @pytest.mark.parametrize("value", ["\ud800", 2**63])
    async def test_what_no_database_can_keep_is_a_fault_of_the_work(
        self, database: Database, value: Any
    ) -> None:
        fields = {"last_error": value} if isinstance(value, str) else {"updated_at": value}
        with pytest.raises(Exception, match=r".+") as caught:
            await save(database, **fields)
        assert not isinstance(caught.value, StoreError)
        assert await count(database, users) == 0

    async def test_a_fault_of_the_database_is_unavailable_without_the_content(
        self, database: Database
    ) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.save_users([new_user(transaction)])
            await transaction.run(
                lambda c: c.exec_driver_sql("INSERT INTO nowhere VALUES ('secret')")
            )

        with pytest.raises(UnavailableError) as caught:
            await within(database, work)
        assert "secret" not in str(caught.value)
        assert await count(database, users) == 0

    async def test_readers_see_only_what_is_committed(self, database: Database) -> None:
        written, go_on = asyncio.Event(), asyncio.Event()

        async def work(transaction: Transaction) -> None:
            await transaction.save_users([new_user(transaction)])
            written.set()
            await go_on.wait()

        writing = asyncio.create_task(within(database, work))
        await written.wait()
        assert await count(database, users) == 0
        go_on.set()
        await writing
        assert await count(database, users) == 1

    async def test_readers_change_nothing(self, database: Database) -> None:
        row = {"name": "main"}
        with pytest.raises(UnavailableError):
            await database.read(lambda c: c.execute(insert(accounts).values(row)))
        assert await count(database, accounts) == 0

    async def test_one_reader_that_fails_does_not_disturb_the_others(
        self, database: Database
    ) -> None:
        def fail(_: Any) -> int:
            raise KeyError("mine")

        reads = [database.read(fail if n % 5 == 2 else lambda _, n=n: n) for n in range(20)]
        results = await asyncio.gather(*reads, return_exceptions=True)
        assert [r for r in results if isinstance(r, int)] == [n for n in range(20) if n % 5 != 2]
        assert sum(isinstance(r, KeyError) for r in results) == 4

    async def test_a_reader_that_went_away_does_not_disturb_the_others(
        self, database: Database
    ) -> None:
        reads = [asyncio.create_task(count(database, users)) for _ in range(10)]
        await asyncio.sleep(0)
        reads[3].cancel()
        results = await asyncio.gather(*reads, return_exceptions=True)
        assert [r for r in results if not isinstance(r, BaseException)] == [0] * 9

    async def test_writes_follow_one_another(self, database: Database) -> None:
        await asyncio.gather(*(save(database, f"1{n}") for n in range(30)))
        assert await count(database, users) == 30

    async def test_closing_finishes_what_was_begun(self, make: MakeDatabase) -> None:
        async with opening(make()) as database:
            saving = asyncio.create_task(save(database))
            await asyncio.sleep(0)
        await saving
        async with opening(make()) as again:
            assert await count(again, users) == 1


async def test_the_migrations_make_exactly_the_tables_of_this_release(database: Database) -> None:
    def compare(connection: Any) -> Any:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, metadata)

    assert await database.read(compare) == []


class TestSQLite:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        folder = tmp_path / "var"
        folder.mkdir()
        return folder / "ackgate.db"

    @pytest.fixture
    async def opened(self, path: Path) -> AsyncIterator[Database]:
        async with opening(SQLiteDatabase(path)) as database:
            yield database

    async def closed(self, path: Path) -> None:
        """Make a file, with one user in it."""
        async with opening(SQLiteDatabase(path)) as database:
            await save(database)

    async def refused(self, path: Path, *, migrate: bool = True) -> str:
        with pytest.raises(StoreError) as caught:
            await SQLiteDatabase(path).open(migrate=migrate)
        said = str(caught.value)
        assert "\n" not in said
        return said

    def alter(self, path: Path, *statements: str) -> None:
        with closing(sqlite3.connect(path)) as raw, raw:
            for statement in statements:
                raw.execute(statement)

    async def test_the_migrations_leave_each_index_of_some_rows_the_rows_of_this_release(
        self, opened: Database
    ) -> None:
        """By the wrong index the gate would take somebody for as usual; Alembic looks away."""
        wanted = {
            str(index.name): str(index.dialect_options["sqlite"]["where"])
            for table in metadata.tables.values()
            for index in table.indexes
            if index.dialect_options["sqlite"]["where"] is not None
        }

        def found(connection: Any) -> dict[str, str]:
            sql = (
                "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'"
            )
            rows = connection.exec_driver_sql(sql)
            return {name: sql.partition(" WHERE ")[2] for name, sql in rows}

        assert "ix_users_closed" in wanted
        assert await opened.read(found) == wanted

    async def test_its_files_are_readable_by_their_owner_alone(
        self, path: Path, opened: Database
    ) -> None:
        await save(opened)
        files = list(path.parent.iterdir())
        assert {f.name for f in files} >= {"ackgate.db", "ackgate.db-wal", "ackgate.db.lock"}
        assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}

    async def test_files_that_others_may_read_are_told_with_the_command(self, path: Path) -> None:
        await self.closed(path)
        backup = path.with_name("ackgate.db.before-0001")
        backup.touch()
        path.with_name("ackgate.db-elsewhere").mkdir()
        for file, mode in ((path, 0o644), (backup, 0o640)):
            file.chmod(mode)
        said = await self.opened_and_told(path)
        assert said is not None
        assert said.startswith(f"chmod 600 {path} ")
        assert str(backup) in said
        await asyncio.to_thread(subprocess.run, shlex.split(said), check=True)
        assert await self.opened_and_told(path) is None

    async def opened_and_told(self, path: Path) -> str | None:
        """Open a file, and give the command that the log names."""
        with structlog.testing.capture_logs() as lines:
            await self.closed_again(path)
        told = [line for line in lines if line["event"] == "other users may read the database"]
        assert all(line["log_level"] == "warning" for line in told)
        return told[0]["command"] if told else None

    async def test_what_was_committed_survives_a_power_cut(self, opened: Database) -> None:
        def pragmas(connection: Connection) -> dict[str, Any]:
            names = ("journal_mode", "synchronous", "auto_vacuum", "foreign_keys")
            return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}

        assert await opened.write(pragmas) == {
            "journal_mode": "wal",
            "synchronous": 2,
            "auto_vacuum": 2,
            "foreign_keys": 1,
        }

    async def test_who_waits_for_another_programs_lock_keeps_nobody_else_waiting(
        self, path: Path, opened: Database
    ) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(save(opened))
            for _ in range(5):
                assert await opened.read(lambda c: c.exec_driver_sql("SELECT 1").scalar()) == 1
            assert not writing.done()
            other.execute("ROLLBACK")
        assert await writing == 1

    @pytest.mark.parametrize("turns", range(0, 40, 4))
    async def test_whoever_is_cancelled_leaves_no_transaction_open(
        self, opened: Database, turns: int
    ) -> None:
        writing = asyncio.create_task(save(opened, "4912"))
        for _ in range(turns):
            await asyncio.sleep(0.0002)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await save(opened)

    async def test_a_second_process_is_refused_while_the_first_has_the_file(
        self, path: Path, opened: Database
    ) -> None:
        assert "in use by another process" in await self.refused(path)
        await save(opened)
        await opened.close()
        async with opening(SQLiteDatabase(path)) as again:
            assert (await load(again)).wa_id == WA_ID

    async def test_a_newer_file_is_refused_and_left_as_it_is(self, path: Path) -> None:
        await self.closed(path)
        self.alter(
            path,
            "UPDATE alembic_version SET version_num = '9999'",
            "UPDATE installation SET value = '9998' WHERE key = 'oldest_migration'",
        )
        assert "newer database" in await self.refused(path)
        assert "9999" in await self.refused(path)

    async def test_a_newer_file_that_this_release_can_run_on_is_opened(self, path: Path) -> None:
        await self.closed(path)
        self.alter(path, "UPDATE alembic_version SET version_num = '9999'")
        async with opening(SQLiteDatabase(path)) as database:
            assert (await load(database)).wa_id == WA_ID

    async def test_a_migration_is_preceded_by_a_backup_for_the_owner_alone(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await self.closed(path)
        migrated: list[str] = []
        monkeypatch.setattr(upgrades, "latest", lambda: "9000")
        monkeypatch.setattr(upgrades, "_run", lambda _, head, __: migrated.append(head))
        async with opening(SQLiteDatabase(path)):
            assert migrated == ["9000"]
        backup = path.with_name("ackgate.db.before-9000")
        assert stat.S_IMODE(backup.stat().st_mode) == 0o600
        with closing(sqlite3.connect(backup)) as raw:
            assert raw.execute("SELECT wa_id FROM users").fetchall() == [(WA_ID,)]

    async def test_a_migration_is_logged_with_its_backup_and_its_time(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await self.closed(path)
        latest = upgrades.latest()
        monkeypatch.setattr(upgrades, "latest", lambda: "9000")
        monkeypatch.setattr(upgrades, "_run", lambda *_: None)
        with structlog.testing.capture_logs() as lines:
            async with opening(SQLiteDatabase(path)):
                pass
        [line] = [line for line in lines if line["event"] == "migrated the database"]
        assert line.pop("seconds") >= 0
        backup = str(path.with_name("ackgate.db.before-9000"))
        assert line == {
            "event": "migrated the database",
            "log_level": "info",
            "from": latest,
            "to": "9000",
            "backup": backup,
        }

    async def test_a_start_without_a_migration_logs_none(
        self, path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await self.closed(path)
        await self.closed_again(path)
        assert "migrated" not in capsys.readouterr().out

    async def test_a_new_file_needs_no_backup(self, path: Path, opened: Database) -> None:
        assert await count(opened, users) == 0
        assert not list(path.parent.glob("*before*"))

    async def test_a_migration_that_is_not_wanted_is_asked_for(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "run 'ackgate db upgrade'" in await self.refused(path, migrate=False)
        await self.closed(path)
        monkeypatch.setattr(upgrades, "latest", lambda: "9000")
        assert "this release needs 9000" in await self.refused(path, migrate=False)

    async def test_what_is_no_database_of_ours_is_refused(self, tmp_path: Path) -> None:
        garbage = tmp_path / "garbage.db"
        garbage.write_bytes(b"no database at all" * 100)
        assert "not a database" in await self.refused(garbage)
        foreign = tmp_path / "foreign.db"
        self.alter(foreign, "CREATE TABLE theirs (id)")
        assert "not a database of Ackgate" in await self.refused(foreign)
        assert "database.url" in await self.refused(tmp_path)

    async def test_a_file_that_was_refused_can_be_opened_afterwards(self, path: Path) -> None:
        await self.refused(path, migrate=False)
        await self.closed(path)

    def test_a_file_that_is_no_database_is_let_go_at_once(self, path: Path) -> None:
        path.write_bytes(b"no database" * 1000)
        with pytest.raises(StoreError, match="file is not a database") as refused:
            asyncio.run(SQLiteDatabase(path).open())
        held = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.exists()]
        assert path not in held, refused

    async def test_a_new_file_is_not_made_where_there_was_one_before(self, path: Path) -> None:
        await self.closed(path)
        kept = path.read_bytes()
        path.unlink()
        assert "is missing" in await self.refused(path)
        assert not path.exists()
        path.touch()
        assert "is empty" in await self.refused(path)
        assert "ackgate db create" in await self.refused(path)
        assert path.read_bytes() == b""
        path.write_bytes(kept)
        async with opening(SQLiteDatabase(path)) as again:
            assert (await load(again)).wa_id == WA_ID

    async def test_another_database_than_before_is_refused(self, path: Path) -> None:
        await self.closed(path)
        other = path.with_name("other.db")
        await self.closed(other)
        other.replace(path)
        assert "another database than the one that was here" in await self.refused(path)
        assert "ackgate db create" in await self.refused(path)

    async def test_a_file_without_the_id_that_it_should_have_is_refused(self, path: Path) -> None:
        await self.closed(path)
        self.alter(path, "DELETE FROM installation WHERE key = 'database_id'")
        assert "another database" in await self.refused(path)

    @pytest.mark.parametrize("left", ["", None])
    async def test_a_file_of_an_older_release_gets_its_id(
        self, path: Path, left: str | None
    ) -> None:
        await self.closed(path)
        self.alter(path, "DELETE FROM installation WHERE key = 'database_id'")
        lock = path.with_name("ackgate.db.lock")
        lock.unlink()
        if left is not None:
            lock.write_text(left)
        await self.closed_again(path)
        path.unlink()
        assert "is missing" in await self.refused(path)

    async def closed_again(self, path: Path) -> None:
        async with opening(SQLiteDatabase(path)) as database:
            assert (await load(database)).wa_id == WA_ID

    async def test_no_file_is_made_where_none_is_wanted(self, path: Path) -> None:
        with pytest.raises(StoreError, match=r"database\.create is .never.*ackgate db create"):
            await SQLiteDatabase(path).open(create=False)
        assert not path.exists()
        await self.closed(path)
        database = SQLiteDatabase(path)
        await database.open(create=False)
        await database.close()

    async def test_a_missing_folder_is_not_made_but_for_the_default_one(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "no such folder" in await self.refused(path.with_name("volume") / "ackgate.db")
        assert not path.with_name("volume").exists()
        monkeypatch.chdir(path.parent)
        await self.closed(Path("var/ackgate.db"))
        assert (path.parent / "var/ackgate.db").exists()

    async def test_leases_are_cleared_at_start(self, path: Path) -> None:
        work = Work(Kind.ACKNOWLEDGE, NOW, "A", begun=True, holder="gone", lease_until=LATEST_MS)
        async with opening(SQLiteDatabase(path)) as database:
            user_id = await save(database, work=work)
        async with opening(SQLiteDatabase(path, clock=lambda: NOW)) as again:
            found = (await load(again)).identity.work
            due = await within(again, lambda t: t.due("main", Kind.ACKNOWLEDGE, 9))
        assert found is not None
        assert (found.holder, found.lease_until, found.begun) == (None, None, True)
        assert due == [user_id]

    async def test_a_full_disk_is_unavailable_and_passes(self, opened: Database) -> None:
        def bound(pages: int) -> Callable[[Connection], Any]:
            return lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        row = TestJournalAndAudit().row(body=b"x" * 2_000_000)
        await opened.write(bound(1))
        with pytest.raises(UnavailableError, match="full"):
            await within(opened, lambda transaction: transaction.add_journal([row]))
        await opened.write(bound(1_000_000))
        await within(opened, lambda transaction: transaction.add_journal([row]))
        listed = await opened.read(lambda c: list_journal(c, None, None, 0, 10))
        assert len(listed) == 1

    @pytest.mark.parametrize("turns", range(12))
    async def test_a_write_whose_caller_is_cancelled_comes_to_its_end_and_the_next_one_is_made(
        self, opened: Database, turns: int
    ) -> None:
        def look_and_write(connection: Connection) -> None:
            for _ in range(3):
                connection.exec_driver_sql("SELECT name FROM sqlite_master").all()
            connection.execute(insert(accounts).values(name="main"))

        writing = asyncio.create_task(opened.write(look_and_write))
        for _ in range(turns):
            await asyncio.sleep(0.0003)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await save(opened)
        assert await count(opened, accounts) in {0, 1}
