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
    the result is still the one before; `processing` where there was none.
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

    @property
    def expires_at(self) -> int:
        """When the result is stale, in Unix milliseconds."""
        return self.checked_at + FRESH_MS

    def fresh(self, now: int) -> bool:
        """Tell whether the result is one to go by now."""
        return self.status in {VALID, INVALID} and now < self.expires_at


def take(
    known: Contact | None, account: str, checked: ContactChecked, digest: str, now: int
) -> Contact | None:
    """Take a result: the newest arrival wins. None where a redelivery moves nothing.

    `digest` names the body that it came in, empty for an answer, which is never redelivered. A
    wa_id stays known when a later result carries none: it only ever comes from the client.
    `processing` is no result, and takes the place of none.
    """
    told = f"{digest} {checked.status} {checked.wa_id}".encode()
    mark = blake2b(told, digest_size=8).hexdigest() if digest else ""
    marks = (mark,) if mark else ()
    if known is None:
        return Contact(account, checked.input, checked.status, checked.wa_id, now, marks)
    if checked.status == PROCESSING or not _moves(known, mark, now):
        return None
    return replace(
        known,
        status=checked.status,
        wa_id=checked.wa_id or known.wa_id,
        checked_at=now,
        digests=(*known.digests, *marks)[-MAX_DIGESTS:],
        check=None,
    )


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
