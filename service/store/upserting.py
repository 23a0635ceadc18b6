"""INSERT … ON CONFLICT, which SQLAlchemy has in a class of its own for each database."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def upsert(
    connection: Connection,
    table: Table,
    row: Mapping[str, Any],
    key: Sequence[str],
    instead: Mapping[str, Any],
) -> None:
    """Insert a row; where there is one with the same key, set some of its columns instead."""
    of_dialect = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = of_dialect(table).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=instead))
