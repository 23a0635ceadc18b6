"""The oracle's own model of users on the Cloud API: who is who, and what is to become of a hash.

A life is what was told of some users in the order in which it was accepted; only what is said to be
late is not in the order of its own times. Nothing of the service is used.
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
    """A hash that the user had before all others, told after them."""
    REFUSED = "refused"
    """137000: there is another hash."""
    ACKNOWLEDGE = "acknowledge"
    HOLD = "hold"


class Step(NamedTuple):
    """One thing that was accepted; `hash` is what was told, or what a person saw."""

    kind: Kind
    wa_id: str | None
    user_id: str | None
    hash: str | None = None


@dataclass(slots=True)
class Life:
    """What was accepted, in its order. `automatic`: policy trusts another hash after a while."""

    account: str
    automatic: bool = False
    steps: list[Step] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Customer:
    """One user, with the identity that is right. `first`: it was trusted for being the first.

    Who has a number that was another's is not: `heir`, and `held` where the other one was held.
    """

    user_id: str | None = None
    hash: str | None = None
    state: str | None = None
    first: bool = False
    heir: bool = False
    held: bool = False
    order: int = 0
    """Which step told of the identity last."""


class ModelError(Exception):
    """Something was accepted that must not be."""


def live(life: Life) -> dict[str, Customer]:
    """Give every name of a life, and the user to whom it leads in the end."""
    found: dict[str, Customer] = {}
    for order, step in enumerate(life.steps):
        customer = _meet(found, step, automatic=life.automatic)
        _take(customer, step, automatic=life.automatic)
        if step.kind is Kind.SEEN:
            customer.order = order
    return found


def _meet(found: dict[str, Customer], step: Step, *, automatic: bool) -> Customer:
    """Find the one of whom a step speaks, by the user id before the wa_id."""
    wa_id, user_id = step.wa_id, step.user_id
    by_number = found.get(wa_id) if wa_id else None
    by_id = found.get(user_id) if user_id else None
    met = by_id
    if met is None and (user_id is None or by_number is None or by_number.user_id is None):
        met = by_number
    if met is None:
        met = Customer()
        if by_number is not None:
            met.heir, met.held = True, by_number.state == "held" or by_number.held
    other = by_number if user_id else None
    if other is not None and other is not met and other.user_id is None:
        _merge(found, met, other, automatic=automatic)
    if user_id:
        met.user_id = user_id
    found.update({name: met for name in (wa_id, user_id) if name})
    return met


def _merge(found: dict[str, Customer], met: Customer, other: Customer, *, automatic: bool) -> None:
    """Let two be one: the identity told last is the latest, and was no first one after all."""
    for name, whose in list(found.items()):
        if whose is other:
            found[name] = met
    if met.state is None or (other.state is not None and other.order > met.order):
        met.hash, other.hash = other.hash, met.hash
        met.state, other.state = other.state, met.state
        met.first, other.first = other.first, met.first
    if other.state is not None and other.hash != met.hash and met.first:
        _change(met, met.hash, automatic=automatic)


def _take(customer: Customer, step: Step, *, automatic: bool) -> None:
    match step.kind:
        case Kind.SEEN:
            _see(customer, step.hash, automatic=automatic)
        case Kind.LATE if customer.first:
            _change(customer, customer.hash, automatic=automatic)
        case Kind.REFUSED if customer.state == "acknowledged":
            _change(customer, None, automatic=False)
        case Kind.ACKNOWLEDGE | Kind.HOLD:
            _decide(customer, step)
        case _:
            pass


def _see(customer: Customer, hash_: str | None, *, automatic: bool) -> None:
    if customer.state is None and customer.heir:
        _change(customer, hash_, automatic=automatic)
    elif customer.state is None:
        customer.hash, customer.state, customer.first = hash_, "acknowledged", True
    elif customer.state == "awaiting_hash":
        customer.hash, customer.state = hash_, "acknowledged"
    elif customer.hash != hash_:
        _change(customer, hash_, automatic=automatic)


def _change(customer: Customer, hash_: str | None, *, automatic: bool) -> None:
    customer.hash, customer.first = hash_, False
    customer.held = customer.held or customer.state == "held"
    customer.state = "acknowledged" if automatic and not customer.held else "pending"


def _decide(customer: Customer, step: Step) -> None:
    if step.hash != customer.hash or customer.state not in {"pending", "held"}:
        raise ModelError(f"{step} of {customer}")
    customer.held = False
    if step.kind is Kind.HOLD:
        customer.state = "held"
    else:
        customer.state = "acknowledged" if customer.hash else "awaiting_hash"


def together(found: dict[str, Customer]) -> Sequence[frozenset[str]]:
    """Give the names of each user."""
    names: dict[int, set[str]] = {}
    for name, customer in found.items():
        names.setdefault(id(customer), set()).add(name)
    return [frozenset(some) for some in names.values()]
