"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "accounts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("first_callback_at", BIG, nullable=True),
        sa.Column("last_callback_at", BIG, nullable=True),
        sa.Column("policy", sa.Text(), nullable=True),
        sa.Column("unverified_since", BIG, nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_accounts")),
    )
    op.create_table(
        "contacts",
        sa.Column("id", BIG, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("input", sa.Text(), nullable=False),
        sa.Column("wa_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("checked_at", BIG, nullable=False),
        sa.Column("digests", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contacts")),
        sa.UniqueConstraint("account", "input", name=op.f("uq_contacts_account_input")),
    )
    op.create_index("ix_contacts_account_wa_id", "contacts", ["account", "wa_id"], unique=False)
    op.create_table(
        "installation",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_installation")),
    )
    op.create_table(
        "journal",
        sa.Column("id", BIG, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("received_at", BIG, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("content_encoding", sa.Text(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("replayed_at", BIG, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal")),
    )
    op.create_index(
        "ix_journal_quarantined",
        "journal",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state = 'quarantined'"),
        postgresql_where=sa.text("state = 'quarantined'"),
    )
    op.create_table(
        "users",
        sa.Column("id", BIG, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("wa_id", sa.Text(), nullable=False),
        sa.Column("created_at", BIG, nullable=False),
        sa.Column("wrote_at", BIG, nullable=True),
        sa.Column("links", sa.Text(), nullable=True),
        sa.Column("blocked_since", BIG, nullable=True),
        sa.Column("blocked_ids", sa.Text(), nullable=True),
        sa.Column("hash", sa.Text(), nullable=True),
        sa.Column("changed_at", BIG, nullable=True),
        sa.Column("changed_precision", sa.Integer(), nullable=True),
        sa.Column("received_at", BIG, nullable=True),
        sa.Column("seen", sa.Text(), nullable=True),
        sa.Column("claims", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("updated_at", BIG, nullable=True),
        sa.Column("due_at", BIG, nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decided_at", BIG, nullable=True),
        sa.Column("acknowledged_at", BIG, nullable=True),
        sa.Column("confirmed_at", BIG, nullable=True),
        sa.Column("checked_at", BIG, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("after_hold", sa.Boolean(), nullable=False),
        sa.Column("disputed", sa.Boolean(), nullable=False),
        sa.Column("history_count", sa.Integer(), nullable=False),
        sa.Column("has_work", sa.Boolean(), nullable=False),
        sa.Column("has_ask", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_index("ix_users_changed_at", "users", ["changed_at", "id"], unique=False)
    op.create_index(
        "ix_users_state_changed_at", "users", ["state", "changed_at", "id"], unique=False
    )
    op.create_index(
        "ix_users_unsettled",
        "users",
        ["account", "checked_at"],
        unique=False,
        sqlite_where=sa.text("state IN ('pending', 'held', 'failed')"),
        postgresql_where=sa.text("state IN ('pending', 'held', 'failed')"),
    )
    op.create_index("ix_users_updated_at", "users", ["updated_at", "id"], unique=False)
    op.create_table(
        "aliases",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("user_id", BIG, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_aliases_user_id_users")),
        sa.PrimaryKeyConstraint("account", "alias", name=op.f("pk_aliases")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_aliases_user_id", "aliases", ["user_id"], unique=False)
    op.create_table(
        "audit",
        sa.Column("id", BIG, nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column("user_id", BIG, nullable=True),
        sa.Column("at", BIG, nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("evidence", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_audit_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_user_id", "audit", ["user_id"], unique=False)
    op.create_table(
        "changes",
        sa.Column("id", BIG, nullable=False),
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("first_at", BIG, nullable=False),
        sa.Column("changed_at", BIG, nullable=False),
        sa.Column("changed_precision", sa.Integer(), nullable=False),
        sa.Column("received_at", BIG, nullable=False),
        sa.Column("seen", sa.Text(), nullable=False),
        sa.Column("claims", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decided_at", BIG, nullable=True),
        sa.Column("acknowledged_at", BIG, nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_changes_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
    )
    op.create_index("ix_changes_user_id_first_at", "changes", ["user_id", "first_at"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("id", BIG, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("due_at", BIG, nullable=False),
        sa.Column("hash", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("refusals", sa.Integer(), nullable=False),
        sa.Column("begun", sa.Boolean(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("lease_until", BIG, nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_outbox_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("user_id", "kind", name=op.f("uq_outbox_user_id_kind")),
    )
    op.create_index(
        "ix_outbox_account_kind_due_at", "outbox", ["account", "kind", "due_at"], unique=False
    )
    op.create_index(
        "ix_outbox_leased",
        "outbox",
        ["account", "kind", "lease_until"],
        unique=False,
        sqlite_where=sa.text("lease_until IS NOT NULL"),
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    )
    op.create_table(
        "unverified",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("user_id", BIG, nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_unverified_user_id_users")
        ),
        sa.PrimaryKeyConstraint("account", "user_id", name=op.f("pk_unverified")),
        sqlite_with_rowid=False,
    )
    op.execute(
        f"INSERT INTO installation (key, value) VALUES ('oldest_migration', '{OLDEST_MIGRATION}')"  # noqa: S608  a constant of ours
    )
