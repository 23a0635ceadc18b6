"""How long to wait before the next try."""

MAX_DELAY_SECONDS = 300.0
JITTER = 0.2


def delay_seconds(tries: int, chance: float, cap: float = MAX_DELAY_SECONDS) -> float:
    """Give the pause after so many tries: about 1, 2, 4 … s, at most `cap`.

    `chance` between 0 and 1 spreads it by a fifth either way, so that work which failed
    together does not come back together.
    """
    doubled = 2.0 ** min(max(tries, 1) - 1, 30)
    return min(cap, doubled * (1 - JITTER + 2 * JITTER * chance))
