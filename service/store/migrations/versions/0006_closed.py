"""The users who may close the gate, few as they are: the gate need not look at the others' rows."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""

CLOSED = (
    "state NOT IN ('acknowledged', 'awaiting_hash') "
    "OR blocked_since IS NOT NULL OR links IS NOT NULL OR user_id IS NOT NULL "
    "OR (state IS NULL AND wrote_at IS NULL AND checked_at IS NULL)"
)


def upgrade() -> None:
    """Add the index."""
    op.create_index(
        "ix_users_closed",
        "users",
        ["id"],
        sqlite_where=sa.text(CLOSED),
        postgresql_where=sa.text(CLOSED),
    )
