"""Queries of the journal, and the issues that callbacks in it raise."""

import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Row,
    delete,
    insert,
    literal,
    select,
    text,
    update,
)

from service.store.database import SYNTHETIC
from service.store.logs import newest_settled, settled
from service.store.paging import in_order_of_ids
from service.store.schema import (
    dismissals,
    journal,
)


def list_journal(
    connection: Connection,
    state: str | None,
    account: str | None,
    after: int,
    limit: int,
    within: Collection[str] | None = None,
) -> list[Row[Any]]:
    """Return a page of the journal, oldest first, without the bodies.

    `within` are the names of accounts and apps whose callbacks are shown; None for all.
    """
    columns = [
        journal.c[name]
        for name in (
            "id",
            "account",
            "received_at",
            "state",
            "reason",
            "replayed_at",
            "request_id",
        )
    ]
    index = (journal.c.account, journal.c.state, journal.c.id)
    query = in_order_of_ids(
        connection, select(*columns), index, (account, state), after, limit, within
    )
    return list(connection.execute(query))


def journal_entry(connection: Connection, entry_id: int) -> Row[Any] | None:
    """Return one callback of the journal, body and all."""
    return connection.execute(select(journal).where(journal.c.id == entry_id)).one_or_none()


def note_replay(
    connection: Connection, entry_id: int, state: str, reason: str | None, now: int
) -> None:
    """Note what a journal entry came to when it was read again, at `now` (Unix ms)."""
    values = {"state": state, "reason": reason, "replayed_at": now}
    connection.execute(update(journal).where(journal.c.id == entry_id).values(values))


LOOKED_AT = 50_000
"""Rows of the journal that are looked at for the newest callbacks."""


def newest_entry(connection: Connection) -> int:
    """Return the id of the newest settled callback, 0 where there is none."""
    return newest_settled(connection, journal.c.id)


def is_kept(connection: Connection, account: str, body: bytes, after: int) -> bool:
    """Return whether this synthetic callback is among those after an id."""
    query = (
        select(literal(1))
        .where(journal.c.id > after, journal.c.account == account)
        .where(journal.c.state == SYNTHETIC, journal.c.body == body)
        .limit(1)
    )
    return connection.execute(query).first() is not None


def newest_callbacks(
    connection: Connection, names: Sequence[str], limit: int
) -> Sequence[Row[Any]]:
    """Return the newest callbacks that the journal has under some names, the newest first.

    Where others have far more of them than these, none is found: so many rows are looked at, and no
    more, for the journal has no index by account.
    """
    rows = journal.c
    last = select(rows.id).order_by(rows.id.desc()).offset(LOOKED_AT - 1).limit(1)
    first = connection.execute(last).scalar() or 0
    query = (
        select(rows.received_at, rows.content_type, rows.content_encoding, rows.body)
        .where(rows.id >= first, rows.account.in_(names))
        .order_by(rows.id.desc())
        .limit(limit)
    )
    return [*connection.execute(query)]


NEWEST = 10_000
"""So many quarantined callbacks are looked at, the newest."""

_SAYS_SO = "no account has "

_NUMBER = re.compile(r"\bno account has (?:the number (\d{1,32})|this number)\b", re.ASCII)


class UnknownNumber(NamedTuple):
    """A number that no account has, by its id, and how many callbacks were for it.

    None stands for all those whose id is none.
    """

    number: str | None
    callbacks: int


def unknown_numbers(connection: Connection, app: str, names: Sequence[str]) -> list[UnknownNumber]:
    """Look for them among what the journal has under some names of accounts and an app.

    Known by the reason, in the words of the Cloud dialect. Left out is what was dismissed.
    """
    # The state is a literal, for its index. What is not settled could not be dismissed.
    newest = (
        select(journal.c.id, journal.c.account, journal.c.reason)
        .where(text("state = 'quarantined'"), settled(connection, journal.c.id))
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
    return [UnknownNumber(number or None, counts[number]) for number in sorted(counts)]


def dismissed_of(connection: Connection, account: str, code: str) -> dict[str, int]:
    """Return up to which callback issues of a code were dismissed, by their subject."""
    ours = dismissals.c
    query = select(ours.subject, ours.journal_id).where(ours.account == account, ours.code == code)
    return {row.subject: row.journal_id for row in connection.execute(query)}


def dismiss(connection: Connection, account: str, code: str, subject: str | None, now: int) -> None:
    """Dismiss an issue for all callbacks that are settled by now (Unix ms)."""
    key = {"account": account, "code": code, "subject": subject or ""}
    connection.execute(delete(dismissals).where(*(dismissals.c[k] == v for k, v in key.items())))
    row = {**key, "journal_id": newest_entry(connection), "at": now}
    connection.execute(insert(dismissals).values(row))
