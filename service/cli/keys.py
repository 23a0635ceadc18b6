"""`ackgate keys`: new keys of the REST API."""

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, get_args

import typer
from pydantic import ValidationError

from service.cli.options import AsJson, complete_account, moment
from service.cli.output import fail, note, print_json
from service.settings.tree import ApiSettings, Role

RANDOM_BYTES = 32
OPTIONS: dict[Any, str] = {"role": "--role", "accounts": "--account"}
"""Where on the command line a part of a key stands."""

app = typer.Typer(
    name="keys",
    help="Make keys of the API.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.callback()
def _group() -> None:
    """Keep `create` a command of a group, though it is the only one."""


@app.command()
def create(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Who the key is for; the audit trail names it so."),
    ],
    role: Annotated[
        str, typer.Option(help="gate, sender, reader, operator or admin: what it may do.")
    ] = "reader",
    account: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ACCOUNT",
            help="Only for this account; can be given several times. Default: for all.",
            autocompletion=complete_account,
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it ends. Default: never.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a new key, and print it once, with the lines for the configuration.

    The key is for the person or the system that will use it; the configuration only holds its
    SHA-256. Nothing is stored or changed, and no service has to run.
    """
    at = moment("--expires", expires)
    ends = None if at is None else datetime.fromisoformat(at).astimezone(UTC)
    if ends is not None and ends <= datetime.now(UTC):
        fail("--expires must be a time to come", status=2)
    key = secrets.token_hex(RANDOM_BYTES)
    made = {
        "role": role,
        **({"accounts": account} if account else {}),
        **({"expires_at": ends.isoformat(timespec="seconds")} if ends else {}),
        "sha256": hashlib.sha256(key.encode()).hexdigest(),
    }
    _check(name, made)
    lines = _lines(name, made)
    if as_json:
        print_json({"name": name, "key": key, **made, "configuration": lines})
        return
    note("this is the key; it is shown this once, so give it to its user now")
    typer.echo(f"{key}\n")
    note("these are the lines for the configuration, which is read again after a SIGHUP")
    typer.echo(lines, nl=False)


def _check(name: str, made: dict[str, Any]) -> None:
    """End the command where the configuration would refuse the key, and say what is wrong."""
    try:
        ApiSettings.model_validate({"keys": {name: made}})
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        option = OPTIONS.get(found["loc"][2], "NAME")
        if option == "--role":
            fail(f"--role must be one of {', '.join(get_args(Role))}", status=2)
        fail(f"{option}: {found['msg'].removeprefix('Value error, ')}", status=2)


def _lines(name: str, made: dict[str, Any]) -> str:
    """Return the key's table in TOML; nothing in it needs to be escaped once it was checked."""
    lines = [f"[api.keys.{name}]"]
    for field, value in made.items():
        if field == "expires_at":
            lines.append(f"{field} = {value}")
        elif isinstance(value, list):
            listed = ", ".join(f'"{one}"' for one in value)
            lines.append(f"{field} = [{listed}]")
        else:
            lines.append(f'{field} = "{value}"')
    return "\n".join(lines) + "\n"
