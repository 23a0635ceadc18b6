"""What commands print: tables for people, JSON for programs, and one line for what went wrong.

The tables of the API's documents leave empty what an older service does not send.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Document = Mapping[str, Any]

PIPED_WIDTH = 200
"""Columns where there is no terminal: enough that no hash is folded, which grep would miss."""


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


def print_table(columns: Iterable[str], rows: Iterable[Iterable[Any]], title: str = "") -> None:
    """Print rows below the names of their columns."""
    _print_title(title)
    table = _table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(v if isinstance(v, Text) else Text(_cell(v)) for v in row))
    _print(table)


def print_pairs(pairs: Mapping[str, Any], title: str = "") -> None:
    """Print names and values, those in tables below each other as `table.name`."""
    _print_title(title)
    table = _table()
    table.show_header = False
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in flat(pairs):
        table.add_row(Text(printable(name)), Text(_cell(value)))
    _print(table)


def _print_title(title: str) -> None:
    if title:
        typer.secho(f"\n{printable(title)}", bold=True)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


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


# The documents of the API

IDENTITIES = {
    "account": "account",
    "user": "user",
    "state": "state",
    "changed (UTC)": "changed_at",
    "decided by": "decided_by",
    "hash": "hash",
}
HISTORY = {
    "changed (UTC)": "changed_at",
    "outcome": "outcome",
    "decided by": "decided_by",
    "acknowledged (UTC)": "acknowledged_at",
    "hash": "hash",
}
AUDIT = {
    "at (UTC)": "at",
    "event": "event",
    "by": "by",
    "reason": "reason",
    "note": "note",
    "evidence": "evidence",
    "hash": "hash",
}
REASON = ("of", "since", "until", "detail", "clears_when")
"""What is shown of a reason of the gate; `detail` are the words of the person who blocked."""


def print_identities(identities: Iterable[Document]) -> None:
    """Print a list of identities."""
    _print_documents(IDENTITIES, ({**one, "user": _named(one)} for one in identities))


def print_issues(issues: Iterable[Document]) -> None:
    """Print issues, each with its cure."""
    for issue in issues:
        shown = ("account", "subject", "severity", "since", "detail", "cure")
        known = {name: issue.get(name) for name in shown if issue.get(name) is not None}
        print_pairs(known, title=str(issue.get("code")))


def print_identity(identity: Document) -> None:
    """Print one identity, with its history and audit trail if it has them."""
    lists = ("history", "audit")
    known = {name: value for name, value in identity.items() if name not in lists}
    print_pairs(known | {"decided_by": _shown(identity.get("decided_by"))})
    if history := identity.get("history"):
        _print_documents(HISTORY, history, "Earlier changes, the newest first")
    if audit := identity.get("audit"):
        _print_documents(AUDIT, audit, "Audit trail")


def print_gate(answer: Document) -> None:
    """Print the gate's answer: whether the user may be written to, the hash, then the reasons."""
    may = "may" if answer.get("sendable") else "must not"
    typer.echo(f"{printable(str(_named(answer)))} {may} be written to")
    if "identity_key_hash" in answer:
        print_pairs({"identity_key_hash": answer["identity_key_hash"]})
    for weight, reasons in (("blocks", "reasons"), ("warns", "warnings")):
        for one in answer.get(reasons) or ():
            # The user's new number or user id, where that is the reason.
            user = f": {_named(one)}" if _named(one) else ""
            known = {name: one[name] for name in REASON if one.get(name) is not None}
            print_pairs(known, title=f"{weight}: {one.get('code')}{user}")


def _print_documents(
    columns: Mapping[str, str], documents: Iterable[Document], title: str = ""
) -> None:
    """Print a table of documents; `columns` holds the key that is shown under each head."""
    rows = (
        [_shown(one.get(key), utc="UTC" in head) for head, key in columns.items()]
        for one in documents
    )
    print_table(columns, rows, title)


def _shown(value: Any, *, utc: bool = False) -> Any:
    """Return a value for people: whoever decided, evidence, or the time in a column of UTC."""
    if utc and isinstance(value, str) and value.endswith("Z"):
        return value[:19].replace("T", " ")
    if not isinstance(value, Mapping):
        return value
    keys = ("kind", "name", "method", "reference")
    text = " ".join(str(value[key]) for key in keys if value.get(key))
    person = value.get("on_behalf_of")
    return f"{text} for {person}" if person else text


def _named(document: Document) -> Any:
    """Return a user's wa_id, or the user id (Cloud API) where the number is not known."""
    return document.get("wa_id") or document.get("user_id")
