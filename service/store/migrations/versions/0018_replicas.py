"""Replicas: who leads, what each tells the others, and what is asked of the leader."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables, and add the columns."""
    op.create_table(
        "leadership",
        sa.Column("term", BIG, autoincrement=False, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("until", BIG, nullable=False),
        sa.PrimaryKeyConstraint("term", name=op.f("pk_leadership")),
    )
    op.execute("INSERT INTO leadership (term, holder, until) VALUES (0, '', 0)")
    op.create_table(
        "replicas",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("seen_at", BIG, nullable=False),
        sa.Column("report", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replicas")),
    )
    no = sa.false()
    op.add_column(
        "deliveries", sa.Column("retry_asked", sa.Boolean, nullable=False, server_default=no)
    )
    op.add_column("unverified", sa.Column("wanted_at", BIG))
    op.add_column("relays", sa.Column("resumed_at", BIG))
    for name, table, columns, which in (
        ("ix_deliveries_retry_asked", "deliveries", ["relay", "id"], "retry_asked"),
        ("ix_unverified_wanted", "unverified", ["wanted_at"], "wanted_at IS NOT NULL"),
    ):
        where = sa.text(which)
        op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
