"""Issues that a person dismissed, until the next callback that is one."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create their table."""
    op.create_table(
        "dismissals",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("journal_id", BIG, nullable=False),
        sa.Column("at", BIG, nullable=False),
        sa.PrimaryKeyConstraint("account", "code", "subject", name=op.f("pk_dismissals")),
        sqlite_with_rowid=False,
    )
