"""Results of contact checks: whether a number is a WhatsApp account, and for how long we know."""

from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import NamedTuple

from service.model.events import ContactChecked, UserWrote
from service.model.moments import date
from service.model.users import Context, User

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
FRESH_MS = 7 * DAY_MS
"""The client's own cache keeps a result for seven days."""
MAX_DIGESTS = 16
PROCESSING = "processing"
VALID = "valid"
INVALID = "invalid"
FAILED = "failed"
RESULTS = frozenset({VALID, INVALID})
"""What says something of a number."""


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

    `digests` tell which callbacks brought its results, to know a redelivery by. `canonical` is the
    number's one form, empty where it has none, None until somebody looked. While a `check` is open
    the result is still the one before; `processing` where there was none. `answered_at` is when a
    check that was asked for was last answered; `unanswered_since` when one was asked for in vain,
    since the result.
    """

    account: str
    input: str
    status: str
    wa_id: str | None
    checked_at: int
    digests: tuple[str, ...] = field(default=())
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
        """Tell whether the result is one to go by now."""
        return self.status in RESULTS and now < self.expires_at

    def is_answered(self, now: int) -> bool:
        """Tell whether the answer to a check that was asked for is fresh."""
        return self.answered_at is not None and now < self.answered_at + FRESH_MS


def take(
    known: Contact | None, account: str, checked: ContactChecked, digest: str, now: int
) -> Contact | None:
    """Take a result: the newest arrival wins. None where it changes nothing.

    `digest` names the body that it came in, empty for an answer, which is never redelivered. A
    wa_id stays known when a later result carries none: it only ever comes from the client.
    `processing` and `failed` are no results, and take the place of none. While the answer to a
    check that was asked for is fresh, a result that nobody asked for can only make it invalid.
    """
    told = f"{digest} {checked.status} {checked.wa_id}".encode()
    mark = blake2b(told, digest_size=8).hexdigest() if digest else ""
    marks = (mark,) if mark else ()
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
    if checked.status == PROCESSING or not _moves(known, mark, now):
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


def give_up(contact: Contact) -> Contact:
    """End a check that nothing came of: what was never answered is `failed` then.

    What was known of the number stays known, as old as it is.
    """
    if contact.status not in RESULTS:
        return replace(contact, status=FAILED, check=None)
    since = None if contact.check is None else contact.check.asked_at
    return replace(contact, check=None, unanswered_since=since)


def _moves(known: Contact, mark: str, now: int) -> bool:
    """Tell whether an arrival counts: while a check is open, whatever came since it was asked."""
    if known.check is not None:
        return now >= known.check.asked_at
    return mark not in known.digests and now >= known.checked_at


def write(user: User, wrote: UserWrote, context: Context) -> None:
    """Take a message of the user: kept to the hour, which is all that freshness needs."""
    at = date(wrote.at, context.arrived).moment.at
    hour = at - at % HOUR_MS
    if user.wrote_at is None or hour > user.wrote_at:
        user.wrote_at = hour
        user.changed = True
