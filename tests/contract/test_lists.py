"""No list reads many more rows than it shows, whatever the filter, and however many there are."""

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, insert

from service.model.contacts import INVALID, VALID
from service.model.users import State
from service.store.contacts import ContactFilter, list_contacts
from service.store.database import Database
from service.store.journal import list_journal
from service.store.schema import audit, contacts, journal, users
from service.store.users import IdentityFilter, list_audit, list_identities, oldest_pending
from tests.querying import BOTH, database_of, looked_at

T = TypeVar("T")

LIMIT = 10
MANY = 20_000
"""Rows that no filter asks for: many times those that a query may look at."""


@pytest.fixture(params=BOTH)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with database_of(request) as opened:
        yield opened


async def shown(database: Database, query: Callable[[Connection], list[T]]) -> list[T]:
    """Give a page, which took no more than ten rows looked at for each that it may show."""
    rows, looked, _ = await looked_at(database, query)
    assert looked < 10 * LIMIT
    return rows


def contact(number: int, **other: Any) -> dict[str, Any]:
    wa_id = f"1631{number:07}"
    row = {"account": "main", "input": f"+{wa_id}", "wa_id": wa_id, "status": VALID}
    return row | {"checked_at": number, "digests": "[]"} | other


class TestContacts:
    @pytest.fixture
    async def filled(self, database: Database) -> Database:
        """Many contacts of one account; last some of another, and many numbers of one wa_id."""
        rows = [contact(number) for number in range(MANY)]
        rows += [contact(number, account="shop") for number in range(3)]
        spelled = {"wa_id": "16319999999", "status": INVALID}
        rows += [contact(number, input=f"{number} spelled", **spelled) for number in range(MANY)]
        await database.write(lambda c: c.execute(insert(contacts), rows))
        return database

    async def inputs(self, database: Database, wanted: ContactFilter, after: int = 0) -> list[str]:
        rows = await shown(database, lambda c: list_contacts(c, wanted, after, LIMIT))
        assert rows == sorted(rows, key=lambda row: row[0])
        return [row[1].input for row in rows]

    async def test_of_an_account_with_few_among_many(self, filled: Database) -> None:
        assert await self.inputs(filled, ContactFilter("shop")) == [
            contact(number)["input"] for number in range(3)
        ]

    async def test_by_wa_id_and_by_input(self, filled: Database) -> None:
        late, later = contact(MANY - 2), contact(MANY - 1)
        by_wa_id = ContactFilter("main", wa_ids=[late["wa_id"]])
        assert await self.inputs(filled, by_wa_id) == [late["input"]]
        by_both = ContactFilter("main", inputs=[later["input"]], wa_ids=[late["wa_id"], "no such"])
        assert await self.inputs(filled, by_both) == [late["input"], later["input"]]
        same = ContactFilter("main", inputs=[late["input"]], wa_ids=[late["wa_id"]])
        assert await self.inputs(filled, same) == [late["input"]]

    async def test_by_a_wa_id_of_many_numbers_page_by_page(self, filled: Database) -> None:
        wanted = ContactFilter("main", wa_ids=["16319999999"])
        first = await self.inputs(filled, wanted)
        assert first == [f"{number} spelled" for number in range(LIMIT)]
        rows = await filled.read(lambda c: list_contacts(c, wanted, 0, LIMIT))
        second = await self.inputs(filled, wanted, after=rows[-1][0])
        assert second == [f"{number} spelled" for number in range(LIMIT, 2 * LIMIT)]

    async def test_by_more_wa_ids_and_inputs_than_one_statement_takes(
        self, filled: Database
    ) -> None:
        some = [contact(number) for number in range(1200)]
        wanted = ContactFilter(
            "main", [row["input"] for row in some[600:]], [row["wa_id"] for row in some[:600]]
        )
        rows = await filled.read(lambda c: list_contacts(c, wanted, 0, 2000))
        assert [row[1].input for row in rows] == [row["input"] for row in some]


