"""PostgreSQL: whoever writes gives the ids of users and of what is read by position.

Those of the journal, the audit trail and the event log follow the order of commits, which the
database's own counting does not; those of users are taken before there is a row. On SQLite nothing
changes: one process writes, and counts.
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""


def upgrade() -> None:
    """Take the defaults of these ids away, and make what gives them instead."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in ("journal", "audit", "events", "users"):
        op.execute(f"ALTER TABLE {table} ALTER COLUMN id DROP DEFAULT")
        op.execute(f"DROP SEQUENCE {table}_id_seq")
    op.execute("CREATE SEQUENCE user_ids INCREMENT BY 10000")  # taken in blocks
    for table in ("relays", "deliveries", "relay_replays"):  # named as the keys of all others are
        op.execute(f"ALTER TABLE {table} RENAME CONSTRAINT {table}_pkey TO pk_{table}")
    op.execute("INSERT INTO installation (key, value) VALUES ('log_offset', '0')")
