"""Contact checks that are asked for: what is asked, again and again, and when it is given up.

Follows Meta's page on the contacts node. The callback that answers later has no correlation id; it
names the literal input, so that is what a check is open for. The canonical form of a number only
finds what is known already.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from service.model.contacts import PROCESSING, Check, Contact, OptIn, give_up

MAX_PATIENCE_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Number:
    """One input of a request, literally, with its canonical form, empty where it has none."""

    input: str
    canonical: str
    opt_in: OptIn | None = None

    @property
    def name(self) -> str:
        """What is the same for two spellings of a number."""
        return self.canonical or self.input


class Next(Enum):
    """What is to be done about an input."""

    ANSWER = "the result is fresh"
    WAIT = "the client has been asked, and will call back"
    ASK = "the client is to be asked"


@dataclass(frozen=True, slots=True)
class Asking:
    """How a request asks; `patience_ms` is how long the client has for an answer."""

    wait: bool
    force: bool
    patience_ms: int


def plan(
    account: str, known: Contact | None, number: Number, asking: Asking, now: int
) -> tuple[Next, Contact]:
    """Decide what to do about an input, and give the contact as it is from now on."""
    base = known or Contact(account, number.input, PROCESSING, None, now)
    base = replace(base, canonical=number.canonical, opt_in=number.opt_in or base.opt_in)
    if known is not None and known.fresh(now) and not asking.force:
        return Next.ANSWER, base
    check = base.check
    if check is not None and _answers(check, asking, now):
        return Next.WAIT, base
    since = now if check is None else min(check.asked_at, now)
    forced = asking.force or (check is not None and check.forced)
    return Next.ASK, replace(base, check=Check(since, now + asking.patience_ms, 0, forced))


def _answers(check: Check, asking: Asking, now: int) -> bool:
    """Tell whether the client has an open check, and will call back with what is asked for."""
    passed_on = check.attempts > 0 and check.due_at > now
    return passed_on and not asking.wait and check.forced >= asking.force


def cost(asked: Sequence[Number], is_known: Collection[str], *, force: bool) -> int:
    """Count the numbers that a request makes the client check.

    Two spellings are one number. What has a fresh result or an open check (`is_known`, by name) is
    none, unless its check is forced: the client answers it from its cache.
    """
    return len({number.name for number in asked if force or number.name not in is_known})


def without_opt_in(numbers: Sequence[Number], known: Mapping[str, OptIn]) -> list[int]:
    """Give the places of the inputs with no opt-in, neither their own nor a known one, by name."""
    return [
        place
        for place, number in enumerate(numbers)
        if number.opt_in is None and number.name not in known
    ]


def passed_on(contact: Contact, now: int, patience_ms: int) -> Contact:
    """Count a time that the client may have got the check; each time it has longer to answer."""
    check = contact.check
    if check is None:
        return contact
    patience = patience_after(patience_ms, check.attempts)
    tried = check._replace(attempts=check.attempts + 1, due_at=now + patience)
    return replace(contact, check=tried)


def patience_after(patience_ms: int, attempts: int) -> int:
    """Tell how long (ms) the client has after so many tries: each time twice as long."""
    return max(patience_ms, min(patience_ms << min(attempts, 16), MAX_PATIENCE_MS))


def put_off(contact: Contact, due_at: int) -> Contact:
    """Let a check that the client did not get be asked later."""
    check = contact.check
    return contact if check is None else replace(contact, check=check._replace(due_at=due_at))


def come_due(contact: Contact, now: int, patience_ms: int, max_attempts: int) -> Contact:
    """Ask again what is due, or give it up."""
    check = contact.check
    if check is None:
        return contact
    if check.attempts >= max_attempts:
        return give_up(contact)
    since = min(check.asked_at, now)
    return replace(contact, check=check._replace(asked_at=since, due_at=now + patience_ms))


def renew(contact: Contact, now: int) -> Contact:
    """Open a check of a contact that is about to expire; forced, for the client has a cache too."""
    return replace(contact, check=Check(now, now, 0, forced=True))
