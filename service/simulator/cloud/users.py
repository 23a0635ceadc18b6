"""The users of the Cloud API: known by a number, a business-scoped user id, or both."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from service.simulator.users import new_hash

USER_ID_DIGITS = 20


def new_user_id(country: str = "US", kind: str = "") -> str:
    """Return a random user id as in Meta's examples: `US.13491208655302741918`."""
    digits = str(secrets.randbelow(9 * 10 ** (USER_ID_DIGITS - 1)) + 10 ** (USER_ID_DIGITS - 1))
    return f"{country}.{kind}{digits}"


@dataclass(slots=True, kw_only=True)
class CloudUser:
    """One user as one business sees it."""

    wa_id: str | None = None
    """None for a user whose number the business never learned."""
    user_id: str = field(default_factory=new_user_id)
    parent_user_id: str | None = None
    hash: str = field(default_factory=new_hash)
    """The identity that the user has now."""
    name: str = "A user"
    username: str | None = None
    hidden: bool = False
    """Whether webhooks leave the number out, as they may for who has a username."""

    @property
    def shown(self) -> str | None:
        """The number that webhooks may show."""
        return None if self.hidden else self.wa_id

    @property
    def key(self) -> str:
        """What the user is called here: the number, else the user id."""
        return self.wa_id or self.user_id

    @property
    def aliases(self) -> set[str]:
        """Everything that the user can be addressed by."""
        return {alias for alias in (self.wa_id, self.user_id, self.parent_user_id) if alias}


class CloudUsers:
    """The users, each found by every alias that it has now."""

    def __init__(self) -> None:
        self._by_alias: dict[str, CloudUser] = {}
        self.given_up: set[str] = set()
        """Aliases that a user had once, and nobody has now."""

    def __iter__(self) -> Iterator[CloudUser]:
        return iter({id(user): user for user in self._by_alias.values()}.values())

    def __getitem__(self, alias: str) -> CloudUser:
        return self._by_alias[alias]

    def get(self, alias: str) -> CloudUser | None:
        """Return who has an alias now."""
        return self._by_alias.get(alias)

    def known(self, alias: str) -> CloudUser:
        """Return who has an alias, made when nobody has: a number, or a user id with a dot."""
        user = self.get(alias)
        if user is None:
            user = CloudUser(user_id=alias) if "." in alias else CloudUser(wa_id=alias)
            self.put(user)
        return user

    def put(self, user: CloudUser) -> None:
        """Let a user have its aliases; who had its number before has none any more."""
        for alias in user.aliases:
            other = self.get(alias)
            if other is not None and other is not user and other.wa_id == alias:
                other.wa_id = None
            self._by_alias[alias] = user
        self.given_up -= user.aliases

    def rename(self, user: CloudUser, **aliases: str | None) -> None:
        """Give a user other aliases; the ones before lead nowhere from now on."""
        before = user.aliases
        self._forget(user)
        for name, alias in aliases.items():
            setattr(user, name, alias)
        self.put(user)
        self.given_up |= before - user.aliases

    def remove(self, alias: str) -> bool:
        """Forget a user; False when there is none."""
        user = self.get(alias)
        if user is not None:
            self._forget(user)
        return user is not None

    def _forget(self, user: CloudUser) -> None:
        for alias in user.aliases:
            if self.get(alias) is user:
                del self._by_alias[alias]
