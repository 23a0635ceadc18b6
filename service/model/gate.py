"""May I write to this user now, and if not, why not?"""

from collections.abc import Sequence
from dataclasses import dataclass

from service.model.contacts import FRESH_MS, PROCESSING, Contact
from service.model.users import State, User

CLEARS_WHEN = {
    "identity_pending": "a person acknowledges the identity",
    "identity_scheduled": "the policy acknowledges it when it is due",
    "identity_acknowledging": "the client accepts the acknowledgement",
    "identity_held": "a person acknowledges the identity",
    "identity_failed": "a person acknowledges the identity again",
    "send_blocked": "the client says that the identity is acknowledged",
    "number_changed": "you write to the new number instead",
    "contact_invalid": "a contact check finds the number valid",
    "contact_unknown": "the number is checked, or the user writes",
    "contact_stale": "the number is checked again",
    "account_unreachable": "the WhatsApp client answers again",
    "unverified": "the WhatsApp client has been asked about the user",
    "account_unverified": "the WhatsApp client has been asked about every user",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why not, since when (Unix ms), and what would clear it."""

    code: str
    since: int | None
    wa_id: str | None = None

    @property
    def clears_when(self) -> str:
        """Say what would clear it."""
        return CLEARS_WHEN[self.code]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer about one recipient."""

    wa_id: str | None
    known: bool
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...]

    @property
    def sendable(self) -> bool:
        """Nothing blocks."""
        return not self.reasons


def judge(
    wa_id: str | None,
    user: User | None,
    contacts: Sequence[Contact],
    now: int,
    unreachable_since: int | None = None,
    unverified_since: int | None = None,
) -> Verdict:
    """Give the gate's answer from what is known of a user and of the checks of the number.

    `unverified_since`: the database was restored then, and the client not yet asked about this
    user; or, where nothing is known of the user, not yet about everybody.
    """
    told = (contact for contact in contacts if contact.status != PROCESSING)
    newest = max(told, key=lambda c: c.checked_at, default=None)
    known = user is not None or newest is not None
    reasons = [*_of_identity(user), *_of_contact(newest)]
    warnings = [*_of_freshness(user, newest, known, now)]
    if unverified_since is not None and user is not None:
        reasons.append(Reason("unverified", unverified_since))
    elif unverified_since is not None:
        warnings.append(Reason("account_unverified", unverified_since))
    if unreachable_since is not None:
        warnings.append(Reason("account_unreachable", unreachable_since))
    return Verdict(wa_id, known, tuple(reasons), tuple(warnings))


def unite(verdicts: Sequence[Verdict]) -> Verdict:
    """Make one answer of those about the same recipient by several names: every reason counts."""
    first = verdicts[0]
    reasons = dict.fromkeys(reason for verdict in verdicts for reason in verdict.reasons)
    warnings = dict.fromkeys(warning for verdict in verdicts for warning in verdict.warnings)
    known = any(verdict.known for verdict in verdicts)
    return Verdict(first.wa_id, known, tuple(reasons), tuple(warnings))


def _of_identity(user: User | None) -> list[Reason]:
    if user is None:
        return []
    reasons = []
    if user.state is not None and user.state is not State.ACKNOWLEDGED and user.latest:
        reasons.append(Reason(f"identity_{user.state}", user.latest.received_at))
    if user.blocked_since is not None:
        reasons.append(Reason("send_blocked", user.blocked_since))
    if user.moved_to is not None:
        moved = user.moved_to
        reasons.append(Reason("number_changed", moved.since.at, moved.wa_id))
    return reasons


def _of_contact(newest: Contact | None) -> list[Reason]:
    if newest is None or newest.status != "invalid":
        return []
    return [Reason("contact_invalid", newest.checked_at)]


def _of_freshness(user: User | None, newest: Contact | None, known: bool, now: int) -> list[Reason]:
    if not known:
        return [Reason("contact_unknown", None)]
    if newest is None or newest.expires_at > now:
        return []
    wrote_at = user.wrote_at if user is not None else None
    if wrote_at is not None and wrote_at + FRESH_MS > now:
        return []
    return [Reason("contact_stale", newest.expires_at)]
