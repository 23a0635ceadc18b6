"""The command line: one module a command group, and what the commands share.

A command reads its options, calls the service's API (`remote`), a client, or the store, and prints
(`output`). What it finds out is decided by the modules that the service uses, not here.
"""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from service import __version__
from service.cli import decisions, events, identities, journal, recipients
from service.cli.serve import check_config, serve

GROUPS = {
    "accounts": "service.cli.accounts",
    "alerts": "service.cli.alerts",
    "audit": "service.cli.audit",
    "contacts": "service.cli.contacts",
    "db": "service.cli.db",
    "issues": "service.cli.issues",
    "keys": "service.cli.keys",
    "policy": "service.cli.policy",
    "relays": "service.cli.relays",
    "users": "service.cli.users",
    "simulate": "service.simulator.command",
}
"""Groups of commands whose modules take long to load: they are loaded when they are called."""

COMMANDS = {"doctor": "service.cli.doctor"}
"""The same for single commands."""


class _Root(TyperGroup):
    """The commands, of which some are loaded when they are called."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name."""
        if cmd_name in GROUPS and cmd_name not in self.commands:
            # A parent of its own: what makes a group of an app alone is not documented.
            group = import_module(GROUPS[cmd_name]).app
            loaded = typer.Typer(add_completion=False, rich_markup_mode=group.rich_markup_mode)
            loaded.add_typer(group)
            parent: Any = get_command(loaded)
            self.commands |= parent.commands
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            self.commands[cmd_name] = get_command(import_module(COMMANDS[cmd_name]).app)
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, in the order of the help text."""
        return list(dict.fromkeys([*super().list_commands(ctx), *COMMANDS, *GROUPS]))


app = typer.Typer(
    name="ackgate",
    cls=_Root,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    epilog="Exit status: 0 done; 1 not done, after one line that says why; "
    "2 the command or the configuration is wrong. That of 'gate' is its answer.",
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
    """Keep every webhook of WhatsApp, and tell whom of its users may be written to, and whom not.

    'serve' is the service. 'status', 'accounts', 'issues', 'gate', 'identities', 'acknowledge',
    'recipients', 'contacts', 'relays', 'journal', 'audit', 'events' and 'users' ask a running one,
    at ACKGATE_URL with the API key in ACKGATE_KEY. 'doctor', 'alerts', 'accounts setup', 'db',
    'audit verify', 'check-config' and 'policy' read the configuration file, and work without it
    running. 'keys create' needs neither.
    """


app.command()(serve)
app.command("check-config")(check_config)
app.command()(identities.status)
app.command()(identities.gate)
app.add_typer(identities.app)
app.command()(decisions.acknowledge)
app.add_typer(recipients.app)
app.add_typer(journal.app)
app.command()(events.events)


def main() -> None:
    """Run the command."""
    app(prog_name="ackgate")
