"""Queries of accounts and of the installation itself."""

import json
import secrets
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Row,
    and_,
    or_,
    select,
    update,
)

from service.model.users import State
from service.store.journal import dismissed_of
from service.store.schema import (
    accounts,
    installation,
    users,
)
from service.store.trail import append_entries
from service.store.upgrades import CREATED_KEY, OLDEST_KEY
from service.store.upserting import upsert


def account_rows(connection: Connection) -> dict[str, Row[Any]]:
    """Return what is known of each account that ever had a callback or a policy."""
    return {row.name: row for row in connection.execute(select(accounts))}


def write_reserve(connection: Connection, size: int) -> None:
    """Write a row of this size, to know whether the database has room for it."""
    reserve = installation.c.key == "reserve"
    connection.execute(installation.delete().where(reserve))
    connection.execute(installation.insert().values(key="reserve", value="0" * size))


def free_reserve(connection: Connection, now: int) -> None:
    """Return the room back to the callbacks, and note when it was last tried."""
    tried = installation.c.key.in_(("reserve", "probed_at"))
    connection.execute(installation.delete().where(tried))
    connection.execute(installation.insert().values(key="probed_at", value=str(now)))


CREATED = "database_created"
"""The code of the issue that a start made a new database."""


def created_at(connection: Connection) -> int | None:
    """Return when (Unix ms) a start made the database; None where a person did, or dismissed it."""
    query = select(installation.c.value).where(installation.c.key == CREATED_KEY)
    found = connection.execute(query).scalar()
    dismissed = dismissed_of(connection, "", CREATED)
    return None if found is None or dismissed else int(found)


def alive_at(connection: Connection) -> int | None:
    """Return when (Unix ms) the service last noted that it was alive."""
    query = select(installation.c.value).where(installation.c.key == "alive_at")
    found = connection.execute(query).scalar()
    return None if found is None else int(found)


def note_alive(connection: Connection, now: int) -> None:
    """Note that the service is alive."""
    _keep(connection, "alive_at", str(now))


class Downtime(NamedTuple):
    """When (Unix ms) a downtime ended, and until when its callbacks may be delivered."""

    since: int
    until: int


def downtime(connection: Connection) -> Downtime | None:
    """Return the downtime whose callbacks may come in for the longest, if there ever was one."""
    query = select(installation.c.value).where(installation.c.key == "downtime")
    found = connection.execute(query).scalar()
    return None if found is None else Downtime(*map(int, found.split()))


def note_downtime(connection: Connection, since: int, until: int) -> None:
    """Note a downtime, for all replicas, unless one is noted that lasts longer.

    One that began after this one ends is from before a clock was set back.
    """
    # Where two replicas note one, the second waits for the first, though there is no row yet.
    row = {"key": "downtime", "value": "0 0"}
    upsert(connection, installation, row, ["key"], {"key": "downtime"})
    known = downtime(connection)
    if known is None or known.until < until or known.since > until:
        _keep(connection, "downtime", f"{since} {until}")


CONSOLE_KEY = "console_secret"
"""Key of the table `installation`."""
SECRET_BYTES = 32


def console_secret(connection: Connection) -> bytes:
    """Return what sessions of the console are signed with; whoever is first makes it, for all."""
    new = {"key": CONSOLE_KEY, "value": secrets.token_hex(SECRET_BYTES)}
    # Sets nothing where there is one; it waits for whoever is making one at the same time.
    upsert(connection, installation, new, ["key"], {"key": CONSOLE_KEY})
    query = select(installation.c.value).where(installation.c.key == CONSOLE_KEY)
    return bytes.fromhex(connection.execute(query).scalar_one())


def _keep(connection: Connection, key: str, value: str) -> None:
    noted = {"value": value}
    upsert(connection, installation, {"key": key, **noted}, ["key"], noted)


def note_policies(connection: Connection, policies: Iterable[tuple[str, str]], now: int) -> None:
    """Keep each account's policy as it is now, and note in the audit trail which ones changed.

    `now` is Unix milliseconds. Replicas that start together note it once.
    """
    known = account_rows(connection)
    for name, policy in policies:
        if name not in known:
            connection.execute(accounts.insert().values(name=name, policy=policy))
            continue
        before = known[name].policy
        if before == policy:
            continue
        # Who waited here for another that wrote the same finds nothing to change any more.
        as_read = accounts.c.name == name, accounts.c.policy.is_not_distinct_from(before)
        changed = connection.execute(update(accounts).where(*as_read).values(policy=policy))
        if changed.rowcount and before is not None:
            entry = {"account": name, "at": now, "event": "policy_changed"}
            append_entries(connection, [{**entry, "reason": "configuration"}])


CLOUD_MIGRATION = "0005"
"""The first whose release reads users without a number, and identities without a hash."""


ERASURE_MIGRATION = "0019"
"""The first whose release knows who was erased, and does not trust them for being new."""


def need_release(connection: Connection, migration: str) -> None:
    """Let no release open the database any more that does not know a migration."""
    older = (installation.c.key == OLDEST_KEY, installation.c.value < migration)
    connection.execute(update(installation).where(*older).values(value=migration))


def moved_back(connection: Connection, onprem: Collection[str]) -> str | None:
    """Return an account with a client that holds users as only the Cloud API knows them.

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
