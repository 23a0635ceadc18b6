"""`ackgate users`: a person is erased, or told what is kept of them."""

from typing import Annotated

import typer

from service.cli.options import URL, Account, AsJson, CaFile, KeyFile, Url, User
from service.cli.output import confirm, note, print_json, print_pairs
from service.cli.remote import server_at, talk

PATIENCE_SECONDS = 3600.0
"""How long a search through millions of callbacks may take."""

app = typer.Typer(
    name="users",
    help="Erase a user, or tell what is kept of one.",
    no_args_is_help=True,
)


@app.command()
def erase(
    account: Account,
    user: User,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Erase a user: names, hashes, what was written, and who decided what about the user.

    The gate stays closed where it was, and blocks by hand stay in force. What was cut short is
    finished by the service. Backups are not changed: their names are printed.
    """
    server = server_at(url, key_file, ca_file)
    if not yes:
        confirm(f"Erase all that is kept of {user} at {account}? It can't be undone.")
    path = ("accounts", account, "users", user, "erase")
    answer = talk(
        server, lambda api: api.post(*path, patience=PATIENCE_SECONDS), as_json=as_json
    ).document
    if as_json:
        print_json(answer)
        return
    print_pairs(answer["erased"])
    for backup in answer["backups"]:
        note(f"a backup that has the user still: {backup}")
    for other in answer["linked"]:
        note(f"another number of the same person, not erased: {other}")


@app.command()
def export(
    account: Account,
    user: User,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Print all that is kept of a user, as JSON, with or without --json."""
    server = server_at(url, key_file, ca_file)
    path = ("accounts", account, "users", user, "export")
    print_json(talk(server, lambda api: api.get(*path, patience=PATIENCE_SECONDS), as_json=as_json))
