"""INSERT … ON CONFLICT, which SQLAlchemy has in a class of its own for each database."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, case
from sqlalchemy.dialects import postgresql, sqlite


def upsert(
    connection: Connection,
    table: Table,
    row: Mapping[str, Any],
    key: Sequence[str],
    instead: Mapping[str, Any],
) -> None:
    """Insert a row; where there is one with the same key, set some of its columns instead."""
    statement = _insert(connection)(table).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=instead))


def upsert_all(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    key: Sequence[str],
    kept: Sequence[str] = (),
) -> None:
    """Insert rows; where there is one with the same key, set all columns but some to the new."""
    if rows:
        statement = _insert(connection)(table)
        new = {name: statement.excluded[name] for name in rows[0] if name not in (*key, *kept)}
        statement = statement.on_conflict_do_update(index_elements=key, set_=new)
        connection.execute(statement, [dict(row) for row in rows])


def add_to_all(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    key: Sequence[str],
    *,
    added: Sequence[str],
    greatest: Sequence[str],
) -> None:
    """Insert rows; where there is one with the same key, add to some columns.

    Of others the greater value stays.
    """
    if not rows:
        return
    statement = _insert(connection)(table)
    new = {name: table.c[name] + statement.excluded[name] for name in added}
    for name in greatest:
        old, given = table.c[name], statement.excluded[name]
        new[name] = case((given > old, given), else_=old)
    statement = statement.on_conflict_do_update(index_elements=key, set_=new)
    connection.execute(statement, [dict(row) for row in rows])


def _insert(connection: Connection) -> Any:
    return sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
