"""All that is kept of one user, in the words of the tables; the logs page by page."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Column, Connection, Row, Table, select

from service.model.shapes import rfc3339
from service.store.erasing import find_user_id, inputs_of, names_of
from service.store.schema import (
    audit,
    blocks,
    changes,
    contacts,
    outbox,
    users,
)

_OURS = {
    "id", "version", "has_work", "has_ask", "history_count", "salt", "digest", "digests", "holder",
    "lease_until", "changed_precision", "merged_into",
}  # fmt: skip
"""Columns that say nothing of a person."""
_JSON = {"links", "blocked_ids", "seen", "claims", "decided_by", "evidence", "names", "data"}

PAGE = 500
MAX_ROWS = 10_000
"""Rows of a kind that are told, at most: the newest."""


def whole_user(connection: Connection, account: str, alias: str) -> dict[str, Any]:
    """Return what the tables hold of a user, but for the logs; of an unknown one the contacts."""
    user_id = find_user_id(connection, account, alias)
    names = names_of(connection, account, alias)
    found = [] if user_id is None else _rows(connection, users, users.c.id, user_id)
    mine = (
        contacts.c.account == account,
        contacts.c.input.in_(inputs_of(connection, account, names)),
    )
    query = select(contacts).where(*mine).order_by(contacts.c.id.desc())
    return {
        "names": sorted(names),
        "user": found[0] if found else None,
        "changes": _rows(connection, changes, changes.c.user_id, user_id),
        "block": next(iter(_rows(connection, blocks, blocks.c.user_id, user_id)), None),
        "work": _rows(connection, outbox, outbox.c.user_id, user_id),
        "contacts": [shown(row) for row in connection.execute(query.limit(MAX_ROWS))],
    }


def _rows(
    connection: Connection, table: Table, key: Column[Any], value: int | None
) -> list[dict[str, Any]]:
    order = table.primary_key.columns.values()[0].desc()
    query = select(table).where(key == value).order_by(order).limit(MAX_ROWS)
    return [shown(row) for row in connection.execute(query)] if value is not None else []


def audit_page(connection: Connection, user_id: int, after: int) -> Sequence[Row[Any]]:
    """Return the next entries of the audit trail about a user."""
    gone = select(users.c.id).where(users.c.merged_into == user_id)
    user_ids = [user_id, *connection.execute(gone).scalars()]
    query = select(audit).where(audit.c.user_id.in_(user_ids), audit.c.id > after)
    return connection.execute(query.order_by(audit.c.id).limit(PAGE)).all()


def shown(row: Row[Any]) -> dict[str, Any]:
    """Return a row with times in RFC 3339, and JSON as it is; without what is ours alone."""
    shown_by_name = row._asdict().items()
    return {str(name): _value(name, value) for name, value in shown_by_name if name not in _OURS}


def _value(name: str, value: Any) -> Any:
    if name in _JSON and isinstance(value, str):
        return orjson.loads(value)
    is_time = name.endswith("_at") or name in {"at", "since", "until", "blocked_since"}
    return rfc3339(value) if is_time and isinstance(value, int) else value
