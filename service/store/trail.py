"""The audit trail as a whole: entries are appended with digests, sealed, and verified.

Ranges of settled entries are sealed one after another, each seal made of the one before, of the
number of the range, its end, and how many entries it has. So nothing can be changed, removed or
added without all later seals being made anew; whoever has noted one elsewhere finds that out. Of an
entry that was erased the digest stays, and nothing that it is of; the entry that says so is later.
What was deleted as too old is told by an entry as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)

from service.store.digests import PERSONAL, SealedEntry, digest_of, new_salt, seal_of
from service.store.logs import append, settled
from service.store.retention import Chunk, Limits
from service.store.schema import audit, audit_seals, users

ROWS = 500
"""Entries of one range, at most: one transaction seals, or deletes, one."""
RANGES = 100
"""Ranges that are deleted at once, at most."""
MAX_FAULTS = 20

KEPT_EVENTS = ("erased", "exported")
"""Events of a user whose entries say nothing of that user."""

DELETED = "audit_deleted"
"""Event of the entry that tells how much of the trail was deleted as too old."""

_PERSONAL = [audit.c[name] for name in PERSONAL]
_SEALED = (
    audit.c.id,
    audit.c.at,
    audit.c.event,
    audit.c.account,
    audit.c.user_id,
)

_WHOSE = func.coalesce(users.c.merged_into, audit.c.user_id)


def append_entries(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append entries, those that no batch of the ledger writes. Raises as `append` does.

    A backup that is marked as restored may be older than digests: it gets them later.
    """
    if rows and any(
        column["name"] == "salt" for column in inspect(connection).get_columns("audit")
    ):
        rows = [_with_digest(row) for row in rows]
    append(connection, audit, rows)


def _with_digest(row: Mapping[str, Any]) -> dict[str, Any]:
    salt = new_salt()
    return {**row, "salt": salt, "digest": digest_of(salt, [row.get(name) for name in PERSONAL])}


# Sealing.


class Seal(NamedTuple):
    """The seal of a range, by its number; as text it is what people note elsewhere."""

    number: int
    digest: bytes

    def __str__(self) -> str:
        return f"{self.number}:{self.digest.hex()}"


def read_seal(text: str) -> Seal | None:
    """Return a seal that was noted as NUMBER:HEX; None of any other text."""
    number, _, digest = text.strip().partition(":")
    try:
        return Seal(int(number), bytes.fromhex(digest)) if digest else None
    except ValueError:
        return None


def has_unsealed(connection: Connection) -> bool:
    """Return whether there are settled entries that are not sealed."""
    _, last_id, _ = _last_seal(connection)
    query = select(audit.c.id).where(audit.c.id > last_id, settled(connection, audit.c.id)).limit(1)
    return connection.execute(query).first() is not None


def seal_next(connection: Connection, now: int) -> str | None:
    """Seal the next entries, at most `ROWS`, and return the seal; None where none is left."""
    number, last_id, previous = _last_seal(connection)
    here = audit.c.id > last_id, settled(connection, audit.c.id)
    ids = connection.execute(select(audit.c.id).where(*here).order_by(audit.c.id).limit(ROWS))
    found = [*ids.scalars()]
    if not found:
        return None
    give_digests(connection, found)
    # Read after that: what is erased meanwhile keeps its digest.
    query: Select[Any] = select(*_SEALED, audit.c.digest).where(audit.c.id.in_(found))
    query = query.order_by(audit.c.id)
    entries = [_sealed(row, bytes(row.digest)) for row in connection.execute(query)]
    seal = Seal(number + 1, seal_of(number + 1, previous, entries))
    row = {
        "id": seal.number,
        "at": now,
        "last_id": entries[-1].id,
        "entries": len(entries),
        "seal": seal.digest,
    }
    connection.execute(insert(audit_seals).values(row))
    return str(seal)


def _sealed(row: Row[Any], digest: bytes) -> SealedEntry:
    return SealedEntry(row.id, row.at, row.event, row.account, row.user_id, digest)


