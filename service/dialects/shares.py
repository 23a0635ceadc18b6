"""What of a kept callback is of one account, where the callbacks of an app may be of several.

Every change of a webhook of the Cloud API names a phone number. One that names none, or a number
that no account has, is of no account in particular: so it counts for each account of the app.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from service.dialects.cloud import number_id_of


@dataclass(frozen=True, slots=True)
class Share:
    """An account, and what the journal has of it.

    `owners` are the names under which the journal may have its callbacks, its own name first.
    `number` is its phone_number_id, `others` are those of the other accounts; an account of the
    On-Premises API has neither.
    """

    account: str
    owners: tuple[str, ...]
    number: str | None = None
    others: frozenset[str] = frozenset()

    def others_in(self, owner: str) -> frozenset[str]:
        """Return the numbers of others that a callback under this name may speak of."""
        return frozenset() if owner == self.account else self.others

    def parts_in(self, owner: str, value: Any) -> list[Any]:
        """Return the parts of a callback that are of this account for sure; none if none is."""
        if owner == self.account:
            return [value]
        return [part for number, part in _parts(value) if number == self.number]


def _parts(value: Any) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yield the contents of the changes of a webhook, each with the number that it is of."""
    for change in _changes(value):
        content = change.get("value")
        if not isinstance(content, dict):
            continue
        number, standby = number_id_of(content), content.get("standby")
        yield number, {key: one for key, one in content.items() if key != "standby"}
        if isinstance(standby, dict):
            yield number_id_of(standby) or number, standby


def _changes(value: Any) -> Iterator[dict[str, Any]]:
    for entry in _objects(value.get("entry") if isinstance(value, dict) else None):
        yield from _objects(entry.get("changes"))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, dict))


@dataclass(frozen=True, slots=True)
class OfOthers:
    """A part of a callback that is of another account: nobody looks into it."""

    value: Any


def set_apart(value: Any, others: Collection[str]) -> None:
    """Wrap what of a parsed webhook is of other accounts, by the numbers of those."""
    if not others:
        return
    for change in _changes(value):
        content = change.get("value")
        if not isinstance(content, dict):
            continue
        standby = content.get("standby")
        number = number_id_of(content)
        number_by = number_id_of(standby) or number
        if number in others and number_by in others:
            change["value"] = OfOthers(content)
        elif number_by in others:
            content["standby"] = OfOthers(standby)
        elif number in others:
            apart = {key: OfOthers(one) for key, one in content.items() if key != "standby"}
            change["value"] = apart | {"standby": standby}
