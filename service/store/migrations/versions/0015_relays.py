"""Relays: how far each has come, what failed while others passed, and what is sent once more."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "relays",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("position", BIG, nullable=False),
        sa.Column("read_up_to", BIG, nullable=False),
        sa.Column("undone", sa.Text, nullable=False),
        sa.Column("paused_by", sa.Text),
        sa.Column("last_delivered_at", BIG),
        sa.Column("skipped", BIG, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "deliveries",
        sa.Column("relay", sa.Text, primary_key=True),
        sa.Column("id", BIG, primary_key=True),
        sa.Column("log_id", BIG, nullable=False),
        sa.Column("replay", BIG, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", BIG, nullable=False),
        sa.Column("gives_up_at", BIG),
        sa.Column("kinds", sa.Text, nullable=False),
        sa.Column("names", sa.Text, nullable=False),
        sa.Column("is_of_one", sa.Boolean, nullable=False),
        sa.Column("last_status", sa.Integer),
        sa.Column("last_error", sa.Text),
        sa.Column("answer", sa.Text),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "relay_replays",
        sa.Column("id", BIG, primary_key=True),
        sa.Column("relay", sa.Text, nullable=False),
        sa.Column("position", BIG, nullable=False),
        sa.Column("until_id", BIG, nullable=False),
        sa.Column("requested_at", BIG, nullable=False),
    )
