"""How long and how often to measure."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Effort:
    """What a whole run costs: rounds, seconds a round, and the sizes of what is measured."""

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
        """Give the effort of `--quick`."""
        return cls(
            quick=True,
            rounds=3,
            seconds=1.5,
            identities=(10_000, 50_000),
            contacts=50_000,
            idle_seconds=10.0,
            end_to_end_changes=4_000,
        )
