"""May I write to this recipient now, and if not, why not?

A recipient is a text: an alias of a user, or a phone number in any spelling. Whoever it may mean is
looked at, and each can only add a reason.
"""

from collections.abc import Sequence
from math import ceil, sqrt
from typing import NamedTuple

from service.model.contacts import FRESH_MS, HOUR_MS, INVALID
from service.model.numbers import Spelling, has_country, is_dialable, own_digits
from service.model.recipients import (
    Candidate,
    LatestCheck,
    Recipient,
    RecipientData,
    meaning_of,
    wa_ids_of,
    weight,
)
from service.model.users import OPEN_STATES, State, is_user_id

UNKNOWN = "contact_unknown"
OTHER_SPELLING = "other_spelling"
CLEARS_WHEN = {
    "identity_pending": "a person acknowledges the identity",
    "identity_scheduled": "the policy acknowledges the identity when it is due",
    "identity_acknowledging": "the client accepts the acknowledgement",
    "identity_held": "a person acknowledges the identity",
    "identity_failed": "a person acknowledges the identity again",
    "send_blocked": "the client says that the identity is acknowledged, or that it knows none",
    "number_changed": "a person or the client acknowledges an identity that came after the change",
    "blocked": "the block ends, or a person ends it",
    "erased": "the user's identity is known again, and a person acknowledges it",
    "contact_invalid": "a contact check finds the number valid",
    UNKNOWN: "the number is checked, or the user writes",
    "contact_stale": "the number is checked again, or the user writes",
    OTHER_SPELLING: "you ask by the wa_id that is named",
    "account_unreachable": "the WhatsApp client, or the Cloud API, answers again",
    "catching_up": "the client has delivered again what it could not during the downtime",
    "unverified": "the WhatsApp client has been asked about the user",
    "account_unverified": "the WhatsApp client has been asked about every user",
}
_USER_WRITES = "the user writes"
CLEARS_WHEN_ON_CLOUD = dict.fromkeys(("contact_invalid", UNKNOWN, "contact_stale"), _USER_WRITES)
"""The Cloud API checks no numbers: there are results only where an account moved there."""
_COUNTRY_CODE = "you ask by the number with its country code"
_CHECKED = "the number is checked"


class Reason(NamedTuple):
    """Why not, since when and until when (Unix ms), about whom, and what would clear it.

    `of` is an alias of the user who gives the reason; None where it is the account. `alias` is whom
    to write to, or to ask by, instead; `detail` are the words of the person who blocked.
    """

    code: str
    since: int | None
    of: str | None = None
    alias: str | None = None
    until: int | None = None
    detail: str | None = None
    clears_when: str = ""


