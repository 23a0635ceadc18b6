"""Since when it is known who has a number, and the names of a user: of two who are one person."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add a column at the end of the table, and an index.

    What an older release leaves out of the column keeps `number_changed` standing, no more.
    """
    op.add_column("users", sa.Column("owner_since", BIG))
    op.create_index("ix_aliases_user_id", "aliases", ["user_id"])
