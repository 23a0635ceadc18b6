"""`ackgate status`, `gate`, `identities` and `acknowledge`: the operator's daily work."""

from typing import Annotated, Any

import typer

from service.cli.documents import IDENTITIES, print_documents, print_gate, print_identity
from service.cli.options import URL, Account, AsJson, CaFile, KeyFile, Url, User
from service.cli.output import fail, note, print_json, print_pairs
from service.cli.remote import Api, Server, server_at, talk

app = typer.Typer(
    name="identities",
    help="List users' identities, look at one, hold it, or ask the WhatsApp client about it.",
    no_args_is_help=True,
)

PAGE = 1000
DONE = {"acknowledged", "awaiting_hash"}
UNTOLD = 3
"""The exit status of the gate where there was no answer that tells."""

Hash = Annotated[
    str | None,
    typer.Option(
        "--hash", metavar="HASH", help="The hash that was looked at; refused where it has changed."
    ),
]
NoHash = Annotated[
    bool,
    typer.Option(
        "--no-hash", help="Instead of --hash: the new hash is not known yet (Cloud API, 137000)."
    ),
]
Note = Annotated[str | None, typer.Option(metavar="TEXT", help="For the audit trail.")]
Method = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="How the user was recognised, such as 'called back'."),
]
Reference = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Where the evidence is kept, such as a ticket."),
]
OnBehalfOf = Annotated[
    str | None, typer.Option(metavar="PERSON", help="Who decided, where it is not the key's owner.")
]


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
    account: Annotated[
        str | None, typer.Option(metavar="ACCOUNT", help="Only this account.")
    ] = None,
    updated_since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only those updated since, as 2026-01-31T12:00:00Z."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    all_: Annotated[bool, typer.Option("--all", help="All of them, whatever --limit is.")] = False,
    cursor: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="The next_cursor of an earlier list.")
    ] = None,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """List identities, the oldest change first; with --updated-since the oldest update."""
    given = {
        "state": ",".join(state or ()),
        "account": account,
        "updated_since": updated_since,
        "cursor": cursor,
    }
    query = {name: value for name, value in given.items() if value}
    wanted = None if all_ else limit
    server = server_at(url, key_file, ca_file)
    found = talk(server, lambda api: _pages(api, query, wanted), as_json=as_json)
    if as_json:
        print_json(found)
        return
    if found["items"]:
        print_documents(IDENTITIES, found["items"])
    else:
        note("no identity is like that")
    if found["next_cursor"]:
        note("there are more: --limit, or --all")


async def _pages(api: Api, query: dict[str, str], wanted: int | None) -> dict[str, Any]:
    """Return a list of as many identities as wanted, from as many pages; None stands for all."""
    items: list[Any] = []
    place = dict(query)
    while True:
        size = PAGE if wanted is None else min(PAGE, wanted - len(items))
        page = await api.get("identities", query={**place, "limit": size})
        found, cursor = page.get("items") or [], page.get("next_cursor")
        items += found
        if not (found and cursor) or len(items) == wanted:
            return {"items": items, "next_cursor": cursor}
        place["cursor"] = cursor


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
    _show(talk(server, lambda api: api.get(*path), as_json=as_json), as_json=as_json)


@app.command()
def hold(
    account: Account,
    user: User,
    hash_: Hash = None,
    no_hash: NoHash = False,
    note: Note = None,
    method: Method = None,
    reference: Reference = None,
    on_behalf_of: OnBehalfOf = None,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Decide to keep the block: the user is not written to until somebody acknowledges."""
    body = _decision(hash_, no_hash, note, method, reference, on_behalf_of)
    server = server_at(url, key_file, ca_file)
    _post(server, account, user, "hold", body, as_json=as_json)


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
    _post(server, account, user, "refresh", None, as_json=as_json)


def acknowledge(
    account: Account,
    user: User,
    hash_: Hash = None,
    no_hash: NoHash = False,
    note: Note = None,
    method: Method = None,
    reference: Reference = None,
    on_behalf_of: OnBehalfOf = None,
    wait: Annotated[
        float,
        typer.Option(
            min=0, max=60, metavar="SECONDS", help="Wait so long for it to be acknowledged."
        ),
    ] = 0,
    url: Url = URL,
    key_file: KeyFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Decide to acknowledge a user's identity, which lifts the block.

    Exit 0: decided. With --wait, exit 0 only where the WhatsApp client has accepted it by then.
    Where another hash is the latest by now, that identity is shown, and nothing is decided.
    """
    body = _decision(hash_, no_hash, note, method, reference, on_behalf_of)
    server = server_at(url, key_file, ca_file)
    identity = _post(server, account, user, "acknowledge", body, wait, as_json=as_json)
    state, error = identity.get("state"), identity.get("last_error")
    if state == "failed":
        fail(f"the WhatsApp client refused it: {error}")
    if wait and state not in DONE:
        why = f": {error}" if error else ""
        fail(f"decided, but not acknowledged within {wait:g} s; it goes on{why}")


def _decision(
    hash_: str | None,
    no_hash: bool,
    note: str | None,
    method: str | None,
    reference: str | None,
    on_behalf_of: str | None,
) -> dict[str, Any]:
    if (hash_ is None) is not no_hash:
        fail("give --hash HASH as it was looked at, or --no-hash where none is known", status=2)
    if (method is None) != (reference is None):
        fail("--method and --reference make up the evidence: give both, or none", status=2)
    evidence = None if method is None else {"method": method, "reference": reference}
    given = {"note": note, "evidence": evidence, "on_behalf_of": on_behalf_of}
    return {"hash": hash_} | {name: value for name, value in given.items() if value is not None}


def _post(
    server: Server,
    account: str,
    user: str,
    verb: str,
    body: dict[str, Any] | None,
    wait: float = 0,
    *,
    as_json: bool,
) -> dict[str, Any]:
    """Post to an identity, and print and return what it is then."""
    path = ("accounts", account, "identities", user, verb)
    query = {"wait": f"{wait:g}"} if wait else None
    answer = talk(
        server,
        lambda api: api.post(*path, body=body, query=query, patience=wait),
        as_json=as_json,
    )
    _show(answer.document, as_json=as_json)
    return answer.document


def _show(identity: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(identity)
    else:
        print_identity(identity)
