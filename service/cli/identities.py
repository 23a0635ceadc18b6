"""`ackgate status`, `gate` and `identities`: how things stand, and with whom."""

from typing import Annotated

import typer

from service.cli.decisions import hold, post
from service.cli.documents import IDENTITIES, print_gate, show_identity
from service.cli.options import (
    URL,
    Account,
    All,
    AsJson,
    CaFile,
    Cursor,
    KeyFile,
    Limit,
    OfAccount,
    Url,
    User,
    given,
    moment,
)
from service.cli.output import fail, print_json, print_pairs
from service.cli.remote import print_list, server_at, talk

app = typer.Typer(
    name="identities",
    help="List users' identities, look at one, hold it, or ask the WhatsApp client about it.",
    no_args_is_help=True,
)

UNTOLD = 3
"""The exit status of the gate where there was no answer that tells."""


def status(
    url: Url = URL, key_file: KeyFile = None, ca_file: CaFile = None, as_json: AsJson = False
) -> None:
    """Show how many identities are in each state, and how long the oldest has been pending."""
    server = server_at(url, key_file, ca_file)
    answer = talk(server, lambda api: api.get("status"), as_json=as_json)
    if as_json:
        print_json(answer)
    else:
        print_pairs(answer)


def gate(
    account: Account,
    user: User,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask whether a user may be written to now, and if not, why not.

    Exit 0: the user may be written to; 1: must not be; 3: it could not be told.
    """
    server = server_at(url, key_file, ca_file)
    path = ("accounts", account, "recipients", user)
    answer = talk(server, lambda api: api.get(*path), as_json=as_json, failed=UNTOLD)
    sendable = answer.get("sendable")
    if not isinstance(sendable, bool):
        fail(f"{server.url} does not answer as Ackgate's gate does", UNTOLD)
    if as_json:
        print_json(answer)
    else:
        print_gate(answer)
    if not sendable:
        raise typer.Exit(1)


@app.command("list")
def list_(
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help="Only this state, such as pending; may be repeated."),
    ] = None,
    account: OfAccount = None,
    updated_since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only those updated since, as 2026-01-31T12:00:00Z."),
    ] = None,
    limit: Limit = 100,
    all_: All = False,
    cursor: Cursor = None,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """List identities, the oldest change first; with --updated-since the oldest update."""
    since = moment("--updated-since", updated_since)
    query = given(state=state, account=account, updated_since=since, cursor=cursor)
    wanted = None if all_ else limit
    server = server_at(url, key_file, ca_file)
    print_list(
        server,
        IDENTITIES,
        ["identities"],
        query,
        wanted,
        "no identity is like that",
        as_json=as_json,
    )


@app.command()
def show(
    account: Account,
    user: User,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a user's identity with its earlier changes and its audit trail."""
    server = server_at(url, key_file, ca_file)
    path = ("accounts", account, "identities", user)
    show_identity(talk(server, lambda api: api.get(*path), as_json=as_json), as_json=as_json)


app.command()(hold)


@app.command()
def refresh(
    account: Account,
    user: User,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask the WhatsApp client now which identity the user has, and show what is known then."""
    server = server_at(url, key_file, ca_file)
    post(server, account, user, "refresh", None, as_json=as_json)
