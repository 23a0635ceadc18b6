"""The states that a user's identity may end in, by policy and by the decisions about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from tools.soak.evidence import Evidence, Put
from tools.soak.record import (
    MAX_CHANGES,
    Change,
    Decision,
    Handling,
    NumberChange,
    Record,
    handling_of,
)


@dataclass(frozen=True, slots=True)
class Case:
    """One user: the accepted changes in the order of their event times, and all that was done."""

    wa_id: str
    handling: Handling
    changes: Sequence[Change]
    decisions: Sequence[Decision]
    puts: Sequence[Put]
    number_change: NumberChange | None

    @property
    def latest(self) -> Change:
        """The change with the latest event time."""
        return self.changes[-1]

    @property
    def left_to_policy(self) -> bool:
        """Whether policy decides, and no person did anything about this user."""
        return self.handling is not Handling.MANUAL and not self.decisions

    @property
    def last_accepted(self) -> Decision | None:
        """The last decision about the latest change that the service accepted."""
        about = [d for d in self.decisions if d.hash == self.latest.hash and d.accepted]
        return about[-1] if about else None

    @property
    def held_over_a_put(self) -> bool:
        """Whether it was held while the client may not yet have carried out a PUT before that.

        Held or acknowledged are right then, and the client knows better until it is asked again.
        """
        last = self.last_accepted
        return last is not None and last.verb == "hold" and self.settled_by_put(last)

    def may_be_put(self, put: Put) -> bool:
        """Return whether policy or a person can have decided this by then."""
        return self.handling is not Handling.MANUAL or any(
            d.verb == "acknowledge" and d.hash == put.hash and d.sent_at <= put.at
            for d in self.decisions
        )

    def was_held(self, put: Put) -> bool:
        """Return whether the identity was surely held when the PUT came."""
        about = [d for d in self.decisions if d.hash == put.hash and d.sent_at <= put.at]
        last = about[-1] if about else None
        if last is None or last.verb != "hold" or not last.accepted or last.answered_at is None:
            return False
        return last.answered_at < put.at

    @property
    def has_new_owner(self) -> bool:
        """Whether a person surely acknowledged who came after the user had left the number."""
        if self.number_change is None or self.handling is not Handling.MANUAL:
            return False
        last = self.last_accepted
        acknowledged = last is not None and last.verb == "acknowledge"
        return acknowledged and self.latest.at_ms > self.number_change.at_ms

    def may_have_new_owner(self, asked_at: float) -> bool:
        """Return whether a person, or the client that was last asked then, may have done so."""
        if self.number_change is None:
            return False
        later = {change.hash for change in self.changes if change.at_ms > self.number_change.at_ms}
        decided = any(
            d.hash in later and d.verb == "acknowledge" and d.possible for d in self.decisions
        )
        return decided or (bool(later) and asked_at * 1000 > self.number_change.at_ms)

    def settled_by_put(self, hold: Decision) -> bool:
        """Return whether a PUT may have had its effect before the hold, so that a GET decides."""
        end = hold.answered_at or float("inf")
        return any(put.hash == hold.hash and put.at <= end for put in self.puts)


def cases(record: Record, evidence: Evidence) -> list[Case]:
    """Return the users, each with all that is known about it."""
    changes: dict[str, set[Change]] = {}
    for body in record.accepted:
        if (change := record.sightings.get(body)) is not None:
            changes.setdefault(change.wa_id, set()).add(change)
    decisions: dict[str, list[Decision]] = {}
    for decision in record.decisions:
        decisions.setdefault(decision.wa_id, []).append(decision)
    puts: dict[str, list[Put]] = {}
    for put in evidence.puts:
        puts.setdefault(put.wa_id, []).append(put)
    return [
        Case(
            wa_id,
            handling,
            sorted(found, key=attrgetter("at_ms")),
            decisions.get(wa_id, ()),
            puts.get(wa_id, ()),
            record.number_changes.get(wa_id),
        )
        for wa_id, found in changes.items()
        if (handling := handling_of(wa_id)) is not None
    ]


def states(case: Case) -> set[str]:
    """Return the states that are right for a user's latest identity once all is done."""
    last = case.last_accepted
    if last is None:
        return _by_policy(case)
    if last.verb == "acknowledge":
        return {"acknowledged"}
    return {"held", "acknowledged"} if case.held_over_a_put else {"held"}


def _by_policy(case: Case) -> set[str]:
    if case.handling is Handling.MANUAL:
        return {"pending"}
    earlier = [d for d in case.decisions if d.possible]
    if _surely_after_hold(case, earlier):
        return {"pending"}
    may_wait = (
        len(case.changes) > MAX_CHANGES
        or any(d.verb == "hold" for d in earlier)
        or case.number_change is not None
    )
    return {"acknowledged", "pending"} if may_wait else {"acknowledged"}


def _surely_after_hold(case: Case, earlier: list[Decision]) -> bool:
    """Return whether the identity before was held: then every later one waits for a person."""
    last = earlier[-1] if earlier else None
    return (
        last is not None
        and last.verb == "hold"
        and last.accepted
        and last.hash != case.latest.hash
        and not case.settled_by_put(last)
    )