def _last_seal(connection: Connection) -> tuple[int, int, bytes]:
    """Return number, last entry, and seal of the last range; of none before the first."""
    columns = audit_seals.c.id, audit_seals.c.last_id, audit_seals.c.seal
    row = connection.execute(select(*columns).order_by(audit_seals.c.id.desc()).limit(1)).first()
    return (0, 0, b"") if row is None else (row.id, row.last_id, bytes(row.seal))


def give_digests(connection: Connection, ids: Sequence[int]) -> None:
    """Give digests to those of these entries that have none: a release wrote none.

    They are locked until the transaction ends: who seals them and who erases them may be two, and
    only the first may make a digest, for it has all that the entry says.
    """
    query = select(audit.c.id, *_PERSONAL).where(audit.c.id.in_(ids), audit.c.digest.is_(None))
    rows = connection.execute(query.order_by(audit.c.id).with_for_update()).all()
    given = [_with_digest({name: getattr(row, name) for name in PERSONAL}) for row in rows]
    values = [
        {"of": row.id, "salt": one["salt"], "digest": one["digest"]}
        for row, one in zip(rows, given, strict=True)
    ]
    if values:
        new: dict[str, Any] = {name: bindparam(name) for name in ("salt", "digest")}
        connection.execute(update(audit).where(audit.c.id == bindparam("of")).values(new), values)


def erase_entries(connection: Connection, user_id: int, until: int, limit: int) -> int:
    """Erase what entries of a user say up to a time (Unix ms), so many at most.

    Returns how many that were. Their digests stay, and so does who erased or exported.
    """
    gone = select(users.c.id).where(users.c.merged_into == user_id)
    user_ids = [user_id, *connection.execute(gone).scalars()]
    some = [*_PERSONAL, audit.c.salt]
    said = audit.c.salt.is_not(None) | audit.c.digest.is_(None)
    query = select(audit.c.id).where(audit.c.user_id.in_(user_ids))
    query = query.where(said, audit.c.at <= until, audit.c.event.not_in(KEPT_EVENTS))
    ids = [*connection.execute(query.order_by(audit.c.id).limit(limit)).scalars()]
    give_digests(connection, ids)
    nothing = {column.name: None for column in some}
    connection.execute(update(audit).where(audit.c.id.in_(ids)).values(nothing))
    return len(ids)


# Verifying.


@dataclass(slots=True)
class Verification:
    """What was found: sealed ranges and entries, those erased, and those not sealed yet.

    `begins_after` is the id up to which the trail was deleted as too old, and `seal` the last seal,
    as NUMBER:HEX. `faults` say what is not as it was sealed, the first twenty; `not_verified` what
    nothing can be said about.
    """

    ranges: int = 0
    entries: int = 0
    erased: int = 0
    unsealed: int = 0
    begins_after: int = 0
    seal: str | None = None
    faults: list[str] = field(default_factory=list)
    not_verified: list[str] = field(default_factory=list)


def verify(
    connection: Connection, noted: Sequence[Seal] = (), *, deletes: bool = True
) -> Verification:
    """Compare the whole trail with its seals, and these with those that were noted elsewhere.

    `deletes` is whether anything is ever deleted as too old: else a missing beginning is a fault.
    """
    found, faults = Verification(), _Faults()
    erased = _erased(connection)
    wanted = {seal.number for seal in noted}
    there: dict[int, bytes] = {}
    previous, last_id, first = Seal(0, b""), 0, 0
    for row in _seals(connection):
        seal = Seal(row.id, bytes(row.seal))
        if not first and row.deleted_at is not None:
            _compare_beginning(connection, faults, row, deletes=deletes)
            found.begins_after = row.last_id
        else:
            sealed = [*_entries(connection, found, faults, erased, last_id, row.last_id)]
            _compare_range(faults, row, previous, last_id, sealed)
            found.ranges += 1
        if seal.number in wanted:
            there[seal.number] = seal.digest
        first = first or seal.number
        previous, last_id = seal, row.last_id
    sealed_entries = found.entries
    found.unsealed = sum(1 for _ in _entries(connection, found, faults, erased, last_id, None))
    found.entries = sealed_entries
    found.seal = str(previous) if first else None
    deleted_below = first if found.begins_after else 0
    found.not_verified += _compare_noted(faults, noted, there, deleted_below)
    if not first:
        found.not_verified.append("the whole trail: there is no seal")
    if found.begins_after:
        found.not_verified.append(f"the entries up to {found.begins_after}, which were deleted")
    if found.unsealed:
        found.not_verified.append(f"{found.unsealed} entries that are not sealed yet")
    found.faults = faults.said
    return found


