"""The documents of the API as people read them: which columns, in which words.

What an older service does not send is left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import typer

from service.cli.output import note, print_json, print_pairs, print_table, printable
from service.cli.units import ago, is_time, local

Document = Mapping[str, Any]

IDENTITIES = {
    "account": "account",
    "user": "user",
    "state": "state",
    "changed": "changed_at",
    "decided by": "decided_by",
    "hash": "hash",
}
HISTORY = {
    "changed (local)": "changed_at",
    "outcome": "outcome",
    "decided by": "decided_by",
    "acknowledged (local)": "acknowledged_at",
    "hash": "hash",
}
AUDIT = {
    "at (local)": "at",
    "account": "account",
    "user": "user",
    "event": "event",
    "by": "by",
    "reason": "reason",
    "note": "note",
    "evidence": "evidence",
    "hash": "hash",
}
CONTACTS = {
    "account": "account",
    "input": "input",
    "status": "status",
    "wa_id": "wa_id",
    "checked": "checked_at",
    "expires": "expires_at",
}
JOURNAL = {
    "id": "id",
    "account": "account",
    "received": "received_at",
    "state": "state",
    "reason": "reason",
    "replayed": "replayed_at",
}
EVENTS = {
    "at (local)": "at",
    "type": "type",
    "account": "account",
    "user": "user",
    "what": "what",
    "id": "id",
}
RELAYS = {
    "relay": "name",
    "state": "state",
    "paused by": "paused_by",
    "behind": "behind",
    "retrying": "retrying",
    "waiting": "waiting",
    "dead": "dead",
    "lost": "skipped",
    "replaying": "replaying",
    "delivered": "last_delivered_at",
    "last error": "last_error",
}
DELIVERIES = {
    "id": "id",
    "callback": "journal_id",
    "state": "state",
    "attempts": "attempts",
    "due": "due_at",
    "error": "last_error",
    "answer": "answer",
}
REFUSED = {
    "line": "line",
    "account": "account",
    "user": "user",
    "refused": "reason",
    "latest hash": "latest",
}
LOOKUP = {
    "input": "input",
    "sendable": "sendable",
    "why": "why",
    "wa_id": "wa_id",
    "hash": "identity_key_hash",
}
PROSE = frozenset(
    {
        "decided by", "by", "reason", "refused", "note", "evidence", "why", "paused by",
        "last error", "error", "answer",
    }
)  # fmt: skip
"""The columns whose text may be wrapped: nobody has to copy it."""
REASON = ("of", "since", "until", "detail", "clears_when")
"""What is shown of a reason of the gate; `detail` are the words of the person who blocked."""
ISSUE = ("account", "subject", "severity", "since", "detail", "cure")


def print_documents(
    columns: Mapping[str, str], documents: Iterable[Document], title: str = ""
) -> None:
    """Print a table of documents; `columns` holds the key that is shown under each head."""
    rows = (
        [_shown(one.get(key), exact="local" in head) for head, key in columns.items()]
        for one in map(_with_owner, documents)
    )
    print_table(columns, rows, title, PROSE)


def print_page(columns: Mapping[str, str], page: Document, nothing: str, *, as_json: bool) -> None:
    """Print a page of a list, and to stderr whether there are more; `nothing` where it is empty."""
    if as_json:
        print_json(page)
        return
    if page["items"]:
        print_documents(columns, page["items"])
    else:
        note(nothing)
    if page["next_cursor"]:
        note("there are more: --limit, or --all")


def print_identity(identity: Document) -> None:
    """Print one identity, with its history and audit trail if it has them."""
    lists = ("history", "audit")
    known = {name: value for name, value in identity.items() if name not in lists}
    print_pairs(known | {"decided_by": _shown(identity.get("decided_by"))})
    if history := identity.get("history"):
        print_documents(HISTORY, history, "Earlier changes, the newest first")
    if audit := identity.get("audit"):
        print_documents(AUDIT, audit, "Audit trail")


def show_identity(identity: Document, *, as_json: bool) -> None:
    """Print one identity, for people or for programs."""
    if as_json:
        print_json(identity)
    else:
        print_identity(identity)


def print_issues(issues: Iterable[Document]) -> None:
    """Print issues, each with its cure."""
    for issue in issues:
        known = {name: issue.get(name) for name in ISSUE if issue.get(name) is not None}
        print_pairs(known, title=str(issue.get("code")))


def print_gate(answer: Document) -> None:
    """Print the gate's answer: whether the user may be written to, the hash, then the reasons."""
    may = "may" if answer.get("sendable") else "must not"
    typer.echo(f"{printable(str(_named(answer)))} {may} be written to")
    if "identity_key_hash" in answer:
        print_pairs({"identity_key_hash": answer["identity_key_hash"]})
    for weight, reasons in (("blocks", "reasons"), ("warns", "warnings")):
        for one in answer.get(reasons) or ():
            # The user's new number or user id, where that is the reason.
            user = f": {_named(one)}" if _named(one) else ""
            known = {name: one[name] for name in REASON if one.get(name) is not None}
            print_pairs(known, title=f"{weight}: {one.get('code')}{user}")


def print_lookup(answers: Iterable[Document]) -> None:
    """Print the gate's answers about many, with the codes of what blocks or warns."""
    print_documents(LOOKUP, map(_looked_up, answers))


def _looked_up(answer: Document) -> Document:
    if error := answer.get("error"):
        return {**answer, "sendable": "?", "why": error.get("detail")}
    found = [*(answer.get("reasons") or ()), *(answer.get("warnings") or ())]
    codes = ", ".join(str(one.get("code")) for one in found)
    sendable = "yes" if answer.get("sendable") else "no"
    return {**answer, "sendable": sendable, "why": codes or None}


def _with_owner(document: Document) -> Document:
    """Return a document with the one name of its user, and with the app that has no account."""
    app = document.get("app")
    account = f"app {app}" if app else document.get("account")
    return {**document, "user": document.get("user") or _named(document), "account": account}


def _named(document: Document) -> Any:
    """Return a user's wa_id, or the user id (Cloud API) where the number is not known."""
    return document.get("wa_id") or document.get("user_id")


def _shown(value: Any, *, exact: bool = False) -> Any:
    """Return a value for people: a time, whoever decided, or evidence."""
    if is_time(value):
        return local(value) if exact else ago(value)
    if not isinstance(value, Mapping):
        return value
    keys = ("kind", "name", "method", "reference")
    text = " ".join(str(value[key]) for key in keys if value.get(key))
    person = value.get("on_behalf_of")
    return f"{text} for {person}" if person else text
