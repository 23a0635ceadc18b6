"""Privacy: a digest beside what an audit entry says of persons, seals, and who was erased.

Entries that are there already get their digests as they are sealed, a few at a time: so do those
that an earlier release still writes beside this one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns, and create the tables."""
    op.add_column("audit", sa.Column("salt", sa.LargeBinary))
    op.add_column("audit", sa.Column("digest", sa.LargeBinary))
    op.create_table(
        "audit_seals",
        sa.Column("id", BIG, autoincrement=False, nullable=False),
        sa.Column("at", BIG, nullable=False),
        sa.Column("last_id", BIG, nullable=False),
        sa.Column("entries", sa.Integer, nullable=False),
        sa.Column("seal", sa.LargeBinary, nullable=False),
        sa.Column("deleted_at", BIG),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_seals")),
    )
    op.add_column("users", sa.Column("erased_at", BIG))
    op.create_table(
        "erased_aliases",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("user_id", BIG, nullable=False),
        sa.PrimaryKeyConstraint("account", "digest", name=op.f("pk_erased_aliases")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_erased_aliases_user_id_users")
        ),
        sqlite_with_rowid=False,
    )
    for column in ("user_id", "digest"):
        op.create_index(f"ix_erased_aliases_{column}", "erased_aliases", [column])
    op.create_table(
        "erasures",
        sa.Column("user_id", BIG, autoincrement=False, nullable=False),
        sa.Column("names", sa.Text, nullable=False),
        sa.Column("asked_at", BIG, nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_erasures")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_erasures_user_id_users")),
    )
