"""How the documents of the API look to people. Keys that an older service lacks stay empty."""

from collections.abc import Iterable, Mapping
from typing import Any

import typer

from service.cli.output import print_pairs, print_table, printable

Document = Mapping[str, Any]


def print_identities(identities: Iterable[Document]) -> None:
    """Print a list of identities."""
    print_table(
        ("account", "user", "state", "changed (UTC)", "decided by", "hash"),
        (
            (
                one.get("account"),
                _named(one),
                one.get("state"),
                _moment(one.get("changed_at")),
                _by(one.get("decided_by")),
                one.get("hash"),
            )
            for one in identities
        ),
    )


def print_issues(issues: Iterable[Document]) -> None:
    """Print what is wrong, each with its cure."""
    for issue in issues:
        shown = ("account", "subject", "severity", "since", "detail", "cure")
        known = {name: issue.get(name) for name in shown if issue.get(name) is not None}
        print_pairs(known, title=str(issue.get("code")))


def print_identity(identity: Document) -> None:
    """Print one identity, with its history and audit trail where they are given."""
    lists = ("history", "audit")
    known = {name: value for name, value in identity.items() if name not in lists}
    print_pairs(known | {"decided_by": _by(identity.get("decided_by"))})
    if identity.get("history"):
        _print_history(identity["history"])
    if identity.get("audit"):
        _print_audit(identity["audit"])


def _print_history(history: Iterable[Document]) -> None:
    print_table(
        ("changed (UTC)", "outcome", "decided by", "acknowledged (UTC)", "hash"),
        (
            (
                _moment(one.get("changed_at")),
                one.get("outcome"),
                _by(one.get("decided_by")),
                _moment(one.get("acknowledged_at")),
                one.get("hash"),
            )
            for one in history
        ),
        title="Earlier changes, the newest first",
    )


def _print_audit(audit: Iterable[Document]) -> None:
    print_table(
        ("at (UTC)", "event", "by", "reason", "note", "evidence", "hash"),
        (
            (
                _moment(one.get("at")),
                one.get("event"),
                _by(one.get("by")),
                one.get("reason"),
                one.get("note"),
                _evidence(one.get("evidence")),
                one.get("hash"),
            )
            for one in audit
        ),
        title="Audit trail",
    )


def print_gate(answer: Document) -> None:
    """Print the gate's answer: first whether, then why."""
    user = printable(str(_named(answer)))
    if answer.get("sendable"):
        typer.echo(f"{user} may be written to")
    else:
        typer.echo(f"{user} must not be written to")
    found = [("blocks", one) for one in answer.get("reasons") or ()]
    found += [("warns", one) for one in answer.get("warnings") or ()]
    if found:
        print_table(
            ("", "reason", "of", "since (UTC)", "clears when"),
            (
                (
                    weight,
                    _coded(one),
                    one.get("of"),
                    _moment(one.get("since")),
                    one.get("clears_when"),
                )
                for weight, one in found
            ),
        )


def _coded(reason: Document) -> str:
    """Name a reason, and the number or user id of the user now where that is the reason."""
    code, user = str(reason.get("code")), _named(reason)
    return f"{code}: {user}" if user else code


def _named(document: Document) -> Any:
    """Name a user: by the user id (Cloud API) where the number was never told."""
    return document.get("wa_id") or document.get("user_id")


def _moment(text: Any) -> Any:
    """Shorten an RFC 3339 time in UTC for a column that says UTC."""
    if isinstance(text, str) and text.endswith("Z"):
        return text[:19].replace("T", " ")
    return text


def _by(decider: Any) -> Any:
    if not isinstance(decider, Mapping):
        return decider
    named = " ".join(str(decider[key]) for key in ("kind", "name") if decider.get(key))
    person = decider.get("on_behalf_of")
    return f"{named} for {person}" if person else named


def _evidence(evidence: Any) -> Any:
    if not isinstance(evidence, Mapping):
        return evidence
    return " ".join(str(evidence[key]) for key in ("method", "reference") if evidence.get(key))