class Verdict(NamedTuple):
    """The gate's answer about one recipient.

    `wa_id`, `user_id`, `known` and `hash` are those of the user that the text names by itself, else
    of the one found by another spelling. `hash` is the trusted identity hash, None while anything
    blocks: on the Cloud API a message is sent along with it.
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


class Rules(NamedTuple):
    """Which reasons only warn at an account, and which warnings block."""

    warn: frozenset[str] = frozenset()
    block: frozenset[str] = frozenset()

    def sort(
        self, reasons: Sequence[Reason], warnings: Sequence[Reason]
    ) -> tuple[tuple[Reason, ...], tuple[Reason, ...]]:
        """Return what blocks and what only warns, as the account wants it."""
        if not self.warn and not self.block:
            return tuple(reasons), tuple(warnings)
        blocking = [reason for reason in reasons if reason.code not in self.warn]
        blocking += [reason for reason in warnings if reason.code in self.block]
        warning = [reason for reason in reasons if reason.code in self.warn]
        warning += [reason for reason in warnings if reason.code not in self.block]
        return tuple(blocking), tuple(warning)


class AccountStatus(NamedTuple):
    """How things stand at an account, whoever the recipient is. Times are Unix milliseconds.

    `unreachable_since`: the client does not answer. `restored_at`: the database was restored, and
    the client not yet asked about everybody. `catching_up`: callbacks may still be under way that
    the client could not deliver during a downtime. `cloud`: there is no client that checks numbers.
    """

    now: int
    unreachable_since: int | None = None
    restored_at: int | None = None
    catching_up: Reason | None = None
    rules: Rules = Rules()
    cloud: bool = False


def judge(text: str, data: RecipientData, status: AccountStatus) -> Verdict | None:
    """Return the gate's answer about a text; None where it can be no recipient."""
    meaning = meaning_of(text, data, status.now)
    spelling = data.spellings.get(text, Spelling())
    first, users = meaning.first, meaning.users
    is_found = users or meaning.checks or first.is_known or text in spelling.names
    if not is_found and not is_dialable(text, data.country_of):
        return None
    checks = [*meaning.checks, *first.checks]
    reasons: list[Reason] = []
    for user in users:
        reasons += _of_user(user, status)
    of = _alias_of(first) or text
    reasons += _invalid(of, first.user, checks, status)
    for name in (*meaning.named, *meaning.others):
        if name is not first:
            reasons += _invalid(name.alias, name.user, name.checks, status)
    warnings: list[Reason] = []
    is_known = first.has_known_user or any(check.is_result for check in checks)
    if meaning.is_other:
        warnings += _by_another_spelling(of, status)
    elif not is_known:
        warnings.append(_unknown(of, text, spelling, status))
    warnings += _stale(of, first.user, checks, status)
    warnings += _of_account(first.user, status)
    blocking, warning = status.rules.sort(reasons, warnings)
    wa_id, user_id, hash_ = _names_of(first, text, wa_ids_of(meaning.checks, status.now))
    return Verdict(wa_id, is_known, blocking, warning, user_id, None if blocking else hash_)


def _alias_of(name: Candidate) -> str:
    return name.alias if name.user is None else name.user.alias or name.alias


def _names_of(
    first: Candidate, text: str, checked: Sequence[str]
) -> tuple[str | None, str | None, str | None]:
    """Return wa_id, user id and trusted hash of whom the answer is about.

    A number of which nothing is known has no wa_id: nobody but the client knows it. `checked` are
    the wa_ids that checks of the text found.
    """
    user = first.user
    if user is not None:
        trusted = user.hash if user.state == State.ACKNOWLEDGED else None
        return user.wa_id or None, user.user_id, trusted
    if not first.is_known and first.alias != text and first.alias not in checked:
        return None, None, None
    if is_user_id(first.alias):
        return None, first.alias, None
    return first.alias or None, None, None


def _of_user(user: Recipient, status: AccountStatus) -> list[Reason]:
    """Return what of a user, and of the identity, closes the gate."""
    reasons = []
    if user.state is not None and user.state not in OPEN_STATES:
        reasons.append(_reason(f"identity_{user.state}", user.received_at, user.alias, status))
    if user.blocked_since is not None:
        reasons.append(_reason("send_blocked", user.blocked_since, user.alias, status))
    if user.moved_to is not None:
        moved = _reason("number_changed", user.moved_to.since.at, user.alias, status)
        reasons.append(moved._replace(alias=user.moved_to.alias))
    if user.erased_at is not None and user.after_hold and user.state is None:
        reasons.append(_reason("erased", user.erased_at, user.alias, status))
    blocked = user.blocked
    if blocked is not None and (blocked.until is None or status.now < blocked.until):
        reason = _reason("blocked", blocked.since, user.alias, status)
        reasons.append(reason._replace(until=blocked.until, detail=blocked.detail))
    if status.restored_at is not None and user.unverified:
        reasons.append(_reason("unverified", status.restored_at, user.alias, status))
    return reasons


def _invalid(
    of: str, user: Recipient | None, checks: Sequence[LatestCheck], status: AccountStatus
) -> list[Reason]:
    """Return the reason that the number is no WhatsApp account.

    Both the newest result counts and the one to go by, of those that were asked for. On the Cloud
    API, where nobody can check it again, a message of the user shows that it is one.
    """
    if all(check.status != INVALID for check in checks):
        return []
    results = [check for check in checks if check.is_result]
    newest = max(results, key=lambda check: check.checked_at)
    found = (newest, max(results, key=lambda check: weight(check, status.now)))
    invalid = next((check for check in found if check.status == INVALID), None)
    if invalid is None or (status.cloud and _wrote_since(user, invalid.checked_at)):
        return []
    return [_reason("contact_invalid", invalid.checked_at, of, status)]


