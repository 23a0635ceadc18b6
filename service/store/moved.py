"""What an account of the Cloud API leaves in the database that not everybody can read."""

import json
from collections.abc import Collection

from sqlalchemy import Connection, and_, or_, select, update

from service.model.users import State
from service.store.schema import OLDEST_KEY
from service.store.tables import accounts, installation, users

CLOUD_MIGRATION = "0005"
"""The first whose release reads users without a number, and identities without a hash."""


def need_cloud_release(connection: Connection) -> None:
    """Let no release open the database any more that does not know the Cloud API."""
    older = (installation.c.key == OLDEST_KEY, installation.c.value < CLOUD_MIGRATION)
    connection.execute(update(installation).where(*older).values(value=CLOUD_MIGRATION))


def moved_back(connection: Connection, onprem: Collection[str]) -> str | None:
    """Give an account with a client that holds users as only the Cloud API knows them.

    Looks through the users only where the account was one of the Cloud API at its last start.
    """
    query = select(accounts.c.name, accounts.c.policy).where(accounts.c.name.in_(onprem))
    rows = connection.execute(query)
    back = [name for name, policy in rows if policy and json.loads(policy).get("local")]
    if not back:
        return None
    only_there = or_(
        users.c.wa_id == "",
        users.c.state == State.AWAITING_HASH.value,
        and_(users.c.state.is_not(None), users.c.hash.is_(None)),
    )
    found = select(users.c.account).where(users.c.account.in_(back), only_there).limit(1)
    return connection.execute(found).scalar()
