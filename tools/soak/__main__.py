"""Load the service, let things fail, and judge: `python -m tools.soak [--minutes N] [--seed S]`."""

import argparse
import asyncio
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tools.soak.record import Wrong
from tools.soak.report import keep, show
from tools.soak.run import Soak, soak


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", default="", help="the random choices of an earlier soak")
    return parser.parse_args()


def main() -> int:
    """Run one soak; 0 where every promise was kept, else 1, and the folder is kept."""
    told = _arguments()
    seed = told.seed or secrets.token_hex(4)
    folder = Path(tempfile.mkdtemp(prefix="ackgate-soak-"))
    sys.stdout.write(f"soak: {told.minutes:g} minutes, SEED={seed}\n")
    sys.stdout.flush()
    run = Soak(folder, seed, told.minutes * 60)
    try:
        wrongs = asyncio.run(soak(run))
    except BaseException:
        sys.stdout.write(f"the soak broke off; what there is: {folder}\n")
        raise
    show(run, wrongs)
    return _verdict(run, wrongs)


def _verdict(run: Soak, wrongs: list[Wrong]) -> int:
    if not wrongs:
        shutil.rmtree(run.folder)
        sys.stdout.write("verdict: every promise was kept\n")
        return 0
    keep(run, wrongs)
    sys.stdout.write(f"verdict: FAILED, SEED={run.seed}; look into {run.folder}\n")
    return 1


if __name__ == "__main__":
    # Told to end, it ends its children too, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