def user(number: int, **other: Any) -> dict[str, Any]:
    """Give the row of an acknowledged user, whose change came at this time."""
    row = dict.fromkeys(("created_at", "attempts", "history_count"), 0) | {
        **dict.fromkeys(("after_hold", "disputed", "has_work", "has_ask"), False),
        "id": number + 1,
        "account": "main",
        "wa_id": f"1631{number:07}",
        "hash": "A",
        "changed_at": number,
        "changed_precision": 0,
        "received_at": number,
        "seen": "[]",
        "state": "acknowledged",
        "version": 1,
        "updated_at": number,
    }
    return row | other


class TestIdentities:
    @pytest.fixture
    async def filled(self, database: Database) -> Database:
        """Many acknowledged users of one account; then some pending ones, and of another."""
        rows = [user(number) for number in range(MANY)]
        rows += [user(MANY + number, state="pending") for number in range(3)]
        rows += [user(MANY + 9 - number, account="shop", state="held") for number in range(3)]
        await database.write(lambda c: c.execute(insert(users), rows))
        return database

    async def times(
        self, database: Database, after: tuple[int, int] | None = None, **wanted: Any
    ) -> list[int]:
        """Give the times of the changes on a page, less those of the many."""
        filter_ = IdentityFilter(**wanted)
        found = await shown(database, lambda c: list_identities(c, filter_, after, LIMIT))
        return [(one.identity.updated_at or 0) - MANY for one in found]

    @pytest.mark.parametrize("since", [None, 0])
    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ({"account": "shop"}, [7, 8, 9]),
            ({"account": "shop", "states": [State.PENDING]}, []),
            ({"account": "shop", "states": [State.PENDING, State.HELD]}, [7, 8, 9]),
            ({"account": "main", "states": [State.PENDING]}, [0, 1, 2]),
            ({"states": [State.HELD]}, [7, 8, 9]),
            ({"states": [State.HELD, State.PENDING]}, [0, 1, 2, 7, 8, 9]),
            ({"account": "none"}, []),
        ],
    )
    async def test_by_account_state_and_time(
        self,
        filled: Database,
        since: int | None,
        wanted: dict[str, Any],
        expected: list[int],
    ) -> None:
        assert await self.times(filled, updated_since=since, **wanted) == expected

    async def test_of_all_page_by_page(self, filled: Database) -> None:
        assert await self.times(filled) == [number - MANY for number in range(LIMIT)]
        after = (MANY - 3, MANY - 2)
        assert await self.times(filled, after) == [-2, -1, 0, 1, 2, 7, 8, 9]
        assert await self.times(filled, updated_since=MANY + 2) == [2, 7, 8, 9]
        assert await self.times(filled, after, updated_since=0) == [-2, -1, 0, 1, 2, 7, 8, 9]

    async def test_the_oldest_pending_one(self, filled: Database) -> None:
        oldest, looked, _ = await looked_at(filled, oldest_pending)
        assert (oldest, looked < LIMIT) == (MANY, True)


ACCOUNTS = [f"shop_{number:02}" for number in range(60)]
STATEMENTS = 5
"""A statement takes longer than a row: none for each account, or for each account and state."""


