"""Callbacks for business numbers that no account has: kept, quarantined, to be replayed."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select, text

from service.store.tables import journal

NEWEST = 10_000
"""So many quarantined callbacks are looked at, the newest."""

_SAYS_SO = "no account has "
_NUMBER = re.compile(r"\bno account has the number (\d{1,32})\b", re.ASCII)


class Strangers(NamedTuple):
    """How many callbacks there are, and for which numbers, by their ids, each once."""

    callbacks: int
    numbers: Sequence[str]


def strangers(connection: Connection, names: Sequence[str]) -> Strangers:
    """Look for them among what the journal has under some names of accounts and apps.

    Known by the reason, in the words of the Cloud dialect.
    """
    newest = (
        select(journal.c.account, journal.c.reason)
        .where(text("state = 'quarantined'"))  # a literal, for its index
        .order_by(journal.c.id.desc())
        .limit(NEWEST)
        .subquery()
    )
    query = select(newest.c.reason).where(
        newest.c.account.in_(names), newest.c.reason.contains(_SAYS_SO)
    )
    reasons = connection.execute(query).scalars().all()
    numbers = {number for reason in reasons for number in _NUMBER.findall(reason)}
    return Strangers(len(reasons), sorted(numbers))
