"""Queries of contacts and of their checks: what is known, what is open, what was spent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    union_all,
    update,
)

from service.model.budget import Usage
from service.model.contacts import FAILED, FRESH_MS, INVALID, PROCESSING, VALID, Contact, OptIn
from service.store.mapping import (
    CONTACT_COLUMNS,
    contact_of,
)
from service.store.schema import (
    aliases,
    contact_days,
    contacts,
    idempotency,
    users,
)
from service.store.upserting import upsert
from service.store.users import CHUNK

_CONTACT = [contacts.c[name] for name in CONTACT_COLUMNS]


def find_contacts(
    connection: Connection, account: str, inputs: Sequence[str]
) -> dict[str, Contact]:
    """Return contacts by their literal input."""
    found = {}
    for start in range(0, len(inputs), CHUNK):
        query = (
            select(*_CONTACT)
            .where(contacts.c.account == account)
            .where(contacts.c.input.in_(inputs[start : start + CHUNK]))
        )
        for row in connection.execute(query):
            contact = contact_of(row)
            found[contact.input] = contact
    return found


def newest_contacts(
    connection: Connection, account: str, wa_ids: Sequence[str]
) -> dict[str, Contact]:
    """Return for each wa_id the newest result of any number that led to it."""
    found = {}
    order = (contacts.c.checked_at.desc(), contacts.c.id.desc())
    place = func.row_number().over(partition_by=contacts.c.wa_id, order_by=order)
    for start in range(0, len(wa_ids), CHUNK):
        ranked = (
            select(*_CONTACT, place.label("place"))
            .where(contacts.c.account == account)
            .where(contacts.c.wa_id.in_(wa_ids[start : start + CHUNK]))
            .subquery()
        )
        query = select(*(ranked.c[name] for name in CONTACT_COLUMNS)).where(ranked.c.place == 1)
        for row in connection.execute(query):
            contact = contact_of(row)
            found[contact.wa_id or ""] = contact
    return found


@dataclass(frozen=True, slots=True)
class ContactFilter:
    """Which contacts a list shows: of an account, and with one of these inputs or wa_ids."""

    account: str
    inputs: Sequence[str] = ()
    wa_ids: Sequence[str] = ()


def list_contacts(
    connection: Connection, wanted: ContactFilter, after: int, limit: int
) -> list[tuple[int, Contact]]:
    """Return a page of contacts with their row ids."""
    query = select(contacts.c.id, *_CONTACT).order_by(contacts.c.id).limit(limit)
    if wanted.inputs or wanted.wa_ids:
        ids = sorted(_ids_of(connection, wanted, after, limit))[:limit]
        query = query.where(contacts.c.id.in_(ids))
    else:
        query = query.where(contacts.c.account == wanted.account, contacts.c.id > after)
    return [(row[0], contact_of(row[1:])) for row in connection.execute(query)]


LOOKED_FOR = 50
"""Wa_ids that one statement looks for, each by itself: one may have more contacts than a page."""


def _ids_of(connection: Connection, wanted: ContactFilter, after: int, limit: int) -> set[int]:
    """Return the ids after a place of contacts with one of the inputs or wa_ids."""
    id_, of_account = contacts.c.id, contacts.c.account == wanted.account
    found: set[int] = set()
    for start in range(0, len(wanted.inputs), CHUNK):
        inputs = wanted.inputs[start : start + CHUNK]
        by_input = select(id_).where(of_account, contacts.c.input.in_(inputs))
        found.update(one for one in connection.execute(by_input).scalars() if one > after)
    for start in range(0, len(wanted.wa_ids), LOOKED_FOR):
        firsts = [
            select(id_).where(of_account, contacts.c.wa_id == wa_id, id_ > after)
            for wa_id in wanted.wa_ids[start : start + LOOKED_FOR]
        ]
        pages = [first.order_by(id_).limit(limit).subquery() for first in firsts]
        together = union_all(*(select(page.c.id) for page in pages))
        found.update(connection.execute(together).scalars())
    return found


WRITTEN_STEP_MS = 6 * 3_600_000
"""A contact's `written_at` is moved only when it is older than this: few rows are written."""


class Known(NamedTuple):
    """What is known of a number in any spelling: a fresh result or an open check; an opt-in."""

    counted: bool
    opt_in: OptIn | None


def known_numbers(
    connection: Connection, account: str, forms: Sequence[str], now: int
) -> dict[str, Known]:
    """Return what is known of numbers by their canonical form."""
    found: dict[str, Known] = {}
    fresh = and_(contacts.c.status.in_((VALID, INVALID)), contacts.c.checked_at > now - FRESH_MS)
    counted = or_(fresh, contacts.c.due_at.is_not(None))
    for start in range(0, len(forms), CHUNK):
        query = (
            select(
                contacts.c.canonical,
                case((counted, 1), else_=0),
                contacts.c.opt_in_at,
                contacts.c.opt_in_how,
            )
            .where(contacts.c.account == account)
            .where(contacts.c.canonical.in_(forms[start : start + CHUNK]))
        )
        for form, is_counted, at, how in connection.execute(query):
            before = found.get(form, Known(counted=False, opt_in=None))
            opt_in = before.opt_in if at is None else OptIn(at, how)
            found[form] = Known(before.counted or bool(is_counted), opt_in)
    return found


