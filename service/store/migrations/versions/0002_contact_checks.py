"""Contact checks that are asked for: open ones, the budget, and requests that may be repeated."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns that may be null and tables of their own: the release before runs on them too."""
    for name, kind in (
        ("canonical", sa.Text()),
        ("asked_at", BIG),
        ("due_at", BIG),
        ("attempts", sa.Integer()),
        ("forced", sa.Boolean()),
        ("opt_in_at", BIG),
        ("opt_in_how", sa.Text()),
        ("written_at", BIG),
    ):
        op.add_column("contacts", sa.Column(name, kind, nullable=True))
    op.create_index("ix_contacts_account_canonical", "contacts", ["account", "canonical"])
    _create_partial_index("ix_contacts_open", ["account", "due_at"], "due_at IS NOT NULL")
    _create_partial_index("ix_contacts_valid", ["account", "checked_at", "id"], "status = 'valid'")
    op.create_table(
        "contact_days",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("checks", sa.Integer(), nullable=False),
        sa.Column("forced", sa.Integer(), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("delivered", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("account", "day", name=op.f("pk_contact_days")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "idempotency",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("created_at", BIG, nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("account", "caller", "key", name=op.f("pk_idempotency")),
    )
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"])


def _create_partial_index(name: str, columns: list[str], where: str) -> None:
    op.create_index(
        name,
        "contacts",
        columns,
        sqlite_where=sa.text(where),
        postgresql_where=sa.text(where),
    )
