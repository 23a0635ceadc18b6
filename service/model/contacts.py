"""Contact checks: whether a number is a WhatsApp account, and how a check that was asked for goes.

Follows Meta's page on the contacts node. The callback that answers later has no correlation id; it
names the literal input, so that is what a check is open for. The canonical form of a number only
finds what is known already, and answers no check: with a wrong country in the configuration a
message would go to somebody else.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import blake2b
from typing import NamedTuple

from service.model.events import ContactChecked, UserWrote
from service.model.numbers import has_country, own_digits
from service.model.timeline import date_event
from service.model.users import Context, User

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
FRESH_MS = 7 * DAY_MS
"""The client's own cache keeps a result for seven days."""
MAX_PATIENCE_MS = HOUR_MS
MAX_DIGESTS = 16
PROCESSING = "processing"
VALID = "valid"
INVALID = "invalid"
FAILED = "failed"
RESULTS = frozenset({VALID, INVALID})
"""The statuses that say something of a number."""


class Check(NamedTuple):
    """A check that is open: no result came since it was first asked. Times are Unix milliseconds.

    `due_at` is when it is to be asked again, `attempts` how often the client may have got it.
    """

    asked_at: int
    due_at: int
    attempts: int = 0
    forced: bool = False


class OptIn(NamedTuple):
    """When (Unix ms) and how the customer agreed to be written to."""

    at: int
    how: str


@dataclass(frozen=True, slots=True)
class Contact:
    """What the client last said of an input, the literal text that was asked about.

    `digests` name the callbacks that brought its results, to recognize a redelivery. `canonical` is
    the number's one form, empty where it has none, None until somebody looked. While a `check` is
    open the result is still the one before; `processing` where there was none. `answered_at` is
    when a check that was asked for was last answered; `unanswered_since` when one was asked for in
    vain, since the result.
    """

    account: str
    input: str
    status: str
    wa_id: str | None
    checked_at: int
    digests: tuple[str, ...] = ()
    canonical: str | None = None
    check: Check | None = None
    opt_in: OptIn | None = None
    answered_at: int | None = None
    unanswered_since: int | None = None

    @property
    def expires_at(self) -> int:
        """When the result is stale, in Unix milliseconds."""
        return self.checked_at + FRESH_MS

    def fresh(self, now: int) -> bool:
        """Return whether the result is one to go by now."""
        return self.status in RESULTS and now < self.expires_at

    def is_answered(self, now: int) -> bool:
        """Return whether the answer to a check that was asked for is fresh."""
        return self.answered_at is not None and now < self.answered_at + FRESH_MS


# Results.


def apply_result(
    known: Contact | None, account: str, checked: ContactChecked, digest: str, now: int
) -> Contact | None:
    """Return the contact after a result, or None where that changes nothing.

    Results carry no time, so the newest arrival wins. `digest` names the body that it came in,
    empty for an answer, which is never redelivered. A wa_id stays known when a later result carries
    none: it only ever comes from the client. `processing` and `failed` are no results, and take the
    place of none. While the answer to a check that was asked for is fresh, a result that nobody
    asked for can only make it invalid: callbacks are unsigned.
    """
    content = f"{digest} {checked.status} {checked.wa_id}".encode()
    marks = (blake2b(content, digest_size=8).hexdigest(),) if digest else ()
    was_asked = not digest or (known is not None and known.check is not None)
    is_result = checked.status in RESULTS
    answered_at = now if was_asked and is_result else None
    if known is None:
        return Contact(
            account,
            checked.input,
            checked.status,
            checked.wa_id,
            now,
            marks,
            answered_at=answered_at,
        )
    if checked.status == PROCESSING or not _counts(known, marks, now):
        return None
    digests = (*known.digests, *marks)[-MAX_DIGESTS:]
    if not is_result and known.status in RESULTS:
        return None if known.check is None else replace(give_up(known), digests=digests)
    is_bound = not was_asked and known.is_answered(now)
    if is_bound and checked.status != INVALID:
        return None
    return replace(
        known,
        status=checked.status,
        wa_id=known.wa_id if is_bound else checked.wa_id or known.wa_id,
        checked_at=now,
        digests=digests,
        check=None,
        answered_at=answered_at or known.answered_at,
        unanswered_since=None,
    )


