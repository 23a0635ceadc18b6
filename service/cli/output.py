"""What commands print: tables for people, JSON for programs, and one line for what went wrong."""

import json
import shutil
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.units import duration, in_full, is_time, size

WIDTH = 80
"""Columns where there is no terminal, and COLUMNS is not set."""
GAP = 2
"""Spaces between two columns."""
LEAST_PROSE = 12
"""A column of sentences is no narrower than this."""
LARGE_BYTES = 10_000
LONG_SECONDS = 120
"""From here on a number of bytes, or of seconds, is told in other units too."""


def printable(text: str) -> str:
    """Return a text without line breaks and control characters, whoever sent it."""
    return "".join(c if c.isprintable() else "?" for c in text)


def note(line: str) -> None:
    """Print a line to stderr, apart from the answer."""
    typer.echo(f"ackgate: {printable(line)}", err=True)


def fail(line: str, status: int = 1) -> NoReturn:
    """End the command with one line that says why."""
    note(line)
    raise typer.Exit(status)


def confirm(question: str) -> None:
    """Ask a question, and end the command unless the answer is yes."""
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        fail("nothing was changed: where nobody can answer, give --yes")
    if not agreed:
        fail("nothing was changed")


def show(document: Mapping[str, Any], line: str, *, as_json: bool) -> None:
    """Print what was done, as JSON or as a line."""
    if as_json:
        print_json(document)
    else:
        typer.echo(printable(line))


def print_json(document: Any) -> None:
    """Print a document for programs."""
    typer.echo(json.dumps(document, indent=2))


def print_table(
    columns: Iterable[str],
    rows: Iterable[Iterable[Any]],
    title: str = "",
    prose: Collection[str] = (),
) -> None:
    """Print rows below the names of their columns; where that is too wide, one below the other.

    Columns without any value are left out. Only those in `prose` are wrapped, and only between
    words: whatever else there is may have to be copied.
    """
    heads = list(columns)
    cells = [[v if isinstance(v, Text) else Text(_cell(v)) for v in row] for row in rows]
    shown = [at for at in range(len(heads)) if any(row[at].plain != NOTHING for row in cells)]
    heads, cells = [heads[at] for at in shown], [[row[at] for at in shown] for row in cells]
    widths = _widths(heads, cells, prose)
    _print_title(title)
    if widths is None:
        for number, row in enumerate(cells):
            if number:
                typer.echo()
            pairs = zip(heads, (cell.plain for cell in row), strict=True)
            _print_lines([(head, value) for head, value in pairs if value not in {"", NOTHING}])
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for head, width in zip(heads, widths, strict=True):
        table.add_column(head, width=width, overflow="fold")
    for row in cells:
        table.add_row(*row)
    Console(width=_room(), highlight=False).print(table)


def print_pairs(pairs: Mapping[str, Any], title: str = "") -> None:
    """Print names and values, those in tables below each other as `table.name`."""
    _print_title(title)
    _print_lines([(printable(name), _told(name, value)) for name, value in flat(pairs)])


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value of a document with its path: `accounts.main.policy.rules[0].name`."""
    match value:
        case Mapping() if value:
            for name, inner in value.items():
                yield from flat(inner, f"{path}.{name}".removeprefix("."))
        case [_, *_]:
            for index, inner in enumerate(value):
                yield from flat(inner, f"{path}[{index}]")
        case _:
            yield path, value


NOTHING = "-"
"""Stands for a value that there is not."""


def _cell(value: Any) -> str:
    if value is None:
        return NOTHING
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _told(name: str, value: Any) -> str:
    """Return a value for people; a size, a duration and a time in other words beside it."""
    if is_time(value):
        return in_full(value)
    text = _cell(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text
    if name.endswith("bytes") and value >= LARGE_BYTES:
        return f"{text} ({size(value)})"
    if name.endswith("_seconds") and value >= LONG_SECONDS:
        return f"{text} ({duration(value)})"
    return text


def _room() -> int:
    return shutil.get_terminal_size((WIDTH, 24)).columns


def _widths(
    heads: Sequence[str], cells: Sequence[Sequence[Text]], prose: Collection[str]
) -> list[int] | None:
    """Return how wide each column is; None where the room does not suffice for a table."""
    columns = [[Text(head), *(row[at] for row in cells)] for at, head in enumerate(heads)]
    widths = [max(cell.cell_len for cell in column) for column in columns]
    least = [
        max(min(width, LEAST_PROSE), *(_longest_word(cell) for cell in column))
        if head in prose
        else width
        for head, column, width in zip(heads, columns, widths, strict=True)
    ]
    room = _room() - GAP * (len(heads) - 1)
    if sum(least) > room:
        return None
    while sum(widths) > room:
        wide = [at for at, width in enumerate(widths) if width > least[at]]
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _longest_word(cell: Text) -> int:
    return max((Text(word).cell_len for word in cell.plain.split()), default=0)


def _print_title(title: str) -> None:
    if title:
        typer.secho(f"\n{printable(title)}", bold=True)


def _print_lines(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names beside their values; below them where a word would have to be broken."""
    column = GAP + max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        beside = max(map(len, value.split()), default=0) <= _room() - column
        indent = column if beside else GAP
        lines = textwrap.wrap(
            value, max(1, _room() - indent), break_long_words=False, break_on_hyphens=False
        )
        begin, rest = (lines[:1], lines[1:]) if beside else ([], lines)
        typer.echo(f"{name:{column}}{''.join(begin)}".rstrip())
        for line in rest:
            typer.echo(f"{'':{indent}}{line}")
