"""May I write to this recipient now, and if not, why not?

A recipient is a text: an alias of a user, or a phone number in any spelling. Whoever it may mean is
looked at, and each can only add a reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from service.model.contacts import FRESH_MS, HOUR_MS, INVALID, VALID
from service.model.names import is_user_id
from service.model.numbers import (
    Spelling,
    has_country,
    is_dialable,
    other_spellings,
    own_digits,
)
from service.model.users import OPEN, Link, State

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
"""The Cloud API checks no numbers: results are left where an account moved there."""
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

    @property
    def alias(self) -> str:
        """What the user is called."""
        return self.wa_id or self.user_id or ""


class LatestCheck(NamedTuple):
    """What the client last said of an input. Times are Unix milliseconds.

    `canonical` is the number's one form. `answered_at` is when the client last answered a check of
    the input that was asked for.
    """

    input: str
    canonical: str | None
    wa_id: str | None
    status: str
    checked_at: int
    answered_at: int | None = None

    @property
    def is_result(self) -> bool:
        """Tell whether it says something: what is being checked, or failed to be, does not."""
        return self.status in {VALID, INVALID}


class RecipientData(NamedTuple):
    """What is known of the texts that are asked about.

    `country_of` is a number whose country completes the others. `spellings` by text; `users` by
    alias; `checks` by literal input, `alike` by canonical form and `newest` by wa_id.
    """

    country_of: str | None
    spellings: Mapping[str, Spelling]
    users: Mapping[str, Recipient]
    checks: Mapping[str, Sequence[LatestCheck]]
    alike: Mapping[str, Sequence[LatestCheck]]
    newest: Mapping[str, Sequence[LatestCheck]]

    @classmethod
    def of(
        cls,
        country_of: str | None,
        spellings: Mapping[str, Spelling],
        users: Mapping[str, Recipient],
        checks: Iterable[LatestCheck],
    ) -> "RecipientData":
        """Sort checks by all that they are known by."""
        by_input: dict[str, list[LatestCheck]] = {}
        by_form: dict[str, list[LatestCheck]] = {}
        by_wa_id: dict[str, list[LatestCheck]] = {}
        for check in checks:
            by_input.setdefault(check.input, []).append(check)
            if check.canonical is not None:
                by_form.setdefault(check.canonical, []).append(check)
            if check.wa_id is not None:
                by_wa_id.setdefault(check.wa_id, []).append(check)
        return cls(country_of, spellings, users, by_input, by_form, by_wa_id)


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


class Named(NamedTuple):
    """A name that a text may call somebody, and who that is; `checks` are those of its wa_id."""

    alias: str
    user: Recipient | None
    checks: Sequence[LatestCheck]

    @property
    def is_heard_of(self) -> bool:
        """Tell whether callbacks spoke of the user."""
        return self.user is not None and self.user.heard_of

    @property
    def is_known(self) -> bool:
        """Tell whether callbacks or checks spoke of the name."""
        return self.is_heard_of or any(check.is_result for check in self.checks)


class Meaning(NamedTuple):
    """Whom a text may mean.

    `first` is whom it is about: `named` hold those that it names by itself, by an alias, by its
    digits, or by what a check of the number told; `others` are users who are found by another
    spelling alone. `is_other`: it names nobody that is known by itself, so that `first` is one of
    the others. `checks` are those of the number itself.
    """

    first: Named
    named: Sequence[Named]
    others: Sequence[Named]
    checks: Sequence[LatestCheck] = ()

    @property
    def is_other(self) -> bool:
        """Tell whether the first is found by another spelling alone."""
        return self.first in self.others

    @property
    def users(self) -> list[Recipient]:
        """Return the users, each once."""
        found = {}
        for name in (*self.named, *self.others):
            if name.user is not None:
                found[name.user.id] = name.user
        return list(found.values())


NOBODY = Named("", None, ())


def meaning_of(text: str, data: RecipientData, now: int) -> Meaning:
    """Return everybody whom a text may mean."""
    spelling = data.spellings.get(text, Spelling())
    checks = _checks_of(data, spelling.forms, data.checks.get(text, ()))
    named = _by_itself(text, spelling, checks, data, now)
    if spelling.completed and not (checks or any(name.user or name.is_known for name in named)):
        # Nobody is known by the text as it stands: what was checked is the number in full.
        checks = _checks_of(data, spelling.completed)
        named = _by_itself(text, spelling, checks, data, now)
    others = _others(_computed(spelling, checks, data, now), named, data)
    # What was told by no result, such as a check that failed, makes nobody known.
    hearsay = [check.wa_id for check in checks if check.wa_id is not None and not check.is_result]
    doubtful = _others(hearsay, [*named, *others], data) if hearsay else []
    first = named[0] if named else NOBODY
    names_somebody = first.user or first.is_known or any(check.is_result for check in checks)
    if others and not names_somebody:
        first = others[0]
    return Meaning(first, named, [*others, *doubtful], checks)


def _by_itself(
    text: str, spelling: Spelling, checks: Sequence[LatestCheck], data: RecipientData, now: int
) -> list[Named]:
    """Return whom a text names by itself, and by what checks of the number told."""
    told = told_by(checks, now)
    names = dict.fromkeys((*told, *spelling.names))
    return sorted((_named(name, data) for name in names), key=lambda name: _rank(name, text, told))


def _computed(
    spelling: Spelling, checks: Sequence[LatestCheck], data: RecipientData, now: int
) -> list[str]:
    """Return the names that are computed from a text, and what checks of those told."""
    computed = [other for wa_id in told_by(checks, now) for other in other_spellings(wa_id)]
    if spelling.others:
        computed += (*spelling.others, *told_by(_checks_of(data, spelling.others), now))
    return computed


def _others(computed: Sequence[str], named: Sequence[Named], data: RecipientData) -> list[Named]:
    """Return the users who are found by these names, and not named already."""
    if not computed:
        return []
    names = {name.alias for name in named}
    ids = {name.user.id for name in named if name.user is not None}
    found = [_named(name, data) for name in dict.fromkeys(computed) if name not in names]
    return [name for name in found if name.user is not None and name.user.id not in ids]


def _checks_of(
    data: RecipientData, forms: Iterable[str], literal: Sequence[LatestCheck] = ()
) -> list[LatestCheck]:
    """Return the checks of a number, each once: as it was asked, and in other spellings."""
    found = [*literal]
    for form in forms:
        found += data.alike.get(form, ())
    return found if len(found) <= 1 else list(dict.fromkeys(found))


def told_by(checks: Iterable[LatestCheck], now: int) -> list[str]:
    """Return the wa_ids that results of checks tell, the one to go by first."""
    told = [check for check in checks if check.wa_id is not None and check.is_result]
    if len(told) > 1:
        told.sort(key=lambda check: _weight(check, now), reverse=True)
    return list(dict.fromkeys(check.wa_id for check in told if check.wa_id is not None))


def _weight(check: LatestCheck, now: int) -> tuple[bool, int]:
    """Rank a check: a fresh answer to one that was asked for comes before all others."""
    answered_at = check.answered_at
    return answered_at is not None and now < answered_at + FRESH_MS, check.checked_at


def _named(name: str, data: RecipientData) -> Named:
    user = data.users.get(name)
    return Named(name, user, data.newest.get(name if user is None else user.wa_id, ()))


def _rank(name: Named, text: str, told: Sequence[str]) -> int:
    """Rank the names of a text: whoever is called just so, and was heard of, is meant."""
    if name.is_heard_of:
        return 0 if name.alias == text else 1
    if name.alias in told:
        return 2
    if name.is_known:
        return 3
    return 4 if name.user is not None else 5


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
    is_known = first.is_heard_of or any(check.is_result for check in checks)
    if meaning.is_other:
        warnings += _by_another_spelling(of, status)
    elif not is_known:
        warnings.append(_unknown(of, text, spelling, status))
    warnings += _stale(of, first.user, checks, status)
    warnings += _of_account(first.user, status)
    blocking, warning = status.rules.sort(reasons, warnings)
    wa_id, user_id, hash_ = _called(first, text, told_by(meaning.checks, status.now))
    return Verdict(wa_id, is_known, blocking, warning, user_id, None if blocking else hash_)


def _alias_of(name: Named) -> str:
    return name.alias if name.user is None else name.user.alias or name.alias


def _called(
    first: Named, text: str, told: Sequence[str]
) -> tuple[str | None, str | None, str | None]:
    """Return wa_id, user id and trusted hash of whom the answer is about.

    A number of which nothing is known has no wa_id: nobody but the client tells it.
    """
    user = first.user
    if user is not None:
        trusted = user.hash if user.state == State.ACKNOWLEDGED else None
        return user.wa_id or None, user.user_id, trusted
    if not first.is_known and first.alias != text and first.alias not in told:
        return None, None, None
    if is_user_id(first.alias):
        return None, first.alias, None
    return first.alias or None, None, None


def _of_user(user: Recipient, status: AccountStatus) -> list[Reason]:
    """Return what of a user, and of the identity, closes the gate."""
    reasons = []
    if user.state is not None and user.state not in OPEN:
        reasons.append(_reason(f"identity_{user.state}", user.received_at, user.alias, status))
    if user.blocked_since is not None:
        reasons.append(_reason("send_blocked", user.blocked_since, user.alias, status))
    if user.moved_to is not None:
        moved = _reason("number_changed", user.moved_to.since.at, user.alias, status)
        reasons.append(moved._replace(alias=user.moved_to.alias))
    if user.blocked is not None and (user.blocked.until or status.now + 1) > status.now:
        clears_when = CLEARS_WHEN[user.blocked.code]
        reasons.append(user.blocked._replace(of=user.alias, clears_when=clears_when))
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
    found = (newest, max(results, key=lambda check: _weight(check, status.now)))
    invalid = next((check for check in found if check.status == INVALID), None)
    if invalid is None or (status.cloud and _wrote_since(user, invalid.checked_at)):
        return []
    return [_reason("contact_invalid", invalid.checked_at, of, status)]


def _wrote_since(user: Recipient | None, at: int) -> bool:
    """Tell whether the user wrote since then, to within the hour that is kept of it."""
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
