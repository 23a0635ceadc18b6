"""The pages of the documentation, as the tests here read them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
    + list((ROOT / "docs").glob("*.md"))
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: the page it is on, its language, its text."""

    page: Path
    language: str
    text: str


def read(name: str) -> str:
    """A page by its path from the root."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(language: str) -> list[Block]:
    """Every fenced block of that language, on every page."""
    return [
        Block(page, found[1], found[2])
        for page in PAGES
        for found in _FENCE.finditer(page.read_text(encoding="utf-8"))
        if found[1] == language
    ]


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return _FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """What stands in backticks outside the fenced blocks."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def tables(text: str) -> Iterator[list[list[str]]]:
    """Every table: its rows of cells, the head first."""
    for found in re.finditer(r"(?:^\|.*\|$\n?)+", prose(text), re.MULTILINE):
        rows = [line.strip().strip("|") for line in found[0].splitlines()]
        cells = [[cell.strip() for cell in re.split(r" \|(?= )", row)] for row in rows]
        yield [cells[0], *cells[2:]]


def table(text: str, *head: str) -> list[list[str]]:
    """The rows of the one kind of table with this head, of all that there are."""
    found = [rows for rows in tables(text) if tuple(rows[0][: len(head)]) == head]
    assert found, f"no table begins with {head}"
    return [row for rows in found for row in rows[1:]]


def sections(text: str, level: int) -> dict[str, str]:
    """What stands below each heading of that level, by the heading."""
    marks = "#" * level
    parts = re.split(rf"^{marks} (.+)$", text, flags=re.MULTILINE)
    ends = re.compile(rf"^#{{1,{level}}} ", re.MULTILINE)
    return {head: ends.split(body)[0] for head, body in zip(parts[1::2], parts[2::2], strict=True)}


def bare(cell: str) -> str:
    """A cell without backticks."""
    return cell.replace("`", "")