def due_inputs(connection: Connection, account: str, now: int, limit: int) -> list[str]:
    """Return the inputs whose checks are due to be asked again, the longest due first."""
    query = (
        select(contacts.c.input)
        .where(contacts.c.account == account, contacts.c.due_at <= now)
        .order_by(contacts.c.due_at)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def next_due_check(connection: Connection, account: str) -> int | None:
    """Return when (Unix ms) the next check is to be asked again."""
    query = select(func.min(contacts.c.due_at)).where(contacts.c.account == account)
    return connection.execute(query.where(contacts.c.due_at.is_not(None))).scalar()


def bring_checks_near(connection: Connection, account: str, now: int, latest: int) -> None:
    """Let no check be due later than it could be if the clock is right; it was set back."""
    late = and_(contacts.c.account == account, contacts.c.due_at > latest)
    connection.execute(update(contacts).where(late).values(due_at=now))


def open_checks(connection: Connection) -> dict[str, int]:
    """Count the checks that are open, by account."""
    query = select(contacts.c.account, func.count()).where(contacts.c.due_at.is_not(None))
    return {row[0]: row[1] for row in connection.execute(query.group_by(contacts.c.account))}


def end_checks(connection: Connection, account: str) -> None:
    """Return up the checks that are open, for there is no client any more that could answer.

    A number that never had a result is `failed` then; what was known of the others stays.
    """
    is_open = (contacts.c.account == account, contacts.c.due_at.is_not(None))
    status = case((contacts.c.status == PROCESSING, FAILED), else_=contacts.c.status)
    ended = {"asked_at": None, "due_at": None, "attempts": None, "forced": None}
    _lock(connection, *is_open)
    connection.execute(update(contacts).where(*is_open).values(status=status, **ended))


def _lock(connection: Connection, *which: ColumnElement[bool]) -> None:
    """Lock contacts in the order in which every transaction does."""
    query = select(contacts.c.id).where(*which).order_by(contacts.c.account, contacts.c.input)
    connection.execute(query.with_for_update(key_share=True)).all()


class Place(NamedTuple):
    """Where a walk through the contacts is: after this time of a check (Unix ms) and this id."""

    checked_at: int
    id: int = 0


class Expiring(NamedTuple):
    """A stretch of a walk: the inputs to renew, and where it ended; None for the end of it all."""

    inputs: list[str]
    place: Place | None


def expiring(
    connection: Connection,
    account: str,
    after: Place,
    until: int,
    active_since: int,
    *,
    opted_in: bool,
    limit: int,
) -> Expiring:
    """Look at some contacts last checked before `until`, and give those worth a new check.

    That is: valid, not asked about in vain since, no newer result or open check of the same wa_id,
    and the business wrote to it, or it wrote, since then (Unix ms); where `opted_in` is asked for,
    with an opt-in.
    """
    other = contacts.alias()
    newer = exists().where(
        other.c.account == account,
        other.c.wa_id == contacts.c.wa_id,
        or_(
            other.c.due_at.is_not(None),
            other.c.checked_at > contacts.c.checked_at,
            and_(other.c.checked_at == contacts.c.checked_at, other.c.id > contacts.c.id),
        ),
    )
    # No EXISTS: PostgreSQL would look for all users of the account first.
    wrote_at = (
        select(users.c.wrote_at)
        .join(aliases, aliases.c.user_id == users.c.id)
        .where(aliases.c.account == account, aliases.c.alias == contacts.c.wa_id)
        .scalar_subquery()
    )
    active = or_(contacts.c.written_at >= active_since, wrote_at >= active_since)
    wanted = and_(contacts.c.due_at.is_(None), contacts.c.asked_at.is_(None), active, ~newer)
    if opted_in:
        wanted = and_(wanted, contacts.c.opt_in_at.is_not(None))
    query = (
        select(
            contacts.c.id,
            contacts.c.checked_at,
            contacts.c.input,
            case((wanted, 1), else_=0),
        )
        .where(contacts.c.account == account, contacts.c.status == _literal(VALID))
        .where(contacts.c.checked_at < until, contacts.c.checked_at >= after.checked_at)
        .where(or_(contacts.c.checked_at > after.checked_at, contacts.c.id > after.id))
        .order_by(contacts.c.checked_at, contacts.c.id)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    inputs = [row[2] for row in rows if row[3]]
    more = len(rows) == limit
    return Expiring(inputs, Place(rows[-1][1], rows[-1][0]) if more else None)


def _literal(value: str) -> object:
    """Write a value into the statement itself, so that a partial index is seen to fit."""
    return bindparam(None, value, literal_execute=True)


def not_formed(connection: Connection, account: str, limit: int) -> list[str]:
    """Return inputs whose canonical form nobody looked for yet."""
    query = (
        select(contacts.c.input)
        .where(contacts.c.account == account, contacts.c.canonical.is_(None))
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def form(connection: Connection, account: str, forms: Iterable[tuple[str, str]]) -> None:
    """Write down the canonical forms of inputs, empty for those that have none."""
    rows = [{"of_input": input_, "form": form_} for input_, form_ in forms]
    if rows:
        inputs = [row["of_input"] for row in rows]
        _lock(connection, contacts.c.account == account, contacts.c.input.in_(inputs))
        statement = (
            update(contacts)
            .where(contacts.c.account == account, contacts.c.input == bindparam("of_input"))
            .values(canonical=bindparam("form"))
        )
        connection.execute(statement, rows)


def note_written(connection: Connection, account: str, wa_ids: Sequence[str], now: int) -> None:
    """Note that the business wrote to these, where that was not noted within some hours.

    A contact that another transaction works on just now is passed over: nothing that comes after
    the loading of a batch may wait for another one. The next message has it noted.
    """
    noted = contacts.c.written_at
    stale = or_(noted.is_(None), noted < now - WRITTEN_STEP_MS)
    for start in range(0, len(wa_ids), CHUNK):
        query = (
            select(contacts.c.id)
            .where(contacts.c.account == account, stale)
            .where(contacts.c.wa_id.in_(wa_ids[start : start + CHUNK]))
            .with_for_update(key_share=True, skip_locked=True)
        )
        ids = connection.execute(query).scalars().all()
        if ids:
            chosen = contacts.c.id.in_(ids)
            connection.execute(update(contacts).where(chosen).values(written_at=now))


def usage(connection: Connection, account: str, first_day: int) -> Usage:
    """Sum up what an account did since a UTC day (of 1970), that day included."""
    days = contact_days.c
    query = select(*(func.sum(c) for c in (days.checks, days.forced, days.sent, days.delivered)))
    row = connection.execute(query.where(days.account == account, days.day >= first_day)).one()
    return Usage(*(int(value or 0) for value in row))


def add_usage(connection: Connection, account: str, day: int, added: Usage) -> None:
    """Add to what an account did on a UTC day (of 1970)."""
    days = contact_days.c
    values = {
        "checks": added.checks,
        "forced": added.forced,
        "sent": added.sent,
        "delivered": added.delivered,
    }
    row = {"account": account, "day": day, **values}
    summed = {name: days[name] + value for name, value in values.items()}
    upsert(connection, contact_days, row, ("account", "day"), summed)


class Repeat(NamedTuple):
    """A request that came before: what it was, by its digest, and its answer, None while none."""

    digest: str
    answer: str | None


def find_request(
    connection: Connection, account: str, caller: str, key: str, since: int
) -> Repeat | None:
    """Find a request by its Idempotency-Key, if it is not older than this (Unix ms)."""
    table = idempotency.c
    query = select(table.digest, table.answer).where(
        table.account == account,
        table.caller == caller,
        table.key == key,
        table.created_at >= since,
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else Repeat(row[0], row[1])


def keep_request(
    connection: Connection,
    account: str,
    caller: str,
    key: str,
    digest: str,
    now: int,
    before: int = 0,
) -> None:
    """Keep a request by its Idempotency-Key, in the place of one from before a time (Unix ms).

    Where another replica has kept it meanwhile its key is taken: the transaction runs again.
    """
    which = {"account": account, "caller": caller, "key": key}
    mine = [idempotency.c[name] == value for name, value in which.items()]
    connection.execute(delete(idempotency).where(*mine, idempotency.c.created_at < before))
    values = {"digest": digest, "created_at": now, "answer": None}
    connection.execute(insert(idempotency).values({**which, **values}))


def keep_answer(connection: Connection, account: str, caller: str, key: str, answer: str) -> None:
    """Keep what a request was answered."""
    table = idempotency.c
    connection.execute(
        update(idempotency)
        .where(table.account == account, table.caller == caller, table.key == key)
        .values(answer=answer)
    )


def has_old_requests(connection: Connection, before: int) -> bool:
    """Return whether a request is older than this (Unix ms)."""
    oldest = connection.execute(select(func.min(idempotency.c.created_at))).scalar()
    return oldest is not None and oldest < before


def forget_requests(connection: Connection, before: int, limit: int) -> int:
    """Forget some requests that are older than this (Unix ms); return how many."""
    table = idempotency.c
    old = (
        select(table.account, table.caller, table.key).where(table.created_at < before).limit(limit)
    ).with_for_update(skip_locked=True)  # one that is made anew just now is not old any more
    rows = connection.execute(old).all()
    for account, caller, key in rows:
        connection.execute(
            delete(idempotency).where(
                table.account == account, table.caller == caller, table.key == key
            )
        )
    return len(rows)
