"""Measure, print tables, and write the results: `python -m tools.bench [PART …] [--quick]`."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from tools.bench import accept, cloud, end_to_end, gate, growth, peers, postgres, relays, replicas
from tools.bench.measure import Effort
from tools.bench.report import Section, keep, show
from tools.processes import RunError

PARTS: dict[str, Sequence[Callable[[Effort], Section]]] = {
    "accept": [accept.measure],
    "cloud": [cloud.measure],
    "peers": [peers.measure],
    "end_to_end": [end_to_end.measure],
    "gate": [gate.measure],
    "clearing": [gate.measure_clearing],
    "growth": [growth.measure],
    "relays": [relays.measure],
    "postgres": [postgres.measure, replicas.measure, replicas.measure_contention],
    "idle": [accept.measure_idle],
}


def main() -> int:
    """Run the benchmarks that are named, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="minutes instead of half an hour")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of one server in one round")
    parser.add_argument("--connections", type=int, nargs="+")
    options = parser.parse_args()
    unknown = set(options.parts) - PARTS.keys()
    if unknown:
        sys.stderr.write(f"no such benchmark: {', '.join(sorted(unknown))}\n")
        return 2
    effort = Effort.small() if options.quick else Effort()
    if options.rounds:
        effort = replace(effort, rounds=options.rounds)
    if options.seconds:
        effort = replace(effort, seconds=options.seconds)
    if options.connections:
        effort = replace(effort, connections=tuple(options.connections))
    try:
        for name in options.parts or PARTS:
            for measure in PARTS[name]:
                section = measure(effort)
                show(section)
                keep(section, quick=effort.quick)
    except RunError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    # SIGTERM ends the children too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
