"""The folder `tools/bench/results`: JSON a benchmark, and a page and a picture of them all."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools.bench.machine import machine
from tools.bench.report import Goal, Section, markdown

FOLDER = Path(__file__).parent / "results"
ORDER = ("accept", "cloud", "peers", "end_to_end", "gate", "clearing", "growth", "idle")
PICTURE = "benchmarks.png"
PAGE = "benchmarks.md"


def folder_of(*, quick: bool) -> Path:
    """Give the folder; what `--quick` finds is kept apart."""
    return FOLDER / "quick" if quick else FOLDER


def keep(section: Section, *, quick: bool) -> None:
    """Write what one benchmark found, then page and picture of all that were found before."""
    folder = folder_of(quick=quick)
    folder.mkdir(parents=True, exist_ok=True)
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    goals = [asdict(goal) | {"passes": goal.passes} for goal in section.goals]
    kept = asdict(section) | {"goals": goals, "machine": machine(), "when": when}
    file = folder / f"{section.name}.json"
    file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    found = _all(folder)
    (folder / PAGE).write_text(_page(found, quick=quick))
    _draw(found, folder / PICTURE)


def _all(folder: Path) -> list[dict[str, Any]]:
    files = [folder / f"{name}.json" for name in ORDER]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def _page(found: list[dict[str, Any]], *, quick: bool) -> str:
    how = "python -m tools.bench --quick" if quick else "make bench"
    parts = [
        "# Benchmarks",
        f"Written by `{how}`. Only ratios within one run mean anything: see the spread.",
        f"![what was measured]({PICTURE})",
    ]
    for kept in found:
        where = ", ".join(f"{key} {value}" for key, value in kept["machine"].items())
        parts.append(f"{markdown(_section(kept))}\n*{kept['when']}; {where}*")
    return "\n\n".join(parts) + "\n"


def _section(kept: dict[str, Any]) -> Section:
    names = ("text", "value", "bound", "at_least", "noisy")
    goals = [Goal(**{name: goal[name] for name in names if name in goal}) for goal in kept["goals"]]
    fields = {key: kept[key] for key in ("name", "title", "columns", "rows", "notes", "plot")}
    return Section(**fields, goals=goals)


def _draw(found: list[dict[str, Any]], file: Path) -> None:
    try:
        from tools.bench.picture import draw  # noqa: PLC0415  matplotlib comes with `make bench`
    except ImportError:
        return
    draw([_section(kept) for kept in found], file)
