"""The policy as configured, and how an account's and a rule's keys override the general ones."""

from collections.abc import Iterable
from typing import Annotated, TypeVar

from pydantic import Field

from service.model.policy import Mode, Policies, Policy, Rule
from service.settings.types import YEAR, Alias, Count, Name, Table

T = TypeVar("T")

Delay = Annotated[float, Field(ge=0, le=YEAR)]
Window = Annotated[float, Field(gt=0, le=YEAR)]


class PolicyOverrides(Table):
    """The keys of a policy, of which any may be left to the policy above."""

    mode: Mode | None = None
    delay_seconds: Delay | None = None
    max_changes: Count | None = None
    per_seconds: Window | None = None

    def over(self, base: Policy, name: str) -> Policy:
        """Return the base with the keys that are set here, under a name of its own."""
        return Policy(
            name=name,
            mode=_first(self.mode, base.mode),
            delay_seconds=_first(self.delay_seconds, base.delay_seconds),
            max_changes=_first(self.max_changes, base.max_changes),
            per_seconds=_first(self.per_seconds, base.per_seconds),
        )


class RuleSettings(PolicyOverrides):
    """A rule: for these users, these keys."""

    name: Name
    wa_ids: tuple[Alias, ...] = ()
    wa_id_prefixes: tuple[Alias, ...] = ()


class AccountPolicy(PolicyOverrides):
    """An account's own policy: any of the keys, and rules that come before the general ones."""

    rules: tuple[RuleSettings, ...] = ()


class PolicySettings(Table):
    """The general policy."""

    mode: Mode = "manual"
    delay_seconds: Delay = 0.0
    max_changes: Count = 3
    per_seconds: Window = 86_400.0
    rules: tuple[RuleSettings, ...] = ()

    def for_account(self, own: AccountPolicy) -> Policies:
        """Return what an account's changes are decided by, its own keys and rules first."""
        general = Policy(
            name="default",
            mode=self.mode,
            delay_seconds=self.delay_seconds,
            max_changes=self.max_changes,
            per_seconds=self.per_seconds,
        )
        default = own.over(general, "default")
        return Policies(rules=tuple(_rules((*own.rules, *self.rules), default)), default=default)


def _rules(rules: Iterable[RuleSettings], default: Policy) -> Iterable[Rule]:
    for rule in rules:
        yield Rule(
            policy=rule.over(default, rule.name),
            wa_ids=frozenset(rule.wa_ids),
            wa_id_prefixes=rule.wa_id_prefixes,
        )


def _first(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value
