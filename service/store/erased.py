"""Who was erased: known by an HMAC of each name, with a secret of the installation.

So a block by hand stays in force, and nobody is trusted again for being new. There is no secret
before somebody was erased; until then nothing more is looked up than whether there is one.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any

from sqlalchemy import Connection, select, update

from service.store.schema import erased_aliases, installation, users
from service.store.upserting import upsert, upsert_all

SECRET_KEY = "alias_secret"  # noqa: S105  the name of a row
"""Key of the table `installation`."""
SECRET_BYTES = 32


class ErasedNames:
    """The secret of a database, once somebody was erased: it is read once, and stays."""

    def __init__(self) -> None:
        self._secret: bytes | None = None

    async def any(self, value_of: Callable[[str], Awaitable[str | None]]) -> bool:
        """Return whether anybody was ever erased; `value_of` reads a row of `installation`."""
        if self._secret is None:
            text = await value_of(SECRET_KEY)
            self._secret = None if text is None else bytes.fromhex(text)
        return self._secret is not None

    def digest(self, name: str) -> bytes:
        """Return the HMAC of a name."""
        return digest_of(self._secret or b"", name)


def digest_of(secret: bytes, name: str) -> bytes:
    """Return the HMAC of a name."""
    return hmac.digest(secret, name.encode(errors="replace"), "sha256")


def secret_of(connection: Connection) -> bytes | None:
    """Return the secret; None where nobody was ever erased."""
    query = select(installation.c.value).where(installation.c.key == SECRET_KEY)
    text = connection.execute(query).scalar()
    return None if text is None else bytes.fromhex(text)


def keep_erased(connection: Connection, account: str, names: Iterable[str], user_id: int) -> None:
    """Let the digests of these names lead to whom they were the names of."""
    rows = _rows(connection, account, names, user_id)
    upsert_all(connection, erased_aliases, rows, ["account", "digest"])


def keep_spelled(
    connection: Connection, account: str, forms: Iterable[str], user_id: int, *, closed: bool
) -> None:
    """Let numbers by which an erased user was found lead there too, unless they lead elsewhere.

    Then they stay, and `closed` closes the gate to whom they lead.
    """
    rows = {row["digest"]: row for row in _rows(connection, account, forms, user_id)}
    there = erased_aliases.c
    query = select(there.digest, there.user_id).where(there.account == account)
    others = connection.execute(query.where(there.digest.in_([*rows]))).all()
    new = [row for digest, row in rows.items() if digest not in {digest for digest, _ in others}]
    upsert_all(connection, erased_aliases, new, ["account", "digest"])
    ids = [other for _, other in others if other != user_id]
    if closed and ids:
        connection.execute(update(users).where(users.c.id.in_(ids)).values(after_hold=True))


def _rows(
    connection: Connection, account: str, names: Iterable[str], user_id: int
) -> list[dict[str, Any]]:
    fresh = secrets.token_hex(SECRET_BYTES)
    key = {"key": SECRET_KEY}
    upsert(connection, installation, {**key, "value": fresh}, ["key"], key)  # the first one stays
    secret = secret_of(connection) or b""
    return [
        {"account": account, "digest": digest_of(secret, name), "user_id": user_id}
        for name in sorted(names)
    ]


def erased_among(connection: Connection, names: Collection[str]) -> set[tuple[str, str]]:
    """Return who was called so and was erased: the account, and the name."""
    secret = secret_of(connection) if names else None
    if secret is None:
        return set()
    digests = {digest_of(secret, name): name for name in names}
    query = select(erased_aliases.c.account, erased_aliases.c.digest)
    rows = connection.execute(query.where(erased_aliases.c.digest.in_([*digests])))
    return {(account, digests[bytes(digest)]) for account, digest in rows}
