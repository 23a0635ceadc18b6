"""`ackgate journal`: what came in."""

import json
from contextlib import suppress
from typing import Annotated

import typer

from service.cli.documents import JOURNAL
from service.cli.options import (
    URL,
    All,
    AsJson,
    CaFile,
    Cursor,
    KeyFile,
    Limit,
    ListByDefault,
    OfAccount,
    Url,
    given,
)
from service.cli.output import fail, print_json, print_pairs, printable
from service.cli.remote import print_list, server_at, talk

BODIES = ("body", "body_base64")

app = typer.Typer(
    name="journal", cls=ListByDefault, help="Look at the callbacks that came, and replay one."
)

Id = Annotated[int, typer.Argument(metavar="ID", help="The id, as the list has it.")]


@app.command("list")
def list_(
    state: Annotated[
        str | None,
        typer.Option(metavar="STATE", help="Only this state, such as quarantined."),
    ] = None,
    account: OfAccount = None,
    limit: Limit = 100,
    all_: All = False,
    cursor: Cursor = None,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """List callbacks, oldest first, without their bodies. 'list' may be left out."""
    query = given(state=state, account=account, cursor=cursor)
    wanted = None if all_ else limit
    server = server_at(url, key_file, ca_file)
    print_list(
        server, JOURNAL, ["journal"], query, wanted, "no callback is like that", as_json=as_json
    )


@app.command()
def show(
    id_: Id,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one callback; to an admin also its headers and its body."""
    server = server_at(url, key_file, ca_file)
    entry = talk(server, lambda api: api.get("journal", str(id_)), as_json=as_json)
    if as_json:
        print_json(entry)
        return
    print_pairs({name: value for name, value in entry.items() if name not in BODIES})
    for name in BODIES:
        if name in entry:
            typer.echo(f"\n{_readable(str(entry[name]))}")


def _readable(body: str) -> str:
    """Return a body as indented JSON where it is JSON, else its lines as they came."""
    with suppress(ValueError, RecursionError):
        body = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    return "\n".join(map(printable, body.splitlines()))


@app.command()
def replay(
    id_: Id,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Read a callback again, as after an upgrade that understands it.

    What was understood when it came changes nothing now. Exit 1 where it is quarantined still.
    """
    server = server_at(url, key_file, ca_file)
    answer = talk(server, lambda api: api.post("journal", str(id_), "replay"), as_json=as_json)
    entry = answer.document
    if as_json:
        print_json(entry)
    else:
        print_pairs(entry)
    if entry.get("state") == "quarantined":
        fail(f"it is quarantined still: {entry.get('reason')}")
