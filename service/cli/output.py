"""What commands print: tables for people, JSON for programs, and one line for what went wrong."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 200
"""Columns where there is no terminal: wide, so that no hash is folded under grep."""


def printable(text: str) -> str:
    """Return the text without anything that breaks or colours a line, wherever it came from."""
    return "".join(c if c.isprintable() else "?" for c in text)


def note(line: str) -> None:
    """Say something to the person, apart from the answer."""
    typer.echo(f"ackgate: {printable(line)}", err=True)


def fail(line: str, status: int = 1) -> NoReturn:
    """End with one line that says why."""
    note(line)
    raise typer.Exit(status)


def confirm(question: str) -> None:
    """Go on only after a yes."""
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


def print_table(columns: Iterable[str], rows: Iterable[Iterable[Any]], title: str = "") -> None:
    """Print rows below the names of their columns."""
    table = _table(title)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(v if isinstance(v, Text) else Text(_cell(v)) for v in row))
    _print(table)


def print_pairs(pairs: Mapping[str, Any], title: str = "") -> None:
    """Print names and values, those in tables below each other as `table.name`."""
    table = _table(title)
    table.show_header = False
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in flat(pairs):
        table.add_row(Text(printable(name)), Text(_cell(value)))
    _print(table)


def _table(title: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"\n{printable(title)}", style="bold") if title else None,
        title_justify="left",
        show_edge=False,
        pad_edge=False,
    )


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


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _print(table: Table) -> None:
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    Console(width=width, highlight=False).print(table)
