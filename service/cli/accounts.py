"""`ackgate accounts`: how they are, and how their clients are set."""

import typer

from service.cli.options import URL, AsJson, CaFile, KeyFile, Url
from service.cli.output import print_json, print_pairs
from service.cli.remote import server_at, talk
from service.cli.setup import setup

app = typer.Typer(
    name="accounts", invoke_without_command=True, no_args_is_help=False, rich_markup_mode="markdown"
)
app.command()(setup)


@app.callback()
def accounts(
    context: typer.Context,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Show each account: its callbacks, backlog and login, and the health of its client.

    This asks a running service. 'setup' speaks to the WhatsApp client of an account.
    """
    if context.invoked_subcommand is not None:
        return
    server = server_at(url, key_file, ca_file)
    answer = talk(server, lambda api: api.get("accounts"), as_json=as_json)
    if as_json:
        print_json(answer)
        return
    for account in answer.get("items") or ():
        print_pairs(account, title=str(account.get("account")))
