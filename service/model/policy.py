"""Which changes are acknowledged without a person, and the pause before a failed try is repeated.

The guard protects users whose identity changes again and again: beyond `max_changes` within
`per_seconds` a person decides, whatever the mode.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

MAX_DELAY_SECONDS = 300.0
JITTER = 0.2

Mode = Literal["manual", "auto"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of a change: `manual` waits for a person, `auto` acknowledges after a delay.

    With `max_changes` = 3 the fourth change within `per_seconds` waits for a person.
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
        """Return whether the rule names this user."""
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
        """Return the policy of the first rule that names the user by any name, else the default."""
        for rule in self.rules:
            if any(rule.matches(name) for name in names):
                return rule.policy
        return self.default


class PolicyResult(NamedTuple):
    """What the policy says of one change, and why, for the audit trail."""

    policy: Policy
    automatic: bool
    reason: str


def evaluate_policy(policy: Policy, changes_in_window: int) -> PolicyResult:
    """Return what the policy says of a change, this one included in `changes_in_window`.

    They need not be counted any further than one more than it allows.
    """
    if policy.mode == "manual":
        return PolicyResult(policy, automatic=False, reason=f"policy {policy.name}: manual")
    if changes_in_window > policy.max_changes:
        return PolicyResult(
            policy,
            automatic=False,
            reason=f"policy {policy.name}: guard, more than {policy.max_changes} changes within "
            f"{policy.per_seconds:g} s",
        )
    return PolicyResult(policy, automatic=True, reason=f"policy {policy.name}: auto")


def delay_seconds(tries: int, chance: float, cap: float = MAX_DELAY_SECONDS) -> float:
    """Return the pause after so many tries: about 1, 2, 4 … s, at most `cap`.

    `chance` between 0 and 1 spreads it by a fifth either way, so that work which failed
    together does not come back together.
    """
    doubled = 2.0 ** min(max(tries, 1) - 1, 30)
    return min(cap, doubled * (1 - JITTER + 2 * JITTER * chance))
