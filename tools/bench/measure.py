"""Interleaved rounds: every server in turn, again and again; medians, ratios, and CPU time."""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Self

from tools.bench.load import Outcome, Plan, run
from tools.bench.servers import Server
from tools.processes import Process

EXTRA_ROUNDS = 3
"""As many more rounds are run while other programs use the machine."""
MOST_OF_OTHERS = 0.2
"""Cores that others may use in a round that counts; the kernel's own work is part of it."""
BLOCK_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how often to measure, and the sizes of what is measured."""

    quick: bool = False
    rounds: int = 7
    seconds: float = 4.0
    connections: tuple[int, ...] = (1, 8, 64, 256)
    identities: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    contacts: int = 1_000_000
    idle_seconds: float = 60.0
    end_to_end_changes: int = 10_000
    paced_changes: int = 200

    @classmethod
    def small(cls) -> Self:
        """Return the effort of `--quick`."""
        return cls(
            quick=True,
            rounds=3,
            seconds=1.5,
            identities=(10_000, 50_000),
            contacts=50_000,
            idle_seconds=10.0,
            end_to_end_changes=4_000,
        )


class Others:
    """What other programs use of the machine, from now on."""

    def __init__(self) -> None:
        self._at, self._busy = time.perf_counter(), _busy_seconds()

    def cores(self, our_seconds: float) -> float:
        """Return the cores that others have used since, if we used so much CPU time."""
        busy = _busy_seconds() - self._busy - our_seconds
        return max(0.0, busy / (time.perf_counter() - self._at))


def _busy_seconds() -> float:
    """Return the CPU time that all programs have used so far."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def read_through(file: Path) -> None:
    """Read a database so that it lies in memory: the service is measured, and not the disk."""
    with file.open("rb") as opened:
        while opened.read(BLOCK_BYTES):
            pass


@dataclass(frozen=True, slots=True)
class Round:
    """The outcomes of one round by server, and the cores that others used at most."""

    outcomes: Mapping[str, Outcome]
    others: float


@dataclass(slots=True)
class Series:
    """The rounds that count."""

    rounds: list[Round] = field(default_factory=list)

    def values(self, name: str, what: str) -> list[float]:
        """Return an attribute of a server's outcomes, round by round."""
        return [attrgetter(what)(found.outcomes[name]) for found in self.rounds]

    def median(self, name: str, what: str) -> float:
        """Return the median of an attribute of a server's outcomes."""
        return median(self.values(name, what))

    def ratios(self, name: str, reference: str, what: str = "rate") -> list[float]:
        """Return an attribute divided by that of the reference in the same round."""
        pairs = zip(self.values(name, what), self.values(reference, what), strict=True)
        return [value / other for value, other in pairs if other]

    def failures(self, *names: str) -> int:
        """Return the number of requests without a 200."""
        return int(sum(sum(self.values(name, "failures")) for name in names))

    @property
    def others(self) -> float:
        """The cores that others used in a round that counts, at most."""
        return max((found.others for found in self.rounds), default=0.0)

    @property
    def noisy(self) -> bool:
        """Whether other programs used the machine too much for a verdict."""
        return self.others > MOST_OF_OTHERS


def median(values: Iterable[float]) -> float:
    """Return the median; 0 of nothing."""
    found = list(values)
    return statistics.median(found) if found else 0.0


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Write the least and the most."""
    return f"{min(values):,.{digits}f} to {max(values):,.{digits}f}" if values else "-"


def measured(server: Server, plan: Plan, beside: Sequence[Process] = ()) -> tuple[Outcome, float]:
    """Load a server; return the outcome, and the cores that others used meanwhile.

    The CPU time of a request is all that the server used, divided by the requests that were sent.
    What processes `beside` it use is part of the measurement, and not of others.
    """
    others, before = Others(), server.process.cpu_seconds()
    before_beside = sum(process.cpu_seconds() for process in beside)
    outcome = run(plan)
    used = server.process.cpu_seconds() - before
    used_beside = sum(process.cpu_seconds() for process in beside) - before_beside
    outcome = replace(outcome, cpu_us=1e6 * used / max(1, outcome.sent))
    return outcome, others.cores(used + used_beside + outcome.load_cpu_seconds)


def interleaved(
    servers: Sequence[Server],
    plan: Callable[[Server], Plan],
    *,
    rounds: int,
    beside: Sequence[Process] = (),
) -> Series:
    """Run rounds until enough of them were quiet; where too few are, the quietest count."""
    found: list[Round] = []
    for number in range(rounds + EXTRA_ROUNDS):
        outcomes, others = {}, 0.0
        for server in servers if number % 2 else reversed(servers):
            outcomes[server.name], used = measured(server, plan(server), beside)
            others = max(others, used)
        found.append(Round(outcomes, others))
        _report(number, found[-1])
        if sum(r.others <= MOST_OF_OTHERS for r in found) >= rounds:
            break
    return Series(sorted(found, key=lambda r: r.others)[:rounds])


def _report(number: int, found: Round) -> None:
    """Print what was found, for whoever watches."""
    parts = []
    for name, outcome in sorted(found.outcomes.items()):
        parts.append(f"{name} {outcome.rate:,.0f}/s p99 {outcome.p99_ms:.1f} ms")
        if outcome.failures:
            parts.append(f"{name} FAILED {outcome.failures}")
    sys.stderr.write(f"  round {number + 1}: {', '.join(parts)}; others {found.others:.2f} cores\n")
