"""The command line: the service, what operators do through its API, and the care of its files."""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from service import __version__
from service.cli import identities, overview
from service.cli.config import check_config
from service.cli.serve import serve

GROUPS = {
    "accounts": "service.cli.accounts",
    "contacts": "service.cli.contacts",
    "db": "service.cli.database",
    "issues": "service.cli.issues",
    "policy": "service.cli.policy",
    "simulate": "service.simulator.command",
}
"""Commands whose modules take long to load, and are loaded when they are asked for."""

COMMANDS = {"doctor": "service.cli.doctor"}
"""Likewise, without commands of their own."""


class _Root(TyperGroup):
    """All commands, some of them not yet loaded."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Give a command by its name."""
        if cmd_name in GROUPS and cmd_name not in self.commands:
            self.commands[cmd_name] = get_group(import_module(GROUPS[cmd_name]).app)
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            self.commands[cmd_name] = get_command(import_module(COMMANDS[cmd_name]).app)
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        """Name all of them, in the order of the help text."""
        return list(dict.fromkeys([*super().list_commands(ctx), *COMMANDS, *GROUPS]))


app = typer.Typer(
    name="ackgate",
    cls=_Root,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    epilog="Exit status: 0 done; 1 not done, after one line that says why; "
    "2 the command or the configuration is wrong.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ackgate {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Keep every callback of a WhatsApp client, and acknowledge changed identities.

    'serve' is the service. 'status', 'accounts', 'issues', 'gate', 'identities', 'acknowledge'
    and 'contacts' ask a running one, at ACKGATE_URL with the API key in ACKGATE_KEY. 'doctor',
    'accounts setup', 'db',
    'check-config' and 'policy' read the configuration file, and work without it running.
    """


app.command()(serve)
app.command("check-config")(check_config)
app.command()(overview.status)
app.command()(overview.gate)
app.add_typer(identities.app)
app.command()(identities.acknowledge)


def main() -> None:
    """Run the command."""
    app(prog_name="ackgate")
