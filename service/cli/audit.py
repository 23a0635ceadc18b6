"""`ackgate audit`: what was done, by whom; and whether the trail is still what was written."""

import asyncio
import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import typer

from service.cli.documents import AUDIT
from service.cli.options import (
    URL,
    All,
    AsJson,
    CaFile,
    Config,
    Cursor,
    KeyFile,
    Limit,
    ListByDefault,
    OfAccount,
    Url,
    given,
    loaded,
)
from service.cli.output import fail, print_json, print_pairs
from service.cli.remote import pages, print_list, server_at, talk
from service.store.database import StoreError
from service.store.operating import operated
from service.store.trail import Seal, read_seal
from service.store.trail import verify as verify_trail

app = typer.Typer(
    name="audit",
    cls=ListByDefault,
    help="List the audit trail, and verify that it is still what was written.",
)

COLUMNS = (
    "id", "at", "account", "app", "wa_id", "user_id", "event", "hash", "by", "on_behalf_of",
    "reason", "note", "method", "reference", "request_id",
)  # fmt: skip
"""Those of the CSV."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for the beginning of a formula."""


@app.command("list")
def list_(
    account: OfAccount = None,
    event: Annotated[
        str | None, typer.Option(metavar="EVENT", help="Only this event, such as decided.")
    ] = None,
    limit: Limit = 100,
    all_: All = False,
    cursor: Cursor = None,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, which no spreadsheet takes for formulas.")
    ] = False,
) -> None:
    """List the audit trail, oldest first: what changed, who decided, and on what evidence."""
    query = given(account=account, event=event, cursor=cursor)
    wanted = None if all_ else limit
    server = server_at(url, key_file, ca_file)
    if as_csv:
        found = talk(server, lambda api: pages(api, ["audit"], query, wanted), as_json=as_json)
        print_csv(found["items"])
        return
    print_list(server, AUDIT, ["audit"], query, wanted, "no entry is like that", as_json=as_json)


def print_csv(entries: Sequence[Mapping[str, Any]]) -> None:
    """Print entries of the API as CSV, with a header."""
    writer = csv.writer(sys.stdout)
    writer.writerow(COLUMNS)
    for entry in entries:
        by, evidence = entry.get("by") or {}, entry.get("evidence") or {}
        decider = ":".join(filter(None, (by.get("kind"), by.get("name"))))
        flat = {**entry, **evidence, "by": decider, "on_behalf_of": by.get("on_behalf_of")}
        writer.writerow([harmless(flat.get(column)) for column in COLUMNS])


def harmless(value: object) -> str:
    """Return a cell that is text to every spreadsheet: an apostrophe says so, where need be."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


@app.command()
def verify(
    seal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER:HEX",
            help="A seal that was noted elsewhere: it has to be there. May be repeated.",
        ),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Compare the audit trail with its seals, in the database of the configuration.

    The service may run meanwhile. Entries of whom was erased count by their digests. Exit 1:
    something was changed, removed or added; the range is named.
    """
    noted: list[Seal] = []
    for text in seal or ():
        one = read_seal(text)
        if one is None:
            fail("--seal: must be NUMBER:HEX, as the log has it", status=2)
        noted.append(one)
    settings = loaded(config)
    work = partial(verify_trail, noted=noted, deletes=bool(settings.retention.audit_days))
    try:
        found = asyncio.run(operated(settings.database.full_url).look(work))
    except StoreError as error:
        fail(str(error))
    document = asdict(found)
    if as_json:
        print_json(document)
    else:
        lists = ("faults", "not_verified")
        print_pairs(document | {name: document[name] or "none" for name in lists})
    if found.faults:
        fail(f"the audit trail is not as it was sealed: {found.faults[0]}")