class TestManyAccounts:
    """With the default limit: the first row of each account and state is looked for too."""

    LIMIT = 100
    ROWS = tuple(
        user(number, account=ACCOUNTS[number * 7 % 60], state=list(State)[number % 7].value)
        for number in range(3_000)
    )

    @pytest.fixture
    async def filled(self, database: Database) -> Database:
        await database.write(lambda c: c.execute(insert(users), self.ROWS))
        return database

    @pytest.mark.parametrize(
        "wanted",
        [
            IdentityFilter(),
            IdentityFilter(states=[State.PENDING]),
            IdentityFilter(states=[State.HELD, State.PENDING, State.FAILED]),
            IdentityFilter(account=ACCOUNTS[7]),
            IdentityFilter(updated_since=1_000),
            IdentityFilter(updated_since=1_000, states=[State.PENDING, State.HELD]),
            IdentityFilter(within=ACCOUNTS[1:]),
            IdentityFilter(within=ACCOUNTS[1:], states=[State.PENDING], updated_since=1_000),
        ],
    )
    @pytest.mark.parametrize("after", [None, (1_500, 1_501)])
    async def test_a_page_takes_few_statements_and_few_rows(
        self, filled: Database, wanted: IdentityFilter, after: tuple[int, int] | None
    ) -> None:
        found, looked, statements = await looked_at(
            filled, lambda c: list_identities(c, wanted, after, self.LIMIT)
        )
        first = max(wanted.updated_since or 0, 0 if after is None else after[0] + 1)
        expected = [
            row["changed_at"]
            for row in self.ROWS[first:]
            if row["account"] in (wanted.within or ACCOUNTS)
            and wanted.account in {None, row["account"]}
            and row["state"] in (wanted.states or [*State])
        ]
        assert [one.identity.updated_at for one in found] == expected[: self.LIMIT]
        assert statements <= STATEMENTS
        assert looked < 10 * self.LIMIT

    async def test_the_oldest_pending_one(self, filled: Database) -> None:
        oldest, _, statements = await looked_at(filled, oldest_pending)
        assert (oldest, statements <= STATEMENTS) == (0, True)
        names = {row["account"] for row in self.ROWS[1:] if row["state"] == "pending"}
        mine = sorted(names - {self.ROWS[0]["account"]})
        assert await filled.read(lambda c: oldest_pending(c, mine)) == 7
        assert await filled.read(lambda c: oldest_pending(c, [])) is None


def callback(account: str, state: str) -> dict[str, Any]:
    texts = dict.fromkeys(("content_type", "content_encoding", "headers"), "")
    return {"account": account, "state": state, "received_at": 0, "body": b"", **texts}


def numbered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give rows of a log ids that are settled on either database."""
    return [row | {"id": number} for number, row in enumerate(rows, 1)]


class TestJournal:
    @pytest.mark.parametrize(
        ("state", "account", "expected"),
        [
            ("quarantined", None, [1, 2, 4]),
            ("synthetic", None, [3]),
            ("applied", "shop", [0]),
            ("quarantined", "shop", [1, 2]),
            (None, "shop", [0, 1, 2]),
            (None, "@meta", [4]),
            ("synthetic", "shop", []),
        ],
    )
    async def test_by_account_and_state(
        self,
        database: Database,
        state: str | None,
        account: str | None,
        expected: list[int],
    ) -> None:
        rows = [callback("main", "applied")] * MANY
        rows += [callback("shop", "applied"), *[callback("shop", "quarantined")] * 2]
        rows += [callback("main", "synthetic"), callback("@meta", "quarantined")]
        await database.write(lambda c: c.execute(insert(journal), numbered(rows)))
        found = await shown(database, lambda c: list_journal(c, state, account, 0, LIMIT))
        assert [row.id - MANY - 1 for row in found] == expected
        rest = await shown(database, lambda c: list_journal(c, state, account, MANY + 2, LIMIT))
        assert [row.id - MANY - 1 for row in rest] == [one for one in expected if one > 1]


class TestAudit:
    @pytest.mark.parametrize(
        ("account", "event", "expected"),
        [
            ("shop", None, [0, 1]),
            (None, "held", [0, 2, 3]),
            ("shop", "held", [0]),
            ("shop", "failed", []),
        ],
    )
    async def test_by_account_and_event(
        self, database: Database, account: str | None, event: str | None, expected: list[int]
    ) -> None:
        rows = [{"account": "main", "at": 0, "event": "changed"}] * MANY
        some = (("shop", "held"), ("shop", "changed"), ("main", "held"), (None, "held"))
        rows += [{"account": of, "at": 0, "event": what} for of, what in some]
        await database.write(lambda c: c.execute(insert(audit), numbered(rows)))
        found = await shown(database, lambda c: list_audit(c, account, event, 0, LIMIT))
        assert [row.id - MANY - 1 for row in found] == expected
        newest = await shown(
            database, lambda c: list_audit(c, account, event, 0, 2, newest_first=True)
        )
        assert [row.id - MANY - 1 for row in newest] == expected[:-3:-1]
        before = newest[-1].id if newest else 1
        older = await shown(
            database, lambda c: list_audit(c, account, event, before, LIMIT, newest_first=True)
        )
        assert [row.id - MANY - 1 for row in older] == expected[-3::-1]
