"""Was the machine ours? What other programs used of it, and what lies in its memory."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

BLOCK_BYTES = 1_048_576
MOST_OF_OTHERS = 0.2
"""Cores that others may use in a round that counts; the kernel's own work is among it."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The CPU time (s) that all programs have used by a moment."""

    at: float
    busy: float

    @classmethod
    def now(cls) -> "Moment":
        """Look."""
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return cls(time.perf_counter(), busy)

    def others(self, ours: float) -> float:
        """Give the cores that others have used since, where `ours` is our CPU time (s)."""
        now = Moment.now()
        return max(0.0, (now.busy - self.busy - ours) / (now.at - self.at))


def read_through(database: Path) -> None:
    """Have the system keep the file in memory: the service is measured, not the disk.

    A system that lets go of pages that are not read twice within seconds would read them again.
    """
    with database.open("rb") as file:
        while file.read(BLOCK_BYTES):
            pass
