"""The options that commands share, and what is made of them."""

import os
import tomllib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from service.cli.output import fail
from service.settings import Settings, SettingsError, load
from service.settings.load import DEFAULT_FILE


def complete_account(context: typer.Context, incomplete: str) -> list[str]:
    """Return the accounts of the configuration file whose names begin so, for the shell."""
    return _names(context, "accounts", incomplete)


def complete_relay(context: typer.Context, incomplete: str) -> list[str]:
    """Return the relays of the configuration file whose names begin so, for the shell."""
    return _names(context, "relays", incomplete)


def _names(context: typer.Context, table: str, incomplete: str) -> list[str]:
    """Return the names of a table of the configuration file that begin so.

    None where it can't be read, for whoever asks a service from elsewhere has no such file.
    """
    file = context.params.get("config") or os.environ.get("ACKGATE_CONFIG") or DEFAULT_FILE
    try:
        found = tomllib.loads(Path(file).read_text(encoding="utf-8")).get(table)
    except (OSError, ValueError):
        return []
    names = sorted(found) if isinstance(found, dict) else []
    return [name for name in names if name.startswith(incomplete)]


class ListByDefault(TyperGroup):
    """A group of commands that lists where none is named: `ackgate issues --json`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `list` in front of options that are no group's; not while a shell completes."""
        is_of_list = not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names)
        if is_of_list and not ctx.resilient_parsing:
            args = ["list", *args]
        return super().parse_args(ctx, args)


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration. Default: ACKGATE_CONFIG, else config/ackgate.toml.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

Account = Annotated[
    str,
    typer.Argument(
        metavar="ACCOUNT",
        help="The account's name in the configuration.",
        autocompletion=complete_account,
    ),
]
OfAccount = Annotated[
    str | None,
    typer.Option(
        "--account",
        metavar="ACCOUNT",
        help="Only this account.",
        autocompletion=complete_account,
    ),
]
User = Annotated[
    str, typer.Argument(metavar="USER", help="The user's wa_id, or another alias of the user.")
]

Limit = Annotated[int, typer.Option("--limit", min=1, help="How many at most.")]
All = Annotated[bool, typer.Option("--all", help="All of them, whatever --limit is.")]
Cursor = Annotated[
    str | None, typer.Option(metavar="CURSOR", help="The next_cursor of an earlier list.")
]

Url = Annotated[
    str, typer.Option(metavar="URL", envvar="ACKGATE_URL", help="Where the service is.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Holds the API key. Default: the key in ACKGATE_KEY."),
]
CaFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Verifies the service's certificate, for a private CA."),
]
URL = "http://127.0.0.1:8080"


def given(**options: str | Sequence[str] | None) -> list[tuple[str, str]]:
    """Return the query for the options that were given; one may be repeated."""
    found: list[tuple[str, str]] = []
    for name, value in options.items():
        values = [value] if isinstance(value, str) else value or ()
        found += [(name, one) for one in values]
    return found


def moment(option: str, text: str | None) -> str | None:
    """Return a time as the API takes it; without an offset it is one of this machine's zone."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError):
        fail(f"{option} must be a time, such as '2026-01-31 12:00' or 2026-01-31T12:00Z", status=2)


def need_account(settings: Settings, name: str) -> None:
    """End the command where there is no such account, with a line that names those there are."""
    if name not in settings.accounts:
        known = ", ".join(sorted(settings.accounts)) or "none"
        fail(f"{name}: no such account in the configuration, which has: {known}")


def loaded(config: Path | None) -> Settings:
    """Return the configuration, or end the command with the line that says what is wrong."""
    try:
        return load(config)
    except SettingsError as error:
        fail(str(error), status=2)