def _wrote_since(user: Recipient | None, at: int) -> bool:
    """Return whether the user wrote since then, to within the hour that is kept of it."""
    return user is not None and user.wrote_at is not None and user.wrote_at + HOUR_MS > at


def _stale(
    of: str, user: Recipient | None, checks: Sequence[LatestCheck], status: AccountStatus
) -> list[Reason]:
    results = [check.checked_at for check in checks if check.is_result]
    if not results or max(results) + FRESH_MS > status.now:
        return []
    if user is not None and user.wrote_at is not None and user.wrote_at + FRESH_MS > status.now:
        return []
    return [_reason("contact_stale", max(results) + FRESH_MS, of, status)]


def _by_another_spelling(wa_id: str, status: AccountStatus) -> list[Reason]:
    """Return the warning that names the wa_id to ask by; who is asked for is unknown until then."""
    codes = [OTHER_SPELLING, *({UNKNOWN} & status.rules.block)]
    clears_when = CLEARS_WHEN[OTHER_SPELLING]
    return [Reason(code, None, wa_id, alias=wa_id, clears_when=clears_when) for code in codes]


def _unknown(of: str, text: str, spelling: Spelling, status: AccountStatus) -> Reason:
    reason = _reason(UNKNOWN, None, of, status)
    if text in spelling.names or has_country(text) or own_digits(text) in spelling.completed:
        return reason
    # A message would come from the number with its country code, which this text has not.
    return reason._replace(clears_when=_COUNTRY_CODE if status.cloud else _CHECKED)


def _of_account(user: Recipient | None, status: AccountStatus) -> list[Reason]:
    found = []
    if status.restored_at is not None and user is None:
        found.append(_reason("account_unverified", status.restored_at, None, status))
    if status.unreachable_since is not None:
        found.append(_reason("account_unreachable", status.unreachable_since, None, status))
    catching_up = status.catching_up
    if catching_up is not None and status.now < (catching_up.until or status.now):
        found.append(catching_up._replace(clears_when=CLEARS_WHEN[catching_up.code]))
    return found


def _reason(code: str, since: int | None, of: str | None, status: AccountStatus) -> Reason:
    clears_when = (CLEARS_WHEN_ON_CLOUD if status.cloud else CLEARS_WHEN).get(code)
    return Reason(code, since, of, clears_when=clears_when or CLEARS_WHEN[code])


STEP_SECONDS = 3
LONGEST_SECONDS = 900
MARGIN_SECONDS = 10
"""For the requests themselves: all that failed are on their way at once then."""


def catching_up(alive_at: int | None, now: int) -> Reason | None:
    """Return the reason after a downtime, from when the service was last alive (Unix ms).

    Until then callbacks may still be under way that could not be delivered. None where it is not
    known when the service was alive: nothing was ever missed.
    """
    if alive_at is None:
        return None
    seconds = min(LONGEST_SECONDS, next_try_seconds((now - alive_at) / 1000) + MARGIN_SECONDS)
    return Reason("catching_up", now, until=now + 1000 * seconds)


def catching_up_from(since: int, until: int, now: int) -> Reason:
    """Return the reason after a downtime that was noted; no clock that was set back prolongs it."""
    return Reason("catching_up", since, until=min(until, now + 1000 * LONGEST_SECONDS))


def next_try_seconds(down_seconds: float) -> int:
    """Return the longest that the client may pause before it tries again what failed meanwhile.

    It tries again 3 s after the first failure, then after 6, 9 … s, at most 900 s
    ("callback_backoff_delay_ms" and "max_callback_backoff_delay_ms" of its settings). After n tries
    it has waited 3 + 6 + … + 3n s, which is 1.5 n (n + 1): the longer the service was away, the
    longer it may be until the next try.
    """
    waited = max(0.0, down_seconds) / (STEP_SECONDS / 2)
    tries = ceil((sqrt(1 + 4 * waited) - 1) / 2)
    return min(LONGEST_SECONDS, STEP_SECONDS * max(1, tries))
