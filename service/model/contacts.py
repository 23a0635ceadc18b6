"""Results of contact checks: whether a number is a WhatsApp account, and for how long we know."""

from dataclasses import dataclass, field, replace
from hashlib import blake2b

from service.model.events import ContactChecked, UserWrote
from service.model.moments import date
from service.model.users import Context, User

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
FRESH_MS = 7 * DAY_MS
"""The client's own cache keeps a result for seven days."""
MAX_DIGESTS = 16


@dataclass(frozen=True, slots=True)
class Contact:
    """What the client last said of an input, the literal text that was asked about.

    `digests` tell which callbacks brought its results, to know a redelivery by.
    """

    account: str
    input: str
    status: str
    wa_id: str | None
    checked_at: int
    digests: tuple[str, ...] = field(default=())

    @property
    def expires_at(self) -> int:
        """When the result is stale, in Unix milliseconds."""
        return self.checked_at + FRESH_MS


def take(
    known: Contact | None, account: str, checked: ContactChecked, digest: str, now: int
) -> Contact | None:
    """Take a result: the newest arrival wins. None where a redelivery moves nothing.

    `digest` names the body that it came in. A wa_id stays known when a later result carries none:
    it only ever comes from the client.
    """
    told = f"{digest} {checked.status} {checked.wa_id}".encode()
    mark = blake2b(told, digest_size=8).hexdigest()
    if known is None:
        return Contact(account, checked.input, checked.status, checked.wa_id, now, (mark,))
    if mark in known.digests or now < known.checked_at:
        return None
    return replace(
        known,
        status=checked.status,
        wa_id=checked.wa_id or known.wa_id,
        checked_at=now,
        digests=(*known.digests, mark)[-MAX_DIGESTS:],
    )


def write(user: User, wrote: UserWrote, context: Context) -> None:
    """Take a message of the user: kept to the hour, which is all that freshness needs."""
    at = date(wrote.at, context.arrived).moment.at
    hour = at - at % HOUR_MS
    if user.wrote_at is None or hour > user.wrote_at:
        user.wrote_at = hour
        user.changed = True
