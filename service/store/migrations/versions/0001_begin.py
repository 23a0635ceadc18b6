"""The first tables.

Revision 0001.
"""

from alembic import op

from service.store.tables import installation, metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

OLDEST_MIGRATION = "0001"
"""The oldest release that can run on this schema knows this migration."""


def upgrade() -> None:
    """Create every table."""
    connection = op.get_bind()
    metadata.create_all(connection, checkfirst=False)
    connection.execute(installation.insert().values(key="oldest_migration", value=OLDEST_MIGRATION))
