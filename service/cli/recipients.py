"""`ackgate recipients`: blocks that a person puts, and the gate's answers about many."""

from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.documents import print_gate, print_lookup
from service.cli.files import NUMBER_HEADS, STDIN, column_of, read_csv
from service.cli.options import URL, Account, AsJson, CaFile, KeyFile, Url, User, moment
from service.cli.output import fail, print_json
from service.cli.remote import Api, server_at, talk

CHUNK = 1000
"""Recipients in one request."""
HEADS = (*NUMBER_HEADS, "wa_id", "user_id", "user")

app = typer.Typer(
    name="recipients",
    help="Block and unblock users, and ask the gate about many.",
    no_args_is_help=True,
)


@app.command()
def block(
    account: Account,
    user: User,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why, for whoever asks the gate and for the audit.")
    ],
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it ends by itself. Default: a person ends it."),
    ] = None,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Block a user, who may be unknown so far, and show the gate's answer then."""
    end = moment("--until", until)
    body = {"reason": reason} | ({} if end is None else {"until": end})
    server = server_at(url, key_file, ca_file)
    path = ("accounts", account, "recipients", user, "block")
    _show(talk(server, lambda api: api.put(*path, body=body), as_json=as_json), as_json=as_json)


@app.command()
def unblock(
    account: Account,
    user: User,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """End a block that a person put, and show the gate's answer then.

    Other reasons not to write to the user may remain.
    """
    server = server_at(url, key_file, ca_file)
    path = ("accounts", account, "recipients", user, "block")
    _show(talk(server, lambda api: api.delete(*path), as_json=as_json), as_json=as_json)


def _show(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        print_gate(answer)


@app.command()
def lookup(
    account: Account,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A CSV file, or numbers one a line. Default: -, which is standard input.",
        ),
    ] = STDIN,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The column of the numbers, if its name is none of the usual."
        ),
    ] = None,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask the gate about the phone numbers, wa_ids or user ids of a file, in its order.

    Exit 0 whatever the answers are.
    """
    lines = read_csv(file)
    place = column_of(file, lines[0].names if lines else [], column, HEADS)
    body = lines if place is None else lines[1:]
    at = place or 0
    asked = [line.cells[at] for line in body if len(line.cells) > at and line.cells[at]]
    if not asked:
        fail(f"{file}: holds no number", status=2)

    async def act(api: Api) -> list[Any]:
        items: list[Any] = []
        for start in range(0, len(asked), CHUNK):
            part = {"recipients": asked[start : start + CHUNK]}
            answer = await api.post("accounts", account, "recipients", "lookup", body=part)
            items += answer.document.get("items") or []
        return items

    items = talk(server_at(url, key_file, ca_file), act, as_json=as_json)
    if as_json:
        print_json({"items": items})
    else:
        print_lookup(items)
