"""Which changes are acknowledged without a person, and the guard against users who flap."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Mode = Literal["manual", "auto"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of a change: `manual` waits for a person, `auto` acknowledges after a delay.

    The guard: with `max_changes` = 3 the fourth change within `per_seconds` waits for a person.
    """

    name: str
    mode: Mode = "manual"
    delay_seconds: float = 0
    max_changes: int = 3
    per_seconds: float = 86_400


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy for the users it names, by WhatsApp id or by its first digits.

    On the Cloud API a user id can stand for a WhatsApp id.
    """

    policy: Policy
    wa_ids: frozenset[str] = frozenset()
    wa_id_prefixes: tuple[str, ...] = ()

    def matches(self, wa_id: str) -> bool:
        """Tell whether the rule names this user."""
        return wa_id in self.wa_ids or wa_id.startswith(self.wa_id_prefixes)


@dataclass(frozen=True, slots=True)
class Policies:
    """An account's rules in their order, and what holds where none matches.

    `local`: acknowledging is our own decision, for there is no client to ask (Cloud API).
    `first_use` is the policy by which the first hash of a user is trusted, None where none is.
    """

    rules: tuple[Rule, ...]
    default: Policy
    local: bool = False
    first_use: Policy | None = None

    def of(self, *names: str) -> Policy:
        """Give the policy of the first rule that names the user by any name, else the default."""
        for rule in self.rules:
            if any(map(rule.matches, names)):
                return rule.policy
        return self.default


class Verdict(NamedTuple):
    """What the policy says of one change, and why, for the audit trail."""

    policy: Policy
    automatic: bool
    reason: str


def judge(policy: Policy, changes_in_window: int) -> Verdict:
    """Ask the policy about a change, this one included in `changes_in_window`.

    They need not be counted any further than one more than it allows.
    """
    if policy.mode == "manual":
        return Verdict(policy, automatic=False, reason=f"policy {policy.name}: manual")
    if changes_in_window > policy.max_changes:
        return Verdict(
            policy,
            automatic=False,
            reason=f"policy {policy.name}: guard, more than {policy.max_changes} changes within "
            f"{policy.per_seconds:g} s",
        )
    return Verdict(policy, automatic=True, reason=f"policy {policy.name}: auto")
