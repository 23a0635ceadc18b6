"""Whom a text may mean: an alias of a user, or a phone number in any spelling."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from service.model.contacts import FRESH_MS, RESULTS
from service.model.numbers import Spelling, other_spellings
from service.model.users import Link


class ManualBlock(NamedTuple):
    """A person's block, since and until when (Unix ms), with the words of who blocked."""

    since: int
    until: int | None
    detail: str


class Recipient(NamedTuple):
    """A user, as far as the gate goes by one.

    `blocked` is a person's block, with its end; `is_known` is false where that block is all that
    is known. `unverified`: the client was not asked since a restore. `wa_id` is empty where only a
    user id is known. Who was erased is called as it was asked. Times are Unix milliseconds.
    """

    id: int
    wa_id: str
    state: str | None
    received_at: int | None = None
    blocked_since: int | None = None
    moved_to: Link | None = None
    wrote_at: int | None = None
    is_known: bool = True
    unverified: bool = False
    blocked: ManualBlock | None = None
    user_id: str | None = None
    hash: str | None = None
    erased_at: int | None = None
    after_hold: bool = False

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
        """Whether it says something: what is being checked, or failed to be, does not."""
        return self.status in RESULTS


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
        """Return the data with the checks sorted by input, by canonical form and by wa_id."""
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


class Candidate(NamedTuple):
    """A name that a text may stand for, and whose it is; `checks` are those of its wa_id."""

    alias: str
    user: Recipient | None
    checks: Sequence[LatestCheck]

    @property
    def has_known_user(self) -> bool:
        """Whether callbacks were about the user."""
        return self.user is not None and self.user.is_known

    @property
    def is_known(self) -> bool:
        """Whether callbacks or checks were about the name."""
        return self.has_known_user or any(check.is_result for check in self.checks)


class Meaning(NamedTuple):
    """Whom a text may mean.

    `first` is whom it is about: `named` hold those that it names by itself, by an alias, by its
    digits, or by what a check of the number found; `others` are users who are found by another
    spelling alone. `is_other`: it names nobody that is known by itself, so that `first` is one of
    the others. `checks` are those of the number itself.
    """

    first: Candidate
    named: Sequence[Candidate]
    others: Sequence[Candidate]
    checks: Sequence[LatestCheck] = ()

    @property
    def is_other(self) -> bool:
        """Whether the first is found by another spelling alone."""
        return self.first in self.others

    @property
    def users(self) -> list[Recipient]:
        """Return the users, each once."""
        found = {}
        for name in (*self.named, *self.others):
            if name.user is not None:
                found[name.user.id] = name.user
        return list(found.values())


NOBODY = Candidate("", None, ())


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
    # A wa_id without a result, such as that of a check that failed, makes nobody known.
    without_result = [
        check.wa_id for check in checks if check.wa_id is not None and not check.is_result
    ]
    doubtful = _others(without_result, [*named, *others], data)
    first = named[0] if named else NOBODY
    names_somebody = first.user or first.is_known or any(check.is_result for check in checks)
    if others and not names_somebody:
        first = others[0]
    return Meaning(first, named, [*others, *doubtful], checks)


def _by_itself(
    text: str, spelling: Spelling, checks: Sequence[LatestCheck], data: RecipientData, now: int
) -> list[Candidate]:
    """Return whom a text names by itself, and by what checks of the number found."""
    checked = wa_ids_of(checks, now)
    names = dict.fromkeys((*checked, *spelling.names))
    found = [_candidate(name, data) for name in names]
    return sorted(found, key=lambda candidate: _rank(candidate, text, checked))


def _computed(
    spelling: Spelling, checks: Sequence[LatestCheck], data: RecipientData, now: int
) -> list[str]:
    """Return the names that are computed from a text, and what checks of those found."""
    computed = [other for wa_id in wa_ids_of(checks, now) for other in other_spellings(wa_id)]
    of_others = wa_ids_of(_checks_of(data, spelling.others), now)
    return [*computed, *spelling.others, *of_others]


def _others(
    computed: Sequence[str], named: Sequence[Candidate], data: RecipientData
) -> list[Candidate]:
    """Return the users who are found by these names, and not named already."""
    names = {name.alias for name in named}
    ids = {name.user.id for name in named if name.user is not None}
    found = [_candidate(name, data) for name in dict.fromkeys(computed) if name not in names]
    return [name for name in found if name.user is not None and name.user.id not in ids]


def _checks_of(
    data: RecipientData, forms: Iterable[str], literal: Sequence[LatestCheck] = ()
) -> list[LatestCheck]:
    """Return the checks of a number, each once: as it was asked, and in other spellings."""
    in_form = [check for form in forms for check in data.alike.get(form, ())]
    return list(dict.fromkeys([*literal, *in_form]))


def wa_ids_of(checks: Iterable[LatestCheck], now: int) -> list[str]:
    """Return the wa_ids that results of checks name, the one to go by first."""
    results = [check for check in checks if check.is_result]
    results.sort(key=lambda check: weight(check, now), reverse=True)
    return list(dict.fromkeys(check.wa_id for check in results if check.wa_id is not None))


def weight(check: LatestCheck, now: int) -> tuple[bool, int]:
    """Rank a check: a fresh answer to one that was asked for comes before all others."""
    answered_at = check.answered_at
    return answered_at is not None and now < answered_at + FRESH_MS, check.checked_at


def _candidate(name: str, data: RecipientData) -> Candidate:
    user = data.users.get(name)
    return Candidate(name, user, data.newest.get(name if user is None else user.wa_id, ()))


def _rank(name: Candidate, text: str, checked: Sequence[str]) -> int:
    """Rank the names of a text: whoever is called just so, and is known, is meant."""
    if name.has_known_user:
        return 0 if name.alias == text else 1
    if name.alias in checked:
        return 2
    if name.is_known:
        return 3
    return 4 if name.user is not None else 5
