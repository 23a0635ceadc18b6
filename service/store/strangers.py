"""Callbacks for business numbers that no account has: kept, quarantined, to be replayed."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select, text

from service.store.evidence import newest_entry
from service.store.tables import dismissals, journal

NEWEST = 10_000
"""So many quarantined callbacks are looked at, the newest."""

_SAYS_SO = "no account has "
_NUMBER = re.compile(r"\bno account has (?:the number (\d{1,32})|this number)\b", re.ASCII)


class Stranger(NamedTuple):
    """A number that no account has, by its id, and how many callbacks were for it.

    None stands for all those whose id is none.
    """

    number: str | None
    callbacks: int


def strangers(connection: Connection, app: str, names: Sequence[str]) -> list[Stranger]:
    """Look for them among what the journal has under some names of accounts and an app.

    Known by the reason, in the words of the Cloud dialect. Left out is what was dismissed.
    """
    newest = (
        select(journal.c.id, journal.c.account, journal.c.reason)
        .where(text("state = 'quarantined'"))  # a literal, for its index
        .order_by(journal.c.id.desc())
        .limit(NEWEST)
        .subquery()
    )
    query = select(newest.c.id, newest.c.reason).where(
        newest.c.account.in_(names), newest.c.reason.contains(_SAYS_SO)
    )
    dismissed = dismissed_of(connection, app, "unknown_number")
    counts: dict[str, int] = {}
    for id_, reason in connection.execute(query):
        for number in set(_NUMBER.findall(reason)):
            if id_ > dismissed.get(number, 0):
                counts[number] = counts.get(number, 0) + 1
    return [Stranger(number or None, counts[number]) for number in sorted(counts)]


def dismissed_of(connection: Connection, account: str, code: str) -> dict[str, int]:
    """Tell up to which callback an account's issues of a code were dismissed, by their subject."""
    ours = dismissals.c
    query = select(ours.subject, ours.journal_id).where(ours.account == account, ours.code == code)
    return {row.subject: row.journal_id for row in connection.execute(query)}


def dismiss(connection: Connection, account: str, code: str, subject: str | None, now: int) -> None:
    """Dismiss an issue for all callbacks that are kept so far. `now` is Unix milliseconds."""
    key = {"account": account, "code": code, "subject": subject or ""}
    connection.execute(delete(dismissals).where(*(dismissals.c[k] == v for k, v in key.items())))
    row = {**key, "journal_id": newest_entry(connection), "at": now}
    connection.execute(insert(dismissals).values(row))
