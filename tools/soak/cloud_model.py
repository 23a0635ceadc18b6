"""The oracle's own model of the Cloud API: which names are one user, and what a hash's state is.

Nothing of the service is used. The steps of a `Life` are in the order in which they were accepted,
which, but for a late hash, is the order of their own times too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

ACCOUNTS = ("shop", "outlet")


class Kind(StrEnum):
    """What happened to a user."""

    SEEN = "seen"
    LATE = "late"
    """A hash that the user had before all others, delivered after them."""
    REFUSED = "refused"
    """A message was refused with 137000: there is another hash."""
    ACKNOWLEDGE = "acknowledge"
    HOLD = "hold"


class Step(NamedTuple):
    """An accepted callback or decision; `hash` is the one in it."""

    kind: Kind
    wa_id: str | None
    user_id: str | None
    hash: str | None = None


@dataclass(slots=True)
class Life:
    """Everything that was accepted about some users, in order.

    `automatic` means that policy trusts another hash after a while.
    """

    account: str
    automatic: bool = False
    steps: list[Step] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class ModelUser:
    """A user with the identity that is right.

    A hash is trusted for being the `first` one, unless the number was another user's
    (`has_used_number`). `held` means that a hash was held, of this user or of the former owner.
    """

    user_id: str | None = None
    hash: str | None = None
    state: str | None = None
    first: bool = False
    has_used_number: bool = False
    held: bool = False
    latest_step: int = 0
    """The step in which the identity was seen last."""


class ModelError(Exception):
    """The service accepted something that it must refuse."""


def live(life: Life) -> dict[str, ModelUser]:
    """Return the users of a life as they are in the end, by each of their names."""
    users: dict[str, ModelUser] = {}
    for number, step in enumerate(life.steps):
        user = _resolve(users, step, automatic=life.automatic)
        _apply(user, step, automatic=life.automatic)
        if step.kind is Kind.SEEN:
            user.latest_step = number
    return users


def _resolve(users: dict[str, ModelUser], step: Step, *, automatic: bool) -> ModelUser:
    """Return the user of a step, found by the user id before the wa_id."""
    wa_id, user_id = step.wa_id, step.user_id
    by_number = users.get(wa_id) if wa_id else None
    found = users.get(user_id) if user_id else None
    if found is None and (user_id is None or by_number is None or by_number.user_id is None):
        found = by_number
    if found is None:
        found = ModelUser()
        if by_number is not None:
            found.has_used_number = True
            found.held = by_number.state == "held" or by_number.held
    other = by_number if user_id else None
    if other is not None and other is not found and other.user_id is None:
        _merge(users, found, other, automatic=automatic)
    if user_id:
        found.user_id = user_id
    users.update({name: found for name in (wa_id, user_id) if name})
    return found


def _merge(
    users: dict[str, ModelUser], user: ModelUser, other: ModelUser, *, automatic: bool
) -> None:
    """Make one user of two: the identity that was seen last is the latest."""
    for name, owner in list(users.items()):
        if owner is other:
            users[name] = user
    if user.state is None or (other.state is not None and other.latest_step > user.latest_step):
        user.hash, other.hash = other.hash, user.hash
        user.state, other.state = other.state, user.state
        user.first, other.first = other.first, user.first
    if other.state is not None and other.hash != user.hash and user.first:
        _change(user, user.hash, automatic=automatic)  # it was not the first after all


def _apply(user: ModelUser, step: Step, *, automatic: bool) -> None:
    match step.kind:
        case Kind.SEEN:
            _see(user, step.hash, automatic=automatic)
        case Kind.LATE if user.first:
            _change(user, user.hash, automatic=automatic)
        case Kind.REFUSED if user.state == "acknowledged":
            _change(user, None, automatic=False)
        case Kind.ACKNOWLEDGE | Kind.HOLD:
            _decide(user, step)
        case _:
            pass


def _see(user: ModelUser, hash_: str | None, *, automatic: bool) -> None:
    if user.state is None and user.has_used_number:
        _change(user, hash_, automatic=automatic)
    elif user.state is None:
        user.hash, user.state, user.first = hash_, "acknowledged", True
    elif user.state == "awaiting_hash":
        user.hash, user.state = hash_, "acknowledged"
    elif user.hash != hash_:
        _change(user, hash_, automatic=automatic)


def _change(user: ModelUser, hash_: str | None, *, automatic: bool) -> None:
    user.hash, user.first = hash_, False
    user.held = user.held or user.state == "held"
    user.state = "acknowledged" if automatic and not user.held else "pending"


def _decide(user: ModelUser, step: Step) -> None:
    if step.hash != user.hash or user.state not in {"pending", "held"}:
        raise ModelError(f"{step} of {user}")
    user.held = False
    if step.kind is Kind.HOLD:
        user.state = "held"
    else:
        user.state = "acknowledged" if user.hash else "awaiting_hash"


def names_of_users(users: dict[str, ModelUser]) -> Sequence[frozenset[str]]:
    """Return the names of each user."""
    names: dict[int, set[str]] = {}
    for name, user in users.items():
        names.setdefault(id(user), set()).add(name)
    return [frozenset(some) for some in names.values()]
