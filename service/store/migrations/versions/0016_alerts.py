"""Alerts: which issues each destination was told of."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "alerted_issues",
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint(
            "destination", "account", "code", "subject", name=op.f("pk_alerted_issues")
        ),
        sqlite_with_rowid=False,
    )
