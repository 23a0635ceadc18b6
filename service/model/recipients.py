"""Whom a text may mean: an alias of a user, or a phone number in any spelling."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from service.model.contacts import FRESH_MS, RESULTS
from service.model.numbers import Spelling, other_spellings
from service.model.users import Link


class HandBlock(NamedTuple):
    """A person's block, since and until when (Unix ms), with the words of who blocked."""

    since: int
    until: int | None
    detail: str


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
    blocked: HandBlock | None = None
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
        told.sort(key=lambda check: weight(check, now), reverse=True)
    return list(dict.fromkeys(check.wa_id for check in told if check.wa_id is not None))


def weight(check: LatestCheck, now: int) -> tuple[bool, int]:
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
