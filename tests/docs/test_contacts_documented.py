"""The page of contacts names a test for each statement; every test that it names exists."""

import re
from collections.abc import Iterator

import pytest

from tests.docs.conftest import ROOT, read, table

PAGE = read("docs/contacts.md")
ROWS = [*table(PAGE, "statement"), *table(PAGE, "fact")]
MARK = "to come: "


def written() -> set[str]:
    """The name of every test that exists."""
    return {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
    }


def named(cell: str) -> Iterator[tuple[str, bool]]:
    """The tests that a cell names, and whether each is to come."""
    there, _, expected = cell.partition(MARK)
    for part, to_come in ((there, False), (expected, True)):
        for name in re.findall(r"`(test_\w+)`", part):
            yield name, to_come


WRITTEN = written()
NAMED = sorted({each for row in ROWS for cell in row[1:] for each in named(cell)})


@pytest.mark.parametrize(("name", "to_come"), NAMED)
def test_every_test_that_is_named_exists_or_is_marked_as_to_come(name: str, to_come: bool) -> None:
    assert (name in WRITTEN) is not to_come, f"the mark {MARK!r} on the page is wrong"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_every_statement_names_a_test_of_the_service(row: list[str]) -> None:
    assert len(row) == 3
    assert list(named(row[2]))