def _counts(known: Contact, marks: tuple[str, ...], now: int) -> bool:
    """Return whether an arrival counts: while a check is open, whatever came since it was asked."""
    if known.check is not None:
        return now >= known.check.asked_at
    return now >= known.checked_at and not set(marks) & set(known.digests)


def give_up(contact: Contact) -> Contact:
    """Return the contact without its check, of which nothing came; never answered is `failed`.

    What was known of the number stays known, as old as it is.
    """
    if contact.status not in RESULTS:
        return replace(contact, status=FAILED, check=None)
    since = None if contact.check is None else contact.check.asked_at
    return replace(contact, check=None, unanswered_since=since)


def record_user_message(user: User, wrote: UserWrote, context: Context) -> None:
    """Record that the user wrote, kept to the hour, which is all that freshness needs."""
    at = date_event(wrote.at, context.arrived).moment.at
    hour = at - at % HOUR_MS
    if user.wrote_at is None or hour > user.wrote_at:
        user.wrote_at = hour


def full_number(input_: str, canonical: str | None) -> str | None:
    """Return the digits of an input, with the country's code; None where it has none, or unknown.

    Without one, digits are another number elsewhere.
    """
    return canonical or (own_digits(input_) if has_country(input_) else None)


def is_about(contact: Contact, names: Collection[str]) -> bool:
    """Return whether a contact is about somebody of these names."""
    called = (contact.input, contact.wa_id, contact.canonical, own_digits(contact.input))
    return any(name in names for name in called if name)


# Checks that are asked for.


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
class CheckOptions:
    """How a request asks; `patience_ms` is how long the client has for an answer."""

    wait: bool
    force: bool
    patience_ms: int


def plan_check(
    account: str, known: Contact | None, number: Number, options: CheckOptions, now: int
) -> tuple[Next, Contact]:
    """Return what to do about an input, and the contact as it is from now on."""
    base = known or Contact(account, number.input, PROCESSING, None, now)
    base = replace(base, canonical=number.canonical, opt_in=number.opt_in or base.opt_in)
    if known is not None and known.fresh(now) and not options.force:
        return Next.ANSWER, base
    check = base.check
    if check is not None:
        # Whether the client has the check, and will call back with what is asked for.
        is_passed_on = check.attempts > 0 and check.due_at > now
        if is_passed_on and not options.wait and check.forced >= options.force:
            return Next.WAIT, base
    since = now if check is None else min(check.asked_at, now)
    forced = options.force or (check is not None and check.forced)
    return Next.ASK, replace(base, check=Check(since, now + options.patience_ms, 0, forced))


def count_to_check(asked: Sequence[Number], is_known: Collection[str], *, force: bool) -> int:
    """Return how many numbers a request makes the client check.

    Two spellings are one number. What has a fresh result or an open check (`is_known`, by name) is
    none, unless its check is forced: the client answers it from its cache.
    """
    return len({number.name for number in asked if force or number.name not in is_known})


def without_opt_in(numbers: Sequence[Number], known: Mapping[str, OptIn]) -> list[int]:
    """Return the places of inputs with no opt-in, neither their own nor a known one, by name."""
    return [
        place
        for place, number in enumerate(numbers)
        if number.opt_in is None and number.name not in known
    ]


def count_attempt(contact: Contact, now: int, patience_ms: int) -> Contact:
    """Count a time that the client may have got the check; each time it has longer to answer."""
    check = contact.check
    if check is None:
        return contact
    due_at = now + patience_after(patience_ms, check.attempts)
    return replace(contact, check=check._replace(attempts=check.attempts + 1, due_at=due_at))


def patience_after(patience_ms: int, attempts: int) -> int:
    """Return how long (ms) the client has after so many tries: each time twice as long."""
    return max(patience_ms, min(patience_ms << min(attempts, 16), MAX_PATIENCE_MS))


def put_off(contact: Contact, due_at: int) -> Contact:
    """Have a check that the client did not get asked later."""
    check = contact.check
    return contact if check is None else replace(contact, check=check._replace(due_at=due_at))


def ask_again_or_give_up(
    contact: Contact, now: int, patience_ms: int, max_attempts: int
) -> Contact:
    """Have a check that is due asked again, or give it up after so many attempts."""
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
