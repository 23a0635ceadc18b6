"""`python -m tools.bench [PART …] [--quick]`: measures, prints tables, and writes the results."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace

from tools.bench import accept, clearing, cloud, end_to_end, gate, growth, idle
from tools.bench.options import Effort
from tools.bench.peers import compare
from tools.bench.processes import BenchmarkError
from tools.bench.report import Section, show
from tools.bench.results import keep

PARTS: dict[str, Callable[[Effort], Section]] = {
    "accept": accept.measure,
    "cloud": cloud.measure,
    "peers": compare.measure,
    "end_to_end": end_to_end.measure,
    "gate": gate.measure,
    "clearing": clearing.measure,
    "growth": growth.measure,
    "idle": idle.measure,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="minutes instead of half an hour")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of one server in one round")
    parser.add_argument("--connections", type=int, nargs="+")
    return parser.parse_args()


def _effort(told: argparse.Namespace) -> Effort:
    effort = Effort.small() if told.quick else Effort()
    if told.rounds:
        effort = replace(effort, rounds=told.rounds)
    if told.seconds:
        effort = replace(effort, seconds=told.seconds)
    if told.connections:
        effort = replace(effort, connections=tuple(told.connections))
    return effort


def main() -> int:
    """Run what is asked for, all of it without a name."""
    told = _arguments()
    unknown = set(told.parts) - PARTS.keys()
    if unknown:
        sys.stderr.write(f"no such benchmark: {', '.join(sorted(unknown))}\n")
        return 2
    effort = _effort(told)
    try:
        for name in told.parts or PARTS:
            section = PARTS[name](effort)
            show(section)
            keep(section, quick=effort.quick)
    except BenchmarkError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
