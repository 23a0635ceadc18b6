"""Contacts tell when the client last answered a check that was asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the time. Which results were asked for is not known: all of them count as such."""
    op.add_column("contacts", sa.Column("answered_at", BIG, nullable=True))
    op.execute("UPDATE contacts SET answered_at = checked_at WHERE status IN ('valid', 'invalid')")
