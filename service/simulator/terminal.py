"""What the commands share: where the simulator is, and how they end."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import ValidationError

from service.simulator.remote import Remote, RemoteError, open_remote

T = TypeVar("T")

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

URL = "https://127.0.0.1:9090"
CA_FILE = Path("var/simulator-ca.pem")


def fail(line: str) -> NoReturn:
    """End with one line and exit 1."""
    typer.echo(line, err=True)
    raise typer.Exit(1)


def why(error: ValidationError) -> str:
    """Say in one line which value is wrong."""
    at_fault = error.errors()[0]
    # The parts with brackets are pydantic's own, and name no value.
    place = ".".join(str(part) for part in at_fault["loc"] if "[" not in str(part))
    return f"{place}: {at_fault['msg']}" if place else at_fault["msg"]


def remotely(url: str, ca_file: Path, act: Callable[[Remote], Awaitable[T]]) -> T:
    """Do something with a running simulator; one line and exit 1 when it can't be done."""

    async def work() -> T:
        async with open_remote(url, ca_file) as remote:
            return await act(remote)

    try:
        return asyncio.run(work())
    except RemoteError as error:
        fail(str(error))


def show(answer: dict[str, Any], line: str, *, as_json: bool) -> None:
    """Print an answer for a program, or a line for a person."""
    typer.echo(json.dumps(answer) if as_json else line)


def setting_of(word: str) -> tuple[str, Any]:
    """Read `key=value`, the value as JSON where it is some; one line and exit 1 when it isn't."""
    key, equals, value = word.partition("=")
    if not equals:
        fail(f"{word} is no key=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
