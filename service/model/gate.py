"""May I write to this user now, and if not, why not?"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from service.model.contacts import FRESH_MS, INVALID, PROCESSING
from service.model.users import OPEN, Link, State, User

CLEARS_WHEN = {
    "identity_pending": "a person acknowledges the identity",
    "identity_scheduled": "the policy acknowledges it when it is due",
    "identity_acknowledging": "the client accepts the acknowledgement",
    "identity_held": "a person acknowledges the identity",
    "identity_failed": "a person acknowledges the identity again",
    "send_blocked": "the client says that the identity is acknowledged",
    "number_changed": "a person or the client acknowledges an identity that came after the change",
    "blocked": "the block ends, or a person ends it",
    "contact_invalid": "a contact check finds the number valid",
    "contact_unknown": "the number is checked, or the user writes",
    "contact_stale": "the number is checked again",
    "account_unreachable": "the WhatsApp client, or the Cloud API, answers again",
    "catching_up": "the client has delivered again what it could not during the downtime",
    "unverified": "the WhatsApp client has been asked about the user",
    "account_unverified": "the WhatsApp client has been asked about every user",
}
UNKNOWN = "contact_unknown"


class Reason(NamedTuple):
    """Why not, since when and until when (Unix ms), and what would clear it.

    `alias` is whom to write to instead; `detail` are the words of the person who blocked.
    """

    code: str
    since: int | None
    alias: str | None = None
    until: int | None = None
    detail: str | None = None

    @property
    def clears_when(self) -> str:
        """Say what would clear it."""
        return CLEARS_WHEN[self.code]


class Verdict(NamedTuple):
    """The gate's answer about one recipient.

    `hash` is the trusted identity hash, None while anything blocks: on the Cloud API a message is
    sent along with it.
    """

    wa_id: str | None
    known: bool
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...]
    user_id: str | None = None
    hash: str | None = None

    @property
    def sendable(self) -> bool:
        """Nothing blocks."""
        return not self.reasons


Findings = tuple[bool, tuple[Reason, ...], tuple[Reason, ...]]
"""Whether the recipient is known, the reasons and the warnings."""


class Recipient(NamedTuple):
    """A user, as far as the gate goes by one.

    `blocked` is a person's block, with its end; `heard_of` is false where that block is all that
    is known. `unverified`: the client was not asked since a restore. `wa_id` is empty where only a
    user id is known. Times are Unix milliseconds.
    """

    id: int
    wa_id: str
    state: str | None
    received_at: int | None = None
    blocked_since: int | None = None
    moved_to: Link | None = None
    wrote_at: int | None = None
    heard_of: bool = True
    unverified: bool = False
    blocked: Reason | None = None
    user_id: str | None = None
    hash: str | None = None

    @classmethod
    def of(cls, user: User) -> "Recipient":
        """Take what the gate goes by from a user."""
        return cls(
            user.id,
            user.wa_id or "",
            user.state,
            None if user.latest is None else user.latest.received_at,
            user.blocked_since,
            user.moved_to,
            user.wrote_at,
            user_id=user.user_id,
            hash=user.hash,
        )


class Checked(Protocol):
    """What the client last said of a number."""

    @property
    def status(self) -> str:
        """Its word, `invalid` for what is no WhatsApp account."""

    @property
    def checked_at(self) -> int:
        """When it said so, in Unix milliseconds."""


class LastWord(NamedTuple):
    """What the client last said of a number, as far as the gate goes by it."""

    wa_id: str | None
    status: str
    checked_at: int


class Rules(NamedTuple):
    """Which reasons only warn at an account, and which warnings block."""

    warn: frozenset[str] = frozenset()
    block: frozenset[str] = frozenset()

    def sort(
        self, reasons: Sequence[Reason], warnings: Sequence[Reason]
    ) -> tuple[tuple[Reason, ...], tuple[Reason, ...]]:
        """Put each on the side where the account wants it."""
        if not self.warn and not self.block:
            return tuple(reasons), tuple(warnings)
        blocking = [reason for reason in reasons if reason.code not in self.warn]
        blocking += [reason for reason in warnings if reason.code in self.block]
        warning = [reason for reason in reasons if reason.code in self.warn]
        warning += [reason for reason in warnings if reason.code not in self.block]
        return tuple(blocking), tuple(warning)


class Situation(NamedTuple):
    """How things stand at an account, whoever the recipient is. Times are Unix milliseconds.

    `unreachable_since`: the client does not answer. `restored_at`: the database was restored, and
    the client not yet asked about everybody. `catching_up`: callbacks may still be under way that
    the client could not deliver during a downtime.
    """

    now: int
    unreachable_since: int | None = None
    restored_at: int | None = None
    catching_up: Reason | None = None
    rules: Rules = Rules()

    @property
    def fresh_since(self) -> int:
        """Checks after this moment are fresh."""
        return self.now - FRESH_MS


def judge(
    wa_id: str | None,
    user: Recipient | None,
    checks: Iterable[Checked | None],
    situation: Situation,
) -> Verdict:
    """Give the gate's answer from what is known of a user and of the checks of the number."""
    newest = _newest(checks)
    known = newest is not None or (user is not None and bool(user.heard_of))
    reasons = [] if user is None or _is_plain(user) else _of_user(user, situation.now)
    warnings = [] if known else [Reason(UNKNOWN, None)]
    if newest is not None:
        if newest.status == INVALID:
            reasons.append(Reason("contact_invalid", newest.checked_at))
        if _is_stale(newest, user, situation.now):
            warnings.append(Reason("contact_stale", newest.checked_at + FRESH_MS))
    if situation[1:4] != _NOTHING:
        _add_situation(reasons, warnings, user, situation)
    if reasons or warnings:
        blocking, warning = situation.rules.sort(reasons, warnings)
    else:
        blocking, warning = (), ()
    if user is None or (user.user_id is None and user.hash is None):
        return Verdict(wa_id, known, blocking, warning)
    trusted = user.hash if user.state == State.ACKNOWLEDGED and not blocking else None
    return Verdict(wa_id, known, blocking, warning, user.user_id, trusted)


