"""The audit trail as a whole: entries are appended with digests, sealed, and verified.

Ranges of settled entries are sealed one after another, each seal made of the one before. So nothing
can be changed, removed or added without all later seals being made anew; whoever has noted one
elsewhere finds that out. Of an entry that was erased the digest stays, and nothing that it is of.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, inspect, select, update

from service.store.digests import PERSONAL, SealedEntry, digest_of, new_salt, seal_of
from service.store.logs import append, settled
from service.store.retention import Chunk, Limits
from service.store.schema import audit, audit_seals, users

ROWS = 500
"""Entries of one range, at most: one transaction seals, or deletes, one."""
MAX_FAULTS = 20

KEPT_EVENTS = ("erased", "exported")
"""Events of a user whose entries say nothing of that user."""

_PERSONAL = [audit.c[name] for name in PERSONAL]
_SEALED = (audit.c.id, audit.c.at, audit.c.event, audit.c.account, audit.c.user_id)


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


def has_unsealed(connection: Connection) -> bool:
    """Return whether there are settled entries that are not sealed."""
    _, last_id, _ = _last_seal(connection)
    query = select(audit.c.id).where(audit.c.id > last_id, settled(connection, audit.c.id)).limit(1)
    return connection.execute(query).first() is not None


def seal_next(connection: Connection, now: int) -> bytes | None:
    """Seal the next entries, at most `ROWS`, and return the seal; None where none is left."""
    number, last_id, previous = _last_seal(connection)
    query = (
        select(*_SEALED, audit.c.digest, *_PERSONAL)
        .where(audit.c.id > last_id, settled(connection, audit.c.id))
        .order_by(audit.c.id)
        .limit(ROWS)
    )
    rows = connection.execute(query).all()
    if not rows:
        return None
    given = give_digests(connection, [row for row in rows if row.digest is None])
    entries = [_sealed(row, given.get(row.id) or bytes(row.digest)) for row in rows]
    row = {
        "id": number + 1,
        "at": now,
        "last_id": entries[-1].id,
        "entries": len(entries),
        "seal": seal_of(previous, entries),
    }
    connection.execute(insert(audit_seals).values(row))
    return seal_of(previous, entries)


def _sealed(row: Row[Any], digest: bytes) -> SealedEntry:
    return SealedEntry(row.id, row.at, row.event, row.account, row.user_id, digest)


def _last_seal(connection: Connection) -> tuple[int, int, bytes]:
    """Return number, last entry, and seal of the last range; of none before the first."""
    columns = audit_seals.c.id, audit_seals.c.last_id, audit_seals.c.seal
    row = connection.execute(select(*columns).order_by(audit_seals.c.id.desc()).limit(1)).first()
    return (0, 0, b"") if row is None else (row.id, row.last_id, bytes(row.seal))


def give_digests(connection: Connection, rows: Sequence[Row[Any]]) -> dict[int, bytes]:
    """Give digests to entries of a release that had none; return them by id."""
    given = [_with_digest({name: getattr(row, name) for name in PERSONAL}) for row in rows]
    values = [
        {"of": row.id, "salt": one["salt"], "digest": one["digest"]}
        for row, one in zip(rows, given, strict=True)
    ]
    if values:
        new: dict[str, Any] = {name: bindparam(name) for name in ("salt", "digest")}
        connection.execute(update(audit).where(audit.c.id == bindparam("of")).values(new), values)
    return {value["of"]: value["digest"] for value in values}


def erase_entries(connection: Connection, user_id: int, until: int, limit: int) -> int:
    """Erase what entries of a user say up to a time (Unix ms), so many at most.

    Returns how many that were. Their digests stay, and so does who erased or exported.
    """
    gone = select(users.c.id).where(users.c.merged_into == user_id)
    user_ids = [user_id, *connection.execute(gone).scalars()]
    some = [*_PERSONAL, audit.c.salt]
    said = audit.c.salt.is_not(None) | audit.c.digest.is_(None)
    query = select(audit.c.id, audit.c.digest, *_PERSONAL).where(audit.c.user_id.in_(user_ids))
    query = query.where(said, audit.c.at <= until, audit.c.event.not_in(KEPT_EVENTS))
    rows = connection.execute(query.order_by(audit.c.id).limit(limit)).all()
    give_digests(connection, [row for row in rows if row.digest is None])
    ids = [row.id for row in rows]
    nothing = {column.name: None for column in some}
    connection.execute(update(audit).where(audit.c.id.in_(ids)).values(nothing))
    return len(ids)


# Verifying.


@dataclass(slots=True)
class Verification:
    """What was found: sealed ranges and entries, those erased, and those not sealed yet.

    `begins_after` is the id up to which the trail was deleted as too old, and `seal` the last seal,
    as hex. `faults` say what is not as it was sealed, the first twenty.
    """

    ranges: int = 0
    entries: int = 0
    erased: int = 0
    unsealed: int = 0
    begins_after: int = 0
    seal: str | None = None
    knows_seal: bool = False
    """Whether the seal that was asked for is one of them."""
    faults: list[str] | None = None


def verify(connection: Connection, noted: str | None = None) -> Verification:
    """Compare the whole trail with its seals; `noted` is one, as hex, that is to be among them."""
    found, faults = Verification(), _Faults()
    previous, last_id, number = b"", 0, 0
    for row in _seals(connection):
        if row.id != number + 1 and not (number == 0 and row.deleted_at is not None):
            faults.note(f"the seal of range {number + 1} is missing")
        expected, name = bytes(row.seal), f"range {row.id} (entries {last_id + 1} to {row.last_id})"
        if row.deleted_at is None:
            entries = _entries(connection, found, faults, last_id, row.last_id)
            sealed = [*entries]
            if len(sealed) != row.entries:
                faults.note(f"{name}: {row.entries} entries were sealed, {len(sealed)} are there")
            elif seal_of(previous, sealed) != expected:
                faults.note(f"{name}: not as it was sealed")
            found.ranges += 1
        else:
            left = select(func.count()).where(audit.c.id <= row.last_id)
            if connection.execute(left).scalar_one():
                faults.note(f"{name}: entries that were deleted are there")
            found.begins_after = row.last_id
        found.knows_seal = found.knows_seal or expected.hex() == noted
        previous, last_id, number = expected, row.last_id, row.id
    sealed_entries = found.entries
    for _ in _entries(connection, found, faults, last_id, None):
        found.unsealed += 1
    found.entries = sealed_entries
    found.seal = previous.hex() or None
    found.faults = faults.said
    return found


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
    connection: Connection, found: Verification, faults: _Faults, after: int, until: int | None
) -> Iterator[SealedEntry]:
    """Yield the entries after an id, up to another, and compare each with its digest."""
    query = (
        select(*_SEALED, audit.c.digest, audit.c.salt, users.c.erased_at, *_PERSONAL)
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
            elif row.erased_at is None or any(value is not None for value in personal):
                faults.note(f"entry {row.id}: not what was written, and of nobody who was erased")
            else:
                found.erased += 1
            yield _sealed(row, digest)
        if len(rows) < ROWS:
            return


# Deleting what is too old.


def next_sealed(
    connection: Connection, limits: Limits, _after: int, _rows: int, _size: int
) -> Chunk:
    """Look at the oldest range that is left: is it to go? It goes as a whole, or stays.

    The newest entry of all stays, else SQLite would give its id a second time.
    """
    if not limits.applied:
        return Chunk((), 0, more=False)
    kept = audit_seals.c.deleted_at.is_(None)
    oldest = select(audit_seals).where(kept).order_by(audit_seals.c.id).limit(1)
    row = connection.execute(oldest).first()
    newest = connection.execute(select(func.max(audit.c.id))).scalar() or 0
    if row is None or row.last_id >= newest:
        return Chunk((), 0, more=False)
    latest = select(func.max(audit.c.at)).where(audit.c.id <= row.last_id)
    at = connection.execute(latest).scalar()
    if at is not None and at >= limits.applied:
        return Chunk((), 0, more=False)
    return Chunk((row.id,), 0, more=True)


def delete_sealed(connection: Connection, ids: Sequence[int], limits: Limits) -> int:
    """Delete the entries of these ranges, and keep of their seals the last; return how many went.

    The next range is verified by it.
    """
    gone = 0
    for number in ids:
        mine = audit_seals.c.id == number
        last_id = connection.execute(select(audit_seals.c.last_id).where(mine)).scalar_one()
        gone += connection.execute(delete(audit).where(audit.c.id <= last_id)).rowcount
        connection.execute(update(audit_seals).where(mine).values(deleted_at=limits.now))
        connection.execute(delete(audit_seals).where(audit_seals.c.id < number))
    return gone
