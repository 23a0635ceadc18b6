"""The users that the client knows, each with the latest identity."""

import base64
import secrets
from dataclasses import dataclass

HASH_BYTES = 8


def new_hash() -> str:
    """Return a random identity hash as in Meta's examples: 12 characters of standard base64."""
    return base64.b64encode(secrets.token_bytes(HASH_BYTES)).decode()


@dataclass(slots=True)
class User:
    """One user's latest identity; `created_timestamp` in Unix milliseconds."""

    wa_id: str
    hash: str
    created_timestamp: int
    acknowledged: bool = True

    def change(self, hash_: str | None, at_ms: int) -> None:
        """Take on another identity, unacknowledged."""
        self.hash = new_hash() if hash_ is None else hash_
        self.created_timestamp = at_ms
        self.acknowledged = False


class Users(dict[str, User]):
    """The users by wa_id."""

    def known(self, wa_id: str, at_ms: int) -> User:
        """Return a user, made with an acknowledged identity when not heard of before."""
        if wa_id not in self:
            self[wa_id] = User(wa_id, new_hash(), at_ms)
        return self[wa_id]
