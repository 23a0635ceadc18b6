"""`ackgate issues`: what is wrong with the accounts, and how to cure it."""

from typing import Annotated

import typer

from service.cli.documents import print_issues
from service.cli.options import (
    URL,
    AsJson,
    CaFile,
    KeyFile,
    ListByDefault,
    OfAccount,
    Url,
    given,
)
from service.cli.output import note, print_json
from service.cli.remote import server_at, talk

app = typer.Typer(
    name="issues",
    cls=ListByDefault,
    help="List what is wrong with the accounts, and dismiss what is past.",
)


@app.command("list")
def list_(
    url: Url = URL, key_file: KeyFile = None, ca_file: CaFile = None, as_json: AsJson = False
) -> None:
    """List what is wrong with the accounts, and how to cure it. 'list' may be left out."""
    server = server_at(url, key_file, ca_file)
    found = talk(server, lambda api: api.get("issues"), as_json=as_json)
    if as_json:
        print_json(found)
    elif found["items"]:
        print_issues(found["items"])
    else:
        note("there is no issue")


@app.command()
def dismiss(
    code: Annotated[str, typer.Argument(metavar="CODE", help="The code, as the list has it.")],
    account: OfAccount = None,
    subject: Annotated[
        str | None, typer.Option(metavar="SUBJECT", help="Only about this, as the list has it.")
    ] = None,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Dismiss issues whose cause is past, such as unknown_number, until it comes again.

    An issue whose cause is there now is refused: it passes by itself once that is cured.
    """
    query = given(account=account, subject=subject)
    server = server_at(url, key_file, ca_file)
    answer = talk(server, lambda api: api.delete("issues", code, query=query), as_json=as_json)
    if as_json:
        print_json(answer)
    else:
        note(f"dismissed: {len(answer['items'])}")
