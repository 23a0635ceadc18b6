"""The users whom a person has blocked."""

from sqlalchemy import Connection, delete, insert, select

from service.model.decisions import Block
from service.store.mapping import dump, load
from service.store.tables import blocks


def find_block(connection: Connection, user_id: int) -> Block | None:
    """Give the block of a user, in force or not."""
    row = connection.execute(select(blocks).where(blocks.c.user_id == user_id)).one_or_none()
    return None if row is None else Block(row.reason, row.since, load(row.decided_by), row.until)


def put_block(connection: Connection, user_id: int, block: Block | None) -> None:
    """Keep the block of a user in the place of one before it, or none any more."""
    connection.execute(delete(blocks).where(blocks.c.user_id == user_id))
    if block is None:
        return
    row = {
        "user_id": user_id,
        "reason": block.reason,
        "since": block.since,
        "until": block.until,
        "decided_by": dump(block.by),
    }
    connection.execute(insert(blocks).values(row))
