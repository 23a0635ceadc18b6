"""Erasing a user from the tables, a little at a time.

The user's own row loses everything in one transaction (`EraseUser` of the ledger), in which it is
noted by which names the logs are to be searched (`erasures`). They are searched by ranges of ids,
in transactions that only read; what is found is written in small ones. Whatever was cut short
begins again: what is done already is not found any more. Two may search at once, for one user or
for two: a body is written only where it is still the one that was read.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    delete,
    false,
    func,
    or_,
    select,
    true,
    update,
)

from service.model.contacts import full_number
from service.model.numbers import own_digits
from service.model.users import ERASED_ALIAS
from service.store.contacts import not_formed
from service.store.database import ERASED
from service.store.events import NOTHING_TOLD
from service.store.logs import is_in_order, settled
from service.store.schema import (
    aliases,
    contacts,
    deliveries,
    erasures,
    events,
    idempotency,
    installation,
    journal,
    message_recipients,
    unverified,
    users,
)
from service.store.upserting import upsert

ERASED_ROWS_KEY = "rows_erased"
"""Key of the table `installation`: when (Unix ms) rows of the logs were changed last."""
ROWS = 2_000
"""Rows that one look goes through."""
BYTES = 1_048_576
"""Bytes of bodies that one look reads: it ends with the row that reaches them."""
NOT_FORMED = 10_000
"""Contacts without a canonical form that are looked at, at most."""
FOUND = 20
"""Rows that one look finds, and one transaction then writes, at most; bodies are not counted."""


def find_user_id(connection: Connection, account: str, alias: str) -> int | None:
    """Return the id of the user with this alias."""
    mine = aliases.c.account == account, aliases.c.alias == alias
    return connection.execute(select(aliases.c.user_id).where(*mine)).scalar()


def names_of(connection: Connection, account: str, alias: str) -> set[str]:
    """Return what the user with this alias is called, this alias included."""
    user_id = find_user_id(connection, account, alias)
    return {alias} if user_id is None else {alias, *aliases_of(connection, user_id)}


def aliases_of(connection: Connection, user_id: int) -> list[str]:
    """Return what a user is called."""
    query = select(aliases.c.alias).where(aliases.c.user_id == user_id)
    return [*connection.execute(query).scalars()]


def forget_names(connection: Connection, user_ids: Collection[int]) -> None:
    """Let no name lead to these users any more."""
    connection.execute(delete(aliases).where(aliases.c.user_id.in_(user_ids)))


def inputs_of(connection: Connection, account: str, names: Collection[str]) -> list[str]:
    """Return the inputs of contacts that are about somebody of these names."""
    query = select(contacts.c.input).where(about_contacts(account, names))
    found = {*connection.execute(query).scalars()}
    # Those whose one form nobody has looked for yet, for a moment after they came.
    new = not_formed(connection, account, NOT_FORMED)
    return sorted(found | {input_ for input_ in new if own_digits(input_) in names})


def spellings_of(connection: Connection, account: str, inputs: Collection[str]) -> set[str]:
    """Return the digits by which the numbers of these inputs of contacts may be asked about."""
    ours = contacts.c
    query = select(ours.input, ours.canonical)
    query = query.where(ours.account == account, ours.input.in_(inputs))
    forms = (full_number(*row) for row in connection.execute(query))
    return {form for form in forms if form is not None}


def about_contacts(account: str, names: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that a contact is about somebody of these names."""
    ours = contacts.c
    about = or_(ours.input.in_(names), ours.wa_id.in_(names), ours.canonical.in_(names))
    return and_(ours.account == account, about)


def begin(
    connection: Connection, account: str, user_id: int, names: Collection[str], now: int
) -> None:
    """Take the names away from a user, and note by which the logs are to be searched.

    Where they are searched for this user already, the note says so by a later time.
    """
    known = noted(connection, user_id) or Noted([], 0)
    forget_names(connection, [user_id])
    connection.execute(delete(unverified).where(unverified.c.user_id == user_id))
    connection.execute(
        update(users).where(users.c.merged_into == user_id).values(erased_at=now, **_NOTHING)
    )
    delete_contacts(connection, account, names)
    asked_at = max(now, known.asked_at + 1)
    row = {"names": json.dumps(sorted({*known.names, *names})), "asked_at": asked_at}
    upsert(connection, erasures, {"user_id": user_id, **row}, ["user_id"], row)


_NOTHING: dict[str, Any] = {"wa_id": "", "user_id": None, "links": None, "blocked_ids": None}


