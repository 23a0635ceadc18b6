"""Lists of contacts, of an account and by wa_id, read no more rows than they show.

A contact is written when a check of a number begins or ends, not by callbacks as such.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""


def upgrade() -> None:
    """Add the indexes."""
    op.create_index("ix_contacts_account_id", "contacts", ["account", "id"])
    op.create_index("ix_contacts_account_wa_id_id", "contacts", ["account", "wa_id", "id"])
