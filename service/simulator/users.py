"""The users as each API knows them, with the identity that each has now."""

import base64
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

HASH_BYTES = 8
USER_ID_DIGITS = 20


def new_hash() -> str:
    """Return a random identity hash as in Meta's examples: 12 characters of standard base64."""
    return base64.b64encode(secrets.token_bytes(HASH_BYTES)).decode()


def new_user_id(country: str = "US", kind: str = "") -> str:
    """Return a random user id as in Meta's examples: `US.13491208655302741918`."""
    digits = secrets.randbelow(9 * 10 ** (USER_ID_DIGITS - 1)) + 10 ** (USER_ID_DIGITS - 1)
    return f"{country}.{kind}{digits}"


@dataclass(slots=True)
class User:
    """A user of the On-Premises client; `created_timestamp` is the identity's, in Unix ms."""

    wa_id: str
    hash: str
    created_timestamp: int
    acknowledged: bool = True


class Users(dict[str, User]):
    """The users of the On-Premises client by wa_id."""

    def get_or_add(self, wa_id: str, at_ms: int) -> User:
        """Return a user, added with an acknowledged identity when there is none yet."""
        if wa_id not in self:
            self[wa_id] = User(wa_id, new_hash(), at_ms)
        return self[wa_id]


@dataclass(slots=True, kw_only=True)
class CloudUser:
    """A user of the Cloud API as one business sees it: with a number, a user id, or both."""

    wa_id: str | None = None
    """None for a user whose number the business never learned."""
    user_id: str = field(default_factory=new_user_id)
    parent_user_id: str | None = None
    hash: str = field(default_factory=new_hash)
    name: str = "A user"
    username: str | None = None
    hidden: bool = False
    """Whether webhooks leave the number out, as they may for a user with a username."""

    @property
    def shown(self) -> str | None:
        """The number that webhooks may show."""
        return None if self.hidden else self.wa_id

    @property
    def key(self) -> str:
        """What faults and messages call the user: the number, else the user id."""
        return self.wa_id or self.user_id

    @property
    def aliases(self) -> set[str]:
        """Everything that the user can be addressed by."""
        return {alias for alias in (self.wa_id, self.user_id, self.parent_user_id) if alias}


class CloudUsers:
    """The users of the Cloud API, each found by every alias that it has now."""

    def __init__(self) -> None:
        self._by_alias: dict[str, CloudUser] = {}
        self.given_up: set[str] = set()
        """Aliases that a user had once, and nobody has now."""

    def __iter__(self) -> Iterator[CloudUser]:
        return iter({id(user): user for user in self._by_alias.values()}.values())

    def __getitem__(self, alias: str) -> CloudUser:
        return self._by_alias[alias]

    def get(self, alias: str) -> CloudUser | None:
        """Return the user that has an alias now."""
        return self._by_alias.get(alias)

    def get_or_add(self, alias: str) -> CloudUser:
        """Return the user that has an alias, added when there is none: with a dot a user id."""
        user = self.get(alias)
        if user is None:
            user = CloudUser(user_id=alias) if "." in alias else CloudUser(wa_id=alias)
            self._put(user)
        return user

    def rename(self, user: CloudUser, **values: str | None) -> None:
        """Change fields of a user, whose former aliases lead nowhere from now on."""
        before = user.aliases
        self._forget(user)
        for name, value in values.items():
            setattr(user, name, value)
        self._put(user)
        self.given_up |= before - user.aliases

    def remove(self, alias: str) -> bool:
        """Forget a user; return whether there was one."""
        user = self.get(alias)
        if user is not None:
            self._forget(user)
        return user is not None

    def _put(self, user: CloudUser) -> None:
        """Index a user by its aliases; the user that had its number before loses that."""
        for alias in user.aliases:
            other = self.get(alias)
            if other is not None and other is not user and other.wa_id == alias:
                other.wa_id = None
            self._by_alias[alias] = user
        self.given_up -= user.aliases

    def _forget(self, user: CloudUser) -> None:
        for alias in user.aliases:
            if self.get(alias) is user:
                del self._by_alias[alias]