def _compare_range(
    faults: "_Faults", row: Row[Any], previous: Seal, after: int, sealed: Sequence[SealedEntry]
) -> None:
    """Note what is wrong with a range that is there: with its place, its entries, or its seal."""
    name = f"range {row.id} (entries {after + 1} to {row.last_id})"
    if row.id != previous.number + 1:
        faults.note(f"the seal of range {previous.number + 1} is missing")
    if row.deleted_at is not None:
        faults.note(f"{name}: called too old, but it is not at the beginning")
    if len(sealed) != row.entries:
        faults.note(f"{name}: {row.entries} entries were sealed, {len(sealed)} are there")
    elif seal_of(row.id, previous.digest, sealed) != bytes(row.seal):
        faults.note(f"{name}: not as it was sealed")


def _compare_noted(
    faults: "_Faults", noted: Sequence[Seal], there: Mapping[int, bytes], deleted_below: int
) -> Iterator[str]:
    """Compare seals that were noted with those that are there; yield what can't be compared."""
    for seal in noted:
        if there.get(seal.number) == seal.digest:
            continue
        if seal.number in there:
            faults.note(f"the seal of range {seal.number} is not the one that was noted")
        elif 0 < seal.number < deleted_below:
            yield f"the noted seal of range {seal.number}, which was deleted"
        else:
            faults.note(f"the seal of range {seal.number} was noted, and is not there")


def _compare_beginning(
    connection: Connection, faults: "_Faults", row: Row[Any], *, deletes: bool
) -> None:
    """Note what is wrong with the last range that was deleted as too old."""
    name = f"range {row.id} (entries up to {row.last_id})"
    left = select(func.count()).where(audit.c.id <= row.last_id)
    if connection.execute(left).scalar_one():
        faults.note(f"{name}: entries that were deleted are there")
    end = _end_of_note(Seal(row.id, bytes(row.seal)))
    told = select(audit.c.id).where(audit.c.event == DELETED, audit.c.note.endswith(end))
    if connection.execute(told.limit(1)).first() is None:
        faults.note(f"{name}: deleted, and no entry {DELETED} says so")
    if not deletes:
        faults.note(f"{name}: deleted, although retention.audit_days keeps all for ever")


def _erased(connection: Connection) -> dict[int, tuple[int, int]]:
    """Return of each user that was erased the time and id of the last entry that says so.

    Who turned out to be another, before or since, is that one.
    """
    last = func.max(audit.c.at), func.max(audit.c.id)
    query = select(_WHOSE, *last).outerjoin(users, users.c.id == audit.c.user_id)
    query = query.where(audit.c.event == "erased", audit.c.user_id.is_not(None)).group_by(_WHOSE)
    return {user_id: (at, id_) for user_id, at, id_ in connection.execute(query)}


def _seals(connection: Connection) -> Iterator[Row[Any]]:
    """Yield all seals in their order."""
    after, rows = 0, [*_page_of_seals(connection, 0)]
    while rows:
        yield from rows
        after = rows[-1].id
        rows = [*_page_of_seals(connection, after)]


def _page_of_seals(connection: Connection, after: int) -> Sequence[Row[Any]]:
    query = select(audit_seals).where(audit_seals.c.id > after).order_by(audit_seals.c.id)
    return connection.execute(query.limit(ROWS)).all()


class _Faults:
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, fault: str) -> None:
        if len(self.said) < MAX_FAULTS:
            self.said.append(fault)


