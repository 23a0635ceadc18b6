"""What the commands share: where the simulator is, what they print, and how they end.

The commands that both APIs have (state, settings, faults, a new beginning) are here too.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.simulator.faults import OPERATIONS, from_words
from service.simulator.remote import Remote, RemoteError, open_remote

T = TypeVar("T")
Shown = dict[str, Any]

Url = Annotated[
    str, typer.Option("--url", envvar="ACKGATE_SIMULATOR_URL", help="Where the simulator is.")
]
CaFile = Annotated[
    Path,
    typer.Option("--ca-file", envvar="ACKGATE_SIMULATOR_CA_FILE", help="Verifies its certificate."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Username = Annotated[str, typer.Option(envvar="ACKGATE_SIMULATOR_USERNAME")]
Password = Annotated[str, typer.Option(envvar="ACKGATE_SIMULATOR_PASSWORD")]
AccessToken = Annotated[str, typer.Option(envvar="ACKGATE_SIMULATOR_ACCESS_TOKEN")]
On = Annotated[str | None, typer.Option("--on", help="The phone_number_id; else the first.")]

URL = "https://127.0.0.1:9090"
CA_FILE = Path("var/simulator-ca.pem")


def fail(line: str) -> NoReturn:
    """End with one line and exit 1."""
    typer.echo(line, err=True)
    raise typer.Exit(1)


def explain(error: ValidationError) -> str:
    """Return one line that says which value is wrong."""
    wrong = error.errors()[0]
    # The parts with brackets are pydantic's own, and name no value.
    place = ".".join(str(part) for part in wrong["loc"] if "[" not in str(part))
    return f"{place}: {wrong['msg']}" if place else wrong["msg"]


def remotely(url: str, ca_file: Path, act: Callable[[Remote], Awaitable[T]]) -> T:
    """Do something with a running simulator; one line and exit 1 when it can't be done."""

    async def work() -> T:
        async with open_remote(url, ca_file) as remote:
            return await act(remote)

    try:
        return asyncio.run(work())
    except RemoteError as error:
        fail(str(error))


def call(url: str, ca_file: Path, method: str, path: str, body: object = None) -> Shown:
    """Call a control route of a running simulator; one line and exit 1 when it can't be done."""
    return remotely(url, ca_file, lambda remote: remote.control(method, path, body))


def show(answer: Shown, line: str | Callable[[Shown], None], *, as_json: bool) -> None:
    """Print an answer for a program, or for a person as a line or as tables."""
    if as_json:
        typer.echo(json.dumps(answer))
    elif callable(line):
        line(answer)
    else:
        typer.echo(line)


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table, or nothing when it has no rows."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    if table.row_count:
        Console().print(table)


def print_keys(title: str, keys: tuple[str, ...], rows: Iterable[Shown]) -> None:
    """Print a table with a column for each key."""
    print_table(title, keys, ([row[key] for key in keys] for row in rows))


def print_pairs(title: str, pairs: Mapping[str, object]) -> None:
    """Print names and values."""
    print_table(title, ("name", "value"), pairs.items())


def print_faults(faults: list[Shown]) -> None:
    """Print the faults that are switched on."""
    rows = (
        (
            fault["id"],
            fault["operation"],
            "without end" if fault["left"] is None else fault["left"],
            " ".join(
                f"{key}={value}"
                for key, value in fault.items()
                if key not in ("id", "operation", "left", "times")
            ),
        )
        for fault in faults
    )
    print_table("Faults", ("id", "operation", "times left", "what"), rows)


def _setting(word: str) -> tuple[str, Any]:
    """Read `key=value`, the value as JSON where it is some; one line and exit 1 when it isn't."""
    key, equals, value = word.partition("=")
    if not equals:
        fail(f"{word} is no key=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def add_shared(
    app: typer.Typer,
    at: str,
    print_state: Callable[[Shown], None],
    *,
    state_help: str,
    settings_help: str,
    example: str,
) -> None:
    """Add the commands that both APIs have, whose control routes begin with `at`."""

    @app.command(help=state_help)
    def state(url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False) -> None:
        show(call(url, ca_file, "GET", f"{at}/state"), print_state, as_json=as_json)

    @app.command(help=settings_help)
    def settings(
        changes: Annotated[list[str] | None, typer.Argument(help=f"Such as {example}.")] = None,
        url: Url = URL,
        ca_file: CaFile = CA_FILE,
        as_json: AsJson = False,
    ) -> None:
        body = dict(map(_setting, changes or []))
        answer = call(url, ca_file, "PATCH", f"{at}/settings", body)
        show(answer, lambda pairs: print_pairs("Settings", pairs), as_json=as_json)

    @app.command()
    def fault(
        operation: Annotated[str, typer.Argument(help=f"One of {', '.join(OPERATIONS)}.")],
        what: Annotated[list[str], typer.Argument(help="Such as status=500 times=3 wa_id=….")],
        url: Url = URL,
        ca_file: CaFile = CA_FILE,
        as_json: AsJson = False,
    ) -> None:
        """Switch a fault on: status, body, drop, hang, effect, latency, jitter, lose, repeat …."""
        try:
            body = json.loads(from_words(operation, what).model_dump_json(exclude_defaults=True))
        except ValidationError as error:
            fail(explain(error))
        answer = call(url, ca_file, "POST", f"{at}/faults", body)
        show(answer, f"fault {answer['id']} is on", as_json=as_json)

    @app.command()
    def faults(url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False) -> None:
        """List the faults that are on."""
        answer = call(url, ca_file, "GET", f"{at}/faults")
        if as_json or not answer["faults"]:
            show(answer, "no fault is on", as_json=as_json)
        else:
            print_faults(answer["faults"])

    @app.command()
    def clear(url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False) -> None:
        """Switch every fault off."""
        show(call(url, ca_file, "DELETE", f"{at}/faults"), "no fault is on", as_json=as_json)

    @app.command()
    def reset(url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False) -> None:
        """Forget everything, and begin again as it was started."""
        show(call(url, ca_file, "POST", f"{at}/reset"), "everything is forgotten", as_json=as_json)
