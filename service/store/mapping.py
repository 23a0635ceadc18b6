"""Rows of the tables and the objects of the model: from one to the other, without I/O."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from service.model.contacts import Check, Contact, OptIn
from service.model.event_log import LoggedEvent
from service.model.recipients import ManualBlock, Recipient
from service.model.timeline import Change, Moment, Precision
from service.model.users import (
    AuditEntry,
    Identity,
    Kind,
    Link,
    State,
    User,
    Work,
    is_user_id,
    moved_to,
)
from service.store.digests import digest_of, new_salt

USER_COLUMNS = (
    "id", "account", "wa_id", "user_id", "named_at", "created_at", "hash", "changed_at",
    "changed_precision", "received_at", "seen", "claims", "decided_by", "decided_at",
    "acknowledged_at", "state", "version", "updated_at", "due_at", "attempts", "last_error",
    "after_hold", "disputed", "confirmed_at", "checked_at", "blocked_since", "blocked_ids", "links",
    "wrote_at", "merged_into", "owner_since", "erased_at", "has_work", "has_ask", "history_count",
)  # fmt: skip
CHANGE_COLUMNS = (
    "user_id", "hash", "first_at", "changed_at", "changed_precision", "received_at", "seen",
    "claims", "outcome", "decided_by", "decided_at", "acknowledged_at",
)  # fmt: skip
AUDIT_COLUMNS = (
    "account", "user_id", "at", "event", "hash", "decided_by", "reason", "note", "evidence",
    "request_id", "salt", "digest",
)  # fmt: skip
OUTBOX_COLUMNS = (
    "account", "user_id", "kind", "due_at", "hash", "reason", "request_id", "attempts",
    "refusals", "begun", "holder", "lease_until",
)  # fmt: skip
RECIPIENT_COLUMNS = (
    "u.id", "u.wa_id", "u.state", "u.received_at", "u.blocked_since", "u.wrote_at", "u.checked_at",
    "u.user_id", "u.hash", "u.links", "u.owner_since",
    "u.erased_at", "u.after_hold", "b.since", "b.until", "b.reason", "v.user_id",
)  # fmt: skip
"""What makes a `Recipient`: of the tables `users`, `blocks` and `unverified`."""
CONTACT_COLUMNS = (
    "account", "input", "wa_id", "status", "checked_at", "digests", "canonical", "asked_at",
    "due_at", "attempts", "forced", "opt_in_at", "opt_in_how", "answered_at",
)  # fmt: skip

EVENT_COLUMNS = ("id", "at", "account", "type", "names", "data")


def dump(value: Sequence[Any] | Mapping[str, Any] | None) -> str | None:
    """Write a list or an object as JSON; None for an empty one."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode() if value else None


def load(text: str | None) -> Any:
    """Read what `dump` wrote; None for None."""
    return None if text is None else orjson.loads(text)


def _dump_seen(seen: Sequence[Moment]) -> str:
    return orjson.dumps([[moment.at, int(moment.precision)] for moment in seen]).decode()


def _load_seen(text: str) -> list[Moment]:
    return [Moment(at, Precision(precision)) for at, precision in orjson.loads(text)]


