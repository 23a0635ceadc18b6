"""`ackgate acknowledge` and `identities hold`: a person's decisions, one or a file of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.documents import REFUSED, print_documents, show_identity
from service.cli.files import Line, read_csv
from service.cli.options import (
    URL,
    Account,
    AsJson,
    CaFile,
    KeyFile,
    Url,
    User,
    complete_account,
)
from service.cli.output import fail, note, print_json
from service.cli.remote import Api, NoAnswerError, Server, server_at, talk

DONE = {"acknowledged", "awaiting_hash"}
CHUNK = 500
"""Decisions in one request, which takes 1,000 and a megabyte."""
COLUMNS = ("account", "user", "hash")

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
Note = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="For the audit trail.")]
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


Decisions = Sequence[tuple[int, dict[str, str]]]
"""Each with the line of the file that it stands on."""


def acknowledge(
    account: Annotated[
        str | None,
        typer.Argument(
            metavar="ACCOUNT",
            help="The account's name in the configuration.",
            autocompletion=complete_account,
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Argument(metavar="USER", help="The user's wa_id, or another alias of the user."),
    ] = None,
    hash_: Hash = None,
    no_hash: NoHash = False,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="In place of ACCOUNT, USER and --hash: a CSV file with these columns; - is "
            "standard input.",
        ),
    ] = None,
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
    """Decide to acknowledge a user's identity, or those of a file, which lifts the block.

    Exit 0: decided. With --wait, exit 0 only where the WhatsApp client has accepted it by then.
    Where another hash is the latest by now, that identity is shown, and nothing is decided. With
    --file the others are decided nevertheless; exit 1 where one was refused.
    """
    grounds = _grounds(note, method, reference, on_behalf_of)
    if file is not None:
        if account is not None or hash_ is not None or no_hash or wait:
            fail("--file goes without ACCOUNT, USER, --hash, --no-hash and --wait", status=2)
        decisions = _read(file)
        _acknowledge_all(server_at(url, key_file, ca_file), decisions, grounds, as_json=as_json)
        return
    if account is None or user is None:
        fail("name ACCOUNT and USER, or a --file of decisions", status=2)
    body = _decision(hash_, no_hash) | grounds
    server = server_at(url, key_file, ca_file)
    identity = post(server, account, user, "acknowledge", body, wait, as_json=as_json)
    state, error = identity.get("state"), identity.get("last_error")
    if state == "failed":
        fail(f"the WhatsApp client refused it: {error}")
    if wait and state not in DONE:
        why = f": {error}" if error else ""
        fail(f"decided, but not acknowledged within {wait:g} s; it goes on{why}")


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
    body = _decision(hash_, no_hash) | _grounds(note, method, reference, on_behalf_of)
    post(server_at(url, key_file, ca_file), account, user, "hold", body, as_json=as_json)


def _decision(hash_: str | None, no_hash: bool) -> dict[str, Any]:
    if (hash_ is None) is not no_hash:
        fail("give --hash HASH as it was looked at, or --no-hash where none is known", status=2)
    return {"hash": hash_}


def _grounds(
    note: str | None, method: str | None, reference: str | None, on_behalf_of: str | None
) -> dict[str, Any]:
    if (method is None) != (reference is None):
        fail("--method and --reference make up the evidence: give both, or none", status=2)
    evidence = None if method is None else {"method": method, "reference": reference}
    given = {"note": note, "evidence": evidence, "on_behalf_of": on_behalf_of}
    return {name: value for name, value in given.items() if value is not None}


def post(
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
    show_identity(answer.document, as_json=as_json)
    return answer.document


# A file of decisions


def _read(file: Path) -> Decisions:
    """Return the decisions of a file, or end the command where a line of it is none."""
    lines = read_csv(file)
    head = lines[0].names if lines else []
    named = set(COLUMNS) <= set(head)
    places = [head.index(name) for name in COLUMNS] if named else [0, 1, 2]
    body = lines[1:] if named else lines
    wrong = [line.number for line in body if not _is_decision(line, places, named=named)]
    if wrong:
        fail(f"{file}: line {wrong[0]} must hold an account, a user and a hash", status=2)
    if not body:
        fail(f"{file}: holds no decision", status=2)
    return [
        (line.number, dict(zip(COLUMNS, (line.cells[at] for at in places), strict=True)))
        for line in body
    ]


def _is_decision(line: Line, places: Sequence[int], *, named: bool) -> bool:
    if not named and len(line.cells) != len(COLUMNS):
        return False
    return all(at < len(line.cells) and line.cells[at] for at in places)


def _acknowledge_all(
    server: Server, decisions: Decisions, grounds: Mapping[str, Any], *, as_json: bool
) -> None:
    """Send the decisions, print what became of them, and end the command if one was refused."""
    items: list[dict[str, Any]] = []

    async def act(api: Api) -> None:
        for start in range(0, len(decisions), CHUNK):
            chunk = decisions[start : start + CHUNK]
            body = {"items": [one for _, one in chunk], **grounds}
            answer = await api.post("identities", "acknowledge", body=body)
            found = answer.document.get("items") or []
            if len(found) != len(chunk):
                raise NoAnswerError(f"{server.url} does not answer for each decision")
            items.extend(
                {"line": line, **item} for (line, _), item in zip(chunk, found, strict=True)
            )

    try:
        talk(server, act, as_json=as_json)
    except typer.Exit:
        if items:
            note(f"the first {len(items)} were sent before; sent again, they change nothing")
        raise
    refused = [item for item in items if "error" in item]
    decided = len(items) - len(refused)
    if as_json:
        print_json({"decided": decided, "refused": len(refused), "items": items})
    else:
        if refused:
            print_documents(REFUSED, map(_refusal, refused))
        typer.echo(f"{decided} decided, {len(refused)} refused")
    if refused:
        fail(f"{len(refused)} of {len(items)} were refused")


def _refusal(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a refused decision with the reason, and with the hash that is the latest now."""
    error = item["error"]
    latest = (error.get("identity") or {}).get("hash")
    return {**item, "reason": error.get("detail"), "latest": latest}
