"""Two indexes less for every new user: lists go by state, and nobody asks for a user's aliases."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""


def upgrade() -> None:
    """Drop them."""
    op.drop_index("ix_users_changed_at", "users")
    op.drop_index("ix_aliases_user_id", "aliases")
