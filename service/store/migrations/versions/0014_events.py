"""The event log, the issues that it has raised, and the epoch that its ids belong to.

Blocks that have ended are deleted, as the service does from now on when it tells of their end:
nobody shall be told today of one that ended last year.
"""

import secrets
import time

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0012"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables, and give the database an epoch unless a restore has done so."""
    op.create_table(
        "events",
        sa.Column("id", BIG, nullable=False),
        sa.Column("at", BIG, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("names", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_table(
        "raised_issues",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "code", "subject", name=op.f("pk_raised_issues")),
        sqlite_with_rowid=False,
    )
    blocks = sa.table("blocks", sa.column("until", BIG))
    op.execute(sa.delete(blocks).where(blocks.c.until <= time.time_ns() // 1_000_000))
    ends = sa.text("until IS NOT NULL")
    op.create_index(
        "ix_blocks_until", "blocks", ["until"], sqlite_where=ends, postgresql_where=ends
    )
    installation = sa.table(
        "installation", sa.column("key", sa.Text()), sa.column("value", sa.Text())
    )
    mine = installation.c.key == "epoch"
    if op.get_bind().execute(sa.select(sa.exists().where(mine))).scalar():
        return
    op.execute(sa.insert(installation).values(key="epoch", value=secrets.token_hex(4)))
