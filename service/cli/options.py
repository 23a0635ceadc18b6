"""The options that commands share."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import fail
from service.settings import Settings, SettingsError, load

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
    str, typer.Argument(metavar="ACCOUNT", help="The account's name in the configuration.")
]
User = Annotated[
    str, typer.Argument(metavar="USER", help="The user's wa_id, or another alias of the user.")
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