class Noted(NamedTuple):
    """By which names the logs are still to be searched, and when (Unix ms) that was asked for."""

    names: Sequence[str]
    asked_at: int


def noted(connection: Connection, user_id: int) -> Noted | None:
    """Return what is noted of a user's erasure; None where it has ended."""
    query = select(erasures.c.names, erasures.c.asked_at).where(erasures.c.user_id == user_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else Noted(json.loads(row.names), row.asked_at)


class Unfinished(NamedTuple):
    """An erasure that has not ended: whose, and when (Unix ms) it was asked for."""

    user_id: int
    account: str
    asked_at: int


def unfinished(connection: Connection) -> list[Unfinished]:
    """Return the erasures that have not ended, the oldest first."""
    query = select(users.c.id, users.c.account, erasures.c.asked_at)
    query = query.join(erasures, erasures.c.user_id == users.c.id).order_by(erasures.c.asked_at)
    return [Unfinished(*row) for row in connection.execute(query)]


def delete_contacts(connection: Connection, account: str, names: Collection[str]) -> int:
    """Delete the contacts about somebody of these names; return how many that were."""
    inputs = inputs_of(connection, account, names)
    mine = contacts.c.account == account, contacts.c.input.in_(inputs)
    return connection.execute(delete(contacts).where(*mine)).rowcount


def end(connection: Connection, user_id: int, asked_at: int) -> None:
    """Note that nothing is left to be searched for a user, unless that was asked for again."""
    mine = erasures.c.user_id == user_id, erasures.c.asked_at == asked_at
    connection.execute(delete(erasures).where(*mine))


# What is searched.


class Found(NamedTuple):
    """The rows that a look found, how far it came, and whether there is more to look at."""

    rows: Sequence[Row[Any]]
    last: Any
    more: bool


@dataclass(frozen=True, slots=True)
class Search:
    """Whom to look for: the names, and what the table that is searched calls the account."""

    names: Sequence[str]
    owners: Sequence[str]

    @property
    def spelled(self) -> list[str]:
        """The names, also as JSON writes them."""
        written = {form for name in self.names for form in (name, json.dumps(name)[1:-1])}
        return sorted(written | {form.replace("/", "\\/") for form in written})

    def in_text(self, connection: Connection, *columns: Column[Any]) -> ColumnElement[bool]:
        """Return the condition that a text holds one of the names, perhaps within a longer one."""
        found = func.instr if is_in_order(connection) else func.strpos
        pairs = ((column, name) for column in columns for name in self.spelled)
        return or_(false(), *(found(column, name) > 0 for column, name in pairs))


def look_at_callbacks(connection: Connection, search: Search, after: int) -> Found:
    """Look at callbacks of these accounts, whoever is in their bodies.

    A name may be spelled there in any way, so the bodies are for their reader to search.
    """
    rows = journal.c
    which = rows.id > after, settled(connection, rows.id)
    query = select(rows.id, rows.account, func.length(rows.body).label("size")).where(*which)
    last, more, size, ids = after, False, 0, []
    for row in connection.execute(query.order_by(rows.id).limit(ROWS)).all():
        last, more = row.id, True
        if row.size and row.account in search.owners:
            ids.append(row.id)
            size += row.size
            if size >= BYTES:
                break
    return Found(callbacks_by_id(connection, ids), last, more)


def callbacks_by_id(connection: Connection, ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Return callbacks with their bodies, those that are there still."""
    rows = journal.c
    query = select(rows.id, rows.account, rows.received_at, rows.content_encoding, rows.body)
    return [*connection.execute(query.where(rows.id.in_(ids)).order_by(rows.id))] if ids else []


def look_at_events(connection: Connection, search: Search, after: int) -> Found:
    """Look for events that hold one of these names, perhaps within a longer one."""
    rows = events.c
    found = select(rows.id, rows.at, rows.type, rows.names, rows.data)
    found = found.where(rows.account.in_(search.owners))
    found = found.where(search.in_text(connection, rows.names, rows.data))
    return _look(connection, rows.id, found, after, settled(connection, rows.id))


def look_at_links(connection: Connection, search: Search, after: int) -> Found:
    """Look for users who are linked with somebody of these names."""
    found = select(users.c.id).where(users.c.account.in_(search.owners))
    found = found.where(search.in_text(connection, users.c.links))
    return _look(connection, users.c.id, found, after, true())


def look_at_recipients(connection: Connection, search: Search, after: str) -> Found:
    """Look for messages that were for somebody of these names."""
    rows = message_recipients.c
    found = select(rows.message_id.label("id"), rows.at).where(rows.alias.in_(search.names))
    mine = rows.account == search.owners[0]
    return _look(connection, rows.message_id, found.where(mine), after, mine)


def _look(
    connection: Connection,
    key: Column[Any],
    found: Select[Any],
    after: Any,
    which: ColumnElement[bool],
) -> Found:
    """Look at the next rows by a key: at so many, and return so many at most."""
    page = select(key).where(key > after, which).order_by(key).limit(ROWS)
    keys = connection.execute(page).scalars().all()
    if not keys:
        return Found((), after, more=False)
    within = found.where(key > after, key <= keys[-1]).order_by(key).limit(FOUND)
    rows = connection.execute(within).all()
    return Found(rows, rows[-1].id if len(rows) == FOUND else keys[-1], more=True)


class Left(NamedTuple):
    """A callback: its body as it was read, and what is left of it."""

    id: int
    read: bytes
    left: bytes


def replace_bodies(connection: Connection, bodies: Sequence[Left]) -> list[int]:
    """Write what is left of callbacks; one of which nothing is left is `erased`.

    Returns the ids of those that are gone, or have another body than the one that was read.
    """
    changed = []
    for id_, read, left in bodies:
        values: dict[str, Any] = {"body": left}
        if not left:
            values |= {"state": ERASED, "reason": None}
        mine = journal.c.id == id_, journal.c.body == read
        if not connection.execute(update(journal).where(*mine).values(values)).rowcount:
            changed.append(id_)
    return changed


def delete_events(connection: Connection, ids: Sequence[int]) -> int:
    """Delete events. The newest of all is emptied: else its id would be given a second time."""
    newest = connection.execute(select(func.max(events.c.id))).scalar()
    emptied = update(events).where(events.c.id.in_(ids), events.c.id == newest)
    count = connection.execute(emptied.values(names="[]", data=NOTHING_TOLD)).rowcount
    gone = delete(events).where(events.c.id.in_(ids), events.c.id != newest)
    return count + connection.execute(gone).rowcount


def forget_recipients_of(connection: Connection, account: str, ids: Sequence[str]) -> int:
    """Forget whom messages were for."""
    rows = message_recipients.c
    mine = rows.account == account, rows.message_id.in_(ids)
    return connection.execute(delete(message_recipients).where(*mine)).rowcount


def delete_answers(connection: Connection, search: Search, asked_at: int) -> int:
    """Delete what requests with an Idempotency-Key were answered about somebody of these names.

    So are requests of before a time (Unix ms) that have no answer yet: theirs may be about that
    one, and is not kept when it comes.
    """
    rows = idempotency.c
    is_open = and_(rows.answer.is_(None), rows.created_at <= asked_at)
    about = or_(search.in_text(connection, rows.answer), is_open)
    mine = rows.account == search.owners[0]
    return connection.execute(delete(idempotency).where(mine, about)).rowcount


OF_NO_ACCOUNT = ("/", "")
"""What relays write before a name where the account is not known; the latter is of old rows."""


def rename_in_deliveries(connection: Connection, search: Search) -> int:
    """Take somebody of these names out of the rows of relays; return in how many that one was."""
    rows = deliveries.c
    query = select(rows.relay, rows.id, rows.names).where(search.in_text(connection, rows.names))
    owners = f"{search.owners[0]}/", *OF_NO_ACCOUNT
    gone = {f"{owner}{name}": f"{owner}{ERASED_ALIAS}" for owner in owners for name in search.names}
    count, found = 0, [*connection.execute(query)]
    while found:
        row = found.pop()
        before = json.loads(row.names)
        after = [gone.get(name, name) for name in before]
        if after != before:
            mine = rows.relay == row.relay, rows.id == row.id
            values = {"names": json.dumps(sorted(set(after))), "answer": None}
            renamed = update(deliveries).where(*mine, rows.names == row.names).values(values)
            is_written = connection.execute(renamed).rowcount
            count += is_written
            if not is_written:  # another one wrote it meanwhile
                found += connection.execute(query.where(*mine)).all()
    return count


def note_rows_erased(connection: Connection, now: int) -> None:
    """Note that rows of the logs were changed, for whoever holds some in memory."""
    row = {"value": str(now)}
    upsert(connection, installation, {"key": ERASED_ROWS_KEY, **row}, ["key"], row)


def rows_erased(connection: Connection) -> str | None:
    """Return when rows of the logs were changed last."""
    query = select(installation.c.value).where(installation.c.key == ERASED_ROWS_KEY)
    return connection.execute(query).scalar()
