"""Users whom a person blocks; and the gate reads the last word on a number off an index."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table of blocks, and let the index by wa_id hold all that the gate reads."""
    op.create_table(
        "blocks",
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", BIG, nullable=False),
        sa.Column("until", BIG, nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_blocks_user_id_users")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_blocks")),
    )
    op.drop_index("ix_contacts_account_wa_id", "contacts")
    op.create_index("ix_contacts_newest", "contacts", ["account", "wa_id", "checked_at", "status"])
