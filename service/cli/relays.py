"""`ackgate relays`: where the relays stand, what failed, and what a person can do about it."""

import asyncio
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.cli.documents import DELIVERIES, RELAYS, print_documents
from service.cli.options import (
    URL,
    All,
    AsJson,
    CaFile,
    Cursor,
    KeyFile,
    Limit,
    ListByDefault,
    Url,
    complete_relay,
    given,
    moment,
)
from service.cli.output import fail, note, print_json, print_pairs, show
from service.cli.remote import Api, print_list, server_at, talk

POLL_SECONDS = 0.5
TEST_SECONDS = 86_400
"""A destination may have this long to answer: `relays.NAME.timeout_seconds` is its bound."""

app = typer.Typer(
    name="relays",
    cls=ListByDefault,
    help="Look at the relays, and pause, resume, test, retry and replay.",
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="RELAY",
        help="The relay's name in the configuration.",
        autocompletion=complete_relay,
    ),
]


@app.command("list")
def list_(
    url: Url = URL, key_file: KeyFile = None, ca_file: CaFile = None, as_json: AsJson = False
) -> None:
    """List the relays, and where each stands. 'list' may be left out."""
    server = server_at(url, key_file, ca_file)
    found = talk(server, lambda api: api.get("relays"), as_json=as_json)
    if as_json:
        print_json(found)
    elif found["items"]:
        print_documents(RELAYS, map(_without_zeros, found["items"]))
    else:
        note("there is no relay")


def _without_zeros(relay: dict[str, Any]) -> dict[str, Any]:
    """Leave out what there is none of, so that a column without any is not shown."""
    return {name: value for name, value in relay.items() if value != 0 or name == "behind"}


@app.command()
def deliveries(
    relay: Name,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help="Only this state, such as dead; may be repeated."),
    ] = None,
    limit: Limit = 100,
    all_: All = False,
    cursor: Cursor = None,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """List what failed while others passed, what waits behind it, and what was answered."""
    query = given(state=state, cursor=cursor)
    print_list(
        server_at(url, key_file, ca_file),
        DELIVERIES,
        ["relays", relay, "deliveries"],
        query,
        None if all_ else limit,
        "no delivery is like that",
        as_json=as_json,
    )


@app.command()
def pause(
    relay: Name,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Send nothing more, until it is resumed. What arrives meanwhile waits."""
    server = server_at(url, key_file, ca_file)
    answer = talk(server, lambda api: api.post("relays", relay, "pause"), as_json=as_json)
    show(answer.document, _standing(answer.document), as_json=as_json)


@app.command()
def resume(
    relay: Name,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Send again, and at once, whoever or whatever paused it."""
    server = server_at(url, key_file, ca_file)
    answer = talk(server, lambda api: api.post("relays", relay, "resume"), as_json=as_json)
    show(answer.document, _standing(answer.document), as_json=as_json)


def _standing(relay: dict[str, Any]) -> str:
    return f"{relay.get('name')} is {relay.get('state')}, {relay.get('behind')} behind"


@app.command()
def retry(
    relay: Name,
    id_: Annotated[
        int | None,
        typer.Argument(metavar="ID", help="The delivery's id. Default: all dead ones."),
    ] = None,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Try a delivery again now; without an ID all dead ones."""
    path = ["relays", relay, "deliveries", *([] if id_ is None else [str(id_)]), "retry"]
    server = server_at(url, key_file, ca_file)
    answer = talk(server, lambda api: api.post(*path), as_json=as_json).document
    show(answer, f"tried again: {answer.get('count')}", as_json=as_json)


@app.command()
def replay(
    relay: Name,
    begin: Annotated[
        str, typer.Option("--from", metavar="TIME", help="What arrived at this time or later.")
    ],
    end: Annotated[
        str, typer.Option("--to", metavar="TIME", help="What arrived at this time or earlier.")
    ],
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Don't wait until all of it is sent.")
    ] = False,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Send once more what arrived between two times, beside what is new.

    It waits until all of it is delivered or given up, and shows how much is left. Ctrl-C ends the
    waiting, not the replay. It needs the key of an admin. Exit 1: the relay is paused.
    """
    body = {"from": moment("--from", begin), "to": moment("--to", end)}

    async def act(api: Api) -> dict[str, Any]:
        answer = await api.post("relays", relay, "replay", body=body)
        count = int(answer.document.get("count") or 0)
        if count and not no_wait:
            await _until_through(api, relay, count, as_json=as_json)
        return answer.document

    server = server_at(url, key_file, ca_file)
    answer = talk(server, act, as_json=as_json)
    show(answer, f"arrived then: {answer.get('count')}", as_json=as_json)


async def _until_through(api: Api, relay: str, count: int, *, as_json: bool) -> None:
    """Wait until nothing is left to be sent once more; end the command where nothing is sent.

    There are more than `count` where an earlier replay is under way still.
    """
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, quiet=as_json)
    with Progress(*columns, console=console) as progress:
        bar, most = progress.add_task("", total=count), count
        while True:
            found = await api.get("relays", relay)
            left = int(found.get("replaying") or 0)
            most = max(most, left)
            progress.update(bar, total=most, completed=most - left)
            if not left:
                return
            if found.get("state") == "paused":
                fail(f"{relay} is paused, with {left} left: 'ackgate relays resume {relay}'")
            await asyncio.sleep(POLL_SECONDS)


@app.command("test")
def try_(
    relay: Name,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Send a small signed body of Ackgate's own to the destination, and show what it answers.

    It changes nothing. Exit 1 where the answer is not a 2xx, or there is none.
    """
    server = server_at(url, key_file, ca_file)
    answer = talk(
        server,
        lambda api: api.post("relays", relay, "test", patience=TEST_SECONDS),
        as_json=as_json,
    ).document
    if as_json:
        print_json(answer)
    else:
        print_pairs({name: value for name, value in answer.items() if value is not None})
    if (error := answer.get("error")) is not None:
        fail(f"not delivered: {error}")
