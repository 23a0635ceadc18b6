"""The report: counts for everybody, and what names somebody only in the folder that is kept."""

import sys
from collections import Counter
from collections.abc import Iterable

from tools.soak.record import Wrong
from tools.soak.run import Soak


def show(run: Soak, wrongs: Iterable[Wrong]) -> None:
    """Print the counts, and how often each thing was wrong."""
    for name, count in sorted(run.record.counts.items()):
        _line(name, count)
    for name, count in run.coverage.items():
        _line(f"judged: {name}", count)
    for what, count in Counter(wrong.what for wrong in wrongs).most_common():
        _line(f"WRONG: {what}", count)


def _line(name: str, count: int) -> None:
    sys.stdout.write(f"  {name:<60}{count:>9,}\n")


def keep(run: Soak, wrongs: Iterable[Wrong]) -> None:
    """Write the details into the folder: here are phone numbers and hashes."""
    lines = (f"{wrong.what}: {wrong.detail}\n" for wrong in wrongs)
    (run.folder / "wrong.txt").write_text("".join(lines))
    decided = (f"{decision}\n" for decision in run.record.decisions)
    (run.folder / "decisions.txt").write_text("".join(decided))
    puts = (f"{put}\n" for put in run.puts)
    (run.folder / "puts.txt").write_text("".join(puts))
