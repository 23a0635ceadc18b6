"""No list reads many more rows than it shows, whatever the filter, and however many there are.

SQLite counts the steps of its own programs: a row that is looked at takes some, whatever it holds.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, insert

from service.model.contacts import INVALID, VALID
from service.store.contacts import ContactFilter, list_contacts
from service.store.schema import contacts
from service.store.sqlite import SQLiteDatabase
from tests.storing import opening

T = TypeVar("T")

LIMIT = 10
MANY = 20_000
"""Rows that no filter asks for: to look at each takes more than a hundred thousand steps."""
STEPS_A_ROW = 100
"""More than SQLite takes for a row that it looks for by an index, reads and sorts."""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SQLiteDatabase]:
    async with opening(SQLiteDatabase(tmp_path / "ackgate.db")) as opened:
        yield opened


async def steps_of(database: SQLiteDatabase, query: Callable[[Connection], T]) -> tuple[T, int]:
    """Run a query; give its answer, and the steps that SQLite took in tens of them."""

    def counted(connection: Connection) -> tuple[T, int]:
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        driver: Any = connection.connection.dbapi_connection
        driver.run_async(lambda raw: raw.set_progress_handler(step, 10))
        try:
            return query(connection), 10 * count
        finally:
            driver.run_async(lambda raw: raw.set_progress_handler(None, 0))

    return await database.read(counted)


async def shown(database: SQLiteDatabase, query: Callable[[Connection], list[T]]) -> list[T]:
    """Give a page, which took no more than ten rows looked at for each that it may show."""
    rows, steps = await steps_of(database, query)
    assert steps < 10 * LIMIT * STEPS_A_ROW
    return rows


def contact(number: int, **other: Any) -> dict[str, Any]:
    wa_id = f"1631{number:07}"
    row = {"account": "main", "input": f"+{wa_id}", "wa_id": wa_id, "status": VALID}
    return row | {"checked_at": number, "digests": "[]"} | other


class TestContacts:
    @pytest.fixture
    async def filled(self, database: SQLiteDatabase) -> SQLiteDatabase:
        """Many contacts of one account; last some of another, and many numbers of one wa_id."""
        rows = [contact(number) for number in range(MANY)]
        rows += [contact(number, account="shop") for number in range(3)]
        spelled = {"wa_id": "16319999999", "status": INVALID}
        rows += [contact(number, input=f"{number} spelled", **spelled) for number in range(MANY)]
        await database.write(lambda c: c.execute(insert(contacts), rows))
        return database

    async def inputs(
        self, database: SQLiteDatabase, wanted: ContactFilter, after: int = 0
    ) -> list[str]:
        rows = await shown(database, lambda c: list_contacts(c, wanted, after, LIMIT))
        assert rows == sorted(rows, key=lambda row: row[0])
        return [row[1].input for row in rows]

    async def test_of_an_account_with_few_among_many(self, filled: SQLiteDatabase) -> None:
        assert await self.inputs(filled, ContactFilter("shop")) == [
            contact(number)["input"] for number in range(3)
        ]

    async def test_by_wa_id_and_by_input(self, filled: SQLiteDatabase) -> None:
        late, later = contact(MANY - 2), contact(MANY - 1)
        by_wa_id = ContactFilter("main", wa_ids=[late["wa_id"]])
        assert await self.inputs(filled, by_wa_id) == [late["input"]]
        by_both = ContactFilter("main", inputs=[later["input"]], wa_ids=[late["wa_id"], "no such"])
        assert await self.inputs(filled, by_both) == [late["input"], later["input"]]
        same = ContactFilter("main", inputs=[late["input"]], wa_ids=[late["wa_id"]])
        assert await self.inputs(filled, same) == [late["input"]]

    async def test_by_a_wa_id_of_many_numbers_page_by_page(self, filled: SQLiteDatabase) -> None:
        wanted = ContactFilter("main", wa_ids=["16319999999"])
        first = await self.inputs(filled, wanted)
        assert first == [f"{number} spelled" for number in range(LIMIT)]
        rows = await filled.read(lambda c: list_contacts(c, wanted, 0, LIMIT))
        second = await self.inputs(filled, wanted, after=rows[-1][0])
        assert second == [f"{number} spelled" for number in range(LIMIT, 2 * LIMIT)]

    async def test_by_more_wa_ids_and_inputs_than_one_statement_takes(
        self, filled: SQLiteDatabase
    ) -> None:
        some = [contact(number) for number in range(1200)]
        wanted = ContactFilter(
            "main", [row["input"] for row in some[600:]], [row["wa_id"] for row in some[:600]]
        )
        rows = await filled.read(lambda c: list_contacts(c, wanted, 0, 2000))
        assert [row[1].input for row in rows] == [row["input"] for row in some]
