"""The Cloud API: users with a user id, perhaps that alone, and for whom messages were."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration.

From the first account of the Cloud API on it has to know this one: the service records that when it
starts with such an account.
"""

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MERGED = "merged_into IS NOT NULL"


def upgrade() -> None:
    """Add what the Cloud API needs; columns at the end of a table cost no rewriting of it."""
    op.add_column("users", sa.Column("user_id", sa.Text))
    op.add_column("users", sa.Column("named_at", BIG))
    op.add_column("users", sa.Column("merged_into", BIG))
    op.create_index(
        "ix_users_merged",
        "users",
        ["merged_into"],
        sqlite_where=sa.text(MERGED),
        postgresql_where=sa.text(MERGED),
    )
    op.create_table(
        "message_recipients",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("alias", sa.Text, nullable=False),
        sa.Column("at", BIG, nullable=False),
        sa.PrimaryKeyConstraint("account", "message_id", name="pk_message_recipients"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_message_recipients_at", "message_recipients", ["at"])
