"""Rows of the tables and the objects of the model: from one to the other, pure."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from service.model.contacts import Check, Contact, OptIn
from service.model.recipients import ManualBlock, Recipient
from service.model.timeline import Change, Moment, Precision
from service.model.users import AuditEntry, By, Identity, Kind, Link, State, User, Work, moved_to

FRESH_COLUMNS = (
    "id", "account", "wa_id", "created_at", "hash", "changed_at", "changed_precision",
    "received_at", "seen", "decided_by", "decided_at", "state", "version", "updated_at", "due_at",
    "checked_at", "has_work",
)  # fmt: skip
LATER_COLUMNS = {
    "wrote_at": None, "acknowledged_at": None, "user_id": None, "named_at": None, "links": None,
    "blocked_since": None, "blocked_ids": None, "claims": None, "confirmed_at": None, "attempts": 0,
    "last_error": None, "after_hold": 0, "disputed": 0, "history_count": 0, "has_ask": 0,
    "merged_into": None, "owner_since": None,
}  # fmt: skip
"""What a user's first callback mostly leaves as it is, and how.

The driver takes longer to bind a None, a bool or an enum than a number or a text: an adapter is
looked for each time. So what is as usual is left out of a user's first row, and texts are made of
enums.
"""
WRITER = len(FRESH_COLUMNS) + 4
"""So many columns are enough for who has written, and was trusted at once (Cloud API)."""
USER_COLUMNS = (*FRESH_COLUMNS, *LATER_COLUMNS)
CHANGE_COLUMNS = (
    "user_id", "hash", "first_at", "changed_at", "changed_precision", "received_at", "seen",
    "claims", "outcome", "decided_by", "decided_at", "acknowledged_at",
)  # fmt: skip
AUDIT_COLUMNS = (
    "account", "user_id", "at", "event", "hash", "reason", "decided_by", "note", "evidence",
)  # fmt: skip
SHORT_AUDIT = 6
"""So many columns are enough where nobody decided; one more where a policy did."""
OUTBOX_COLUMNS = (
    "account", "user_id", "kind", "due_at", "hash", "reason", "request_id", "attempts",
    "refusals", "begun", "holder", "lease_until",
)  # fmt: skip
RECIPIENT_COLUMNS = (
    "u.id", "u.wa_id", "u.state", "u.received_at", "u.blocked_since", "u.wrote_at", "u.checked_at",
    "u.user_id", "u.hash", "u.links", "u.owner_since",
    "b.since", "b.until", "b.reason", "v.user_id",
)  # fmt: skip
"""What makes a `Recipient`: of the tables `users`, `blocks` and `unverified`."""
CONTACT_COLUMNS = (
    "account", "input", "wa_id", "status", "checked_at", "digests", "canonical", "asked_at",
    "due_at", "attempts", "forced", "opt_in_at", "opt_in_how", "answered_at",
)  # fmt: skip

_loads = json.JSONDecoder().decode
_PRECISIONS = tuple(Precision)
_STATES: dict[str | None, State | None] = {None: None, **{str(state): state for state in State}}
_dumps = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


def dump(value: Sequence[Any] | Mapping[str, Any] | None) -> str | None:
    """Write a list or an object; nothing for an empty one."""
    return _dumps(value) if value else None


def load(text: str | None) -> Any:
    """Read what `dump` wrote; None for nothing."""
    return None if text is None else _loads(text)


def _dump_by(by: By | None) -> str | None:
    """Write who decided; mostly it is the same policy, which is written once."""
    return None if by is None else _write_by(tuple(by.items()))


@lru_cache(maxsize=256)
def _write_by(by: tuple[tuple[str, str], ...]) -> str:
    return _dumps(dict(by))


def _dump_seen(seen: list[Moment]) -> str:
    if len(seen) == 1:
        return f"[[{seen[0][0]},{seen[0][1]:d}]]"
    return _dumps(seen)


def _load_by(text: str | None) -> By | None:
    """Read who decided; few do, so that each is read once. Nobody changes what is given."""
    return None if text is None else _read_by(text)


@lru_cache(maxsize=256)
def _read_by(text: str) -> By:
    by: By = _loads(text)
    return by


def _load_seen(text: str) -> list[Moment]:
    if text.count(",") == 1:
        at, _, precision = text[2:-2].partition(",")
        return [Moment(int(at), _PRECISIONS[int(precision)])]
    return [Moment(at, _PRECISIONS[precision]) for at, precision in _loads(text)]


def user_of(row: Sequence[Any]) -> User:
    """Build a user from a row in the order of USER_COLUMNS, without history and work."""
    (
        id_, account, wa_id, created_at, hash_, changed_at, changed_precision, received_at, seen,
        decided_by, decided_at, state, version, updated_at, due_at, checked_at, has_work,
        wrote_at, acknowledged_at, user_id, named_at, links, blocked_since, blocked_ids, claims,
        confirmed_at, attempts, last_error, after_hold, disputed, history_count, has_ask,
        merged_into, owner_since,
    ) = row  # fmt: skip
    latest = None
    if state is not None:
        latest = Change(
            hash_,
            Moment(changed_at, _PRECISIONS[changed_precision]),
            received_at,
            _load_seen(seen),
            load(claims) or [],
            decided_by=_load_by(decided_by),
            decided_at=decided_at,
            acknowledged_at=acknowledged_at,
            touched=False,
        )
    return User(
        id=id_,
        account=account,
        wa_id=wa_id or None,
        user_id=user_id,
        named_at=named_at,
        merged_into=merged_into,
        owner_since=owner_since,
        created_at=created_at,
        identity=Identity(
            latest=latest,
            state=_STATES[state],
            version=version,
            updated_at=updated_at,
            due_at=due_at,
            attempts=attempts,
            last_error=last_error,
            after_hold=bool(after_hold),
            disputed=bool(disputed),
            confirmed_at=confirmed_at,
            checked_at=checked_at,
            blocked_since=blocked_since,
        ),
        blocked_ids=load(blocked_ids) or [],
        links=[_link_of(item) for item in load(links) or ()],
        wrote_at=wrote_at,
        history_count=history_count,
        had_work=bool(has_work),
        had_ask=bool(has_ask),
    )


def _link_of(item: list[Any]) -> Link:
    alias, relation, at, precision = item
    return Link(alias, relation, Moment(at, _PRECISIONS[precision]))


def user_row(user: User) -> tuple[Any, ...]:
    """Write a user in the order of USER_COLUMNS."""
    identity, latest = user.identity, user.identity.latest
    return (
        user.id,
        user.account,
        user.wa_id or "",
        user.created_at,
        *_latest_columns(latest),
        None if identity.state is None else str(identity.state),
        identity.version,
        identity.updated_at,
        identity.due_at,
        identity.checked_at,
        int(identity.work is not None),
        user.wrote_at,
        latest.acknowledged_at if latest else None,
        user.user_id,
        user.named_at,
        _dump_links(user.links) if user.links else None,
        identity.blocked_since,
        dump(user.blocked_ids),
        dump(latest.claims) if latest else None,
        identity.confirmed_at,
        identity.attempts,
        identity.last_error,
        int(identity.after_hold),
        int(identity.disputed),
        user.history_count,
        int(identity.ask is not None),
        user.merged_into,
        user.owner_since,
    )


def _dump_links(links: list[Link]) -> str | None:
    return dump([(x.alias, x.relation, x.since.at, x.since.precision) for x in links])


def _latest_columns(latest: Change | None) -> tuple[Any, ...]:
    if latest is None:
        return (None,) * 7
    return (
        latest.hash,
        latest.changed.at,
        int(latest.changed.precision),
        latest.received_at,
        _dump_seen(latest.seen),
        _dump_by(latest.decided_by),
        latest.decided_at,
    )


def change_of(row: Sequence[Any]) -> Change:
    """Build an entry of the history from an id and a row in the order of CHANGE_COLUMNS."""
    (
        id_, _, hash_, _, changed_at, changed_precision, received_at, seen, claims, outcome,
        decided_by, decided_at, acknowledged_at,
    ) = row  # fmt: skip
    return Change(
        hash_ or None,
        Moment(changed_at, _PRECISIONS[changed_precision]),
        received_at,
        _load_seen(seen),
        load(claims) or [],
        outcome,
        _load_by(decided_by),
        decided_at,
        acknowledged_at,
        id_,
        touched=False,
    )


def change_row(user_id: int, change: Change) -> tuple[Any, ...]:
    """Write an entry of the history in the order of CHANGE_COLUMNS."""
    return (
        user_id,
        change.hash or "",
        change.first.at,
        change.changed.at,
        int(change.changed.precision),
        change.received_at,
        _dump_seen(change.seen),
        dump(change.claims),
        change.outcome,
        _dump_by(change.decided_by),
        change.decided_at,
        change.acknowledged_at,
    )


def audit_row(account: str | None, user_id: int | None, entry: AuditEntry) -> tuple[Any, ...]:
    """Write an audit entry in the order of AUDIT_COLUMNS."""
    return (
        account,
        user_id,
        entry.at,
        entry.event,
        entry.hash,
        entry.reason,
        _dump_by(entry.by),
        entry.note,
        dump(entry.evidence),
    )


def work_of(row: Sequence[Any]) -> Work:
    """Build leased work from a row in the order of OUTBOX_COLUMNS."""
    (
        _, _, kind, due_at, hash_, reason, request_id, attempts, refusals, begun, holder,
        lease_until,
    ) = row  # fmt: skip
    return Work(
        Kind(kind),
        due_at,
        hash_,
        reason,
        request_id,
        attempts,
        refusals,
        bool(begun),
        holder,
        lease_until,
    )


def work_row(user: User, work: Work) -> tuple[Any, ...]:
    """Write leased work in the order of OUTBOX_COLUMNS."""
    return (
        user.account,
        user.id,
        str(work.kind),
        work.due_at,
        work.hash,
        work.reason,
        work.request_id,
        work.attempts,
        work.refusals,
        int(work.begun),
        work.holder,
        work.lease_until,
    )


def contact_of(row: Sequence[Any]) -> Contact:
    """Build a contact from a row in the order of CONTACT_COLUMNS."""
    (
        account, input_, wa_id, status, checked_at, digests, canonical, asked_at, due_at, attempts,
        forced, opt_in_at, opt_in_how, answered_at,
    ) = row  # fmt: skip
    return Contact(
        account,
        input_,
        status,
        wa_id,
        checked_at,
        tuple(json.loads(digests)),
        canonical,
        None if due_at is None else Check(asked_at, due_at, attempts, bool(forced)),
        None if opt_in_at is None else OptIn(opt_in_at, opt_in_how),
        answered_at,
        asked_at if due_at is None else None,
    )


def contact_row(contact: Contact) -> tuple[Any, ...]:
    """Write a contact in the order of CONTACT_COLUMNS."""
    check, opt_in = contact.check, contact.opt_in
    return (
        contact.account,
        contact.input,
        contact.wa_id,
        contact.status,
        contact.checked_at,
        _dumps(contact.digests),
        contact.canonical,
        *((contact.unanswered_since, None, None, None) if check is None else check),
        *((None,) * 2 if opt_in is None else opt_in),
        contact.answered_at,
    )


def recipient_of(row: Sequence[Any]) -> Recipient:
    """Build a recipient from a row: an alias, and what RECIPIENT_COLUMNS name."""
    (
        _, id_, wa_id, state, received_at, blocked_since, wrote_at, checked_at, user_id, hash_,
        links, owner_since, since, until, reason, unverified,
    ) = row  # fmt: skip
    moved = blocked = None
    if links is not None:
        moved = moved_to([_link_of(item) for item in _loads(links)], owner_since)
    if since is not None:
        blocked = ManualBlock(since, until, reason)
    signs = (state, blocked_since, wrote_at, links, checked_at)
    return Recipient(
        id_,
        wa_id,
        state,
        received_at,
        blocked_since,
        moved,
        wrote_at,
        signs != (None,) * len(signs),
        unverified is not None,
        blocked,
        user_id,
        hash_,
    )