def user_of(row: Sequence[Any]) -> User:
    """Build a user from a row in the order of USER_COLUMNS, without history and work."""
    (
        id_, account, wa_id, user_id, named_at, created_at, hash_, changed_at, changed_precision,
        received_at, seen, claims, decided_by, decided_at, acknowledged_at, state, version,
        updated_at, due_at, attempts, last_error, after_hold, disputed, confirmed_at, checked_at,
        blocked_since, blocked_ids, links, wrote_at, merged_into, owner_since, erased_at, _, _, _,
    ) = row  # fmt: skip
    latest = None
    if state is not None:
        latest = Change(
            hash_,
            Moment(changed_at, Precision(changed_precision)),
            received_at,
            _load_seen(seen),
            load(claims) or [],
            decided_by=load(decided_by),
            decided_at=decided_at,
            acknowledged_at=acknowledged_at,
        )
    return User(
        id=id_,
        account=account,
        wa_id=wa_id or None,
        user_id=user_id,
        named_at=named_at,
        merged_into=merged_into,
        owner_since=owner_since,
        erased_at=erased_at,
        created_at=created_at,
        identity=Identity(
            latest=latest,
            state=None if state is None else State(state),
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
    )


def user_row(user: User, history_count: int) -> tuple[Any, ...]:
    """Write a user in the order of USER_COLUMNS."""
    identity = user.identity
    return (
        user.id,
        user.account,
        user.wa_id or "",
        user.user_id,
        user.named_at,
        user.created_at,
        *_latest_columns(identity.latest),
        None if identity.state is None else str(identity.state),
        identity.version,
        identity.updated_at,
        identity.due_at,
        identity.attempts,
        identity.last_error,
        identity.after_hold,
        identity.disputed,
        identity.confirmed_at,
        identity.checked_at,
        identity.blocked_since,
        dump(user.blocked_ids),
        dump([(x.alias, x.relation, x.since.at, int(x.since.precision)) for x in user.links]),
        user.wrote_at,
        user.merged_into,
        user.owner_since,
        user.erased_at,
        identity.work is not None,
        identity.ask is not None,
        history_count,
    )


def _latest_columns(latest: Change | None) -> tuple[Any, ...]:
    if latest is None:
        return (None,) * 9
    return (
        latest.hash,
        latest.changed.at,
        int(latest.changed.precision),
        latest.received_at,
        _dump_seen(latest.seen),
        dump(latest.claims),
        dump(latest.decided_by),
        latest.decided_at,
        latest.acknowledged_at,
    )


def _link_of(item: list[Any]) -> Link:
    alias, relation, at, precision = item
    return Link(alias, relation, Moment(at, Precision(precision)))


def change_of(row: Sequence[Any]) -> Change:
    """Build an entry of the history from an id and a row in the order of CHANGE_COLUMNS."""
    (
        _, _, hash_, _, changed_at, changed_precision, received_at, seen, claims, outcome,
        decided_by, decided_at, acknowledged_at,
    ) = row  # fmt: skip
    return Change(
        hash_ or None,
        Moment(changed_at, Precision(changed_precision)),
        received_at,
        _load_seen(seen),
        load(claims) or [],
        outcome,
        load(decided_by),
        decided_at,
        acknowledged_at,
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
        dump(change.decided_by),
        change.decided_at,
        change.acknowledged_at,
    )


def audit_row(account: str | None, user_id: int | None, entry: AuditEntry) -> tuple[Any, ...]:
    """Write an audit entry in the order of AUDIT_COLUMNS, with a salt of its own."""
    evidence = dump(entry.evidence)
    personal = (
        entry.hash, dump(entry.by), entry.reason, entry.note, evidence, entry.request_id,
    )  # fmt: skip
    salt = new_salt()
    return (account, user_id, entry.at, entry.event, *personal, salt, digest_of(salt, personal))


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
        work.begun,
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
        tuple(orjson.loads(digests)),
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
        orjson.dumps(contact.digests).decode(),
        contact.canonical,
        *((contact.unanswered_since, None, None, None) if check is None else check),
        *((None,) * 2 if opt_in is None else opt_in),
        contact.answered_at,
    )


def recipient_of(row: Sequence[Any]) -> Recipient:
    """Build a recipient from a row: an alias, and what RECIPIENT_COLUMNS name."""
    (
        _, id_, wa_id, state, received_at, blocked_since, wrote_at, checked_at, user_id, hash_,
        links, owner_since, erased_at, after_hold, since, until, reason, unverified,
    ) = row  # fmt: skip
    moved = blocked = None
    if links is not None:
        moved = moved_to([_link_of(item) for item in orjson.loads(links)], owner_since)
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
        erased_at,
        bool(after_hold),
    )


def called(recipient: Recipient, alias: str) -> Recipient:
    """Return who was erased under the name that was asked for, unless there is another by now."""
    if recipient.alias:
        return recipient
    if is_user_id(alias):
        return recipient._replace(user_id=alias)
    return recipient._replace(wa_id=alias)


def event_row(event_id: int, event: LoggedEvent) -> tuple[Any, ...]:
    """Write an event of the event log in the order of EVENT_COLUMNS."""
    names, data = orjson.dumps(event.names).decode(), orjson.dumps(event.data).decode()
    return event_id, event.at, event.account, str(event.type), names, data
