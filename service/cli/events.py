"""`ackgate events`: what happened, as the event log tells it, and what happens now."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from service.cli.documents import EVENTS, print_documents
from service.cli.options import (
    URL,
    All,
    AsJson,
    CaFile,
    KeyFile,
    Limit,
    OfAccount,
    Url,
    given,
)
from service.cli.output import note, print_json, printable
from service.cli.remote import PAGE, Api, NoAnswerError, server_at, talk
from service.cli.units import local

EVERY_SECONDS = 1.0
"""So often --follow asks for what is new."""
_JSON = {"Accept": "application/json"}
_WHAT = ("state", "status", "code")

Event = dict[str, Any]
Query = Sequence[tuple[str, str]]


def events(
    type_: Annotated[
        list[str] | None,
        typer.Option(
            "--type", metavar="TYPE", help="Only this type, such as identity.pending; repeatable."
        ),
    ] = None,
    account: OfAccount = None,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Only those after this one; 'now': what happens from now on."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what happens, until interrupted.")
    ] = False,
    limit: Limit = 100,
    all_: All = False,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """List what happened to identities, recipients, contacts and issues, oldest first.

    With --follow also what happens from then on, one event a line; with --json each line is JSON.
    """
    query = given(type=type_, account=account)
    server = server_at(url, key_file, ca_file)
    wanted = None if all_ or follow else limit
    if not follow:
        page = talk(server, lambda api: _read(api, query, after, wanted), as_json=as_json)
        _print(page, as_json=as_json)
        if len(page["items"]) == wanted and not as_json:
            note(f"there may be more: --after {page['next_cursor']}, or --all")
        return
    show = _print_json if as_json else _print_line
    talk(server, lambda api: _follow(api, query, after, show), as_json=as_json)


async def _page(api: Api, query: Query, after: str | None, size: int) -> dict[str, Any]:
    asked = [*query, ("limit", str(size)), *([] if after is None else [("after", after)])]
    return await api.get("events", query=asked, headers=_JSON)


async def _read(api: Api, query: Query, after: str | None, wanted: int | None) -> dict[str, Any]:
    """Return events, as many as wanted; a page may have none although more follow."""
    items: list[Event] = []
    while wanted is None or len(items) < wanted:
        size = PAGE if wanted is None else min(PAGE, wanted - len(items))
        page = await _page(api, query, after, size)
        items += page["items"]
        if page["next_cursor"] == after:
            break
        after = page["next_cursor"]
    return {"items": items, "next_cursor": after}


async def _follow(api: Api, query: Query, after: str | None, show: Callable[[Event], None]) -> None:
    """Show events as they come, without end; once there was an answer, over a restart too."""
    seen = None
    while True:
        try:
            page = await _page(api, query, seen or after, PAGE)
        except NoAnswerError:
            if seen is None:
                raise
            await asyncio.sleep(EVERY_SECONDS)
            continue
        for event in page["items"]:
            show(event)
        if page["next_cursor"] == seen:
            await asyncio.sleep(EVERY_SECONDS)
        seen = page["next_cursor"]


def _print(page: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(page)
    elif page["items"]:
        print_documents(EVENTS, [{**event, "what": _what(event)} for event in page["items"]])
    else:
        note("no event is like that")


def _print_json(event: Event) -> None:
    typer.echo(json.dumps(event))


def _print_line(event: Event) -> None:
    parts = (local(event["at"]), event["type"], event["account"], event["user"], _what(event))
    typer.echo("  ".join(printable(str(part)) for part in parts if part))


def _what(event: Event) -> str | None:
    """Return the state, status or code that an event is about."""
    data = event.get("data") or {}
    if reason := data.get("reason"):
        return str(reason.get("code"))
    return next((str(data[name]) for name in _WHAT if data.get(name)), None)
