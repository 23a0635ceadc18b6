"""The points of the charts."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table. The first leader fills it from what the logs hold of the last day."""
    op.create_table(
        "points",
        sa.Column("step", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("at", BIG, autoincrement=False, nullable=False),
        sa.Column("series", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("times", BIG, nullable=False),
        sa.Column("total", BIG, nullable=False),
        sa.Column("longest", BIG, nullable=False),
        sa.PrimaryKeyConstraint("step", "at", "series", "name", name=op.f("pk_points")),
        sqlite_with_rowid=False,
    )