def _entries(
    connection: Connection,
    found: Verification,
    faults: _Faults,
    erased: Mapping[int, tuple[int, int]],
    after: int,
    until: int | None,
) -> Iterator[SealedEntry]:
    """Yield the entries after an id, up to another, and compare each with its digest."""
    query = (
        select(*_SEALED, audit.c.digest, audit.c.salt, _WHOSE.label("whose"), *_PERSONAL)
        .outerjoin(users, users.c.id == audit.c.user_id)
        .order_by(audit.c.id)
    )
    while True:
        place = audit.c.id > after if until is None else audit.c.id.between(after + 1, until)
        rows = connection.execute(query.where(place).limit(ROWS)).all()
        for row in rows:
            found.entries += 1
            after = row.id
            if row.digest is None:
                if until is not None:
                    faults.note(f"entry {row.id}: without a digest")
                yield _sealed(row, b"")
                continue
            personal = [getattr(row, name) for name in PERSONAL]
            digest = bytes(row.digest)
            if row.salt is not None:
                if digest_of(bytes(row.salt), personal) != digest:
                    faults.note(f"entry {row.id}: not what was written")
            elif any(value is not None for value in personal) or not _is_erased(row, erased):
                faults.note(f"entry {row.id}: not what was written, and not erased later")
            else:
                found.erased += 1
            yield _sealed(row, digest)
        if len(rows) < ROWS:
            return


def _is_erased(row: Row[Any], erased: Mapping[int, tuple[int, int]]) -> bool:
    """Return whether an entry that is later says that the user of this one was erased."""
    at, id_ = erased.get(row.whose, (-1, -1))
    return bool(at >= row.at or id_ > row.id)


# Deleting what is too old.


def next_sealed(
    connection: Connection, limits: Limits, _after: int, rows: int, _size: int
) -> Chunk:
    """Look at the oldest ranges that are left: which are to go? One goes as a whole, or stays.

    The newest entry of all stays, else SQLite would give its id a second time.
    """
    if not limits.applied:
        return Chunk((), 0, more=False)
    newest = connection.execute(select(func.max(audit.c.id))).scalar() or 0
    kept = audit_seals.c.deleted_at.is_(None), audit_seals.c.last_id < newest
    oldest = select(audit_seals).where(*kept).order_by(audit_seals.c.id).limit(RANGES)
    ids: list[int] = []
    entries = after = 0
    for row in connection.execute(oldest):
        entries += row.entries
        latest = select(func.max(audit.c.at)).where(audit.c.id.between(after, row.last_id))
        at = connection.execute(latest).scalar()
        if (at is not None and at >= limits.applied) or (ids and entries > rows):
            break
        ids.append(row.id)
        after = row.last_id + 1
    return Chunk(tuple(ids), 0, more=bool(ids))


def delete_sealed(connection: Connection, ids: Sequence[int], limits: Limits) -> int:
    """Delete the entries of these ranges, and keep of their seals the last; return how many went.

    The next range is verified by it. An entry tells what went, so that nobody takes it for a cut.
    """
    if not ids:
        return 0
    mine = audit_seals.c.id == max(ids)
    row = connection.execute(select(audit_seals).where(mine)).one()
    old = audit.c.id <= row.last_id
    latest = connection.execute(select(func.max(audit.c.at)).where(old)).scalar() or 0
    gone = connection.execute(delete(audit).where(old)).rowcount
    connection.execute(update(audit_seals).where(mine).values(deleted_at=limits.now))
    connection.execute(delete(audit_seals).where(audit_seals.c.id < row.id))
    day = datetime.fromtimestamp(latest / 1000, UTC).isoformat(timespec="seconds")
    note = f"{gone} entries, up to {row.last_id} of {day}"
    note += _end_of_note(Seal(row.id, bytes(row.seal)))
    entry = {"at": limits.now, "event": "audit_deleted", "reason": "retention", "note": note}
    append_entries(connection, [entry])
    return gone


def _end_of_note(seal: Seal) -> str:
    """Return the end of the note by which an entry tells of deleted ranges: the last one's seal."""
    return f"; the last seal was {seal}"
