"""Load the service, let things fail, and judge: `python -m tools.soak [--minutes N] [--seed S]`.

With `--database postgresql` the service works on a PostgreSQL server that the soak starts.
"""

import argparse
import asyncio
import secrets
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tools.soak.faults import SERVICE_FAULTS
from tools.soak.record import Violation
from tools.soak.run import Soak, soak


def main() -> int:
    """Run one soak; 0 where every promise was kept, else 1, and the folder is kept."""
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", default="", help="the random choices of an earlier soak")
    parser.add_argument("--database", choices=SERVICE_FAULTS, default="sqlite")
    options = parser.parse_args()
    seed = options.seed or secrets.token_hex(4)
    folder = Path(tempfile.mkdtemp(prefix="ackgate-soak-"))
    print(f"soak: {options.minutes:g} minutes on {options.database}, SEED={seed}", flush=True)
    run = Soak(folder, seed, options.minutes * 60, options.database)
    try:
        violations = asyncio.run(soak(run))
    except BaseException:
        print(f"the soak broke off; what there is: {folder}")
        raise
    _show(run, violations)
    if violations:
        _keep(run, violations)
        print(f"verdict: FAILED, SEED={seed}; look into {folder}")
        return 1
    shutil.rmtree(folder)
    print("verdict: every promise was kept")
    return 0


def _show(run: Soak, violations: Iterable[Violation]) -> None:
    """Print the counts, and how often each promise was broken, without naming anybody."""
    lines = sorted(run.record.counts.items())
    lines += [(f"judged: {name}", count) for name, count in run.coverage.items()]
    broken = Counter(violation.what for violation in violations)
    lines += [(f"WRONG: {what}", count) for what, count in broken.most_common()]
    for name, count in lines:
        print(f"  {name:<60}{count:>9,}")


def _keep(run: Soak, violations: Iterable[Violation]) -> None:
    """Write the details into the folder, phone numbers and hashes among them."""
    lines = (f"{violation.what}: {violation.detail}\n" for violation in violations)
    (run.folder / "wrong.txt").write_text("".join(lines))
    decisions = (f"{decision}\n" for decision in run.record.decisions)
    (run.folder / "decisions.txt").write_text("".join(decisions))
    (run.folder / "puts.txt").write_text("".join(f"{put}\n" for put in run.puts))


if __name__ == "__main__":
    # SIGTERM ends the children too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
