"""The journal and the audit trail tell which request a callback or an entry came with."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""


def upgrade() -> None:
    """Add a column at the end of each table. What an older release writes has none."""
    op.add_column("journal", sa.Column("request_id", sa.Text, nullable=True))
    op.add_column("audit", sa.Column("request_id", sa.Text, nullable=True))