def judge_usual(situation: Situation) -> Findings:
    """Find what there is to tell of those who were heard of, but of the account nothing."""
    _, known, reasons, warnings, *_ = judge(None, _USUAL, (), situation)
    return known, reasons, warnings


def _newest(checks: Iterable[Checked | None]) -> Checked | None:
    """Give the last result; what is being checked for the first time has none yet."""
    newest: Checked | None = None
    for check in checks:
        if check is None or check.status == PROCESSING:
            continue
        if newest is None or check.checked_at > newest.checked_at:
            newest = check
    return newest


_NOTHING = (None, None, None)
_USUAL = Recipient(0, "", None)
_OPEN = {None, *OPEN}


def _is_plain(user: Recipient) -> bool:
    """Tell, for most, that nothing of the user blocks."""
    if user.state not in _OPEN:
        return False
    return user.blocked_since is None and user.moved_to is None and user.blocked is None


def _of_user(user: Recipient, now: int) -> list[Reason]:
    reasons = []
    state = user.state
    if state not in _OPEN:
        reasons.append(Reason(f"identity_{state}", user.received_at))
    if user.blocked_since is not None:
        reasons.append(Reason("send_blocked", user.blocked_since))
    if user.moved_to is not None:
        reasons.append(Reason("number_changed", user.moved_to.since.at, user.moved_to.alias))
    blocked = user.blocked
    if blocked is not None and (blocked.until is None or now < blocked.until):
        reasons.append(blocked)
    return reasons


def _is_stale(newest: Checked, user: Recipient | None, now: int) -> bool:
    if newest.checked_at + FRESH_MS > now:
        return False
    wrote_at = None if user is None else user.wrote_at
    return wrote_at is None or wrote_at + FRESH_MS <= now


def _add_situation(
    reasons: list[Reason], warnings: list[Reason], user: Recipient | None, situation: Situation
) -> None:
    restored_at, catching_up = situation.restored_at, situation.catching_up
    if restored_at is not None and user is None:
        warnings.append(Reason("account_unverified", restored_at))
    elif restored_at is not None and user is not None and user.unverified:
        reasons.append(Reason("unverified", restored_at))
    if situation.unreachable_since is not None:
        warnings.append(Reason("account_unreachable", situation.unreachable_since))
    if catching_up is not None and situation.now < (catching_up.until or situation.now):
        warnings.append(catching_up)


def unite(verdicts: Sequence[Verdict]) -> Verdict:
    """Make one answer of those about the same recipient by several names: every reason counts."""
    first = verdicts[0]
    if len(verdicts) == 1:
        return first
    reasons = dict.fromkeys(reason for verdict in verdicts for reason in verdict.reasons)
    warnings = dict.fromkeys(warning for verdict in verdicts for warning in verdict.warnings)
    known = any(verdict.known for verdict in verdicts)
    return first._replace(
        known=known,
        reasons=tuple(reasons),
        warnings=tuple(warnings),
        hash=None if reasons else first.hash,
    )
