"""Interleaved rounds: every server in turn, again and again; medians, spread and ratios."""

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tools.bench.load import Outcome, Plan
from tools.bench.loading import run
from tools.bench.quiet import MOST_OF_OTHERS, Moment
from tools.bench.servers import Server

EXTRA_ROUNDS = 3
"""So many more are run while other programs use the machine."""


@dataclass(frozen=True, slots=True)
class Round:
    """What each server did in one round, and the most that other programs used meanwhile."""

    outcomes: Mapping[str, Outcome]
    others: float


@dataclass(slots=True)
class Series:
    """The rounds that count, of those that were run."""

    rounds: list[Round] = field(default_factory=list)
    run: int = 0

    def rates(self, name: str) -> list[float]:
        """Give a server's rates, round by round."""
        return [found.outcomes[name].rate for found in self.rounds]

    def ratios(self, name: str, reference: str) -> list[float]:
        """Give a server's rate by the reference's in the same round."""
        pairs = zip(self.rates(name), self.rates(reference), strict=True)
        return [rate / other for rate, other in pairs if other]

    def p99_ratios(self, name: str, reference: str) -> list[float]:
        """Give a server's p99 by the reference's in the same round."""
        pairs = [(r.outcomes[name].p99_ms, r.outcomes[reference].p99_ms) for r in self.rounds]
        return [p99 / other for p99, other in pairs if other]

    def middle(self, name: str, what: Callable[[Outcome], float]) -> float:
        """Give the median of something over the rounds."""
        return median(what(found.outcomes[name]) for found in self.rounds)

    def failures(self, name: str) -> int:
        """Count the answers that were no 200, and the connections that broke."""
        found = [r.outcomes[name] for r in self.rounds]
        return sum(outcome.not_200 + outcome.errors for outcome in found)

    @property
    def others(self) -> float:
        """Give the most that other programs used in a round that counts, in cores."""
        return max((found.others for found in self.rounds), default=0.0)

    @property
    def noisy(self) -> bool:
        """Tell whether other programs used the machine too much for a verdict."""
        return self.others > MOST_OF_OTHERS


def median(values: Iterable[float]) -> float:
    """Give the median; 0 of nothing."""
    found = list(values)
    return statistics.median(found) if found else 0.0


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Write the least and the most."""
    return f"{min(values):,.{digits}f} to {max(values):,.{digits}f}" if values else "-"


def measured(server: Server, plan: Plan) -> tuple[Outcome, float]:
    """Load a server; give what came of it, and the cores that other programs used."""
    before, moment = server.process.cpu_seconds(), Moment.now()
    outcome = run(plan)
    ours = server.process.cpu_seconds() - before + outcome.cpu_seconds
    return outcome, moment.others(ours)


def interleaved(
    servers: Sequence[Server], plan: Callable[[Server], Plan], *, rounds: int
) -> Series:
    """Run rounds until enough were quiet; where too few are, the quietest count."""
    series, found = Series(), []
    for number in range(rounds + EXTRA_ROUNDS):
        found.append(_round(servers if number % 2 else tuple(reversed(servers)), plan))
        _say(f"round {number + 1}", found[-1])
        if sum(r.others <= MOST_OF_OTHERS for r in found) >= rounds:
            break
    series.run = len(found)
    series.rounds = sorted(found, key=lambda r: r.others)[:rounds]
    return series


def _round(servers: Sequence[Server], plan: Callable[[Server], Plan]) -> Round:
    outcomes, others = {}, 0.0
    for server in servers:
        outcomes[server.name], used = measured(server, plan(server))
        others = max(others, used)
    return Round(outcomes, others)


def _say(what: str, found: Round) -> None:
    """Tell whoever watches how it goes."""
    told = [f"{name} {o.rate:,.0f}/s p99 {o.p99_ms:.1f} ms" for name, o in found.outcomes.items()]
    told += [
        f"{name} FAILED {o.errors + o.not_200}"
        for name, o in found.outcomes.items()
        if o.errors + o.not_200
    ]
    sys.stderr.write(f"  {what}: {', '.join(sorted(told))}; others {found.others:.2f} cores\n")
