"""Lists of identities, of the journal and of the audit trail read no more rows than they show.

Of users as many indexes as before, each in the place of one. The journal and the audit trail get
one each: that of the journal costs a callback two or three microseconds, and some 260 bytes in the
write-ahead log. Without it a list of one account's callbacks goes through the bodies of all others.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""


def upgrade() -> None:
    """Replace the indexes of users, and add the others."""
    op.drop_index("ix_users_state_changed_at", "users")
    op.drop_index("ix_users_updated_at", "users")
    for order in ("changed_at", "updated_at"):
        columns = ["account", "state", order, "id"]
        op.create_index(f"ix_users_account_state_{order}_id", "users", columns)
    op.create_index("ix_journal_account_state_id", "journal", ["account", "state", "id"])
    op.create_index("ix_audit_account_event_id", "audit", ["account", "event", "id"])
